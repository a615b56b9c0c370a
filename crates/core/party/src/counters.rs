//! Counts what became of received messages.

use crate::error::Refusal;

/// Sealed messages received by one membership since it was created or restored. Every message is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each refusal has a field of its name; `Refusal` documents them")]
pub struct Counters {
    pub accepted: u64,
    pub unknown_topic: u64,
    pub unreadable: u64,
    pub malformed: u64,
    pub own: u64,
    pub not_for_me: u64,
    pub bad_signature: u64,
    pub replayed: u64,
    pub bad_certificate: u64,
    pub bad_confirmation: u64,
    pub not_a_member: u64,
    pub unknown_sender: u64,
    pub tunnel_key_taken: u64,
    pub full: u64,
    pub bad_charter: u64,
    pub old_charter: u64,
    pub wrong_secret: u64,
}

impl Counters {
    /// Returns each counter with its stable label.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("accepted", self.accepted),
            ("unknown_topic", self.unknown_topic),
            ("unreadable", self.unreadable),
            ("malformed", self.malformed),
            ("own", self.own),
            ("not_for_me", self.not_for_me),
            ("bad_signature", self.bad_signature),
            ("replayed", self.replayed),
            ("bad_certificate", self.bad_certificate),
            ("bad_confirmation", self.bad_confirmation),
            ("not_a_member", self.not_a_member),
            ("unknown_sender", self.unknown_sender),
            ("tunnel_key_taken", self.tunnel_key_taken),
            ("full", self.full),
            ("bad_charter", self.bad_charter),
            ("old_charter", self.old_charter),
            ("wrong_secret", self.wrong_secret),
        ]
        .into_iter()
    }

    /// Counts a refused message.
    pub fn refuse(&mut self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::UnknownTopic => &mut self.unknown_topic,
            Refusal::Unreadable => &mut self.unreadable,
            Refusal::Malformed => &mut self.malformed,
            Refusal::Own => &mut self.own,
            Refusal::NotForMe => &mut self.not_for_me,
            Refusal::BadSignature => &mut self.bad_signature,
            Refusal::Replayed => &mut self.replayed,
            Refusal::BadCertificate => &mut self.bad_certificate,
            Refusal::BadConfirmation => &mut self.bad_confirmation,
            Refusal::NotAMember(_) => &mut self.not_a_member,
            Refusal::UnknownSender => &mut self.unknown_sender,
            Refusal::TunnelKeyTaken => &mut self.tunnel_key_taken,
            Refusal::Full => &mut self.full,
            Refusal::BadCharter => &mut self.bad_charter,
            Refusal::OldCharter => &mut self.old_charter,
            Refusal::WrongSecret => &mut self.wrong_secret,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rules::Dismissal;

    #[test]
    fn every_refusal_has_a_label_of_its_own() {
        let refusals = [
            Refusal::UnknownTopic,
            Refusal::Unreadable,
            Refusal::Malformed,
            Refusal::Own,
            Refusal::NotForMe,
            Refusal::BadSignature,
            Refusal::Replayed,
            Refusal::BadCertificate,
            Refusal::BadConfirmation,
            Refusal::NotAMember(Dismissal::Removed),
            Refusal::UnknownSender,
            Refusal::TunnelKeyTaken,
            Refusal::Full,
            Refusal::BadCharter,
            Refusal::OldCharter,
            Refusal::WrongSecret,
        ];
        let mut labels = BTreeSet::new();
        for refusal in &refusals {
            let mut counters = Counters::default();
            counters.refuse(refusal);
            let counted: Vec<_> = counters.each().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted.len(), 1, "{refusal:?}");
            assert!(labels.insert(counted[0].0), "{refusal:?} shares its label");
        }
        assert_eq!(labels.len() + 1, Counters::default().each().count());
    }
}
