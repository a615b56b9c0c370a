//! The hairpinning test: whether the NAT forwards packets between two inside sockets (RFC 4787, section 6).
//!
//! Two sockets send to each other's reflexive addresses, side by side, so that each opens the NAT for the other. One
//! packet that arrives proves that the NAT turns packets around. That none arrives counts only where the NAT had to let
//! them in: where mapping is endpoint-independent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Mapping, SocketId};
use tracing::{debug, trace};

use crate::{
    address::is_public,
    client::{Client, Delivery, Request},
    context::{Context, Finding, Observation, Unknown},
    purpose::Purpose,
};

const ROUND_INTERVAL: Duration = Duration::from_millis(40);
const ROUNDS: u32 = 6;
/// How long the packets of the last round may take.
const SETTLE_TIME: Duration = Duration::from_millis(300);

const NO_NAT: Unknown = Unknown("hairpinning needs a NAT and two sockets with the same public address");
const NO_ROOM: Unknown =
    Unknown("hairpinning cannot be excluded: the NAT may have had no room for a mapping");

/// A test under way.
#[derive(Debug)]
pub(crate) struct HairpinTest {
    ends: [(SocketId, SocketAddr); 2],
    rounds: u32,
    next_at: Instant,
    hairpinned: bool,
}

impl HairpinTest {
    /// Begins the test, if there are two sockets, and a NAT between them and the servers: without one this computer
    /// itself would bring the packets back.
    pub(crate) fn new(now: Instant, context: &Context) -> Finding<Self> {
        // Packets will be sent there, and a public server must not aim them at this computer's own network.
        let plausible =
            |seen: &Observation| is_public(seen.reflexive.ip()) || !is_public(seen.destination.ip());
        let end = |socket| {
            let seen = context.observations.first_of(socket).filter(plausible)?;
            Some((socket, seen.reflexive))
        };
        let fresh = context.roles.fresh.last().copied();
        let ends = end(context.roles.mapping).zip(fresh.and_then(end));
        let behind_nat = |((_, one), (_, other)): &((SocketId, SocketAddr), (SocketId, SocketAddr))| {
            one.ip() == other.ip() && one.is_ipv4() && !context.config.local.contains(&one.ip())
        };
        let (one, other) = ends.filter(behind_nat).ok_or(NO_NAT)?;
        Ok(Self { ends: [one, other], rounds: 0, next_at: now, hairpinned: false })
    }

    /// A packet that one of this computer's sockets sent arrived at another one.
    pub(crate) const fn on_hairpinned(&mut self) {
        self.hairpinned = true;
    }

    pub(crate) fn step(
        &mut self,
        now: Instant,
        context: &Context,
        client: &mut Client,
    ) -> Option<Finding<bool>> {
        let over = self.rounds >= ROUNDS && self.next_at <= now;
        if self.hairpinned || over {
            // A mapping that depends on the destination would be a new one here, for which the table may be full.
            let known = self.hairpinned || context.policies.mapping == Some(Mapping::EndpointIndependent);
            let finding = known.then_some(self.hairpinned).ok_or(NO_ROOM);
            debug!(?finding, count = self.rounds, "hairpinning test ended");
            return Some(finding);
        }
        if self.next_at <= now {
            self.send_round(now, client);
        }
        None
    }

    pub(crate) const fn poll_timeout(&self) -> Instant {
        self.next_at
    }

    fn send_round(&mut self, now: Instant, client: &mut Client) {
        let [(one, seen_one), (other, seen_other)] = self.ends;
        for (socket, destination) in [(one, seen_other), (other, seen_one)] {
            client.send(now, Request::plain(socket, destination, Purpose::Hairpin, Delivery::Once));
        }
        self.rounds += 1;
        trace!(count = self.rounds, %seen_one, %seen_other, "hairpinning round sent");
        self.next_at = now + if self.rounds < ROUNDS { ROUND_INTERVAL } else { SETTLE_TIME };
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{Allocation, Filtering};
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{OUTSIDE, TestNat, reference};

    fn nat(mapping: Mapping, hairpin: bool) -> TestNat {
        let rules = Rules::new(mapping, Filtering::AddressAndPortDependent, Allocation::Random);
        let mut nat = TestNat::new(Rules { hairpin, ..rules });
        nat.context.policies.mapping = Some(mapping);
        let fresh = *nat.context.roles.fresh.last().expect("a fresh socket");
        nat.observe(nat.context.roles.mapping, reference().server);
        nat.observe(fresh, reference().server);
        nat
    }

    fn run(nat: &mut TestNat) -> Finding<bool> {
        let mut test = HairpinTest::new(nat.now, &nat.context).expect("two sockets behind a NAT");
        nat.run_with(
            &mut test,
            |test, now, context, client| test.step(now, context, client),
            |_, _, _, _| {},
            |test, nat| {
                nat.flush();
                if std::mem::take(&mut nat.hairpinned) {
                    test.on_hairpinned();
                }
            },
        )
    }

    #[test]
    fn hairpinning_is_found_and_excluded_with_endpoint_independent_mapping() {
        for hairpin in [true, false] {
            assert_eq!(run(&mut nat(Mapping::EndpointIndependent, hairpin)), Ok(hairpin));
        }
    }

    #[test]
    fn missing_packets_prove_nothing_where_mapping_depends_on_the_destination() {
        assert_eq!(run(&mut nat(Mapping::AddressAndPortDependent, false)), Err(NO_ROOM));
    }

    #[test]
    fn public_server_cannot_aim_the_hairpinning_test_at_this_network() {
        let mut nat = TestNat::new(Rules::new(
            Mapping::EndpointIndependent,
            Filtering::EndpointIndependent,
            Allocation::Random,
        ));
        let sockets = [nat.context.roles.mapping, *nat.context.roles.fresh.last().expect("a fresh socket")];
        let (destination, now) = (reference().server, nat.now);
        for socket in sockets {
            let reflexive = ([192, 168, 1, 1], 53).into();
            let observation = Observation { destination, reflexive, sent_at: now, received_at: now };
            nat.context.observations.insert(socket, observation);
        }
        assert_eq!(HairpinTest::new(now, &nat.context).map(drop), Err(NO_NAT));
    }

    #[test]
    fn without_a_nat_hairpinning_stays_unknown() {
        let mut nat = nat(Mapping::EndpointIndependent, true);
        nat.context.config.local.push(OUTSIDE);
        assert_eq!(HairpinTest::new(nat.now, &nat.context).map(drop), Err(NO_NAT));
    }
}
