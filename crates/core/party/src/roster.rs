//! Every device whose certificate this device has seen, and which of them are members now.
//!
//! Every sound certificate is kept, whether it counts or not: what counts is judged again when the charter or the time
//! changes, so that the order in which messages arrive does not matter. A record also remembers which of its device's
//! messages were seen, which is why devices that left or were removed keep theirs while there is room.

use std::collections::{BTreeMap, BTreeSet};

use partyline_model::{DeviceId, InviteId, Timestamp, TunnelPublicKey};
use partyline_wire::{
    announcement::{Announcement, Presence},
    membership::{Certificate, Confirmation},
};
use serde::{Deserialize, Serialize};
use tracing::{debug, trace};

use crate::{
    outcome::{Departure, Effect},
    replay::ReplayWindow,
    rules::{Admission, Rules, lapses_at},
};

/// Number of members of a party, this device included.
pub const MAX_MEMBERS: usize = 250;
/// Number of records, those of devices that are not members included.
const MAX_RECORDS: usize = 512;

/// What is known of one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    certificate: Certificate,
    digest: [u8; 32],
    confirmation: Option<Confirmation>,
    presence: Option<Presence>,
    last_received: Timestamp,
    window: ReplayWindow,
    /// Sequence number of the message that delivered the certificate; 0 for none.
    certificate_sequence: u64,
    /// Sequence number of the message that delivered the presence; 0 for none.
    presence_sequence: u64,
    /// True once the device has been a member by the certificate, which has then used its invite.
    was_member: bool,
    /// True once the device has left the membership that the certificate stands for.
    has_left: bool,
}

/// What an announcement changed in a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Update {
    /// True if anything changed that other parts of the client use.
    pub(crate) changed: bool,
    /// True if the host number or its rank changed.
    pub(crate) claim_changed: bool,
}

impl Record {
    fn new(certificate: Certificate) -> Self {
        Self {
            digest: certificate.digest(),
            certificate,
            confirmation: None,
            presence: None,
            last_received: Timestamp::default(),
            window: ReplayWindow::default(),
            certificate_sequence: 0,
            presence_sequence: 0,
            was_member: false,
            has_left: false,
        }
    }

