//! What is worth trying between two NATs.
//!
//! It follows from three properties of each side (see `docs/traversal.md` for the reasons). Its port is *known* where all
//! destinations share it, or where it is preserved or counted. It is *steady* where it is the same for every port of
//! the other side. A side is *open* where it lets in every port of an address that it has sent to. What is not known
//! counts as unfavourable at first, and as favourable where nothing would be left to try.

use std::net::IpAddr;

use partyline_model::{Allocation, Candidate, CandidateKind, Filtering, Mapping, NatProfile};
use partyline_wire::punch::NatPolicies;

/// What is known about one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Side {
    pub(crate) nat: NatPolicies,
    /// It has an address at which anybody reaches it: public, or opened by the router.
    pub(crate) reachable: bool,
    /// No UDP gets out.
    pub(crate) blocked: bool,
    /// Its public IPv4 address.
    pub(crate) public: Option<IpAddr>,
    /// Its router lets inside computers meet at the outside address.
    pub(crate) hairpin: Option<bool>,
}

/// Who opens sockets for the other to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Me,
    Peer,
}

/// What is worth trying, besides checks of the announced addresses, which are always made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Those checks are enough.
    Checks,
    /// Both sides send to where the other will be seen.
    Predict,
    /// One side opens many sockets, the other tries random ports.
    Spray(Who),
    /// Too little is known: the one, then the other.
    Either(Who),
    /// Nothing is worth trying.
    Relay(Reason),
}

/// Why nothing is worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// UDP does not get out of our network.
    BlockedHere,
    /// UDP does not get out of theirs.
    BlockedThere,
    /// One port would have to be guessed on each side at once.
    BothRandom,
    /// Both are behind one address that does not turn packets around.
    NoHairpin,
}

impl Reason {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::BlockedHere => "Not worth trying: this network lets out no UDP.",
            Self::BlockedThere => "Not worth trying: the member's network lets out no UDP.",
            Self::BothRandom => {
                "Not worth trying: the routers change ports unpredictably and let in only who they sent to."
            }
            Self::NoHairpin => {
                "Not worth trying: both are behind one address, and its router does not send packets back in."
            }
        }
    }
}

impl Side {
    pub(crate) fn of(profile: &NatProfile, candidates: &[Candidate]) -> Self {
        let NatProfile { mapping, filtering, allocation, .. } = *profile;
        let public = profile.public.iter().copied().find(IpAddr::is_ipv4).or_else(|| seen(candidates));
        let open = |c: &Candidate| match c.kind {
            CandidateKind::Mapped => c.address.is_ipv4() && is_outermost(c, public),
            CandidateKind::Host => Some(c.address.ip()) == public,
            _ => false,
        };
        Self {
            nat: NatPolicies { mapping, filtering, allocation },
            reachable: candidates.iter().any(open),
            blocked: profile.udp_blocked == Some(true),
            public,
            hairpin: profile.hairpin,
        }
    }

    /// Everything that decides has been measured.
    pub(crate) const fn is_known(&self) -> bool {
        let NatPolicies { mapping, filtering, allocation } = self.nat;
        self.reachable
            || self.blocked
            || (filtering.is_some()
                && matches!(
                    (mapping, allocation),
                    (Some(Mapping::EndpointIndependent), _) | (Some(_), Some(_))
                ))
    }

    /// From 0, reachable by anybody, to 4; 5 where too little is known.
    const fn level(&self) -> u8 {
        match (self.reachable, self.nat.mapping, self.nat.filtering) {
            (true, ..) => 0,
            (_, Some(Mapping::EndpointIndependent), Some(Filtering::EndpointIndependent)) => 1,
            (_, Some(Mapping::EndpointIndependent), Some(Filtering::AddressDependent)) => 2,
            (_, Some(Mapping::EndpointIndependent), _) => 3,
            (_, Some(_), _) => 4,
            (_, None, _) => 5,
        }
    }

