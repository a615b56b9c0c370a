//! The lifetime test: how long the NAT keeps an idle mapping (RFC 5780, section 4.6).
//!
//! Several sockets exchange packets with a server for three seconds, so that the NAT takes each for a conversation, and
//! then stay idle, each for another time. When that is over, another socket asks the server to respond to the reflexive
//! port of the idle one (RESPONSE-PORT): a response that arrives proves that the mapping was kept. Where none arrives,
//! the idle socket sends once more and the same is asked again; only if that response arrives, the mapping had expired.
//! The shortest time that was too long ends the test: after five minutes at most, with about fifteen packets a socket.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::SocketId;
use tracing::debug;

use crate::{
    client::{Client, Delivery, Request},
    context::{Context, Finding, Reference, Unknown},
    purpose::Purpose,
    stun::ResponseRouting,
};

/// Idle times in seconds, each just below what routers are configured to.
const IDLE_SECONDS: [u64; 6] = [14, 28, 58, 118, 178, 298];
const CREATE_REQUESTS: u8 = 3;
const CREATE_INTERVAL: Duration = Duration::from_millis(1100);
const CHECK_REQUESTS: u8 = 5;
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) const SHORTER: Unknown = Unknown("idle mappings live less than 14 seconds");
pub(crate) const UNFIT: Unknown = Unknown("no STUN server helps to measure how long idle mappings live");

/// The test under way.
#[derive(Debug)]
pub(crate) struct LifetimeTest {
    server: SocketAddr,
    /// Asks for the responses to the idle sockets.
    checker: SocketId,
    response_timeout: Duration,
    mappings: Vec<IdleMapping>,
}

#[derive(Debug)]
struct IdleMapping {
    socket: SocketId,
    idle_time: Duration,
    reflexive: Option<SocketAddr>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Creating {
        sent: u8,
        next_at: Instant,
    },
    Idle {
        until: Instant,
    },
    /// With `revived`, the socket has sent since, so that the mapping exists.
    Checking {
        sent: u8,
        next_at: Instant,
        revived: bool,
    },
    Reviving,
    Kept,
    Expired,
    Unclear,
}

impl IdleMapping {
    fn set_state(&mut self, state: State) {
        debug!(socket = ?self.socket, idle_s = self.idle_time.as_secs(), ?state, "idle mapping changes");
        self.state = state;
    }
}

impl LifetimeTest {
    /// Begins the test, or returns `None` where there is no NAT, no server that may know RESPONSE-PORT, or no socket
    /// besides those of the mapping and filtering tests.
    pub(crate) fn new(now: Instant, context: &Context, reference: Option<Reference>) -> Option<Self> {
        let roles = &context.roles;
        let outside = context.observations.first_of(roles.mapping)?.reflexive.ip();
        let server = reference?.server;
        if context.config.local.contains(&outside) || roles.fresh.is_empty() {
            return None;
        }
        let sockets = roles.fresh.iter().copied().chain([roles.filtering]);
        let mapping = |(socket, seconds)| IdleMapping {
            socket,
            idle_time: Duration::from_secs(seconds),
            reflexive: None,
            state: State::Creating { sent: 0, next_at: now },
        };
        let mappings: Vec<_> = sockets.zip(IDLE_SECONDS).map(mapping).collect();
        debug!(%server, count = mappings.len(), "lifetime test begins");
        let response_timeout = context.config.response_timeout;
        Some(Self { server, checker: roles.mapping, response_timeout, mappings })
    }

    /// The server saw a mapping.
    pub(crate) fn on_created(&mut self, now: Instant, index: u8, reflexive: SocketAddr) {
        let Some(mapping) = self.mappings.get_mut(usize::from(index)) else { return };
        mapping.reflexive = Some(reflexive);
        if mapping.state == State::Reviving {
            mapping.set_state(State::Checking { sent: 0, next_at: now, revived: true });
        }
    }

    /// A request that makes or revives a mapping timed out.
    pub(crate) fn on_timeout(&mut self, index: u8) {
        if let Some(mapping) = self.mappings.get_mut(usize::from(index)) {
            mapping.set_state(State::Unclear);
        }
    }

    /// A response arrived at the idle socket that another one had asked for.
    pub(crate) fn on_checked(&mut self, socket: SocketId, index: u8) {
        let Some(mapping) = self.mappings.get_mut(usize::from(index)) else { return };
        match mapping.state {
            State::Checking { revived: true, .. } if mapping.socket == socket => {
                mapping.set_state(State::Expired);
                let expired = mapping.idle_time;
                self.mappings.retain(|mapping| mapping.idle_time <= expired);
            }
            State::Checking { revived: false, .. } if mapping.socket == socket => {
                mapping.set_state(State::Kept);
            }
            _ => {}
        }
    }

    /// The server ignored RESPONSE-PORT, or refused a request.
    pub(crate) fn on_unfit(&mut self) {
        self.mappings.iter_mut().for_each(|mapping| mapping.set_state(State::Unclear));
    }

    /// Does what is due. Once nothing is left to find, returns the longest idle time that a mapping outlived.
    pub(crate) fn step(&mut self, now: Instant, client: &mut Client) -> Option<Finding<Duration>> {
        for index in 0..self.mappings.len() {
            self.advance(now, index);
            self.send_due(now, index, client);
        }
        let over =
            |mapping: &IdleMapping| matches!(mapping.state, State::Kept | State::Expired | State::Unclear);
        self.mappings.iter().all(over).then(|| self.conclude())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = |mapping: &IdleMapping| match mapping.state {
            State::Creating { next_at, .. } | State::Checking { next_at, .. } => Some(next_at),
            State::Idle { until } => Some(until),
            State::Reviving | State::Kept | State::Expired | State::Unclear => None,
        };
        self.mappings.iter().filter_map(due).min()
    }

