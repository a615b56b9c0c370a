//! The filtering test: which packets a mapping lets in, as far as a server can tell (RFC 5780, section 4.4).
//!
//! [`FilteringTest`] has a server respond from its other port and its other address, to which the socket has sent
//! nothing. If no such response comes, the filter is closed, or the server cannot send from there: [`FilteringProof`]
//! opens the NAT for these addresses, after which responses from there have to arrive.

use std::{net::SocketAddr, time::Instant};

use partyline_model::{Filtering, Mapping};
use tracing::debug;

use crate::{
    client::{Client, Request},
    context::{Context, Finding, Reference, Unknown},
    filtering_rounds::{FilteringRounds, Goal, Verdict},
    purpose::Purpose,
    stun::ResponseRouting,
};

const NO_REFERENCE: Unknown = Unknown("no STUN server with two addresses: filtering cannot be tested");
const TOUCHED: Unknown = Unknown("every STUN server with two addresses was used before in this network");
const LOSSY: Unknown = Unknown("too many packets were lost to test filtering");
const UNFIT: Unknown = Unknown("a STUN server did not answer from where it was asked to");
const UNPROVEN: Unknown = Unknown("the STUN server's silence could not be told from the NAT's filtering");
/// The run number of the proof; those of the test count from 0, and there are never so many references.
const PROOF_RUN: u8 = u8::MAX;

/// What a server's responses showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerVerdict {
    /// The NAT filters nothing.
    Open { reference: Reference },
    /// Filtering is this policy if the server can respond from its other addresses.
    Closed { policy: Filtering, reference: Reference },
}

/// The test with one server after the other, until one is fit for it.
#[derive(Debug, Default)]
pub(crate) struct FilteringTest {
    used: Vec<SocketAddr>,
    rounds: Option<FilteringRounds>,
    reference: Option<Reference>,
}

impl FilteringTest {
    /// Returns true if requests were sent.
    pub(crate) const fn has_begun(&self) -> bool {
        !self.used.is_empty()
    }

    pub(crate) fn on_response(
        &mut self,
        now: Instant,
        run_and_round: (u8, u8),
        routing: ResponseRouting,
        honored: bool,
    ) {
        if let Some(rounds) = &mut self.rounds {
            rounds.on_response(now, run_and_round, routing, honored);
        }
    }

    pub(crate) fn step(
        &mut self,
        now: Instant,
        context: &Context,
        client: &mut Client,
    ) -> Option<Finding<ServerVerdict>> {
        loop {
            if self.rounds.is_none() && !self.begin_rounds(now, context, client) {
                return self.without_server(context);
            }
            let verdict = self.rounds.as_mut()?.step(now, client)?;
            let reference = self.reference?;
            let closed = |policy| Some(Ok(ServerVerdict::Closed { policy, reference }));
            match verdict {
                Verdict::Open => return Some(Ok(ServerVerdict::Open { reference })),
                Verdict::Closed { port_open: true } => return closed(Filtering::AddressDependent),
                Verdict::Closed { port_open: false } => return closed(Filtering::AddressAndPortDependent),
                Verdict::Lossy => return Some(Err(LOSSY)),
                Verdict::Unfit | Verdict::Proven => self.rounds = None,
            }
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.rounds.as_ref().and_then(|rounds| rounds.poll_timeout(now))
    }

    /// Begins with the next server whose other addresses the socket has not sent to.
    fn begin_rounds(&mut self, now: Instant, context: &Context, client: &Client) -> bool {
        let socket = context.roles.filtering;
        let fit = |r: &&Reference| {
            let unused = r.untouched && !self.used.contains(&r.server);
            unused && client.destinations(socket).all(|sent| !r.is_touched_by(sent))
        };
        let Some(reference) = context.references.iter().find(fit).copied() else { return false };
        let run = u8::try_from(self.used.len()).unwrap_or(PROOF_RUN - 1);
        self.used.push(reference.server);
        self.reference = Some(reference);
        self.rounds = Some(FilteringRounds::new(now, run, socket, reference, Goal::Measure));
        true
    }

    /// `None` while a fit server may still turn up.
    fn without_server(&self, context: &Context) -> Option<Finding<ServerVerdict>> {
        let reason = if self.has_begun() {
            UNFIT
        } else if context.references.is_empty() {
            NO_REFERENCE
        } else {
            TOUCHED
        };
        context.progress.settled.then_some(Err(reason))
    }
}

/// The proof that responses were missing because of the NAT's filtering.
#[derive(Debug)]
pub(crate) struct FilteringProof {
    policy: Filtering,
    reference: Reference,
    /// A response that the policy excludes arrived late.
    contradicted: bool,
    stage: ProofStage,
}

#[derive(Debug)]
enum ProofStage {
    Waiting,
    /// So many requests to the server's other addresses are open.
    Opening {
        open: u8,
    },
    Proving(FilteringRounds),
}

impl FilteringProof {
    pub(crate) const fn new(policy: Filtering, reference: Reference) -> Self {
        Self { policy, reference, contradicted: false, stage: ProofStage::Waiting }
    }

