//! Which methods are worth trying between two NATs.
//!
//! The strategy follows from the behavior of both NATs in the terms of RFC 4787; `docs/traversal.md` has the reasons.
//! Three properties of each side decide:
//!
//! - Its port is *known* if its mapping is endpoint-independent, or if ports are preserved or allocated contiguously.
//! - Its port is *steady* if it is the same for every port of the other side.
//! - It is *open* if its filtering accepts packets from every port of an address it has sent to.
//!
//! Properties that were not measured count as unfavorable at first, and as favorable if nothing would be left to try.
//! The result is checked against the oracle of `partyline-nat` for every pair of NAT types.

use std::net::IpAddr;

use partyline_model::{
    Allocation, Candidate, CandidateKind, Filtering, Mapping, NatProfile, SharedNat, is_shared,
};
use partyline_wire::punch::NatPolicies;

/// What is known about the NAT of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Side {
    pub(crate) nat: NatPolicies,
    /// Whether it has an address that anybody can reach: a public one, or a mapping that its router made on request.
    pub(crate) reachable: bool,
    /// Whether its network drops outgoing UDP.
    pub(crate) blocked: bool,
    /// Its public IPv4 address.
    pub(crate) public: Option<IpAddr>,
    /// Whether its router supports hairpinning (RFC 4787, section 6).
    pub(crate) hairpin: Option<bool>,
    /// Whether its network shows that a carrier's NAT is above it.
    pub(crate) carrier: bool,
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Local,
    Remote,
}

/// What to try besides checks of the announced candidates, which are always made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Those checks suffice.
    Checks,
    /// Both sides send to the ports at which the other is predicted to appear.
    Predict,
    /// The given side opens many sockets, and the other tries random ports.
    Spray(End),
    /// Too little is known: prediction first, then a spray to sockets of the given side.
    Either(End),
    /// No direct path is possible.
    Relay(Infeasible),
}

/// Why no direct path is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Infeasible {
    /// Our network drops outgoing UDP.
    BlockedHere,
    /// The peer's network drops outgoing UDP.
    BlockedThere,
    /// Both ports would have to be guessed at once.
    BothRandom,
    /// Both are behind one public address whose router does not support hairpinning.
    NoHairpin,
}

impl Infeasible {
    /// Returns the sentence shown to the user.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::BlockedHere => "Not possible: this network blocks UDP.",
            Self::BlockedThere => "Not possible: the member's network blocks UDP.",
            Self::BothRandom => {
                "Not possible: the routers change ports unpredictably, and accept packets only from ports they sent to."
            }
            Self::NoHairpin => {
                "Not possible: both are behind one public address, and its router does not route packets back inside (no hairpinning)."
            }
        }
    }
}