    /// Goes on to the next state where the present one is over.
    fn advance(&mut self, now: Instant, index: usize) {
        let mapping = &mut self.mappings[index];
        let next = match mapping.state {
            State::Creating { sent: CREATE_REQUESTS, next_at } if next_at <= now => {
                let until = now + mapping.idle_time - CREATE_INTERVAL;
                if mapping.reflexive.is_some() { State::Idle { until } } else { State::Unclear }
            }
            State::Idle { until } if until <= now => {
                State::Checking { sent: 0, next_at: now, revived: false }
            }
            State::Checking { sent: CHECK_REQUESTS, next_at, revived: true } if next_at <= now => {
                State::Unclear
            }
            _ => return,
        };
        mapping.set_state(next);
    }

    fn send_due(&mut self, now: Instant, index: usize, client: &mut Client) {
        let number = u8::try_from(index).unwrap_or(u8::MAX);
        let mapping = &mut self.mappings[index];
        let delivery = Delivery::Retransmit { timeout: self.response_timeout };
        let create = Request::plain(mapping.socket, self.server, Purpose::CreateMapping(number), delivery);
        match (mapping.state, mapping.reflexive) {
            (State::Creating { sent, next_at }, _) if next_at <= now => {
                client.send(now, create);
                mapping.state = State::Creating { sent: sent + 1, next_at: now + CREATE_INTERVAL };
            }
            (State::Checking { sent: CHECK_REQUESTS, next_at, revived: false }, _) if next_at <= now => {
                client.send(now, create);
                mapping.set_state(State::Reviving);
            }
            (State::Checking { sent, next_at, revived }, Some(reflexive)) if next_at <= now => {
                let routing = ResponseRouting::ToPort(reflexive.port());
                let purpose = Purpose::CheckMapping(number);
                let (socket, delivery) = (self.checker, Delivery::Once);
                client.send(now, Request { socket, routing, purpose, delivery, ..create });
                mapping.state = State::Checking { sent: sent + 1, next_at: now + CHECK_INTERVAL, revived };
            }
            _ => {}
        }
    }

    fn conclude(&self) -> Finding<Duration> {
        let longest = |state| self.mappings.iter().filter(|m| m.state == state).map(|m| m.idle_time).max();
        let finding = match (longest(State::Kept), longest(State::Expired)) {
            (Some(idle_time), _) => Ok(idle_time),
            (None, Some(_)) => Err(SHORTER),
            (None, None) => Err(UNFIT),
        };
        let states = self.mappings.iter().map(|m| (m.idle_time.as_secs(), m.state)).collect::<Vec<_>>();
        debug!(?finding, ?states, "lifetime test ended");
        finding
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{Allocation, Filtering, Mapping};
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{OUTSIDE, Outcome, TestNat, reference};

    fn nat(lifetime: u64) -> TestNat {
        let filtering = Filtering::AddressAndPortDependent;
        let rules = Rules::new(Mapping::EndpointIndependent, filtering, Allocation::Random);
        let mut nat = TestNat::new(Rules { lifetime: Duration::from_secs(lifetime), ..rules });
        nat.observe(nat.context.roles.mapping, reference().server);
        nat
    }

    fn run(nat: &mut TestNat) -> Finding<Duration> {
        let mut test =
            LifetimeTest::new(nat.now, &nat.context, Some(reference())).expect("a NAT and sockets");
        nat.run(
            &mut test,
            |test, now, _, client| test.step(now, client),
            |test, now, _, outcome| match outcome {
                Outcome::Response(response) => match (response.purpose, response.binding) {
                    (Purpose::CreateMapping(index), Some(binding)) => {
                        test.on_created(now, index, binding.reflexive);
                    }
                    _ => test.on_unfit(),
                },
                Outcome::AtOtherSocket(socket, Purpose::CheckMapping(index)) => {
                    test.on_checked(*socket, *index);
                }
                Outcome::TimedOut(Purpose::CreateMapping(index)) => test.on_timeout(*index),
                _ => {}
            },
        )
    }

    #[test]
    fn longest_idle_time_that_a_mapping_outlives_is_found() {
        for (lifetime, found) in [(20, 14), (30, 28), (59, 58), (120, 118), (179, 178), (900, 298)] {
            assert_eq!(run(&mut nat(lifetime)), Ok(Duration::from_secs(found)), "{lifetime} s");
        }
    }

    #[test]
    fn lifetime_below_the_shortest_idle_time_is_found_to_be_shorter() {
        assert_eq!(run(&mut nat(10)), Err(SHORTER));
    }

    #[test]
    fn server_without_response_port_leaves_lifetime_unknown() {
        let mut nat = nat(120);
        nat.ignores_response_port = true;
        assert_eq!(run(&mut nat), Err(UNFIT));
    }

    #[test]
    fn silent_server_leaves_lifetime_unknown() {
        let mut nat = nat(120);
        nat.server_is_dead = true;
        assert_eq!(run(&mut nat), Err(UNFIT));
    }

    #[test]
    fn without_a_nat_there_is_nothing_to_measure() {
        let mut nat = nat(120);
        nat.context.config.local.push(OUTSIDE);
        assert!(LifetimeTest::new(nat.now, &nat.context, Some(reference())).is_none());
    }
}