    /// Returns true if the NAT was or is being opened.
    pub(crate) const fn has_begun(&self) -> bool {
        !matches!(self.stage, ProofStage::Waiting)
    }

    /// A request that opens the NAT was answered, or timed out.
    pub(crate) const fn on_opened(&mut self) {
        if let ProofStage::Opening { open } = &mut self.stage {
            *open = open.saturating_sub(1);
        }
    }

    pub(crate) fn on_response(
        &mut self,
        now: Instant,
        run_and_round: (u8, u8),
        routing: ResponseRouting,
        honored: bool,
    ) {
        if let ProofStage::Proving(rounds) = &mut self.stage
            && rounds.on_response(now, run_and_round, routing, honored)
        {
            return;
        }
        let allowed = match routing {
            ResponseRouting::ChangePort => !self.is_by_port(),
            ResponseRouting::ChangeAddressAndPort => false,
            ResponseRouting::Default | ResponseRouting::ToPort(_) => true,
        };
        if honored && !allowed {
            debug!(policy = ?self.policy, ?routing, reason = "late response", "filtering verdict contradicted");
            self.contradicted = true;
        }
    }

    /// Begins by sending to the server's other addresses, which makes new mappings: the caller waits with the first call
    /// until no other test needs the order of allocations.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        context: &Context,
        client: &mut Client,
    ) -> Option<Finding<Filtering>> {
        if let ProofStage::Waiting = self.stage {
            self.stage = ProofStage::Opening { open: self.open_filter(now, context, client) };
        }
        if let ProofStage::Opening { open: 0 } = self.stage {
            match self.goal(context) {
                Ok(goal) => {
                    let socket = context.roles.filtering;
                    let rounds = FilteringRounds::new(now, PROOF_RUN, socket, self.reference, goal);
                    self.stage = ProofStage::Proving(rounds);
                }
                Err(proven) => return Some(self.conclude(proven)),
            }
        }
        let ProofStage::Proving(rounds) = &mut self.stage else { return None };
        let verdict = rounds.step(now, client)?;
        Some(self.conclude(verdict == Verdict::Proven))
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match &self.stage {
            ProofStage::Proving(rounds) => rounds.poll_timeout(now),
            ProofStage::Waiting | ProofStage::Opening { .. } => None,
        }
    }

    fn is_by_port(&self) -> bool {
        self.policy == Filtering::AddressAndPortDependent
    }

    fn open_filter(&self, now: Instant, context: &Context, client: &mut Client) -> u8 {
        let socket = context.roles.filtering;
        let other_port = self.is_by_port().then(|| self.reference.other_port());
        let mut open = 0;
        for destination in [Some(self.reference.other), other_port].into_iter().flatten() {
            if !client.has_sent_to(socket, destination) {
                let delivery = context.config.retransmit();
                client.send(now, Request::plain(socket, destination, Purpose::OpenFilter, delivery));
                open += 1;
            }
        }
        open
    }

    /// Returns what has to arrive, or whether the policy counts as proven without that. Responses from the other
    /// addresses can reach the mapping of the first requests only if the NAT uses it towards these too.
    fn goal(&self, context: &Context) -> Result<Goal, bool> {
        let seen = context.observations.of(context.roles.filtering);
        let responded = |address: SocketAddr| seen.iter().any(|o| o.destination == address);
        let port = self.is_by_port();
        let alive = responded(self.reference.other) && (!port || responded(self.reference.other_port()));
        match context.policies.mapping {
            _ if self.contradicted => Err(false),
            Some(Mapping::EndpointIndependent) => Ok(Goal::Prove { port, address: true }),
            Some(Mapping::AddressDependent) if port && alive => Ok(Goal::Prove { port, address: false }),
            dependent => Err(alive && dependent.is_some()),
        }
    }

