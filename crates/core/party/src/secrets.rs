//! The party secret in use and those it replaced; for a joiner, the lobby in which it waits for one.
//!
//! Members that were offline during a rekey still listen on the old topic, and links made before it still lead to the
//! lobby of that time. Old secrets are therefore kept for a while: the newest few for a month, and one to whose lobby an
//! open invite leads until that invite ends. What is said on an old topic proves nothing but that the sender once knew its
//! secret.

use std::time::Duration;

use partyline_model::{PartyId, Timestamp, Topic};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{epoch::Epoch, keys::Secret, lobby::Lobby, topic_keys::TopicKeys};

/// Number of replaced secrets that are kept for [`RETENTION`], whether or not an open invite leads to their lobby.
const MAX_RECENT: usize = 8;
/// Time for which a replaced secret is kept.
const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Number of replaced secrets that are kept at all, those of open invites included.
const MAX_REPLACED: usize = 15;

/// Where this device meets others: the current epoch and at most [`MAX_REPLACED`] replaced ones, newest first, or the
/// lobby alone.
#[derive(Clone)]
pub(crate) struct PartySecrets {
    access: Access,
    replaced: Vec<Replaced>,
    /// The tag by which lobbies were closed last, so that this is done once for each.
    closed_by: Option<[u8; 8]>,
}

#[derive(Clone)]
enum Access {
    /// No member has admitted this device yet.
    Lobby(Box<Lobby>),
    Party(Box<Held>),
}

/// An epoch, and whether joiners are let in by its lobby.
#[derive(Clone)]
struct Held {
    epoch: Epoch,
    lobby_open: bool,
}

#[derive(Clone)]
struct Replaced {
    held: Held,
    until: Timestamp,
}

/// A topic that this device knows, by what is said there.
#[derive(Clone, Copy)]
pub(crate) enum KnownTopic<'a> {
    /// Where members meet, or met before a rekey.
    Party(&'a Epoch),
    /// Where members wait for joiners; this device is a member.
    Lobby(&'a Epoch),
    /// The lobby, where this device is a joiner.
    Waiting(&'a Lobby),
}

impl<'a> KnownTopic<'a> {
    pub(crate) const fn keys(self) -> &'a TopicKeys {
        match self {
            Self::Party(epoch) => epoch.keys(),
            Self::Lobby(epoch) => epoch.public_lobby().keys(),
            Self::Waiting(lobby) => lobby.keys(),
        }
    }
}

/// [`PartySecrets`] as they are stored: without what can be derived.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StoredSecrets {
    current: StoredAccess,
    replaced: Vec<StoredReplaced>,
    closed_by: Option<[u8; 8]>,
}

#[derive(Clone, Serialize, Deserialize)]
enum StoredAccess {
    Lobby(Secret),
    Party { secret: Secret, lobby_open: bool },
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredReplaced {
    secret: Secret,
    until: Timestamp,
    lobby_open: bool,
}

impl Held {
    fn new(party: &PartyId, secret: Secret, lobby_open: bool) -> Self {
        Self { epoch: Epoch::new(party, secret), lobby_open }
    }
}

impl PartySecrets {
    /// A member that has the party secret.
    pub(crate) fn new(party: &PartyId, secret: Secret) -> Self {
        let access = Access::Party(Box::new(Held::new(party, secret, true)));
        Self { access, replaced: Vec::new(), closed_by: None }
    }

    /// A joiner, which knows the lobby of its invite.
    pub(crate) fn waiting(party: &PartyId, lobby: [u8; 32]) -> Self {
        let access = Access::Lobby(Box::new(Lobby::new(party, lobby)));
        Self { access, replaced: Vec::new(), closed_by: None }
    }