    fn traits(&self, hopeful: bool) -> Traits {
        let NatPolicies { mapping, filtering, allocation } = self.nat;
        let independent = self.reachable || mapping == Some(Mapping::EndpointIndependent);
        let counted = matches!(allocation, Some(Allocation::Preserving | Allocation::Contiguous { .. }));
        let guess = |known: bool, unknown: bool| known || (unknown && hopeful);
        Traits {
            independent,
            known: independent || guess(counted, allocation.is_none()),
            steady: independent || guess(mapping == Some(Mapping::AddressDependent), mapping.is_none()),
            open: self.reachable
                || guess(
                    matches!(filtering, Some(Filtering::EndpointIndependent | Filtering::AddressDependent)),
                    filtering.is_none(),
                ),
            anybody: self.reachable || filtering == Some(Filtering::EndpointIndependent),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Traits {
    /// All destinations share the port, and servers have seen it.
    independent: bool,
    known: bool,
    steady: bool,
    open: bool,
    /// Lets in everybody.
    anybody: bool,
}

/// Where servers see a side over IPv4.
pub(crate) fn seen(candidates: &[Candidate]) -> Option<IpAddr> {
    let seen = |c: &&Candidate| c.kind == CandidateKind::ServerReflexive && c.address.is_ipv4();
    candidates.iter().find(seen).map(|c| c.address.ip())
}

/// Whether a port that a router opened is at the public address, as far as that is known. Behind a carrier it is not,
/// and nobody elsewhere reaches it.
pub(crate) fn is_outermost(mapped: &Candidate, public: Option<IpAddr>) -> bool {
    public.is_none_or(|public| mapped.address.ip() == public)
}

/// What is worth trying. Both sides come to the same result, seen from their own side.
pub(crate) fn plan(me: &Side, peer: &Side) -> Plan {
    if me.blocked {
        return Plan::Relay(Reason::BlockedHere);
    }
    if peer.blocked {
        return Plan::Relay(Reason::BlockedThere);
    }
    let together = me.public.is_some() && me.public == peer.public;
    if together && me.hairpin == Some(false) && peer.hairpin == Some(false) {
        return Plan::Relay(Reason::NoHairpin);
    }
    if checks_do(me.traits(false), peer.traits(false)) {
        return Plan::Checks;
    }
    if me.is_known() && peer.is_known() {
        return of_traits(me.traits(false), peer.traits(false));
    }
    match of_traits(me.traits(true), peer.traits(true)) {
        Plan::Relay(reason) => Plan::Relay(reason),
        _ => Plan::Either(guess_opener(me, peer)),
    }
}

/// Whether this side proposes: the one with the better NAT, whose packets the other can expect.
pub(crate) fn leads(me: &Side, peer: &Side, controlling: bool) -> bool {
    match me.level().cmp(&peer.level()) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => controlling,
    }
}

/// Where too little is known: the side with the worse NAT is likelier to have random ports.
fn guess_opener(me: &Side, peer: &Side) -> Who {
    let random = |side: &Side| side.nat.allocation == Some(Allocation::Random);
    match (random(me) && !peer_steadier(peer, me), me.level() > peer.level()) {
        (true, _) | (false, true) => Who::Me,
        (false, false) => Who::Peer,
    }
}

fn peer_steadier(peer: &Side, me: &Side) -> bool {
    peer.level() > me.level()
}

/// Whether checks between the announced addresses meet: one side's reach the other, and the answer comes back.
fn checks_do(one: Traits, other: Traits) -> bool {
    let arrives = |from: Traits, to: Traits| to.anybody || (to.independent && (to.open || from.independent));
    let answered = |from: Traits, to: Traits| from.open || to.independent;
    let works = |from: Traits, to: Traits| arrives(from, to) && answered(from, to);
    works(one, other) || works(other, one)
}

fn of_traits(me: Traits, peer: Traits) -> Plan {
    match (me.known, peer.known) {
        (true, true) => Plan::Predict,
        (true, false) => known_and_random(me, peer, Who::Peer),
        (false, true) => known_and_random(peer, me, Who::Me),
        (false, false) => both_random(me, peer),
    }
}

/// `opener` is the one whose ports are random.
fn known_and_random(known: Traits, random: Traits, opener: Who) -> Plan {
    let heard = known.open && (known.steady || random.steady || random.open);
    if heard {
        Plan::Predict
    } else if known.steady || random.open {
        Plan::Spray(opener)
    } else {
        Plan::Relay(Reason::BothRandom)
    }
}

fn both_random(me: Traits, peer: Traits) -> Plan {
    // An opener whose port is steady answers from the port at which it was found.
    let opener = match (me.open, peer.open) {
        (true, true) if peer.steady && !me.steady => Who::Peer,
        (true, _) if me.steady || peer.open => Who::Me,
        (_, true) if peer.steady => Who::Peer,
        (true, false) if peer.steady => Who::Me,
        (false, true) if me.steady => Who::Peer,
        _ => return Plan::Relay(Reason::BothRandom),
    };
    Plan::Spray(opener)
}

#[cfg(test)]
mod tests {
    use partyline_nat::{Rules, oracle};

    use super::*;

    fn side(rules: &Rules) -> Side {
        let nat = NatPolicies {
            mapping: Some(rules.mapping),
            filtering: Some(rules.filtering),
            allocation: Some(rules.allocation),
        };
        Side { nat, ..Side::default() }
    }

    #[test]
    fn a_plan_is_made_exactly_where_a_direct_path_is_possible() {
        let all: Vec<Rules> = Rules::all_types(2).collect();
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            let plan = plan(&side(one), &side(other));
            let hopeless = matches!(plan, Plan::Relay(_));
            let (a, b) = (one.short(), other.short());
            assert_eq!(hopeless, oracle::direct(one, other).is_err(), "{a} with {b}: {plan:?}");
        }
    }

    #[test]
    fn both_sides_make_the_same_plan() {
        let mirrored = |plan| match plan {
            Plan::Spray(Who::Me) => Plan::Spray(Who::Peer),
            Plan::Spray(Who::Peer) => Plan::Spray(Who::Me),
            other => other,
        };
        let all: Vec<Side> = Rules::all_types(2).map(|rules| side(&rules)).collect();
        let mut ties = 0;
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            assert!(leads(one, other, true) != leads(other, one, false));
            if plan(one, other) != mirrored(plan(other, one)) {
                // Where either may open, whoever proposes decides.
                assert!(matches!(plan(one, other), Plan::Spray(_)));
                ties += 1;
            }
        }
        assert!(ties <= 16, "{ties}");
    }