    fn conclude(&self, proven: bool) -> Finding<Filtering> {
        let believed = proven && !self.contradicted;
        let finding = if believed { Ok(self.policy) } else { Err(UNPROVEN) };
        debug!(?finding, proven, contradicted = self.contradicted, "filtering proof ended");
        finding
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::Allocation;
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{Manners, Outcome, TestNat, reference};

    const POLICIES: [Filtering; 3] =
        [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];

    fn nat(filtering: Filtering) -> TestNat {
        let rules = Rules::new(Mapping::EndpointIndependent, filtering, Allocation::Preserving);
        let mut nat = TestNat::new(rules);
        nat.context.references.push(reference());
        nat.context.progress.settled = true;
        nat.context.policies.mapping = Some(Mapping::EndpointIndependent);
        nat
    }

    fn run_test(nat: &mut TestNat) -> Finding<ServerVerdict> {
        nat.run(
            &mut FilteringTest::default(),
            |test, now, context, client| test.step(now, context, client),
            |test, now, _, outcome| {
                if let Outcome::Response(response) = outcome
                    && let Purpose::FilteringRound { run, round, routing } = response.purpose
                {
                    test.on_response(now, (run, round), routing, response.from_expected_source);
                }
            },
        )
    }

    fn run_proof(nat: &mut TestNat, policy: Filtering) -> Finding<Filtering> {
        nat.run(
            &mut FilteringProof::new(policy, reference()),
            |proof, now, context, client| proof.step(now, context, client),
            |proof, now, _, outcome| match outcome {
                Outcome::Response(response) => match response.purpose {
                    Purpose::FilteringRound { run, round, routing } => {
                        proof.on_response(now, (run, round), routing, response.from_expected_source);
                    }
                    _ => proof.on_opened(),
                },
                Outcome::AtOtherSocket(..) | Outcome::TimedOut(_) => proof.on_opened(),
            },
        )
    }

    #[test]
    fn each_filtering_policy_is_found_and_proven() {
        for filtering in POLICIES {
            let mut nat = nat(filtering);
            match run_test(&mut nat) {
                Ok(ServerVerdict::Open { .. }) => assert_eq!(filtering, POLICIES[0]),
                Ok(ServerVerdict::Closed { policy, .. }) => {
                    assert_eq!((policy, run_proof(&mut nat, policy)), (filtering, Ok(filtering)));
                }
                Err(unknown) => panic!("{filtering:?}: {unknown:?}"),
            }
        }
    }

    #[test]
    fn server_that_ignores_change_request_is_unfit() {
        let mut nat = nat(POLICIES[2]);
        nat.manners = Manners::Ignores;
        assert_eq!(run_test(&mut nat), Err(UNFIT));
    }

    #[test]
    fn silence_of_a_server_that_cannot_send_from_its_other_address_is_not_believed() {
        let mut nat = nat(POLICIES[0]);
        nat.manners = Manners::Swallows;
        let Ok(ServerVerdict::Closed { policy, .. }) = run_test(&mut nat) else { panic!("it looks closed") };
        assert_eq!(run_proof(&mut nat, policy), Err(UNPROVEN));
    }

    #[test]
    fn response_that_the_policy_excludes_makes_it_unknown() {
        let mut nat = nat(POLICIES[2]);
        let Ok(ServerVerdict::Closed { policy, reference }) = run_test(&mut nat) else { panic!("closed") };
        let mut proof = FilteringProof::new(policy, reference);
        proof.on_response(nat.now, (0, 0), ResponseRouting::ChangeAddressAndPort, true);
        nat.context.policies.mapping = Some(Mapping::AddressAndPortDependent);
        let _ = proof.step(nat.now, &nat.context, &mut nat.client);
        (0..2).for_each(|_| proof.on_opened());
        assert_eq!(proof.step(nat.now, &nat.context, &mut nat.client), Some(Err(UNPROVEN)));
    }

    #[test]
    fn loss_of_every_second_packet_leaves_filtering_unknown() {
        let mut nat = nat(POLICIES[2]);
        nat.drop_every_second = true;
        assert_eq!(run_test(&mut nat), Err(LOSSY));
    }

    #[test]
    fn servers_that_cannot_tell_are_named_as_the_reason() {
        let mut none = nat(POLICIES[2]);
        none.context.references.clear();
        assert_eq!(run_test(&mut none), Err(NO_REFERENCE));
        let mut touched = nat(POLICIES[2]);
        touched.context.references[0].untouched = false;
        assert_eq!(run_test(&mut touched), Err(TOUCHED));
    }
}