    pub(crate) fn restore(party: &PartyId, stored: StoredSecrets) -> Self {
        let replaced = stored.replaced.into_iter().map(|StoredReplaced { secret, until, lobby_open }| {
            Replaced { held: Held::new(party, secret, lobby_open), until }
        });
        let access = match stored.current {
            StoredAccess::Lobby(key) => Access::Lobby(Box::new(Lobby::new(party, *key.expose()))),
            StoredAccess::Party { secret, lobby_open } => {
                Access::Party(Box::new(Held::new(party, secret, lobby_open)))
            }
        };
        Self { access, replaced: replaced.collect(), closed_by: stored.closed_by }
    }

    pub(crate) fn to_stored(&self) -> StoredSecrets {
        let replaced = self.replaced.iter().map(|Replaced { held, until }| StoredReplaced {
            secret: held.epoch.secret().clone(),
            until: *until,
            lobby_open: held.lobby_open,
        });
        let current = match &self.access {
            Access::Lobby(lobby) => StoredAccess::Lobby(Secret::new(*lobby.key())),
            Access::Party(held) => {
                StoredAccess::Party { secret: held.epoch.secret().clone(), lobby_open: held.lobby_open }
            }
        };
        StoredSecrets { current, replaced: replaced.collect(), closed_by: self.closed_by }
    }

    /// Returns the current epoch; `None` for a joiner.
    pub(crate) const fn current(&self) -> Option<&Epoch> {
        match &self.access {
            Access::Lobby(_) => None,
            Access::Party(held) => Some(&held.epoch),
        }
    }

    /// Returns where this device meets others now: the current topic, or the lobby for a joiner.
    pub(crate) const fn current_topic(&self) -> KnownTopic<'_> {
        match &self.access {
            Access::Lobby(lobby) => KnownTopic::Waiting(lobby),
            Access::Party(held) => KnownTopic::Party(&held.epoch),
        }
    }

    /// Returns all epochs, the current one first.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = &Epoch> {
        self.held().map(|held| &held.epoch)
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        let current = match &self.access {
            Access::Lobby(_) => None,
            Access::Party(held) => Some(&**held),
        };
        current.into_iter().chain(self.replaced.iter().map(|old| &old.held))
    }

    fn held_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        let current = match &mut self.access {
            Access::Lobby(_) => None,
            Access::Party(held) => Some(&mut **held),
        };
        current.into_iter().chain(self.replaced.iter_mut().map(|old| &mut old.held))
    }

    /// Returns all topics, the current one first.
    pub(crate) fn known_topics(&self) -> impl Iterator<Item = KnownTopic<'_>> {
        let waiting = matches!(self.access, Access::Lobby(_)).then(|| self.current_topic());
        waiting
            .into_iter()
            .chain(self.epochs().map(KnownTopic::Party))
            .chain(self.open_lobbies().map(KnownTopic::Lobby))
    }

    /// Closes the lobbies of all epochs before the one with this tag, once for each tag. An epoch that this device has not
    /// received yet is newer than all that it has.
    pub(crate) fn close_lobbies_before(&mut self, tag: [u8; 8]) {
        if self.closed_by.replace(tag) == Some(tag) {
            return;
        }
        let mut is_open = self.epochs().any(|epoch| epoch.tag() == tag);
        for held in self.held_mut() {
            held.lobby_open &= is_open;
            is_open &= held.epoch.tag() != tag;
        }
    }

    /// Returns true if a link leads to a lobby that is open: that of the secret with this commitment.
    pub(crate) fn is_lobby_open(&self, commitment: &[u8; 32]) -> bool {
        self.open_lobbies().any(|epoch| epoch.commitment() == commitment)
    }

    fn open_lobbies(&self) -> impl Iterator<Item = &Epoch> {
        self.held().filter(|held| held.lobby_open).map(|held| &held.epoch)
    }

    pub(crate) fn known_topic(&self, topic: &Topic) -> Option<KnownTopic<'_>> {
        self.known_topics().find(|known| known.keys().topic() == topic)
    }

    /// Makes another epoch the current one and keeps the one before for members that were offline. A lobby is left for
    /// good.
    pub(crate) fn rotate(&mut self, now: Timestamp, epoch: Epoch) {
        let before = self.current_topic().keys().topic().short();
        debug!(topic = %epoch.topic().short(), replaced = %before, "party secret replaced");
        let next = Access::Party(Box::new(Held { epoch, lobby_open: true }));
        if let Access::Party(held) = std::mem::replace(&mut self.access, next) {
            self.replaced.insert(0, Replaced { held: *held, until: now.plus(RETENTION) });
        }
    }

    /// Drops the secrets whose time is over and returns their number. `invited_until` returns the end of the last open
    /// invite to the lobby of the secret with the given commitment.
    pub(crate) fn expire(
        &mut self,
        now: Timestamp,
        invited_until: impl Fn(&[u8; 32]) -> Option<Timestamp>,
    ) -> usize {
        let (before, mut index) = (self.replaced.len(), 0);
        self.replaced.retain(|old| {
            let kept =
                index < MAX_REPLACED && old.kept_until(index, &invited_until).is_some_and(|end| now <= end);
            index += 1;
            kept
        });
        let count = before - self.replaced.len();
        if count > 0 {
            debug!(
                count,
                kept = self.replaced.len(),
                reason = "neither recent nor in an open invite",
                "old party secrets dropped"
            );
        }
        count
    }

    /// Returns the last moment at which [`Self::expire`] keeps all of them; `None` if it always does.
    pub(crate) fn next_expiry(
        &self,
        invited_until: impl Fn(&[u8; 32]) -> Option<Timestamp>,
    ) -> Option<Timestamp> {
        let ends =
            self.replaced.iter().enumerate().filter_map(|(index, old)| old.kept_until(index, &invited_until));
        ends.min().filter(|end| *end < Timestamp(u64::MAX))
    }
}

