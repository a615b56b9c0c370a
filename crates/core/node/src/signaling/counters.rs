//! Counters of sealed messages, by channel and by the reason why they were dropped.

use partyline_party::Refusal;

use super::channel_kind::ChannelKind;

/// Counters of all channels.
#[derive(Debug, Clone, Default)]
pub struct SignalingCounters {
    /// Messages by way of rendezvous servers.
    pub server: ChannelCounters,
    /// Messages through tunnels.
    pub tunnel: ChannelCounters,
    /// Messages in LAN beacons.
    pub beacon: ChannelCounters,
}

/// Counters of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelCounters {
    /// Sealed messages sent, one for each receiver that the channel addresses.
    pub sent: u64,
    /// Sealed messages that arrived and were accepted.
    pub received: u64,
    /// Sealed messages that arrived and were dropped.
    pub dropped: SealedDrops,
}

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Sealed messages that were dropped, by reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct SealedDrops {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl SealedDrops {
            /// Returns every counter with its label.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

drops! {
    /// No party that is on visits the topic.
    unknown_topic,
    /// Not sealed for the topic, or changed on its way.
    unreadable,
    /// Not in its format.
    malformed,
    /// Sent by this device; a normal echo.
    own,
    /// Meant for another member; normal on channels that everybody hears.
    not_for_me,
    /// Not signed by its sender.
    bad_signature,
    /// Received before; normal, since every message travels on several channels.
    replayed,
    /// With a certificate that does not belong to its sender or party, or is forged.
    bad_certificate,
    /// With a confirmation that the authority did not sign.
    bad_confirmation,
    /// From a device whose certificate no longer counts.
    not_a_member,
    /// From a device that is not known yet.
    unknown_sender,
    /// With the tunnel key of another member.
    tunnel_key_taken,
    /// From a newcomer to a full party.
    party_full,
    /// With a charter that the authority did not sign.
    bad_charter,
    /// With a charter older than the one in force.
    old_charter,
    /// With a party secret that the charter does not commit to.
    wrong_secret,
}

impl SealedDrops {
    /// Counts a refused message and returns the label of the reason.
    pub(super) fn count(&mut self, refusal: &Refusal) -> &'static str {
        let (label, counter) = match refusal {
            Refusal::UnknownTopic => ("unknown_topic", &mut self.unknown_topic),
            Refusal::Unreadable => ("unreadable", &mut self.unreadable),
            Refusal::Malformed => ("malformed", &mut self.malformed),
            Refusal::Own => ("own", &mut self.own),
            Refusal::NotForMe => ("not_for_me", &mut self.not_for_me),
            Refusal::BadSignature => ("bad_signature", &mut self.bad_signature),
            Refusal::Replayed => ("replayed", &mut self.replayed),
            Refusal::BadCertificate => ("bad_certificate", &mut self.bad_certificate),
            Refusal::BadConfirmation => ("bad_confirmation", &mut self.bad_confirmation),
            Refusal::NotAMember(_) => ("not_a_member", &mut self.not_a_member),
            Refusal::UnknownSender => ("unknown_sender", &mut self.unknown_sender),
            Refusal::TunnelKeyTaken => ("tunnel_key_taken", &mut self.tunnel_key_taken),
            Refusal::Full => ("party_full", &mut self.party_full),
            Refusal::BadCharter => ("bad_charter", &mut self.bad_charter),
            Refusal::OldCharter => ("old_charter", &mut self.old_charter),
            Refusal::WrongSecret => ("wrong_secret", &mut self.wrong_secret),
        };
        *counter += 1;
        label
    }

    /// Returns true for reasons that are normal, since all channels are used side by side: echoes, repetitions, and
    /// messages for other members.
    pub(super) fn is_normal(label: &str) -> bool {
        ["own", "not_for_me", "replayed"].contains(&label)
    }

    /// Returns the counters that are worth a look.
    pub(crate) fn notable(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.each().filter(|(label, count)| *count > 0 && !Self::is_normal(label))
    }
}

impl ChannelCounters {
    /// Returns the totals with their labels; [`SealedDrops::each`] has the dropped ones by reason.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let dropped = self.dropped.each().map(|(_, count)| count).sum();
        [("sent", self.sent), ("received", self.received), ("dropped", dropped)].into_iter()
    }
}

impl SignalingCounters {
    /// Returns the counters of each channel with the channel's label.
    #[must_use]
    pub const fn channels(&self) -> [(&'static str, &ChannelCounters); 3] {
        [
            (ChannelKind::Server.name(), &self.server),
            (ChannelKind::Tunnel.name(), &self.tunnel),
            (ChannelKind::Beacon.name(), &self.beacon),
        ]
    }

    pub(super) const fn of(&mut self, kind: ChannelKind) -> &mut ChannelCounters {
        match kind {
            ChannelKind::Server => &mut self.server,
            ChannelKind::Tunnel => &mut self.tunnel,
            ChannelKind::Beacon => &mut self.beacon,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_of_a_refusal_is_the_label_of_its_counter() {
        let mut drops = SealedDrops::default();
        for refusal in [Refusal::Full, Refusal::Malformed, Refusal::Replayed, Refusal::WrongSecret] {
            let before = drops;
            let label = drops.count(&refusal);
            let changed: Vec<_> = drops.each().zip(before.each()).filter(|(now, then)| now != then).collect();
            assert_eq!(changed, [((label, 1), (label, 0))]);
        }
        assert_eq!(drops.notable().count(), 3, "a repetition is normal");
    }
}
