//! The charter in force.
//!
//! Charters prove themselves by their signatures, so that any channel and any member may deliver one. Of two sound ones
//! the one with the greater stamp wins on every device, which is why the stamp in force only ever grows.

use ipnet::Ipv4Net;
use partyline_model::PartyId;
use partyline_wire::membership::{Charter, Stamp};
use serde::{Deserialize, Serialize};
use tracing::{debug, trace};

use crate::{chain::is_charter_sound, error::Refusal, revocations::Revocations, rules::Rules};

/// The charter in force, and what the invite said of the party until the first charter arrives.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct CharterState {
    invited_name: String,
    invited_servers: Vec<String>,
    /// Charters with a lesser stamp are refused from every sender.
    floor: Option<Stamp>,
    in_force: Option<Charter>,
    /// What amendments of the terms in force revoke that were in force here and lost against another one. A co-owner whose
    /// amendment wins cannot undo what another has removed; the owner's device takes all of it over.
    outvoted: Revocations,
}

impl CharterState {
    /// Starts with the name and servers of an invite, in use until a charter is known, and with the stamp of the charter
    /// at that time: an older one, under which somebody removed since is a member, is not taken.
    pub(crate) const fn invited(name: String, servers: Vec<String>, floor: Stamp) -> Self {
        Self {
            invited_name: name,
            invited_servers: servers,
            floor: Some(floor),
            in_force: None,
            outvoted: Revocations::NONE,
        }
    }

    pub(crate) const fn in_force(&self) -> Option<&Charter> {
        self.in_force.as_ref()
    }

