//! Claims to host numbers in the party's IPv4 range.
//!
//! Every member announces the host number it claims. The owner's device fixes one for each member that it confirms, which
//! nobody else can take. Where nothing is fixed, the member whose certificate has the lower digest holds the number and the
//! other claims another, so that all devices agree without a vote.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use ipnet::Ipv4Net;
use partyline_model::DeviceId;
use partyline_wire::membership::Confirmation;
use tracing::debug;

use crate::{
    address,
    roster::{Record, Roster},
};

/// Rank of a device among those that claim the same host number; the lowest holds it. Among equals the digest decides, and
/// the id follows only to name the device.
pub(crate) type Rank = (Precedence, [u8; 32], DeviceId);

/// Whether a member has a number by the owner's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Precedence {
    /// The owner's device has fixed it, under terms of this version. The later word counts: the owner gives a number to
    /// another member only after it has moved the one before.
    Fixed(Reverse<u64>),
    /// The member has chosen it by itself.
    Chosen,
}

impl Precedence {
    fn new(confirmation: Option<&Confirmation>, host: u16) -> Self {
        let fixed = confirmation.filter(|confirmation| confirmation.host == host);
        fixed.map_or(Self::Chosen, |confirmation| Self::Fixed(Reverse(confirmation.version)))
    }
}

/// The claim of this device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnClaim {
    pub(crate) device: DeviceId,
    /// The digest of its certificate.
    pub(crate) digest: [u8; 32],
    pub(crate) confirmation: Option<Confirmation>,
    /// Claimed host number; `None` while the range is not known or every number is taken.
    pub(crate) host: Option<u16>,
}

impl OwnClaim {
    fn rank(&self, host: u16) -> Rank {
        (Precedence::new(self.confirmation.as_ref(), host), self.digest, self.device)
    }
}

/// Returns the rank of another device for a number.
fn rank_of(device: &DeviceId, record: &Record, host: u16) -> Rank {
    (Precedence::new(record.confirmation(), host), *record.digest(), *device)
}

/// The claims of all members, this device included.
pub(crate) struct Claims<'a> {
    pub(crate) own: OwnClaim,
    pub(crate) roster: &'a Roster,
}

