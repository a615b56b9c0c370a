//! The mapping test: which destinations share a mapping (RFC 5780, section 4.3).
//!
//! One socket sends a request to each of a server's four transport addresses, or to all servers there are;
//! [`crate::infer::mapping`] tells what the reflexive addresses mean. Where these differ, the first destination is asked
//! once more, so that a NAT that merely lost the mapping is not taken for one that maps by destination.

use std::{net::SocketAddr, time::Instant};

use partyline_model::{Mapping, SocketId};
use tracing::debug;

use crate::{
    client::{Client, Request},
    context::{Context, Finding, Unknown},
    infer,
    purpose::Purpose,
};

const TOO_FEW_ADDRESSES: Unknown = Unknown("mapping needs answers from two addresses and two ports");

/// The test under way.
#[derive(Debug)]
pub(crate) struct MappingTest {
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Comparing {
        open: u8,
    },
    /// The first destination is asked once more; with whether it responded, once that is known.
    Confirming {
        answered: Option<bool>,
    },
}

impl MappingTest {
    pub(crate) const fn new() -> Self {
        Self { stage: Stage::Comparing { open: 0 } }
    }

    /// A request was answered, or timed out.
    pub(crate) fn on_outcome(&mut self, answered: bool) {
        match &mut self.stage {
            Stage::Comparing { open } => *open = open.saturating_sub(1),
            Stage::Confirming { answered: known } => *known = known.or(Some(answered)),
        }
    }

    pub(crate) fn step(
        &mut self,
        now: Instant,
        context: &Context,
        client: &mut Client,
    ) -> Option<Finding<Mapping>> {
        if let Stage::Comparing { open } = self.stage {
            let open = open + send_requests(now, context, client, open);
            self.stage = Stage::Comparing { open };
            if open > 0 || !(context.progress.settled || context.reference().is_some()) {
                return None;
            }
            self.confirm(now, context, client);
        }
        match self.stage {
            Stage::Confirming { answered: Some(answered) } => Some(conclude(context, answered)),
            _ => None,
        }
    }

    fn confirm(&mut self, now: Instant, context: &Context, client: &mut Client) {
        let first = context.observations.first_of(context.roles.mapping);
        let independent = inferred(context) == Some(Mapping::EndpointIndependent);
        self.stage = match first {
            Some(first) if !independent => {
                debug!(server = %first.destination, reason = "mappings differ", "first mapping is confirmed");
                let (socket, delivery) = (context.roles.mapping, context.config.retransmit());
                client
                    .send(now, Request::plain(socket, first.destination, Purpose::CompareMapping, delivery));
                Stage::Confirming { answered: None }
            }
            first => Stage::Confirming { answered: Some(first.is_some()) },
        };
    }
}

/// Returns what the observations of the test's socket show.
pub(crate) fn inferred(context: &Context) -> Option<Mapping> {
    infer::mapping(&context.observations.of(context.roles.mapping)).filter(|_| !context.inconsistent)
}

/// Returns what can be said before the test has ended. Until its socket was seen twice, the main socket's observations
/// may show independence.
pub(crate) fn provisional(context: &Context) -> Option<Mapping> {
    if context.observations.of(context.roles.mapping).len() > 1 {
        return inferred(context);
    }
    let main = infer::mapping(&context.observations.of(SocketId::MAIN));
    main.filter(|mapping| *mapping == Mapping::EndpointIndependent && !context.config.main_is_mapped)
}

/// Sends to every destination that was not sent to yet: at once, or one after the other where no fresh sockets show the
/// order of allocations and this one has to. Returns the number of requests.
fn send_requests(now: Instant, context: &Context, client: &mut Client, open: u8) -> u8 {
    let (socket, delivery) = (context.roles.mapping, context.config.retransmit());
    let in_turn = context.roles.fresh.is_empty();
    let mut sent = 0;
    for destination in destinations(context) {
        if (in_turn && open + sent > 0) || client.has_sent_to(socket, destination) {
            continue;
        }
        client.send(now, Request::plain(socket, destination, Purpose::CompareMapping, delivery));
        sent += 1;
    }
    sent
}

fn destinations(context: &Context) -> Vec<SocketAddr> {
    let four = context.reference().map(|r| [r.server, r.other_port(), r.other_ip(), r.other]);
    let mut destinations: Vec<_> = four.into_iter().flatten().collect();
    for contact in &context.contacts {
        if !destinations.contains(contact) {
            destinations.push(*contact);
        }
    }
    destinations
}

fn conclude(context: &Context, confirmed: bool) -> Finding<Mapping> {
    let seen = context.observations.of(context.roles.mapping);
    let finding = inferred(context).filter(|_| confirmed).ok_or(TOO_FEW_ADDRESSES);
    debug!(
        ?finding, confirmed, inconsistent = context.inconsistent, count = seen.len(),
        observations = ?seen.iter().map(|o| (o.destination, o.reflexive)).collect::<Vec<_>>(),
        "mapping test ended"
    );
    finding
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use partyline_model::{Allocation, Filtering};
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{TestNat, reference, start};

    const MAPPINGS: [Mapping; 3] =
        [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];

    fn nat(mapping: Mapping) -> TestNat {
        TestNat::new(Rules::new(mapping, Filtering::AddressAndPortDependent, Allocation::Random))
    }

    /// Runs the test to its end.
    fn run(nat: &mut TestNat) -> Finding<Mapping> {
        let mut test = MappingTest::new();
        nat.run(
            &mut test,
            |test, now, context, client| test.step(now, context, client),
            |test, _, _, outcome| test.on_outcome(outcome.is_answered()),
        )
    }

    #[test]
    fn each_mapping_policy_is_found_with_a_server_with_two_addresses() {
        for mapping in MAPPINGS {
            let mut nat = nat(mapping);
            nat.context.references.push(reference());
            assert_eq!(run(&mut nat), Ok(mapping));
        }
    }

    #[test]
    fn single_server_with_one_address_leaves_mapping_unknown() {
        for mapping in MAPPINGS {
            let mut nat = nat(mapping);
            nat.context.contacts.push(reference().server);
            nat.context.progress.settled = true;
            assert_eq!(run(&mut nat), Err(TOO_FEW_ADDRESSES));
        }
    }

    #[test]
    fn mapping_lost_before_the_confirmation_leaves_mapping_unknown() {
        let mut nat = nat(Mapping::AddressAndPortDependent);
        nat.context.references.push(reference());
        nat.reset_nat_at(start() + Duration::from_millis(41));
        assert_eq!(run(&mut nat), Err(TOO_FEW_ADDRESSES));
    }

    #[test]
    fn silent_server_leaves_mapping_unknown() {
        let mut nat = nat(MAPPINGS[0]);
        nat.context.references.push(reference());
        nat.server_is_dead = true;
        assert_eq!(run(&mut nat), Err(TOO_FEW_ADDRESSES));
        assert_eq!(nat.client.counters.timeouts.mapping, 4);
    }
}