impl Side {
    /// Combines a measured or reported NAT profile with the candidates of the same side.
    pub(crate) fn of(profile: &NatProfile, candidates: &[Candidate]) -> Self {
        let NatProfile { mapping, filtering, allocation, .. } = *profile;
        let public =
            profile.public.iter().copied().find(IpAddr::is_ipv4).or_else(|| reflexive_ip(candidates));
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
            carrier: profile.carrier_nat == Some(true) || candidates.iter().any(is_below_carrier),
        }
    }

    /// Returns true if everything that decides has been measured.
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

    /// Returns the side with every combination of properties that are not known.
    fn completions(&self) -> impl Iterator<Item = Self> + use<> {
        fn all<T: Copy>(known: Option<T>, possible: &[T]) -> Vec<T> {
            known.map_or_else(|| possible.to_vec(), |known| vec![known])
        }
        let side = *self;
        let mappings =
            [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
        let filterings =
            [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
        let allocations = all(self.nat.allocation, &[Allocation::Preserving, Allocation::Random]);
        let filterings = all(self.nat.filtering, &filterings);
        let mappings = all(self.nat.mapping, &mappings).into_iter();
        let pairs =
            mappings.flat_map(move |mapping| filterings.clone().into_iter().map(move |f| (mapping, f)));
        pairs.flat_map(move |(mapping, filtering)| {
            let allocations = allocations.clone().into_iter();
            allocations.map(move |allocation| {
                let nat = NatPolicies {
                    mapping: Some(mapping),
                    filtering: Some(filtering),
                    allocation: Some(allocation),
                };
                Self { nat, ..side }
            })
        })
    }

    /// Returns how hard the side is to reach: from 0, reachable by anybody, to 4; 5 if too little is known.
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

    /// Returns the properties that decide. Unknown ones count as favorable if `optimistic`.
    fn traits(&self, optimistic: bool) -> Traits {
        let NatPolicies { mapping, filtering, allocation } = self.nat;
        let independent = self.reachable || mapping == Some(Mapping::EndpointIndependent);
        let counted = matches!(allocation, Some(Allocation::Preserving | Allocation::Contiguous { .. }));
        let guess = |known: bool, unknown: bool| known || (unknown && optimistic);
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
    /// All destinations share the port, and STUN servers have seen it.
    independent: bool,
    /// The port can be predicted.
    known: bool,
    /// The port is the same for every port of the other side.
    steady: bool,
    /// Packets are accepted from every port of an address that was sent to.
    open: bool,
    /// Packets are accepted from anybody.
    anybody: bool,
}

/// Returns the IPv4 address at which STUN servers see a side.
pub(crate) fn reflexive_ip(candidates: &[Candidate]) -> Option<IpAddr> {
    let reflexive = |c: &&Candidate| c.kind == CandidateKind::ServerReflexive && c.address.is_ipv4();
    candidates.iter().find(reflexive).map(|c| c.address.ip())
}

/// Returns true for an address in the space between a carrier's NAT and its customers.
fn is_below_carrier(candidate: &Candidate) -> bool {
    matches!(candidate.kind, CandidateKind::Host | CandidateKind::Mapped) && is_shared(candidate.address.ip())
}

/// Returns the NAT that both sides are behind, if it is known not to hairpin. One side's measurement holds for both.
pub(crate) fn shared_nat_without_hairpin(me: &Side, peer: &Side) -> Option<SharedNat> {
    let together = me.public.is_some() && me.public == peer.public;
    let measured = [me.hairpin, peer.hairpin];
    if !together || !measured.contains(&Some(false)) || measured.contains(&Some(true)) {
        return None;
    }
    Some(if me.carrier || peer.carrier { SharedNat::Carrier } else { SharedNat::Router })
}

/// Returns true if a port that a router opened is at the public address, as far as that is known. Behind a
/// carrier-grade NAT it is not, and nobody elsewhere can reach it.
pub(crate) fn is_outermost(mapped: &Candidate, public: Option<IpAddr>) -> bool {
    public.is_none_or(|public| mapped.address.ip() == public)
}

/// Returns what to try. Both sides come to the same strategy, each from its own point of view.
pub(crate) fn choose(me: &Side, peer: &Side) -> Strategy {
    if me.blocked {
        return Strategy::Relay(Infeasible::BlockedHere);
    }
    if peer.blocked {
        return Strategy::Relay(Infeasible::BlockedThere);
    }
    if shared_nat_without_hairpin(me, peer).is_some() {
        return Strategy::Relay(Infeasible::NoHairpin);
    }
    if checks_suffice(me.traits(false), peer.traits(false)) {
        return Strategy::Checks;
    }
    if me.is_known() && peer.is_known() {
        return strategy_for(me.traits(false), peer.traits(false));
    }
    if let Some(strategy) = strategy_whatever_is_found(me, peer) {
        return strategy;
    }
    match strategy_for(me.traits(true), peer.traits(true)) {
        Strategy::Relay(reason) => Strategy::Relay(reason),
        _ => Strategy::Either(likely_opener(me, peer)),
    }
}

/// Returns what to try if it is the same whatever the properties turn out to be that are not known yet, so that it need
/// not wait for them.
fn strategy_whatever_is_found(me: &Side, peer: &Side) -> Option<Strategy> {
    let pairs = me.completions().flat_map(|me| peer.completions().map(move |peer| (me, peer)));
    let mut strategies = pairs.map(|(me, peer)| {
        let (me, peer) = (me.traits(false), peer.traits(false));
        if checks_suffice(me, peer) { Strategy::Checks } else { strategy_for(me, peer) }
    });
    let first = strategies.next()?;
    (!matches!(first, Strategy::Relay(_)) && strategies.all(|strategy| strategy == first)).then_some(first)
}

/// Returns true if this side proposes attempts: the one with the better NAT.
pub(crate) fn is_proposer(me: &Side, peer: &Side, controlling: bool) -> bool {
    match me.level().cmp(&peer.level()) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => controlling,
    }
}

/// Returns which side should open sockets while too little is known: the one with the worse NAT, which is more likely
/// to allocate ports at random.
fn likely_opener(me: &Side, peer: &Side) -> End {
    let random = |side: &Side| side.nat.allocation == Some(Allocation::Random);
    match (random(me) && !is_worse(peer, me), me.level() > peer.level()) {
        (true, _) | (false, true) => End::Local,
        (false, false) => End::Remote,
    }
}

fn is_worse(peer: &Side, me: &Side) -> bool {
    peer.level() > me.level()
}

/// Returns true if checks between the announced candidates suffice: one side's reach the other, and the response
/// comes back.
fn checks_suffice(one: Traits, other: Traits) -> bool {
    let arrives = |from: Traits, to: Traits| to.anybody || (to.independent && (to.open || from.independent));
    let answered = |from: Traits, to: Traits| from.open || to.independent;
    let works = |from: Traits, to: Traits| arrives(from, to) && answered(from, to);
    works(one, other) || works(other, one)
}

fn strategy_for(me: Traits, peer: Traits) -> Strategy {
    match (me.known, peer.known) {
        (true, true) => Strategy::Predict,
        (true, false) => known_and_random(me, peer, End::Remote),
        (false, true) => known_and_random(peer, me, End::Local),
        (false, false) => both_random(me, peer),
    }
}

/// Plans for one side whose port is known and one, the `opener`, whose ports are random.
fn known_and_random(known: Traits, random: Traits, opener: End) -> Strategy {
    let reached = known.open && (known.steady || random.steady || random.open);
    if reached {
        Strategy::Predict
    } else if known.steady || random.open {
        Strategy::Spray(opener)
    } else {
        Strategy::Relay(Infeasible::BothRandom)
    }
}

fn both_random(me: Traits, peer: Traits) -> Strategy {
    // An opener whose port is steady responds from the very port at which it was found.
    let opener = match (me.open, peer.open) {
        (true, true) if peer.steady && !me.steady => End::Remote,
        (true, _) if me.steady || peer.open => End::Local,
        (_, true) if peer.steady => End::Remote,
        (true, false) if peer.steady => End::Local,
        (false, true) if me.steady => End::Remote,
        _ => return Strategy::Relay(Infeasible::BothRandom),
    };
    Strategy::Spray(opener)
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
    fn a_direct_strategy_is_chosen_exactly_where_a_direct_path_is_possible() {
        let all: Vec<Rules> = Rules::all_types(2).collect();
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            let strategy = choose(&side(one), &side(other));
            let infeasible = matches!(strategy, Strategy::Relay(_));
            let (a, b) = (one.short(), other.short());
            assert_eq!(infeasible, oracle::direct(one, other).is_err(), "{a} with {b}: {strategy:?}");
        }
    }

    #[test]
    fn both_sides_choose_the_same_strategy() {
        let mirrored = |strategy| match strategy {
            Strategy::Spray(End::Local) => Strategy::Spray(End::Remote),
            Strategy::Spray(End::Remote) => Strategy::Spray(End::Local),
            other => other,
        };
        let all: Vec<Side> = Rules::all_types(2).map(|rules| side(&rules)).collect();
        let mut ties = 0;
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            assert!(is_proposer(one, other, true) != is_proposer(other, one, false));
            if choose(one, other) != mirrored(choose(other, one)) {
                // Where either side may open, the proposer decides.
                assert!(matches!(choose(one, other), Strategy::Spray(_)));
                ties += 1;
            }
        }
        assert!(ties <= 16, "{ties}");
    }

    #[test]
    fn no_method_is_tried_without_udp_or_hairpinning() {
        let open = side(&Rules::all_types(1).next().unwrap());
        let blocked = Side { blocked: true, ..open };
        assert_eq!(choose(&blocked, &open), Strategy::Relay(Infeasible::BlockedHere));
        assert_eq!(choose(&open, &blocked), Strategy::Relay(Infeasible::BlockedThere));
        let public = Some(IpAddr::from([198, 51, 100, 1]));
        let shared = Side { public, hairpin: Some(false), ..open };
        assert_eq!(choose(&shared, &shared), Strategy::Relay(Infeasible::NoHairpin));
        let hairpinning = Side { hairpin: Some(true), ..shared };
        assert_eq!(choose(&hairpinning, &hairpinning), Strategy::Checks);
    }

    #[test]
    fn nat_without_hairpin_is_named_only_where_it_was_measured_and_is_shared() {
        let public = Some(IpAddr::from([198, 51, 100, 1]));
        let side = |hairpin| Side { public, hairpin, ..Side::default() };
        let (no, yes, unknown) = (side(Some(false)), side(Some(true)), side(None));
        for (me, peer) in [(no, no), (no, unknown), (unknown, no)] {
            assert_eq!(shared_nat_without_hairpin(&me, &peer), Some(SharedNat::Router));
        }
        let elsewhere = Side { public: Some([198, 51, 100, 2].into()), ..no };
        for (me, peer) in [(unknown, unknown), (no, yes), (yes, no), (no, elsewhere)] {
            assert_eq!(shared_nat_without_hairpin(&me, &peer), None, "{me:?} {peer:?}");
        }
        assert_eq!(
            shared_nat_without_hairpin(&Side { public: None, ..no }, &Side { public: None, ..no }),
            None
        );
    }

    #[test]
    fn carrier_shows_by_its_profile_or_by_an_address_of_its_customers() {
        let (measured, unknown) =
            (NatProfile { carrier_nat: Some(true), ..NatProfile::default() }, NatProfile::default());
        let host = |ip: [u8; 4]| [Candidate { kind: CandidateKind::Host, address: (ip, 2000).into() }];
        assert!(Side::of(&measured, &host([192, 168, 1, 2])).carrier);
        assert!(Side::of(&unknown, &host([100, 64, 3, 2])).carrier);
        assert!(!Side::of(&unknown, &host([192, 168, 1, 2])).carrier);
    }

    #[test]
    fn a_port_opened_behind_a_carrier_grade_nat_is_not_reachable() {
        let candidate = |kind, ip: [u8; 4]| Candidate { kind, address: (ip, 2000).into() };
        let public = candidate(CandidateKind::ServerReflexive, [198, 51, 100, 1]);
        let of = |ip| Side::of(&NatProfile::default(), &[public, candidate(CandidateKind::Mapped, ip)]);
        assert!(of([198, 51, 100, 1]).reachable && !of([100, 64, 0, 1]).reachable);
    }

    #[test]
    fn what_makes_no_difference_is_not_waited_for() {
        let named = |name: &str| side(&Rules::all_types(2).find(|rules| rules.short() == name).unwrap());
        let unfiltered = |side: Side| Side { nat: NatPolicies { filtering: None, ..side.nat }, ..side };
        let (restricted, symmetric) = (named("EI/PD/PP"), unfiltered(named("PD/PD/RD")));
        assert_eq!(choose(&restricted, &symmetric), Strategy::Spray(End::Remote));
        assert_eq!(choose(&symmetric, &restricted), Strategy::Spray(End::Local));
        let allocation = NatPolicies { allocation: None, ..symmetric.nat };
        assert!(matches!(choose(&restricted, &Side { nat: allocation, ..symmetric }), Strategy::Either(_)));
        assert!(matches!(choose(&named("PD/PD/PP"), &symmetric), Strategy::Either(_)), "relay or not");
    }

    #[test]
    fn methods_are_tried_while_too_little_is_known() {
        let unknown = Side::default();
        assert!(matches!(choose(&unknown, &unknown), Strategy::Either(_)));
        let reachable = Side { reachable: true, ..unknown };
        assert_eq!(choose(&unknown, &reachable), Strategy::Checks);
    }
}