    pub(crate) const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns the certificate's digest, which ranks claims to the same host number.
    pub(crate) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub(crate) const fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation.as_ref()
    }

    pub(crate) const fn is_confirmed(&self) -> bool {
        self.confirmation.is_some()
    }

    /// Keeps a checked confirmation; returns false if it is not later than the one before.
    pub(crate) fn confirm(&mut self, confirmation: Confirmation) -> bool {
        let later = self.confirmation.is_none_or(|before| before.version < confirmation.version);
        if later {
            self.confirmation = Some(confirmation);
        }
        later
    }

    pub(crate) const fn presence(&self) -> Option<&Presence> {
        self.presence.as_ref()
    }

    pub(crate) const fn last_received(&self) -> Timestamp {
        self.last_received
    }

    pub(crate) fn invite(&self) -> &InviteId {
        &self.certificate.claims().grant.invite
    }

    /// Returns true if the device has used its invite.
    const fn has_used_invite(&self) -> bool {
        self.was_member || self.is_confirmed()
    }

    pub(crate) fn tunnel_key(&self) -> &TunnelPublicKey {
        &self.certificate.claims().tunnel
    }

    /// Returns the announced name, or else that of the certificate, which cannot change.
    pub(crate) fn name(&self) -> &str {
        let announced = self.presence.as_ref().and_then(|presence| presence.name.as_ref());
        announced.unwrap_or(&self.certificate.claims().name)
    }

    /// Returns the host number that the device claims.
    pub(crate) fn host(&self) -> Option<u16> {
        self.presence.as_ref()?.host
    }

    /// Returns everything that decides which host number the device holds.
    fn claim(&self) -> ([u8; 32], Option<u16>, Option<Confirmation>) {
        (self.digest, self.host(), self.confirmation)
    }

    /// Returns true if the device left; only another certificate brings it back.
    pub(crate) const fn has_left(&self) -> bool {
        self.has_left
    }

    pub(crate) const fn on_leave(&mut self) {
        self.has_left = true;
    }

    /// Takes over what is newer in a checked announcement.
    pub(crate) fn update(&mut self, announcement: Announcement, sequence: u64, now: Timestamp) -> Update {
        let claim = self.claim();
        self.last_received = now;
        let changed = self.update_certificate(&announcement, sequence)
            | (self.certificate == announcement.certificate
                && announcement.presence.is_some_and(|presence| self.update_presence(presence, sequence)));
        Update { changed, claim_changed: claim != self.claim() }
    }

    /// An older announcement may still carry a newer presence, but never brings a replaced certificate back.
    fn update_certificate(&mut self, announcement: &Announcement, sequence: u64) -> bool {
        if sequence <= self.certificate_sequence {
            return false;
        }
        self.certificate_sequence = sequence;
        let replaced = self.certificate != announcement.certificate;
        if replaced {
            debug!(peer = %announcement.certificate.claims().device.short(), reason = "another certificate", "record renewed");
            // Nothing announced under the old certificate holds for the new one, but what was seen stays seen.
            let window = std::mem::take(&mut self.window);
            *self = Self {
                certificate_sequence: sequence,
                last_received: self.last_received,
                window,
                ..Self::new(announcement.certificate.clone())
            };
        }
        let confirmed = announcement.confirmation.is_some_and(|confirmation| self.confirm(confirmation));
        replaced || confirmed
    }

    fn update_presence(&mut self, presence: Presence, sequence: u64) -> bool {
        if sequence <= self.presence_sequence {
            return false;
        }
        self.presence_sequence = sequence;
        let changed = self.presence.as_ref() != Some(&presence);
        self.presence = Some(presence);
        changed
    }
}

/// At most [`MAX_RECORDS`] records by device, and the set of devices that are members as of the last judgement. Every
/// member has a record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Roster {
    records: BTreeMap<DeviceId, Record>,
    #[serde(skip)]
    members: BTreeSet<DeviceId>,
    /// The invite that this device itself joined by, which has no record.
    #[serde(skip)]
    own_invite: Option<InviteId>,
}

impl Roster {
    pub(crate) fn record(&self, device: &DeviceId) -> Option<&Record> {
        self.records.get(device)
    }

    pub(crate) fn record_mut(&mut self, device: &DeviceId) -> Option<&mut Record> {
        self.records.get_mut(device)
    }

