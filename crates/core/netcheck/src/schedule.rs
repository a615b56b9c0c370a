//! The order in which the tests of one measurement run. Only this file knows of more than one test.
//!
//! | test | begins when |
//! |---|---|
//! | filtering | a server responded |
//! | mapping | a server with two addresses is known or all were contacted; with one socket for both, after filtering |
//! | allocation | mapping ended and no server is contacted any more, since both make mappings |
//! | hairpinning | allocation ended |
//! | filtering proof | filtering looks closed and mapping ended; also allocation, if new mappings would disturb it |
//! | filtering by members | no server could tell |
//! | filtering by a member's two ports | a member offered them and mapping, allocation and hairpinning ended |

use std::{net::SocketAddr, time::Instant};

use partyline_model::{CheckTopic, Filtering, Mapping, SocketId};
use tracing::{debug, trace};

use crate::{
    allocation::AllocationTest,
    api::{Event, PortPair},
    client::Client,
    context::{Context, Finding, Unknown},
    filtering::{FilteringProof, FilteringTest, ServerVerdict},
    hairpin::HairpinTest,
    mapping::{self, MappingTest},
    observer::ObserverTest,
    port_pair::{self, PortPairTest},
    purpose::Purpose,
    stun::Id,
};

/// A test's place in the schedule.
#[derive(Debug, Default)]
enum Slot<T> {
    #[default]
    Waiting,
    Running(T),
    Done,
}

impl<T> Slot<T> {
    const fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    const fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    const fn running(&self) -> Option<&T> {
        if let Self::Running(test) = self { Some(test) } else { None }
    }

    const fn running_mut(&mut self) -> Option<&mut T> {
        if let Self::Running(test) = self { Some(test) } else { None }
    }
}

/// All tests of one measurement.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    filtering: Slot<FilteringTest>,
    proof: Slot<FilteringProof>,
    observer: Slot<ObserverTest>,
    port_pair: Slot<PortPairTest>,
    mapping: Slot<MappingTest>,
    allocation: Slot<AllocationTest>,
    hairpin: Slot<HairpinTest>,
    /// The ports that a member offered.
    offered: Option<PortPair>,
    /// True if the mapping test confirmed what it saw.
    mapping_confirmed: bool,
    members_asked: bool,
    unknown: Reasons,
}

/// Why policies are unknown.
#[derive(Debug, Clone, Copy, Default)]
struct Reasons {
    mapping: Option<Unknown>,
    filtering: Option<Unknown>,
    allocation: Option<Unknown>,
}

impl Schedule {
    /// Returns true if probe sockets may still be assigned.
    pub(crate) fn has_begun(&self) -> bool {
        let filtering = match &self.filtering {
            Slot::Waiting => false,
            Slot::Running(test) => test.has_begun(),
            Slot::Done => true,
        };
        filtering || !self.mapping.is_waiting()
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.are_others_done()
            && self.filtering.is_done()
            && self.proof.is_done()
            && self.observer.is_done()
            && self.port_pair.is_done()
    }

    /// Returns true if a topic's test is under way.
    pub(crate) fn is_testing(&self, topic: CheckTopic) -> bool {
        match topic {
            CheckTopic::Mapping => self.mapping.is_running(),
            CheckTopic::Filtering => {
                let by_server = self.filtering.running().is_some_and(FilteringTest::has_begun);
                let by_members = self.observer.is_running() || self.port_pair.is_running();
                by_server || self.proof.is_running() || by_members
            }
            CheckTopic::Allocation => self.allocation.is_running(),
            CheckTopic::Hairpin => self.hairpin.is_running(),
            CheckTopic::Address | CheckTopic::Ipv6 | CheckTopic::Lifetime => false,
        }
    }

