//! The filtering test by members of the party, where no server can respond from another address.
//!
//! A probe socket that has sent to servers only has a reflexive address. Members send a packet there. Its arrival proves
//! endpoint-independent filtering. Its absence proves nothing, since the members' own networks may have
//! dropped it; a member with two ports can show more ([`crate::port_pair`]).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Filtering, SocketId};
use tracing::debug;

use crate::{
    address::is_beyond_nat,
    api::FilteringProbeRequest,
    client::{Client, Request},
    context::{Context, Finding, Unknown},
    purpose::Purpose,
    stun::Id,
};

/// How long a packet may take, including the request for it.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1200);

const NO_REFLEXIVE_ADDRESS: Unknown = Unknown("no STUN server responded to the probe socket");
const NOTHING_ARRIVED: Unknown = Unknown("no packet from a member arrived, which proves nothing");

/// The test under way.
#[derive(Debug)]
pub(crate) struct ObserverTest {
    stage: Stage,
    /// The request to members that was not taken yet.
    request: Option<FilteringProbeRequest>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Waiting,
    /// A server is asked for the socket's reflexive address.
    LearningAddress {
        open: bool,
    },
    Listening {
        request: FilteringProbeRequest,
        until: Instant,
        arrived: bool,
    },
}

impl ObserverTest {
    pub(crate) const fn new() -> Self {
        Self { stage: Stage::Waiting, request: None }
    }

    /// Returns the request to members, once.
    pub(crate) const fn take_request(&mut self) -> Option<FilteringProbeRequest> {
        self.request.take()
    }

    /// The request for the reflexive address was answered, or timed out.
    pub(crate) const fn on_outcome(&mut self) {
        if let Stage::LearningAddress { open } = &mut self.stage {
            *open = false;
        }
    }

    /// Takes a Binding indication. False if it has another token.
    pub(crate) fn on_indication(
        &mut self,
        context: &Context,
        client: &Client,
        socket: SocketId,
        source: SocketAddr,
        token: Id,
    ) -> bool {
        let Stage::Listening { request, arrived, .. } = &mut self.stage else { return false };
        if request.token != token {
            return false;
        }
        let stranger = client.destinations(socket).all(|sent| sent.ip() != source.ip());
        let right_socket = socket == context.roles.filtering;
        if stranger && right_socket && is_beyond_nat(source, request.to) {
            debug!(%source, ?socket, "filtering probe of a member arrived");
            *arrived = true;
        } else {
            debug!(
                %source, ?socket, stranger, right_socket, reason = "the NAT may have turned it around or let it in",
                "filtering probe dropped"
            );
        }
        true
    }

    pub(crate) fn step(
        &mut self,
        now: Instant,
        context: &Context,
        client: &mut Client,
    ) -> Option<Finding<Filtering>> {
        if let Stage::Waiting = self.stage {
            self.stage = Stage::LearningAddress { open: learn_address(now, context, client) };
        }
        if let Stage::LearningAddress { open: false } = self.stage {
            let Some(seen) = context.observations.first_of(context.roles.filtering) else {
                return Some(Err(NO_REFLEXIVE_ADDRESS));
            };
            let request = FilteringProbeRequest { to: seen.reflexive, token: client.random_id() };
            debug!(to = %request.to, "filtering probes requested from members");
            self.request = Some(request);
            self.stage = Stage::Listening { request, until: now + PROBE_TIMEOUT, arrived: false };
        }
        match self.stage {
            Stage::Listening { arrived: true, .. } => Some(Ok(Filtering::EndpointIndependent)),
            Stage::Listening { until, .. } if until <= now => Some(Err(NOTHING_ARRIVED)),
            _ => None,
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Listening { until, .. } => Some(until).filter(|until| *until > now),
            Stage::Waiting | Stage::LearningAddress { .. } => None,
        }
    }
}

/// Returns true if a request was needed and sent.
fn learn_address(now: Instant, context: &Context, client: &mut Client) -> bool {
    let socket = context.roles.filtering;
    let server = context.contacts.iter().copied().find(SocketAddr::is_ipv4);
    let unseen = context.observations.first_of(socket).is_none();
    let Some(server) = server.filter(|_| unseen) else { return false };
    let delivery = context.config.retransmit();
    client.send(now, Request::plain(socket, server, Purpose::LearnReflexive, delivery));
    true
}

#[cfg(test)]
mod tests {
    use partyline_model::{Allocation, Mapping};
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{TestNat, reference};

    const MEMBER: ([u8; 4], u16) = ([11, 0, 7, 1], 41_641);

    /// Runs the test with a packet from this address in response to the request.
    fn run(filtering: Filtering, source: SocketAddr, token: impl Fn(Id) -> Id) -> Finding<Filtering> {
        let rules = Rules::new(Mapping::EndpointIndependent, filtering, Allocation::Preserving);
        let mut nat = TestNat::new(rules);
        nat.context.contacts.push(reference().server);
        let mut test = ObserverTest::new();
        nat.run_with(
            &mut test,
            |test, now, context, client| test.step(now, context, client),
            |test, _, _, _| test.on_outcome(),
            |test, nat| {
                if let Some(request) = test.take_request()
                    && let Some(socket) = nat.inbound(source, request.to)
                {
                    let token = token(request.token);
                    test.on_indication(&nat.context, &nat.client, socket, source, token);
                }
            },
        )
    }

    #[test]
    fn arriving_packet_proves_endpoint_independent_filtering() {
        let open = Filtering::EndpointIndependent;
        assert_eq!(run(open, MEMBER.into(), |token| token), Ok(open));
    }

    #[test]
    fn missing_packet_proves_nothing() {
        for closed in [Filtering::AddressDependent, Filtering::AddressAndPortDependent] {
            assert_eq!(run(closed, MEMBER.into(), |token| token), Err(NOTHING_ARRIVED));
        }
    }

    #[test]
    fn packet_from_a_server_or_from_behind_the_same_carrier_proves_nothing() {
        for ip in [reference().server.ip(), [11, 0, 0, 99].into(), [192, 168, 1, 9].into()] {
            let source = SocketAddr::new(ip, 9);
            assert_eq!(
                run(Filtering::EndpointIndependent, source, |token| token),
                Err(NOTHING_ARRIVED),
                "{ip}"
            );
        }
    }

    #[test]
    fn packet_with_another_token_proves_nothing() {
        let finding = run(Filtering::EndpointIndependent, MEMBER.into(), |token| token.map(|byte| !byte));
        assert_eq!(finding, Err(NOTHING_ARRIVED));
    }
}