    /// Returns all devices with a record, members or not.
    pub(crate) fn known_devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.records.keys()
    }

    /// Returns all records that claim a host number, those of devices that are not members included.
    pub(crate) fn claimants(&self, host: u16) -> impl Iterator<Item = (&DeviceId, &Record)> {
        self.records.iter().filter(move |(_, record)| record.host() == Some(host))
    }

    /// Counts this device as one that has joined by an invite.
    pub(crate) fn set_own_invite(&mut self, invite: InviteId) {
        self.own_invite = Some(invite);
    }

    /// Returns the number of devices that have joined by an invite, this one included, whether they are members still or
    /// not.
    pub(crate) fn uses(&self, invite: &InviteId) -> usize {
        let used =
            self.records.values().filter(|record| record.invite() == invite && record.has_used_invite());
        used.count() + usize::from(self.own_invite.as_ref() == Some(invite))
    }

    /// Returns the number of devices that the authority has confirmed as joined by an invite, this one left out.
    pub(crate) fn confirmed_uses(&self, invite: &InviteId) -> usize {
        self.records.values().filter(|record| record.invite() == invite && record.is_confirmed()).count()
    }

    /// Returns what is known of a certificate besides its contents. A device that has become a member goes before all that
    /// have not, and a confirmed one before all that are not.
    pub(crate) fn admission(&self, certificate: &Certificate) -> Admission {
        let claims = certificate.claims();
        let known = self.records.get(&claims.device);
        let same = known.filter(|record| record.certificate == *certificate);
        if same.is_some_and(Record::is_confirmed) {
            return Admission::Confirmed;
        }
        let invite = &claims.grant.invite;
        let before = match (claims.grant.uses, same) {
            (None, _) => 0,
            (Some(_), Some(record)) if record.was_member => self.confirmed_uses(invite),
            (Some(_), _) => {
                // A device that comes back with another certificate does not use the invite a second time.
                let itself =
                    known.is_some_and(|record| record.invite() == invite && record.has_used_invite());
                self.uses(invite) - usize::from(itself)
            }
        };
        Admission::Unconfirmed { before }
    }

    pub(crate) fn is_member(&self, device: &DeviceId) -> bool {
        self.members.contains(device)
    }

    pub(crate) fn member(&self, device: &DeviceId) -> Option<&Record> {
        self.records.get(device).filter(|_| self.is_member(device))
    }

    /// Returns the members in order of their ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&DeviceId, &Record)> {
        self.records.iter().filter(|(device, _)| self.is_member(device))
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.members.iter().copied()
    }

    /// Returns true if no further device may become a member; this device is one, too.
    pub(crate) fn is_full(&self) -> bool {
        self.members.len() + 1 >= MAX_MEMBERS
    }

    /// Returns true if another member uses a tunnel key.
    pub(crate) fn has_tunnel_key(&self, key: &TunnelPublicKey, except: &DeviceId) -> bool {
        self.members().any(|(device, record)| device != except && record.tunnel_key() == key)
    }

    /// Returns the record of a device, new if it has none. Records of devices that are not members make room, the one
    /// that was silent longest first; `None` if there are none of those.
    pub(crate) fn admit(&mut self, certificate: &Certificate) -> Option<&mut Record> {
        let device = certificate.claims().device;
        if !self.records.contains_key(&device) && self.records.len() >= MAX_RECORDS {
            let others = self.records.iter().filter(|(device, _)| !self.members.contains(device));
            let silent = others.min_by_key(|(_, record)| record.last_received);
            let silent = *silent?.0;
            debug!(peer = %silent.short(), reason = "roster full", "record of a device that is not a member dropped");
            self.records.remove(&silent);
        }
        Some(self.records.entry(device).or_insert_with(|| Record::new(certificate.clone())))
    }

    /// Judges one device by the charter and the time, and returns the effect if that moved it into or out of the party. A
    /// device that would exceed [`MAX_MEMBERS`] stays outside until it is judged again when there is room.
    pub(crate) fn judge(&mut self, device: DeviceId, rules: Rules<'_>, now: Timestamp) -> Option<Effect> {
        let record = self.records.get(&device)?;
        let departure = match rules.judge(&record.certificate, self.admission(&record.certificate), now) {
            Err(dismissal) => Some(Departure::Dismissed(dismissal)),
            Ok(()) => record.has_left().then_some(Departure::Left),
        };
        match departure {
            None if self.is_full() && !self.members.contains(&device) => {
                debug!(peer = %device.short(), reason = "party full", "device kept out");
                None
            }
            None if self.members.insert(device) => {
                let record = self.records.get_mut(&device)?;
                record.was_member = true;
                let confirmed = record.is_confirmed();
                debug!(peer = %device.short(), confirmed, count = self.members.len(), "member joined");
                Some(Effect::MemberChanged(device))
            }
            Some(departure) if self.members.remove(&device) => {
                debug!(peer = %device.short(), reason = %departure, count = self.members.len(), "member gone");
                Some(Effect::MemberGone(device, departure))
            }
            _ => None,
        }
    }

    /// Returns the first moment after which a member's unconfirmed certificate no longer counts.
    pub(crate) fn next_lapse(&self) -> Option<Timestamp> {
        let unconfirmed = self.members().filter(|(_, record)| !record.is_confirmed());
        unconfirmed.filter_map(|(_, record)| lapses_at(&record.certificate)).min()
    }

    /// Returns true if a message was not seen yet. Messages of devices without a record never were.
    pub(crate) fn is_fresh(&self, sender: &DeviceId, sequence: u64) -> bool {
        self.records.get(sender).is_none_or(|record| record.window.is_fresh(sequence))
    }

    pub(crate) fn record_sequence(&mut self, sender: &DeviceId, sequence: u64) {
        if let Some(record) = self.records.get_mut(sender) {
            record.window.record(sequence);
            trace!(peer = %sender.short(), sequence, "sequence number recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{Fixture, NOW, announcement, id},
        rules::Dismissal,
    };

    fn later(ms: u64) -> Timestamp {
        Timestamp(NOW.0 + ms)
    }

    /// A roster in which device `n` announced itself.
    fn with(fixture: &Fixture, n: u8) -> Roster {
        let mut roster = Roster::default();
        let certificate = fixture.certificate(n);
        roster.admit(&certificate).unwrap().update(announcement(certificate, Some(7)), 10, NOW);
        roster.judge(id(n), Rules::of(None), NOW);
        roster
    }

    #[test]
    fn devices_move_in_and_out_as_the_charter_judges_them() {
        let fixture = Fixture::default();
        let mut roster = with(&fixture, 1);
        assert!(roster.is_member(&id(1)));
        assert_eq!(roster.judge(id(1), Rules::of(None), NOW), None, "nothing moved");
        let charter = fixture.charter(1, |terms| terms.revoked_devices.push(id(1)));
        let gone = Effect::MemberGone(id(1), Departure::Dismissed(Dismissal::Removed));
        assert_eq!(roster.judge(id(1), Rules::of(Some(&charter)), NOW), Some(gone));
        assert!(roster.member(&id(1)).is_none() && roster.record(&id(1)).is_some());
        assert_eq!(roster.judge(id(1), Rules::of(None), NOW), Some(Effect::MemberChanged(id(1))));
    }

    #[test]
    fn leave_counts_until_there_is_another_certificate() {
        let fixture = Fixture::default();
        let mut roster = with(&fixture, 1);
        roster.record_mut(&id(1)).unwrap().on_leave();
        let gone = Effect::MemberGone(id(1), Departure::Left);
        assert_eq!(roster.judge(id(1), Rules::of(None), NOW), Some(gone));
        let record = roster.record_mut(&id(1)).unwrap();
        record.update(announcement(fixture.certificate(1), None), 21, NOW);
        assert!(record.has_left(), "announced before it left, whatever its number");
        record.update(announcement(fixture.certificate_with_tunnel(1, 50), None), 22, NOW);
        assert!(!record.has_left());
    }

    #[test]
    fn overtaken_announcement_changes_nothing_back() {
        let fixture = Fixture::default();
        let mut roster = with(&fixture, 1);
        let record = roster.record_mut(&id(1)).unwrap();
        let update = record.update(announcement(fixture.certificate(1), Some(8)), 9, NOW);
        assert_eq!((update, record.host()), (Update::default(), Some(7)));
        let replacement = fixture.certificate_with_tunnel(1, 50);
        assert!(!record.update(announcement(replacement.clone(), Some(8)), 9, NOW).changed);
        assert_eq!(record.certificate(), &fixture.certificate(1));
        let update = record.update(announcement(replacement.clone(), Some(7)), 11, NOW);
        assert_eq!(update, Update { changed: true, claim_changed: true });
        assert_eq!(record.certificate(), &replacement);
    }

    #[test]
    fn presence_of_an_old_certificate_is_not_taken_for_the_new_one() {
        let fixture = Fixture::default();
        let mut roster = Roster::default();
        let (old, new) = (fixture.certificate(1), fixture.certificate_with_tunnel(1, 50));
        let bare = |certificate| Announcement { presence: None, ..announcement(certificate, None) };
        let record = roster.admit(&new).unwrap();
        record.update(bare(new.clone()), 10, NOW);
        record.update(announcement(old, Some(3)), 9, NOW);
        assert_eq!(record.presence(), None);
    }

    #[test]
    fn confirmation_is_kept_until_the_certificate_changes() {
        let fixture = Fixture::default();
        let mut roster = with(&fixture, 1);
        let certificate = fixture.certificate(1);
        let record = roster.record_mut(&id(1)).unwrap();
        assert!(record.confirm(fixture.confirmation(&certificate)));
        record.update(announcement(certificate, Some(7)), 11, NOW);
        assert!(record.is_confirmed());
        record.update(announcement(fixture.certificate_with_tunnel(1, 50), Some(7)), 12, NOW);
        assert!(!record.is_confirmed());
    }

    #[test]
    fn certificate_change_does_not_reopen_the_replay_window() {
        let fixture = Fixture::default();
        let mut roster = with(&fixture, 1);
        roster.record_sequence(&id(1), 10);
        let record = roster.record_mut(&id(1)).unwrap();
        record.update(announcement(fixture.certificate_with_tunnel(1, 50), None), 11, NOW);
        assert!(!roster.is_fresh(&id(1), 10) && roster.is_fresh(&id(1), 12) && roster.is_fresh(&id(2), 10));
    }

    #[test]
    fn members_never_make_room_for_others() {
        let fixture = Fixture::default();
        let mut roster = Roster::default();
        let template = Record::new(fixture.certificate(1));
        for n in 0..MAX_RECORDS {
            let mut device = DeviceId([0; 32]);
            device.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let record = Record { last_received: later(n as u64), ..template.clone() };
            roster.records.insert(device, record);
            if n < MAX_MEMBERS {
                roster.members.insert(device);
            }
        }
        let oldest_other = *roster.records.keys().nth(MAX_MEMBERS).unwrap();
        assert!(roster.is_full() && roster.admit(&fixture.certificate(2)).is_some());
        assert!(roster.record(&oldest_other).is_none());
        assert_eq!((roster.records.len(), roster.members().count()), (MAX_RECORDS, MAX_MEMBERS));
        roster.members = roster.records.keys().copied().collect();
        assert!(roster.admit(&fixture.certificate(3)).is_none());
    }

    #[test]
    fn device_that_returns_to_a_full_party_waits_for_room() {
        let fixture = Fixture::default();
        let mut roster = with(&fixture, 1);
        roster.record_mut(&id(1)).unwrap().on_leave();
        roster.judge(id(1), Rules::of(None), NOW);
        let last = DeviceId([0xff; 32]);
        for n in 1..MAX_MEMBERS {
            let mut device = last;
            device.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
            roster.members.insert(device);
        }
        assert!(roster.is_full());
        let certificate = fixture.certificate_with_tunnel(1, 50);
        let record = roster.admit(&certificate).unwrap();
        record.update(announcement(certificate, Some(7)), 21, NOW);
        assert_eq!(roster.judge(id(1), Rules::of(None), NOW), None);
        let any = *roster.members.iter().next().unwrap();
        roster.members.remove(&any);
        assert_eq!(roster.judge(id(1), Rules::of(None), NOW), Some(Effect::MemberChanged(id(1))));
        assert!(roster.is_full());
        assert_eq!(roster.judge(id(1), Rules::of(None), NOW), None, "a member stays one");
    }

    #[test]
    fn stored_roster_forgets_who_counts_and_nothing_else() {
        let roster = with(&Fixture::default(), 1);
        let bytes = postcard::to_allocvec(&roster).unwrap();
        let mut restored: Roster = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(restored.members().count(), 0);
        restored.judge(id(1), Rules::of(None), NOW);
        assert!(restored.is_member(&id(1)) && !restored.record(&id(1)).unwrap().has_left());
    }
}