    /// Returns why policies are unknown, in words for a person.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = &'static str> {
        let Reasons { mapping, filtering, allocation } = self.unknown;
        [mapping, filtering, allocation].into_iter().flatten().map(|unknown| unknown.0)
    }

    /// Returns true if members were asked for packets.
    pub(crate) const fn has_asked_members(&self) -> bool {
        self.members_asked
    }

    /// Takes two ports of a member. Useless ones are ignored.
    pub(crate) fn offer_port_pair(&mut self, pair: PortPair, context: &Context) {
        if port_pair::is_usable(context, pair) {
            debug!(first = %pair.first, second = %pair.second, "member offers two ports");
            self.offered = Some(pair);
        } else {
            debug!(first = %pair.first, second = %pair.second, reason = "useless", "member's ports ignored");
        }
    }

    /// Hands the outcome of a request to its test.
    pub(crate) fn on_outcome(&mut self, now: Instant, purpose: Purpose, answered: bool, from_expected: bool) {
        match purpose {
            Purpose::FilteringRound { run, round, routing } => {
                let honored = answered && from_expected;
                if let Some(test) = self.filtering.running_mut() {
                    test.on_response(now, (run, round), routing, honored);
                }
                if let Some(proof) = self.proof.running_mut() {
                    proof.on_response(now, (run, round), routing, honored);
                }
            }
            Purpose::CompareMapping => {
                self.mapping.running_mut().into_iter().for_each(|test| test.on_outcome(answered));
            }
            Purpose::OpenFilter => self.proof.running_mut().into_iter().for_each(FilteringProof::on_opened),
            Purpose::LearnReflexive => {
                self.observer.running_mut().into_iter().for_each(ObserverTest::on_outcome);
            }
            Purpose::VerifyMapping => {
                self.port_pair.running_mut().into_iter().for_each(|test| test.on_verified(answered));
            }
            Purpose::Allocate => {
                self.allocation.running_mut().into_iter().for_each(AllocationTest::on_outcome)
            }
            Purpose::Contact(_)
            | Purpose::Keepalive(_)
            | Purpose::Hairpin
            | Purpose::CreateMapping(_)
            | Purpose::CheckMapping(_) => {}
        }
    }

    /// A packet to this computer's own reflexive address came back in.
    pub(crate) fn on_hairpinned(&mut self) {
        self.hairpin.running_mut().into_iter().for_each(HairpinTest::on_hairpinned);
    }

    /// Takes a packet that a member may have sent. False if no test waits for its token.
    pub(crate) fn on_indication(
        &mut self,
        now: Instant,
        context: &Context,
        client: &Client,
        (socket, source, token): (SocketId, SocketAddr, Id),
    ) -> bool {
        let observer = self.observer.running_mut();
        let port_pair = self.port_pair.running_mut();
        observer.is_some_and(|test| test.on_indication(context, client, socket, source, token))
            || port_pair.is_some_and(|test| test.on_indication(now, socket, source, token))
    }

    /// Runs all tests as far as they can go.
    pub(crate) fn step(&mut self, now: Instant, context: &mut Context, client: &mut Client) {
        loop {
            context.policies.mapping = self.mapping_policy(context);
            let mut moved = self.step_filtering(now, context, client);
            moved |= self.step_proof(now, context, client);
            // A member's two ports tell more than the silence of all members, so they come first.
            moved |= self.step_port_pair(now, context, client);
            moved |= self.step_observer(now, context, client);
            moved |= self.step_mapping(now, context, client);
            moved |= self.step_allocation(now, context, client);
            moved |= self.step_hairpin(now, context, client);
            if !moved {
                return;
            }
        }
    }

    /// Returns what members are to be asked for next.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let probe = self.observer.running_mut().and_then(ObserverTest::take_request);
        let mut round = || self.port_pair.running_mut().and_then(PortPairTest::take_request);
        probe.map(Event::RequestFilteringProbe).or_else(|| round().map(Event::RequestProbeRound))
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        [
            self.filtering.running().and_then(|test| test.poll_timeout(now)),
            self.proof.running().and_then(|proof| proof.poll_timeout(now)),
            self.observer.running().and_then(|test| test.poll_timeout(now)),
            self.port_pair.running().and_then(|test| test.poll_timeout(now)),
            self.hairpin.running().map(HairpinTest::poll_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns the mapping policy as known by now. What a later observation contradicts was none.
    pub(crate) fn mapping_policy(&self, context: &Context) -> Option<Mapping> {
        match self.mapping {
            Slot::Waiting | Slot::Running(_) => mapping::provisional(context),
            Slot::Done => mapping::inferred(context).filter(|_| self.mapping_confirmed),
        }
    }

    const fn are_others_done(&self) -> bool {
        self.mapping.is_done() && self.allocation.is_done() && self.hairpin.is_done()
    }

    fn step_filtering(&mut self, now: Instant, context: &mut Context, client: &mut Client) -> bool {
        if self.filtering.is_waiting() {
            self.filtering = Slot::Running(FilteringTest::default());
        }
        let Some(test) = self.filtering.running_mut() else { return false };
        let Some(finding) = test.step(now, context, client) else { return false };
        self.filtering = Slot::Done;
        match finding {
            Ok(ServerVerdict::Closed { policy, reference }) => {
                debug!(?policy, server = %reference.server, reason = "no response from elsewhere", "filtering looks closed");
                context.fit_reference = Some(reference);
                self.proof = Slot::Running(FilteringProof::new(policy, reference));
            }
            Ok(ServerVerdict::Open { reference }) => {
                context.fit_reference = Some(reference);
                self.conclude_filtering(context, "server", Ok(Filtering::EndpointIndependent));
                self.proof = Slot::Done;
            }
            Err(unknown) => {
                self.conclude_filtering(context, "server", Err(unknown));
                self.proof = Slot::Done;
            }
        }
        true
    }

    /// The proof makes new mappings, which must not disturb the allocation test; those of an endpoint-independent NAT
    /// are no new ones.
    fn step_proof(&mut self, now: Instant, context: &mut Context, client: &mut Client) -> bool {
        let independent = context.policies.mapping == Some(Mapping::EndpointIndependent);
        let may_begin = self.mapping.is_done() && (independent || self.allocation.is_done());
        // Once begun it goes on, whatever is found of the mappings meanwhile: its timers run.
        let proof = self.proof.running_mut().filter(|proof| may_begin || proof.has_begun());
        let Some(proof) = proof else { return false };
        let Some(finding) = proof.step(now, context, client) else { return false };
        self.proof = Slot::Done;
        self.conclude_filtering(context, "proof", finding);
        true
    }

    fn step_observer(&mut self, now: Instant, context: &mut Context, client: &mut Client) -> bool {
        if self.observer.is_waiting() && !self.begin_observer(context) {
            return false;
        }
        // A member with two ports tells more, but the other tests must not be disturbed by it.
        let awaits_port_pair = self.offered.is_some() && !self.are_others_done();
        let Some(test) = self.observer.running_mut() else { return false };
        match test.step(now, context, client) {
            Some(Err(_)) if awaits_port_pair => {
                trace!(reason = "other tests still run", "filtering test by a member's two ports waits");
                false
            }
            Some(finding) => {
                self.observer = Slot::Done;
                self.conclude_filtering(context, "members", finding);
                true
            }
            None => false,
        }
    }

    /// Members may come while other tests still go on. They can send only to a socket that only servers know. Returns
    /// false while nothing can be said yet.
    fn begin_observer(&mut self, context: &Context) -> bool {
        if !(self.filtering.is_done() && self.proof.is_done()) {
            return false;
        }
        let wanted = context.policies.filtering.is_none() && !context.roles.is_shared();
        if wanted && context.config.observers_available {
            debug!(reason = "no server could tell", "filtering test by members begins");
            self.members_asked = true;
            self.observer = Slot::Running(ObserverTest::new());
        } else if !wanted || self.are_others_done() {
            debug!(
                wanted,
                available = context.config.observers_available,
                "members are not asked for packets"
            );
            self.observer = Slot::Done;
        }
        !self.observer.is_waiting()
    }

    fn step_port_pair(&mut self, now: Instant, context: &mut Context, client: &mut Client) -> bool {
        if self.port_pair.is_waiting() {
            let wanted = context.policies.filtering.is_none();
            let ready = self.observer.is_running() && self.are_others_done();
            let test = self
                .offered
                .filter(|_| wanted && ready)
                .and_then(|pair| PortPairTest::new(now, pair, context, client));
            self.port_pair = match test {
                Some(test) => {
                    self.observer = Slot::Done;
                    Slot::Running(test)
                }
                None if self.observer.is_done() => Slot::Done,
                None => Slot::Waiting,
            };
            return !self.port_pair.is_waiting();
        }
        let Some(test) = self.port_pair.running_mut() else { return false };
        let Some(finding) = test.step(now, context, client) else { return false };
        self.port_pair = Slot::Done;
        self.conclude_filtering(context, "port pair", finding);
        true
    }

    fn step_mapping(&mut self, now: Instant, context: &mut Context, client: &mut Client) -> bool {
        if self.mapping.is_waiting() {
            // Whatever a socket sends to is let in: one that also tests filtering must not do so before that is over.
            let ready = if context.roles.is_shared() {
                self.filtering.is_done()
            } else {
                context.progress.settled || !context.references.is_empty()
            };
            if !ready {
                return false;
            }
            debug!(shared = context.roles.is_shared(), progress = ?context.progress, "mapping test begins");
            self.mapping = Slot::Running(MappingTest::new());
        }
        let Some(test) = self.mapping.running_mut() else { return false };
        let Some(finding) = test.step(now, context, client) else { return false };
        self.mapping = Slot::Done;
        self.mapping_confirmed = finding.is_ok();
        self.unknown.mapping = finding.err();
        log("mapping", "servers", &finding);
        true
    }

    fn step_allocation(&mut self, now: Instant, context: &mut Context, client: &mut Client) -> bool {
        if self.allocation.is_waiting() {
            if !(self.mapping.is_done() && context.progress.all_contacted) {
                return false;
            }
            let fresh = self.fresh_sockets(context, client);
            debug!(count = fresh.len(), "allocation test begins");
            self.allocation = Slot::Running(AllocationTest::new(fresh));
        }
        let Some(test) = self.allocation.running_mut() else { return false };
        let Some(finding) = test.step(now, context, client) else { return false };
        self.allocation = Slot::Done;
        context.policies.allocation = finding.ok();
        self.unknown.allocation = finding.err();
        log("allocation", "servers", &finding);
        true
    }

    /// Returns the sockets that have sent nothing yet, with that of the filtering test if no server was fit for it.
    fn fresh_sockets(&self, context: &Context, client: &Client) -> Vec<SocketId> {
        let roles = &context.roles;
        let mut sent = client.destinations(roles.filtering).filter(SocketAddr::is_ipv4);
        let unused = self.filtering.is_done() && !roles.is_shared() && sent.next().is_none();
        roles.fresh.iter().copied().chain(unused.then_some(roles.filtering)).collect()
    }

    fn step_hairpin(&mut self, now: Instant, context: &mut Context, client: &mut Client) -> bool {
        if self.hairpin.is_waiting() {
            if !self.allocation.is_done() {
                return false;
            }
            match HairpinTest::new(now, context) {
                Ok(test) => {
                    debug!("hairpinning test begins");
                    self.hairpin = Slot::Running(test);
                }
                Err(unknown) => {
                    self.hairpin = Slot::Done;
                    log::<bool>("hairpin", "probe sockets", &Err(unknown));
                    return true;
                }
            }
        }
        let Some(test) = self.hairpin.running_mut() else { return false };
        let Some(finding) = test.step(now, context, client) else { return false };
        self.hairpin = Slot::Done;
        context.policies.hairpin = finding.ok();
        log("hairpin", "probe sockets", &finding);
        true
    }

    /// What members cannot tell does not hide why no server could.
    fn conclude_filtering(&mut self, context: &mut Context, from: &'static str, finding: Finding<Filtering>) {
        log("filtering", from, &finding);
        match finding {
            Ok(filtering) => {
                context.policies.filtering = Some(filtering);
                self.unknown.filtering = None;
            }
            Err(unknown) => self.unknown.filtering = self.unknown.filtering.or(Some(unknown)),
        }
    }
}

fn log<T: std::fmt::Debug>(test: &'static str, from: &'static str, finding: &Finding<T>) {
    match finding {
        Ok(policy) => debug!(test, ?policy, from, "policy found"),
        Err(unknown) => debug!(test, from, reason = unknown.0, "policy stays unknown"),
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::Allocation;
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{TestNat, reference};

    fn nat() -> TestNat {
        nat_that_maps(Mapping::AddressDependent)
    }

    fn nat_that_maps(mapping: Mapping) -> TestNat {
        let rules = Rules::new(mapping, Filtering::AddressAndPortDependent, Allocation::Random);
        let mut nat = TestNat::new(rules);
        nat.context.contacts.push(reference().server);
        nat
    }

    fn step(schedule: &mut Schedule, nat: &mut TestNat) {
        schedule.step(nat.now, &mut nat.context, &mut nat.client);
    }

    #[test]
    fn nothing_but_filtering_waits_for_a_server_before_one_with_two_addresses_is_known() {
        let (mut schedule, mut nat) = (Schedule::default(), nat());
        step(&mut schedule, &mut nat);
        assert!(!schedule.has_begun() && schedule.mapping.is_waiting());
        nat.context.references.push(reference());
        step(&mut schedule, &mut nat);
        assert!(schedule.has_begun() && schedule.mapping.is_running() && schedule.filtering.is_running());
        assert!(schedule.allocation.is_waiting() && schedule.hairpin.is_waiting());
    }

    #[test]
    fn with_a_shared_socket_mapping_waits_for_filtering() {
        let (mut schedule, mut nat) = (Schedule::default(), nat());
        nat.context.roles.filtering = nat.context.roles.mapping;
        nat.context.references.push(reference());
        step(&mut schedule, &mut nat);
        assert!(schedule.filtering.is_running() && schedule.mapping.is_waiting());
        schedule.filtering = Slot::Done;
        step(&mut schedule, &mut nat);
        assert!(schedule.mapping.is_running());
    }

    #[test]
    fn allocation_waits_until_no_server_is_contacted_any_more() {
        let (mut schedule, mut nat) = (Schedule::default(), nat());
        (schedule.filtering, schedule.mapping) = (Slot::Done, Slot::Done);
        nat.observe(nat.context.roles.mapping, reference().server);
        step(&mut schedule, &mut nat);
        assert!(schedule.allocation.is_waiting());
        nat.context.progress.all_contacted = true;
        step(&mut schedule, &mut nat);
        assert!(schedule.allocation.is_running());
    }

    #[test]
    fn proof_waits_for_allocation_where_it_would_make_mappings() {
        let (mut schedule, mut nat) = (Schedule::default(), nat());
        (schedule.filtering, schedule.mapping) = (Slot::Done, Slot::Done);
        let proof = FilteringProof::new(Filtering::AddressDependent, reference());
        schedule.proof = Slot::Running(proof);
        step(&mut schedule, &mut nat);
        assert!(nat.client.poll_transmit().is_none(), "mapping is not known to be independent");
        schedule.allocation = Slot::Done;
        step(&mut schedule, &mut nat);
        let opened = nat.client.poll_transmit().expect("the NAT is opened");
        assert_eq!(opened.destination, reference().other);
    }

    #[test]
    fn proof_that_has_begun_goes_on_when_the_mapping_policy_is_contradicted() {
        let (mut schedule, mut nat) = (Schedule::default(), nat());
        (schedule.filtering, schedule.mapping, schedule.allocation) = (Slot::Done, Slot::Done, Slot::Done);
        schedule.proof = Slot::Running(FilteringProof::new(Filtering::AddressDependent, reference()));
        step(&mut schedule, &mut nat);
        schedule.allocation = Slot::Waiting;
        schedule.on_outcome(nat.now, Purpose::OpenFilter, true, true);
        step(&mut schedule, &mut nat);
        assert!(schedule.proof.is_done() && schedule.allocation.is_waiting());
    }

    #[test]
    fn members_are_asked_only_if_no_server_could_tell() {
        for (known, available, asked) in [(true, true, false), (false, false, false), (false, true, true)] {
            let (mut schedule, mut nat) = (Schedule::default(), nat());
            (schedule.filtering, schedule.proof) = (Slot::Done, Slot::Done);
            nat.observe(nat.context.roles.filtering, reference().server);
            nat.context.policies.filtering = known.then_some(Filtering::AddressDependent);
            nat.context.config.observers_available = available;
            step(&mut schedule, &mut nat);
            let request = schedule.poll_event();
            assert_eq!(matches!(request, Some(Event::RequestFilteringProbe(_))), asked);
            assert_eq!(schedule.has_asked_members(), asked);
        }
    }

    #[test]
    fn port_pair_test_begins_when_the_other_tests_ended_even_if_the_members_were_silent() {
        let (mut schedule, mut nat) = (Schedule::default(), nat_that_maps(Mapping::EndpointIndependent));
        (schedule.filtering, schedule.proof) = (Slot::Done, Slot::Done);
        (schedule.mapping, schedule.allocation) = (Slot::Done, Slot::Done);
        schedule.mapping_confirmed = true;
        nat.context.config.observers_available = true;
        for socket in [0, 1, 2].map(SocketId::probe) {
            nat.observe(socket, reference().server);
        }
        nat.observe(SocketId::probe(0), ([11, 0, 2, 1], 3478).into());
        nat.context.roles.fresh.truncate(1);
        let hairpin = HairpinTest::new(nat.now, &nat.context).expect("two sockets behind a NAT");
        schedule.hairpin = Slot::Running(hairpin);
        step(&mut schedule, &mut nat);
        let port = |port| ([11, 0, 7, 1], port).into();
        schedule.offer_port_pair(PortPair { first: port(1), second: port(2) }, &nat.context);
        nat.now += std::time::Duration::from_secs(2);
        step(&mut schedule, &mut nat);
        assert!(schedule.observer.is_running(), "it waits for the other tests");
        schedule.hairpin = Slot::Done;
        step(&mut schedule, &mut nat);
        assert!(schedule.observer.is_done() && schedule.port_pair.is_running());
    }

    #[test]
    fn first_reason_stays_if_members_cannot_tell_and_goes_if_they_can() {
        let (mut schedule, mut nat) = (Schedule::default(), nat());
        let context = &mut nat.context;
        schedule.conclude_filtering(context, "server", Err(Unknown("first")));
        schedule.conclude_filtering(context, "members", Err(Unknown("second")));
        assert_eq!(schedule.gaps().collect::<Vec<_>>(), ["first"]);
        schedule.conclude_filtering(context, "port pair", Ok(Filtering::AddressDependent));
        assert_eq!(
            (schedule.gaps().count(), context.policies.filtering),
            (0, Some(Filtering::AddressDependent))
        );
    }
}