impl Claims<'_> {
    /// Returns the holder of each claimed host number.
    pub(crate) fn holders(&self) -> BTreeMap<u16, Rank> {
        let own = self.own.host.map(|host| (host, self.own.rank(host)));
        let others = self.roster.members();
        let others = others.filter_map(|(device, record)| {
            let host = record.host()?;
            Some((host, rank_of(device, record, host)))
        });
        let mut holders = BTreeMap::new();
        for (host, rank) in others.chain(own) {
            holders.entry(host).and_modify(|holder: &mut Rank| *holder = rank.min(*holder)).or_insert(rank);
        }
        holders
    }

    /// Returns the host number that a member claims and holds: what [`Self::holders`] says, for one member alone.
    pub(crate) fn held_by(&self, device: &DeviceId, record: &Record) -> Option<u16> {
        let host = record.host()?;
        let rank = rank_of(device, record, host);
        let own = self.own.host == Some(host) && self.own.rank(host) < rank;
        (!own && !self.is_outranked(host, &rank)).then_some(host)
    }

    /// Returns the host number this device should claim in a range: the one that was fixed for it, else the one it claims,
    /// unless that is outside of the range or held by another member. `None` if every number is taken.
    pub(crate) fn choose_own(&self, range: Ipv4Net) -> Option<u16> {
        let fixed = self.own.confirmation.map(|confirmation| confirmation.host);
        let fixed = fixed.filter(|host| address::v4(range, *host).is_some());
        if let Some(host) = fixed.or(self.own.host) {
            let reason = match address::v4(range, host) {
                Some(_) if !self.is_outranked(host, &self.own.rank(host)) => return Some(host),
                Some(_) => "another member holds it",
                None => "it is outside of the range",
            };
            debug!(host, %range, reason, "own address claim given up");
        }
        let host = address::choose(&self.own.device, range, &self.taken(&self.own.device));
        debug!(?host, %range, "address claimed");
        host
    }

    /// Returns the host number that the owner's device fixes for a member: the one it holds, else one that nobody claims; 0
    /// if there is none.
    pub(crate) fn choose_for(&self, device: &DeviceId, record: &Record, range: Ipv4Net) -> u16 {
        let taken = self.taken(device);
        let held = record.host().filter(|host| address::v4(range, *host).is_some() && !taken.contains(host));
        held.or_else(|| address::choose(device, range, &taken)).unwrap_or(0)
    }

    /// Returns the numbers that others claim, or that are fixed for them.
    pub(crate) fn taken(&self, except: &DeviceId) -> BTreeSet<u16> {
        let others = self.roster.members().filter(|(device, _)| *device != except);
        let others = others.map(|(_, record)| (record.host(), record.confirmation().copied()));
        let own = (self.own.device != *except).then_some((self.own.host, self.own.confirmation));
        let hosts = |(claimed, confirmation): (Option<u16>, Option<Confirmation>)| {
            claimed.into_iter().chain(confirmation.map(|confirmation| confirmation.host))
        };
        others.chain(own).flat_map(hosts).collect()
    }

    fn is_outranked(&self, host: u16, rank: &Rank) -> bool {
        let mut rivals = self.roster.claimants(host);
        rivals.any(|(device, rival)| rank_of(device, rival, host) < *rank && self.roster.is_member(device))
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
        let own = OwnClaim { device: id(0), digest: own_rank, confirmation: None, host: own_host };
        Claims { own, roster }
    }

    #[test]
    fn one_member_holds_each_number_and_both_views_agree_who() {
        let roster = roster(&[(1, 5), (2, 5), (3, 5), (4, 6)]);
        for own_rank in [[0; 32], [255; 32]] {
            let claims = claims(&roster, own_rank, Some(5));
            let holders = claims.holders();
            assert_eq!(holders.len(), 2);
            assert_eq!(holders[&5].2 == id(0), own_rank == [0; 32]);
            for (device, record) in roster.members() {
                let holds = holders[&record.host().unwrap()].2 == *device;
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
    fn fixed_number_is_held_against_every_digest_and_the_later_word_counts() {
        let (fixture, range) = (Fixture::default(), "10.0.0.0/24".parse().unwrap());
        let mut roster = roster(&[(1, 5)]);
        let record = roster.record_mut(&id(1)).unwrap();
        let fixed = |version| fixture.confirmation_of(&fixture.certificate(1), 5, version);
        assert!(record.confirm(fixed(2)));
        let grinding = claims(&roster, [0; 32], Some(5));
        assert_eq!(grinding.holders()[&5].2, id(1));
        assert!(grinding.choose_own(range).is_some_and(|host| host != 5));
        for (version, holder) in [(1, id(1)), (3, id(0))] {
            let own = OwnClaim { confirmation: Some(fixed(version)), ..grinding.own };
            assert_eq!(Claims { own, roster: &roster }.holders()[&5].2, holder, "{version}");
        }
    }

    #[test]
    fn owner_fixes_the_number_that_a_member_holds_and_none_that_another_has() {
        let (roster, range) = (roster(&[(1, 5), (2, 6), (3, 6)]), "10.0.0.0/24".parse().unwrap());
        let claims = claims(&roster, [255; 32], Some(9));
        let fixed = |n| claims.choose_for(&id(n), roster.record(&id(n)).unwrap(), range);
        assert_eq!(fixed(1), 5);
        assert!(![5, 6, 9].contains(&fixed(2)) && ![5, 6, 9].contains(&fixed(3)));
        let small = "10.0.0.0/30".parse().unwrap();
        assert!([1, 2].contains(&claims.choose_for(&id(1), roster.record(&id(1)).unwrap(), small)));
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
        assert_eq!(claims.holders()[&5].2, id(0));
    }
}
