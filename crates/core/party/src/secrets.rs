//! The party secret in use and those it replaced.
//!
//! Members that were offline during a rekey still listen on the old topic, and links made before it still lead there.
//! Old secrets are therefore kept for a while: the newest few for a month, and one that an open invite contains until
//! that invite ends. What is said on an old topic proves nothing but that the sender once knew its secret.

use std::time::Duration;

use partyline_model::{PartyId, Timestamp, Topic};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{epoch::Epoch, keys::Secret};

/// Number of replaced secrets that are kept for [`RETENTION`], whether or not an open invite contains them.
const MAX_RECENT: usize = 8;
/// Time for which a replaced secret is kept.
const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Number of replaced secrets that are kept at all, those of open invites included.
const MAX_REPLACED: usize = 15;

/// The current epoch and at most [`MAX_REPLACED`] replaced ones, newest first.
#[derive(Clone)]
pub(crate) struct PartySecrets {
    current: Epoch,
    replaced: Vec<Replaced>,
}

#[derive(Clone)]
struct Replaced {
    epoch: Epoch,
    until: Timestamp,
}

/// [`PartySecrets`] as they are stored: without what can be derived.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StoredSecrets {
    current: Secret,
    replaced: Vec<(Secret, Timestamp)>,
}

impl PartySecrets {
    pub(crate) fn new(party: &PartyId, secret: Secret) -> Self {
        Self { current: Epoch::new(party, secret), replaced: Vec::new() }
    }

    pub(crate) fn restore(party: &PartyId, stored: StoredSecrets) -> Self {
        let replaced = stored.replaced.into_iter();
        let replaced = replaced.map(|(secret, until)| Replaced { epoch: Epoch::new(party, secret), until });
        Self { replaced: replaced.collect(), ..Self::new(party, stored.current) }
    }

    pub(crate) fn to_stored(&self) -> StoredSecrets {
        let replaced = self.replaced.iter().map(|old| (old.epoch.secret().clone(), old.until));
        StoredSecrets { current: self.current.secret().clone(), replaced: replaced.collect() }
    }

    pub(crate) const fn current(&self) -> &Epoch {
        &self.current
    }

    /// Returns all epochs, the current one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Epoch> {
        std::iter::once(&self.current).chain(self.replaced.iter().map(|old| &old.epoch))
    }

    pub(crate) fn on_topic(&self, topic: &Topic) -> Option<&Epoch> {
        self.all().find(|epoch| epoch.topic() == topic)
    }

    /// Makes another epoch the current one and keeps the one before for members that were offline.
    pub(crate) fn rotate(&mut self, now: Timestamp, epoch: Epoch) {
        debug!(topic = %epoch.topic().short(), replaced = %self.current.topic().short(), "party secret replaced");
        let epoch = std::mem::replace(&mut self.current, epoch);
        self.replaced.insert(0, Replaced { epoch, until: now.plus(RETENTION) });
    }

    /// Drops the secrets whose time is over and returns their number. `invited_until` returns the end of the last open
    /// invite that contains the secret with the given commitment.
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
        recent.max(invited_until(self.epoch.commitment()))
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
        let topics: Vec<Topic> = secrets.all().map(|epoch| *epoch.topic()).collect();
        assert_eq!(topics, [3, 2, 1, 0].map(|n| *epoch(n).topic()));
        assert_eq!(secrets.on_topic(&topics[2]).unwrap().commitment(), epoch(1).commitment());
        assert!(secrets.on_topic(&Topic([9; 32])).is_none());
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
        assert_eq!(secrets.all().count(), 1);
    }

    #[test]
    fn an_open_invite_keeps_the_secret_it_contains_and_wakes_nobody_before_it_ends() {
        let mut secrets = rotated(10);
        let invite_end = NOW.plus(RETENTION * 2);
        let invited =
            |end| move |commitment: &[u8; 32]| (*commitment == *epoch(0).commitment()).then_some(end);
        let late = NOW.plus(RETENTION + Duration::from_secs(1));
        secrets.expire(late, invited(invite_end));
        assert!(secrets.on_topic(epoch(0).topic()).is_some());
        assert_eq!(secrets.next_expiry(invited(invite_end)), Some(invite_end), "not a moment that is past");
        assert_eq!(secrets.next_expiry(invited(Timestamp(u64::MAX))), None, "the invite never ends");
        assert_eq!(secrets.expire(Timestamp(invite_end.0 + 1), invited(invite_end)), 1);
    }

    #[test]
    fn no_number_of_open_invites_keeps_more_than_the_limit() {
        let mut secrets = rotated(40);
        secrets.expire(NOW, |_| Some(Timestamp(u64::MAX)));
        assert_eq!(secrets.all().count(), 1 + MAX_REPLACED);
    }

    #[test]
    fn stored_secrets_restore_to_the_same_epochs() {
        let secrets = rotated(3);
        let restored = PartySecrets::restore(&PARTY, secrets.to_stored());
        assert!(secrets.all().map(Epoch::topic).eq(restored.all().map(Epoch::topic)));
        assert_eq!(secrets.next_expiry(|_| None), restored.next_expiry(|_| None));
    }
}