    pub(crate) const fn rules(&self) -> Rules<'_> {
        Rules::of(self.in_force.as_ref()).with(&self.outvoted)
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.in_force.as_ref().map(Charter::stamp)
    }

    pub(crate) fn name(&self) -> &str {
        self.rules().terms().map_or(&self.invited_name, |terms| &terms.name)
    }

    pub(crate) fn servers(&self) -> &[String] {
        self.rules().terms().map_or(&self.invited_servers, |terms| &terms.servers)
    }

    /// Returns the party's address range, once a charter is known.
    pub(crate) fn range(&self) -> Option<Ipv4Net> {
        self.rules().terms().map(|terms| terms.range)
    }

    /// Checks a received charter: it must be the one in force, or sound and newer.
    ///
    /// # Errors
    /// [`Refusal::BadCharter`] or [`Refusal::OldCharter`].
    pub(crate) fn check(&self, party: &PartyId, charter: &Charter) -> Result<(), Refusal> {
        if self.in_force.as_ref() == Some(charter) {
            return Ok(());
        }
        if !is_charter_sound(party, charter) {
            return Err(Refusal::BadCharter);
        }
        let stamp = Some(charter.stamp());
        if stamp > self.stamp() && stamp >= self.floor { Ok(()) } else { Err(Refusal::OldCharter) }
    }

    /// Puts a checked charter in force. Returns false if it is not newer than the one before.
    pub(crate) fn adopt(&mut self, charter: Charter) -> bool {
        let stamp = charter.stamp();
        if Some(stamp) <= self.stamp() {
            trace!(
                version = stamp.version,
                amendment = stamp.amendment,
                reason = "not newer",
                "charter not adopted"
            );
            return false;
        }
        let rules = Rules::of(Some(&charter));
        debug!(
            version = stamp.version,
            amendment = stamp.amendment,
            co_owners = rules.terms().map_or(0, |terms| terms.co_owners.len()),
            removed_devices = rules.revoked_devices().count(),
            revoked_invites = rules.revoked_invites().count(),
            "charter in force"
        );
        self.keep_outvoted(&charter);
        self.in_force = Some(charter);
        true
    }

    /// Keeps what the amendment in force revokes while the terms stay the same; other terms have taken it over, or do not
    /// want it.
    fn keep_outvoted(&mut self, next: &Charter) {
        let before = self.in_force.take();
        match before.filter(|before| before.terms == next.terms).and_then(|before| before.amendment) {
            Some(signed) => self.outvoted.add(&Revocations::of(signed.amendment.value())),
            None => self.outvoted = Revocations::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, device, id};

    const NO_FLOOR: Stamp = Stamp { version: 0, amendment: 0, digest: [0; 8] };

    #[test]
    fn invite_names_the_party_until_the_charter_does() {
        let fixture = Fixture::default();
        let mut state = CharterState::invited("Invited".into(), vec!["wss://invited".into()], NO_FLOOR);
        assert_eq!((state.name(), state.servers().len(), state.range()), ("Invited", 1, None));
        assert!(state.adopt(fixture.charter(1, |_| {})));
        assert_eq!((state.name(), state.servers().len()), ("Friday games", 0));
        assert!(state.range().is_some());
    }

    #[test]
    fn joiner_refuses_a_charter_from_before_its_invite() {
        let fixture = Fixture::default();
        let floor = Stamp { digest: [0; 8], ..fixture.charter(3, |_| {}).stamp() };
        let state = CharterState::invited("Invited".into(), Vec::new(), floor);
        let check = |version| state.check(&fixture.party(), &fixture.charter(version, |_| {}));
        assert_eq!([2, 3, 4].map(check), [Err(Refusal::OldCharter), Ok(()), Ok(())]);
    }

    #[test]
    fn stamp_in_force_only_grows() {
        let fixture = Fixture::default();
        let mut state = CharterState::default();
        let (old, new) = (fixture.charter(1, |_| {}), fixture.charter(2, |_| {}));
        assert!(state.adopt(new.clone()));
        assert_eq!(state.check(&fixture.party(), &new), Ok(()), "the one in force may be repeated");
        assert_eq!(state.check(&fixture.party(), &old), Err(Refusal::OldCharter));
        assert!(!state.adopt(old) && !state.adopt(new.clone()));
        assert!(state.in_force() == Some(&new));
    }

    #[test]
    fn of_two_charters_with_one_version_every_device_takes_the_same() {
        let fixture = Fixture::default();
        let charters = ["One", "Two"].map(|name| fixture.charter(1, |terms| terms.name = name.into()));
        let last = |order: [usize; 2]| {
            let mut state = CharterState::default();
            order.into_iter().for_each(|n| _ = state.adopt(charters[n].clone()));
            state.name().to_owned()
        };
        assert_eq!(last([0, 1]), last([1, 0]));
    }

    #[test]
    fn charters_signed_by_others_are_refused() {
        let fixture = Fixture::default();
        let state = CharterState::default();
        let terms = fixture.charter(5, |_| {}).terms.value().clone();
        let forged = crate::chain::proclaim(device(1).signing(), terms);
        assert_eq!(state.check(&fixture.party(), &forged), Err(Refusal::BadCharter));
        let charter = fixture.charter(5, |terms| terms.co_owners = vec![id(3), id(4)]);
        let check = |charter| state.check(&fixture.party(), &charter);
        assert_eq!(check(fixture.amended(&charter, 3, id(5))), Ok(()));
        assert_eq!(check(fixture.amended(&charter, 6, id(5))), Err(Refusal::BadCharter), "not a co-owner");
        assert_eq!(check(fixture.amended(&charter, 3, id(0))), Err(Refusal::BadCharter), "removes the owner");
        assert_eq!(check(fixture.amended(&charter, 3, id(4))), Err(Refusal::BadCharter), "removes an equal");
    }

    #[test]
    fn co_owner_cannot_undo_what_another_removed() {
        let fixture = Fixture::default();
        let charter = fixture.charter(1, |terms| terms.co_owners = vec![id(3), id(4)]);
        let mut amended = [fixture.amended(&charter, 3, id(5)), fixture.amended(&charter, 4, id(6))];
        amended.sort_by_key(Charter::stamp);
        let mut state = CharterState::default();
        assert!(amended.iter().all(|charter| state.adopt(charter.clone())));
        assert!([5, 6].iter().all(|n| state.rules().is_removed(&id(*n))));
        // The owner's next terms decide.
        assert!(state.adopt(fixture.charter(2, |terms| terms.revoked_devices = vec![id(6)])));
        assert!(!state.rules().is_removed(&id(5)) && state.rules().is_removed(&id(6)));
    }

    #[test]
    fn amendment_cannot_take_the_last_number() {
        let fixture = Fixture::default();
        let charter = fixture.charter(1, |terms| terms.co_owners = vec![id(3)]);
        let numbered = |number| fixture.amended_with(&charter, 3, |amendment| amendment.number = number);
        let check = |charter| CharterState::default().check(&fixture.party(), &charter);
        assert_eq!(check(numbered(1)), Ok(()));
        assert_eq!(check(numbered(2)), Err(Refusal::BadCharter), "it removes one device");
        assert_eq!(check(numbered(u32::MAX)), Err(Refusal::BadCharter));
    }
}
