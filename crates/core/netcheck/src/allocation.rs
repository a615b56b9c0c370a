//! The allocation test: how the ports of new mappings are chosen, as fresh sockets show one after the other.

use std::time::Instant;

use partyline_model::{Allocation, SocketId};
use tracing::debug;

use crate::{
    address::Family,
    client::{Client, Request},
    context::{Context, Finding, Unknown},
    infer::{self, Samples},
    purpose::Purpose,
};

const UNKNOWN_PORT: Unknown = Unknown("allocation needs the socket's own port");
const UNKNOWN_ORDER: Unknown = Unknown("allocation needs three fresh mappings in a known order");

/// The test under way.
#[derive(Debug)]
pub(crate) struct AllocationTest {
    /// The sockets that send one after the other.
    in_turn: Vec<SocketId>,
    next: usize,
    open: bool,
}

impl AllocationTest {
    /// Begins a test that sends from these sockets in turn; no other socket of this computer makes mappings meanwhile.
    pub(crate) const fn new(in_turn: Vec<SocketId>) -> Self {
        Self { in_turn, next: 0, open: false }
    }

    /// The request under way was answered, or timed out.
    pub(crate) const fn on_outcome(&mut self) {
        self.open = false;
    }

    pub(crate) fn step(
        &mut self,
        now: Instant,
        context: &Context,
        client: &mut Client,
    ) -> Option<Finding<Allocation>> {
        if self.open {
            return None;
        }
        // Over IPv6 there is nothing to allocate.
        let seen = context.observations.first_of(context.roles.mapping);
        let server = seen.map(|seen| seen.destination).filter(std::net::SocketAddr::is_ipv4);
        let (Some(server), Some(socket)) = (server, self.in_turn.get(self.next).copied()) else {
            return Some(self.conclude(context, client));
        };
        let delivery = context.config.retransmit();
        client.send(now, Request::plain(socket, server, Purpose::Allocate, delivery));
        (self.next, self.open) = (self.next + 1, true);
        None
    }

    fn conclude(&self, context: &Context, client: &Client) -> Finding<Allocation> {
        let roles = &context.roles;
        if !roles.ports.contains_key(&roles.mapping) {
            debug!(reason = UNKNOWN_PORT.0, "allocation test ended");
            return Err(UNKNOWN_PORT);
        }
        let filtering = (!roles.is_shared()).then_some(roles.filtering);
        let sockets = [roles.mapping].into_iter().chain(filtering).chain(roles.fresh.iter().copied());
        let samples: Vec<_> = sockets.filter_map(|socket| self.samples(socket, context, client)).collect();
        let finding = infer::allocation(&samples).ok_or(UNKNOWN_ORDER);
        let ports = |s: &Samples| s.observations.iter().map(|o| o.reflexive.port()).collect::<Vec<_>>();
        debug!(
            ?finding, count = samples.len(),
            ports = ?samples.iter().map(|s| (s.local_port, ports(s), s.complete, s.in_turn)).collect::<Vec<_>>(),
            "allocation test ended"
        );
        finding
    }

    fn samples(&self, socket: SocketId, context: &Context, client: &Client) -> Option<Samples> {
        let observations = context.observations.of(socket);
        let answered = client
            .destinations(socket)
            .filter(|sent| Family::of(*sent) == Family::V4)
            .all(|sent| observations.iter().any(|o| o.destination == sent));
        let complete = answered && (socket != SocketId::MAIN || context.config.main_is_fresh);
        let local_port = *context.roles.ports.get(&socket)?;
        Some(Samples { local_port, complete, in_turn: self.in_turn.contains(&socket), observations })
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{Filtering, Mapping};
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{TestNat, reference};

    fn nat(allocation: Allocation) -> TestNat {
        let filtering = Filtering::AddressAndPortDependent;
        let mut nat = TestNat::new(Rules::new(Mapping::EndpointIndependent, filtering, allocation));
        nat.observe(nat.context.roles.mapping, reference().server);
        nat
    }

    fn run(nat: &mut TestNat) -> Finding<Allocation> {
        let mut test = AllocationTest::new(nat.context.roles.fresh.clone());
        nat.run(
            &mut test,
            |test, now, context, client| test.step(now, context, client),
            |test, _, _, _| test.on_outcome(),
        )
    }

    #[test]
    fn each_allocation_policy_is_found() {
        for allocation in [Allocation::Preserving, Allocation::Contiguous { delta: -3 }, Allocation::Random] {
            assert_eq!(run(&mut nat(allocation)), Ok(allocation));
        }
    }

    #[test]
    fn two_mappings_are_too_few() {
        let mut nat = nat(Allocation::Random);
        nat.context.roles.fresh.truncate(1);
        assert_eq!(run(&mut nat), Err(UNKNOWN_ORDER));
    }

    #[test]
    fn unanswered_requests_leave_allocation_unknown() {
        let mut nat = nat(Allocation::Contiguous { delta: 1 });
        nat.server_is_dead = true;
        assert_eq!(run(&mut nat), Err(UNKNOWN_ORDER));
    }

    #[test]
    fn unknown_local_port_leaves_allocation_unknown() {
        let mut nat = nat(Allocation::Preserving);
        nat.context.roles.ports.clear();
        assert_eq!(run(&mut nat), Err(UNKNOWN_PORT));
    }
}
