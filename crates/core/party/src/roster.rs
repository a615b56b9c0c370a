//! Everybody this device has heard of.
//!
//! Every sound certificate is kept, whether it counts or not: what counts is judged anew when the charter or the
//! time changes, so that the order in which things are heard does not matter. A record also remembers which of its
//! sender's messages were seen, which is why those who left or were removed keep theirs while there is room.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use partyline_model::{
    Candidate, DeviceId, NatProfile, PartyId, Role, SessionNonce, Timestamp, TunnelPublicKey,
};
use partyline_wire::{
    announcement::{Announcement, Presence},
    membership::{Certificate, Confirmation},
};
use serde::{Deserialize, Serialize};

use crate::address;

/// Most members of a party, this device included.
pub const MAX_MEMBERS: usize = 250;
/// Most records, those that do not count included.
const MAX_RECORDS: usize = 512;
/// How many of a sender's messages may overtake each other.
const WINDOW: usize = 32;

/// What is known of a member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member<'a> {
    pub(crate) party: PartyId,
    /// Whose device.
    pub device: DeviceId,
    /// Its WireGuard key.
    pub tunnel_key: TunnelPublicKey,
    /// The name its user goes by: that of the certificate, or one that was announced since.
    pub name: &'a str,
    /// What it may do.
    pub role: Role,
    /// Whether the owner's device confirmed it.
    pub confirmed: bool,
    /// Its address in the party's range, once claimed and undisputed.
    pub address_v4: Option<Ipv4Addr>,
    /// Names the run of its engine; `None` until heard on the current topic.
    pub session: Option<SessionNonce>,
    /// Where it says it may be reached.
    pub candidates: &'a [Candidate],
    /// What it says of its NAT.
    pub nat: Option<&'a NatProfile>,
    /// When it was last heard, by this device's clock.
    pub last_received: Timestamp,
}

impl Member<'_> {
    /// Its IPv6 address.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        address::v6(&self.party, &self.device)
    }
}

/// One device's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) certificate: Certificate,
    pub(crate) digest: [u8; 32],
    pub(crate) confirmation: Option<Confirmation>,
    pub(crate) presence: Option<Presence>,
    pub(crate) last_received: Timestamp,
    seen: Seen,
    /// Sequence of the message that certificate, presence and goodbye each came by; 0 for never.
    announced: u64,
    present: u64,
    left: u64,
}

impl Record {
    fn new(certificate: Certificate) -> Self {
        Self {
            digest: certificate.digest(),
            certificate,
            confirmation: None,
            presence: None,
            last_received: Timestamp::default(),
            seen: Seen::default(),
            announced: 0,
            present: 0,
            left: 0,
        }
    }

    /// Whether its goodbye is the last that was heard of it.
    pub(crate) const fn has_left(&self) -> bool {
        self.left > self.announced
    }

    pub(crate) const fn is_confirmed(&self) -> bool {
        self.confirmation.is_some()
    }

    pub(crate) fn tunnel(&self) -> &TunnelPublicKey {
        &self.certificate.claims().tunnel
    }

    /// What was announced last goes before what the certificate says, which cannot change.
    pub(crate) fn name(&self) -> &str {
        let announced = self.presence.as_ref().and_then(|presence| presence.name.as_ref());
        announced.unwrap_or(&self.certificate.claims().name)
    }

    pub(crate) fn host(&self) -> Option<u16> {
        self.presence.as_ref()?.host
    }

    pub(crate) fn leave(&mut self, sequence: u64) {
        self.left = self.left.max(sequence);
    }

    /// Takes over what is newer in a checked announcement; says whether anything changed.
    pub(crate) fn update(&mut self, announcement: Announcement, sequence: u64, now: Timestamp) -> bool {
        let mut changed = false;
        self.last_received = now;
        if sequence < self.announced && self.certificate != announcement.certificate {
            return false;
        }
        if sequence > self.announced {
            self.announced = sequence;
            if self.certificate != announcement.certificate {
                let seen = std::mem::take(&mut self.seen);
                *self = Self {
                    announced: sequence,
                    last_received: now,
                    seen,
                    left: self.left,
                    ..Self::new(announcement.certificate)
                };
                changed = true;
            }
            changed |= announcement.confirmation.is_some() && self.confirmation != announcement.confirmation;
            self.confirmation = announcement.confirmation.or(self.confirmation);
        }
        if let Some(presence) = announcement.presence.filter(|_| sequence > self.present) {
            self.present = sequence;
            changed |= self.presence.as_ref() != Some(&presence);
            self.presence = Some(presence);
        }
        changed
    }
}

/// All records by device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Roster(BTreeMap<DeviceId, Record>);

impl Roster {
    pub(crate) fn get(&self, device: &DeviceId) -> Option<&Record> {
        self.0.get(device)
    }

    pub(crate) fn get_mut(&mut self, device: &DeviceId) -> Option<&mut Record> {
        self.0.get_mut(device)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&DeviceId, &Record)> {
        self.0.iter()
    }

    pub(crate) fn remove(&mut self, device: &DeviceId) {
        self.0.remove(device);
    }

    /// The record of a device, made if it has none. Those who do not count make room, longest unheard first.
    pub(crate) fn admit(
        &mut self,
        certificate: &Certificate,
        counts: impl Fn(&DeviceId) -> bool,
    ) -> Option<&mut Record> {
        let device = certificate.claims().device;
        if !self.0.contains_key(&device) && self.0.len() >= MAX_RECORDS {
            let stale = self
                .0
                .iter()
                .filter(|(device, _)| !counts(device))
                .min_by_key(|(_, record)| record.last_received);
            let stale = *stale?.0;
            self.0.remove(&stale);
        }
        Some(self.0.entry(device).or_insert_with(|| Record::new(certificate.clone())))
    }

    /// Whether a message was not seen yet; those of strangers never were.
    pub(crate) fn is_fresh(&self, sender: &DeviceId, sequence: u64) -> bool {
        self.0.get(sender).is_none_or(|record| record.seen.is_fresh(sequence))
    }

    pub(crate) fn note(&mut self, sender: &DeviceId, sequence: u64) {
        if let Some(record) = self.0.get_mut(sender) {
            record.seen.note(sequence);
        }
    }
}

/// The newest sequence numbers of one sender, ascending. Channels differ in speed, so that a message may be
/// overtaken; one older than the whole window counts as seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Seen(Vec<u64>);

impl Seen {
    fn is_fresh(&self, sequence: u64) -> bool {
        let after_window = self.0.len() < WINDOW || self.0.first().is_some_and(|oldest| sequence > *oldest);
        after_window && self.0.binary_search(&sequence).is_err()
    }

    fn note(&mut self, sequence: u64) {
        if let Err(place) = self.0.binary_search(&sequence) {
            self.0.insert(place, sequence);
        }
        if self.0.len() > WINDOW {
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_may_overtake_each_other_but_never_come_twice() {
        let mut seen = Seen::default();
        for sequence in [100, 90, 95, 110] {
            assert!(seen.is_fresh(sequence));
            seen.note(sequence);
            assert!(!seen.is_fresh(sequence));
        }
        (200..200 + WINDOW as u64).for_each(|sequence| seen.note(sequence));
        assert!(!seen.is_fresh(96) && !seen.is_fresh(200) && seen.is_fresh(1000));
        assert_eq!(seen.0.len(), WINDOW);
    }
}
