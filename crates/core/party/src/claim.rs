//! Claims to host numbers in the party's IPv4 range.
//!
//! Every member announces the host number it claims. If two claim the same one, the member whose certificate has the
//! lower digest holds it and the other claims another, so that all devices agree without a vote.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use partyline_model::DeviceId;
use tracing::debug;

use crate::{
    address,
    roster::{Record, Roster},
};

/// Rank of a device among those that claim the same host number; the lowest holds it. The digest decides, and the id
/// follows only to name the device.
pub(crate) type Rank = ([u8; 32], DeviceId);

/// The claim of this device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnClaim {
    pub(crate) rank: Rank,
    /// Claimed host number; `None` while the range is not known or every number is taken.
    pub(crate) host: Option<u16>,
}

/// The claims of all members, this device included.
pub(crate) struct Claims<'a> {
    pub(crate) own: OwnClaim,
    pub(crate) roster: &'a Roster,
}

impl Claims<'_> {
    /// Returns the holder of each claimed host number.
    pub(crate) fn holders(&self) -> BTreeMap<u16, Rank> {
        let own = self.own.host.map(|host| (host, self.own.rank));
        let others = self.roster.members();
        let others =
            others.filter_map(|(device, record)| Some((record.host()?, (*record.digest(), *device))));
        let mut holders = BTreeMap::new();
        for (host, rank) in others.chain(own) {
            holders.entry(host).and_modify(|holder: &mut Rank| *holder = rank.min(*holder)).or_insert(rank);
        }
        holders
    }

    /// Returns the host number that a member claims and holds: what [`Self::holders`] says, for one member alone.
    pub(crate) fn held_by(&self, device: &DeviceId, record: &Record) -> Option<u16> {
        let (host, rank) = (record.host()?, (*record.digest(), *device));
        let own = self.own.host == Some(host) && self.own.rank < rank;
        (!own && !self.is_outranked(host, &rank)).then_some(host)
    }

    /// Returns the host number this device should claim in a range: the one it claims, unless that is outside of the range
    /// or held by another member. `None` if every number is taken.
    pub(crate) fn choose_own(&self, range: Ipv4Net) -> Option<u16> {
        if let Some(host) = self.own.host {
            let reason = match address::v4(range, host) {
                Some(_) if !self.is_outranked(host, &self.own.rank) => return Some(host),
                Some(_) => "another member holds it",
                None => "it is outside of the range",
            };
            debug!(host, %range, reason, "own address claim given up");
        }
        let taken: BTreeSet<u16> = self.roster.members().filter_map(|(_, record)| record.host()).collect();
        let host = address::choose(&self.own.rank.1, range, &taken);
        debug!(?host, %range, taken = taken.len(), "address claimed");
        host
    }

    fn is_outranked(&self, host: u16, rank: &Rank) -> bool {
        let mut rivals = self.roster.claimants(host);
        rivals.any(|(device, rival)| (*rival.digest(), *device) < *rank && self.roster.is_member(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{Fixture, NOW, announcement, id},
        rules::Rules,
    };

    fn roster(claims: &[(u8, u16)]) -> Roster {
        let (fixture, mut roster) = (Fixture::default(), Roster::default());
        for (n, host) in claims {
            let certificate = fixture.certificate(*n);
            let record = roster.admit(&certificate).unwrap();
            record.update(announcement(certificate, Some(*host)), 1, NOW);
            roster.judge(id(*n), Rules::of(None), NOW);
        }
        roster
    }

    fn claims(roster: &Roster, own_rank: [u8; 32], own_host: Option<u16>) -> Claims<'_> {
        let own = OwnClaim { rank: (own_rank, id(0)), host: own_host };
        Claims { own, roster }
    }

    #[test]
    fn one_member_holds_each_number_and_both_views_agree_who() {
        let roster = roster(&[(1, 5), (2, 5), (3, 5), (4, 6)]);
        for own_rank in [[0; 32], [255; 32]] {
            let claims = claims(&roster, own_rank, Some(5));
            let holders = claims.holders();
            assert_eq!(holders.len(), 2);
            assert_eq!(holders[&5].1 == id(0), own_rank == [0; 32]);
            for (device, record) in roster.members() {
                let holds = holders[&record.host().unwrap()].1 == *device;
                assert_eq!(claims.held_by(device, record).is_some(), holds);
            }
        }
    }

    #[test]
    fn higher_rank_gives_way_and_lower_rank_stays() {
        let (roster, range) = (roster(&[(1, 5)]), "10.0.0.0/24".parse().unwrap());
        assert_eq!(claims(&roster, [0; 32], Some(5)).choose_own(range), Some(5));
        let moved = claims(&roster, [255; 32], Some(5)).choose_own(range);
        assert!(moved.is_some_and(|host| host != 5));
    }

    #[test]
    fn claim_outside_of_a_new_range_is_given_up() {
        let (roster, range) = (roster(&[(1, 5)]), "10.0.0.0/28".parse().unwrap());
        let moved = claims(&roster, [0; 32], Some(200)).choose_own(range).unwrap();
        assert!(address::v4(range, moved).is_some() && moved != 5);
    }

    #[test]
    fn claims_of_devices_that_are_not_members_do_not_count() {
        let fixture = Fixture::default();
        let mut roster = roster(&[(1, 5)]);
        let removed = fixture.charter(1, |terms| terms.revoked_devices.push(id(1)));
        roster.judge(id(1), Rules::of(Some(&removed)), NOW);
        let claims = claims(&roster, [255; 32], Some(5));
        assert_eq!(claims.choose_own("10.0.0.0/24".parse().unwrap()), Some(5));
        assert_eq!(claims.holders()[&5].1, id(0));
    }
}