    #[test]
    fn nothing_is_tried_without_udp_or_a_way_back_in() {
        let open = side(&Rules::all_types(1).next().unwrap());
        let blocked = Side { blocked: true, ..open };
        assert_eq!(plan(&blocked, &open), Plan::Relay(Reason::BlockedHere));
        assert_eq!(plan(&open, &blocked), Plan::Relay(Reason::BlockedThere));
        let public = Some(IpAddr::from([198, 51, 100, 1]));
        let shared = Side { public, hairpin: Some(false), ..open };
        assert_eq!(plan(&shared, &shared), Plan::Relay(Reason::NoHairpin));
        let turning = Side { hairpin: Some(true), ..shared };
        assert_eq!(plan(&turning, &turning), Plan::Checks);
    }

    #[test]
    fn a_port_opened_below_a_carrier_reaches_nobody() {
        let seen = |kind, ip: [u8; 4]| Candidate { kind, address: (ip, 2000).into() };
        let public = seen(CandidateKind::ServerReflexive, [198, 51, 100, 1]);
        let of = |ip| Side::of(&NatProfile::default(), &[public, seen(CandidateKind::Mapped, ip)]);
        assert!(of([198, 51, 100, 1]).reachable && !of([100, 64, 0, 1]).reachable);
    }

    #[test]
    fn what_is_not_known_is_tried() {
        let unknown = Side::default();
        assert!(matches!(plan(&unknown, &unknown), Plan::Either(_)));
        let reachable = Side { reachable: true, ..unknown };
        assert_eq!(plan(&unknown, &reachable), Plan::Checks);
    }
}
