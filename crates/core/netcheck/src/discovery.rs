//! NAT behavior discovery (RFC 5780) for one address family: the [`Context`] of one measurement and its [`Schedule`].

use std::{net::SocketAddr, time::Instant};

use partyline_model::{CheckTopic, SocketId};
use tracing::{debug, trace};

use crate::{
    address::Family,
    api::{Event, PortPair},
    client::{Client, Response},
    context::{ContactProgress, Context, DiscoveryConfig, Observation, Policies, Reference, SocketRoles},
    lifetime::LifetimeTest,
    purpose::Purpose,
    schedule::Schedule,
    stun::{Id, ResponseRouting},
};

/// Servers with two addresses that are remembered.
const MAX_REFERENCES: usize = 4;

/// Whether a server saw the same mapping of a socket as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuity {
    Same,
    /// What was measured no longer holds together.
    Changed,
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct BehaviorDiscovery {
    context: Context,
    schedule: Schedule,
}

impl BehaviorDiscovery {
    pub(crate) fn new(config: DiscoveryConfig) -> Self {
        Self { context: Context::new(config), schedule: Schedule::default() }
    }

    /// Returns true if all tests ended.
    pub(crate) const fn is_done(&self) -> bool {
        self.schedule.is_done()
    }

    /// Returns true if a server responded, so that there is something to measure with.
    pub(crate) fn has_begun(&self) -> bool {
        !self.context.contacts.is_empty()
    }

    pub(crate) fn is_testing(&self, topic: CheckTopic) -> bool {
        match topic {
            CheckTopic::Address => !self.has_begun(),
            CheckTopic::Ipv6 => self.has_begun() && !self.is_done(),
            topic => self.schedule.is_testing(topic),
        }
    }

    pub(crate) fn policies(&self) -> Policies {
        Policies { mapping: self.schedule.mapping_policy(&self.context), ..self.context.policies }
    }

    /// Returns why policies are unknown, in words for a person.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = &'static str> {
        self.schedule.gaps()
    }

    /// Returns true if members were asked for packets.
    pub(crate) const fn has_asked_members(&self) -> bool {
        self.schedule.has_asked_members()
    }

    pub(crate) const fn set_observers_available(&mut self, available: bool) {
        self.context.config.observers_available = available;
    }

    pub(crate) const fn set_main_is_mapped(&mut self, mapped: bool) {
        self.context.config.main_is_mapped = mapped;
    }

    pub(crate) fn set_port_pair(&mut self, pair: PortPair) {
        self.schedule.offer_port_pair(pair, &self.context);
    }

    /// Measures from probe sockets, unless a test has begun.
    pub(crate) fn assign_sockets(&mut self, probes: &[(SocketId, u16)]) {
        if self.schedule.has_begun() || probes.is_empty() {
            return;
        }
        debug!(count = probes.len(), "probe sockets assigned");
        self.context.roles = SocketRoles::new(probes);
        self.context.references.iter_mut().for_each(|reference| reference.untouched = true);
    }

    /// Adds a server with two addresses. `untouched` says that the main socket has sent nothing to the second one.
    pub(crate) fn add_reference(&mut self, reference: Reference) {
        let Context { references, roles, .. } = &mut self.context;
        let known = references.iter().any(|known| known.server == reference.server);
        if !known && references.len() < MAX_REFERENCES {
            let untouched = reference.untouched || roles.filtering != SocketId::MAIN;
            debug!(server = %reference.server, other = %reference.other, untouched, "server with two addresses found");
            references.push(Reference { untouched, ..reference });
        }
    }

    /// Takes the response of a server to the main socket.
    pub(crate) fn on_contact(&mut self, response: &Response) -> Continuity {
        let contacts = &mut self.context.contacts;
        if response.binding.is_some() && !contacts.contains(&response.destination) {
            contacts.push(response.destination);
        }
        self.observe(response)
    }

    /// Takes the response to a test's request.
    pub(crate) fn on_response(&mut self, now: Instant, response: &Response) -> Continuity {
        if response.late {
            trace!(server = %response.destination, purpose = ?response.purpose, reason = "late", "response dropped");
            return Continuity::Same;
        }
        let answered = response.binding.is_some();
        let expected = response.from_expected_source;
        self.schedule.on_outcome(now, response.purpose, answered, expected);
        match response.purpose {
            // Only the response from where the server was asked shows a mapping that the test's socket used.
            Purpose::FilteringRound { routing, .. } if routing != ResponseRouting::Default || !expected => {
                Continuity::Same
            }
            Purpose::Hairpin => Continuity::Same,
            _ => self.observe(response),
        }
    }

    /// A test's request timed out.
    pub(crate) fn on_timeout(&mut self, now: Instant, purpose: Purpose) {
        self.schedule.on_outcome(now, purpose, false, false);
    }

    /// A packet to this computer's own reflexive address came back in.
    pub(crate) fn on_hairpinned(&mut self) {
        self.schedule.on_hairpinned();
    }

    /// Takes a packet that a member may have sent. False if no test waits for it.
    pub(crate) fn on_indication(
        &mut self,
        now: Instant,
        client: &Client,
        packet: (SocketId, SocketAddr, Id),
    ) -> bool {
        self.schedule.on_indication(now, &self.context, client, packet)
    }

    /// Runs the tests as far as they can go.
    pub(crate) fn step(&mut self, now: Instant, progress: ContactProgress, client: &mut Client) {
        self.context.progress = progress;
        if self.has_begun() {
            self.schedule.step(now, &mut self.context, client);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.schedule.poll_event()
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.schedule.poll_timeout(now)
    }

    /// Begins the test of the mapping lifetime with the sockets of this measurement, where there is something to test.
    pub(crate) fn lifetime_test(&self, now: Instant) -> Option<LifetimeTest> {
        LifetimeTest::new(now, &self.context, self.context.reference())
    }

    fn observe(&mut self, response: &Response) -> Continuity {
        let Some(binding) = response.binding else { return Continuity::Same };
        let &Response { socket, destination, sent_at, received_at, .. } = response;
        let reflexive = binding.reflexive;
        debug_assert_eq!(Family::of(destination), Family::of(reflexive), "the parser compares them");
        let observation = Observation { destination, reflexive, sent_at, received_at };
        if self.context.observations.insert(socket, observation) {
            return Continuity::Same;
        }
        debug!(?socket, server = %destination, %reflexive, reason = "another mapping than before", "mapping changed");
        self.context.inconsistent |= socket == self.context.roles.mapping;
        Continuity::Changed
    }
}