impl Replaced {
    fn kept_until(
        &self,
        index: usize,
        invited_until: impl Fn(&[u8; 32]) -> Option<Timestamp>,
    ) -> Option<Timestamp> {
        let recent = (index < MAX_RECENT).then_some(self.until);
        recent.max(invited_until(self.held.epoch.commitment()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: PartyId = PartyId([1; 32]);
    const NOW: Timestamp = Timestamp(1_000_000);

    fn epoch(n: u8) -> Epoch {
        Epoch::new(&PARTY, Secret::new([n; 32]))
    }

    fn rotated(times: u8) -> PartySecrets {
        let mut secrets = PartySecrets::new(&PARTY, Secret::new([0; 32]));
        (1..=times).for_each(|n| secrets.rotate(NOW, epoch(n)));
        secrets
    }

    #[test]
    fn replaced_secrets_stay_newest_first_and_open_their_topics() {
        let secrets = rotated(3);
        let topics: Vec<Topic> = secrets.epochs().map(|epoch| *epoch.topic()).collect();
        assert_eq!(topics, [3, 2, 1, 0].map(|n| *epoch(n).topic()));
        let old = secrets.known_topic(&topics[2]);
        assert!(matches!(old, Some(KnownTopic::Party(old)) if old.commitment() == epoch(1).commitment()));
        let lobby = secrets.known_topic(epoch(1).public_lobby().keys().topic());
        assert!(matches!(lobby, Some(KnownTopic::Lobby(old)) if old.commitment() == epoch(1).commitment()));
        assert!(secrets.known_topic(&Topic([9; 32])).is_none());
    }

    #[test]
    fn joiner_knows_the_lobby_alone_and_leaves_it_for_good() {
        let lobby = *epoch(1).public_lobby().key();
        let mut secrets = PartySecrets::waiting(&PARTY, lobby);
        let restored = PartySecrets::restore(&PARTY, secrets.to_stored());
        assert!(restored.current().is_none() && secrets.known_topics().count() == 1);
        assert!(secrets.known_topic(epoch(1).topic()).is_none());
        secrets.rotate(NOW, epoch(2));
        assert_eq!(secrets.current_topic().keys().topic(), epoch(2).topic());
        assert!(secrets.known_topic(epoch(1).public_lobby().keys().topic()).is_none());
    }

    #[test]
    fn lobbies_from_before_the_oldest_open_one_are_closed() {
        let mut secrets = rotated(3);
        let open = |secrets: &PartySecrets| {
            (0..4).filter(|n| secrets.is_lobby_open(epoch(*n).commitment())).collect::<Vec<_>>()
        };
        assert_eq!(open(&secrets), [0, 1, 2, 3]);
        secrets.close_lobbies_before(epoch(2).tag());
        assert_eq!(open(&secrets), [2, 3]);
        assert!(secrets.known_topic(epoch(1).public_lobby().keys().topic()).is_none());
        assert!(secrets.known_topic(epoch(1).topic()).is_some(), "members that were offline are still met");
        let mut restored = PartySecrets::restore(&PARTY, secrets.to_stored());
        assert_eq!(open(&restored), [2, 3]);
        // The charter says so until the next time, also when the epoch that it names is long forgotten.
        restored.expire(NOW.plus(RETENTION + Duration::from_secs(1)), |_| None);
        restored.rotate(NOW, epoch(4));
        restored.close_lobbies_before(epoch(2).tag());
        assert!(
            restored.is_lobby_open(epoch(3).commitment()) && restored.is_lobby_open(epoch(4).commitment())
        );
        restored.close_lobbies_before([99; 8]);
        assert!(!restored.is_lobby_open(epoch(4).commitment()), "a newer secret is on its way");
    }

    #[test]
    fn only_the_newest_are_kept_and_only_for_a_month() {
        let mut secrets = rotated(12);
        assert_eq!(secrets.expire(NOW, |_| None), 12 - MAX_RECENT);
        let end = secrets.next_expiry(|_| None).unwrap();
        assert_eq!(end, NOW.plus(RETENTION));
        assert_eq!(secrets.expire(end, |_| None), 0);
        assert_eq!(secrets.expire(Timestamp(end.0 + 1), |_| None), MAX_RECENT);
        assert_eq!(secrets.next_expiry(|_| None), None);
        assert_eq!(secrets.epochs().count(), 1);
    }

    #[test]
    fn an_open_invite_keeps_the_secret_of_its_lobby_and_wakes_nobody_before_it_ends() {
        let mut secrets = rotated(10);
        let invite_end = NOW.plus(RETENTION * 2);
        let invited =
            |end| move |commitment: &[u8; 32]| (*commitment == *epoch(0).commitment()).then_some(end);
        let late = NOW.plus(RETENTION + Duration::from_secs(1));
        secrets.expire(late, invited(invite_end));
        assert!(secrets.known_topic(epoch(0).topic()).is_some());
        assert_eq!(secrets.next_expiry(invited(invite_end)), Some(invite_end), "not a moment that is past");
        assert_eq!(secrets.next_expiry(invited(Timestamp(u64::MAX))), None, "the invite never ends");
        assert_eq!(secrets.expire(Timestamp(invite_end.0 + 1), invited(invite_end)), 1);
    }

    #[test]
    fn no_number_of_open_invites_keeps_more_than_the_limit() {
        let mut secrets = rotated(40);
        secrets.expire(NOW, |_| Some(Timestamp(u64::MAX)));
        assert_eq!(secrets.epochs().count(), 1 + MAX_REPLACED);
    }

    #[test]
    fn stored_secrets_restore_to_the_same_epochs() {
        let secrets = rotated(3);
        let restored = PartySecrets::restore(&PARTY, secrets.to_stored());
        assert!(secrets.epochs().map(Epoch::topic).eq(restored.epochs().map(Epoch::topic)));
        assert_eq!(secrets.next_expiry(|_| None), restored.next_expiry(|_| None));
    }
}
