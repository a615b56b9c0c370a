//! Which allocations are requested and held, at which relay servers and over which transports.
//!
//! Every transport of every relay is one [`attempt::RelayAttempt`]. They are ranked: the preferred relay first, and
//! within a relay UDP before TCP before TLS. An attempt is made once its time has come and no better one works. At the
//! start that time is now for UDP, a second later for TCP and TLS together, so that networks without UDP are served
//! soon after, and four seconds later for the next relay. An attempt that failed waits with doubling, jittered pauses;
//! so a better one is found again some time after it came back, and what a worse one carries moves over before that
//! is given up.
//!
//! Once one relay works, the best attempt to another is made as well and kept ([`selected::SelectedRelays`]). That
//! allocation is a standby: its relayed address is announced and its channels are bound, so that packets take it at
//! once when the first relay falls silent. And since paths through both are measured from end to end, each pair of
//! members uses the relay that is nearer to the two of them.

mod attempt;
mod selected;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{SocketId, StreamId};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use tracing::debug;

use crate::{
    api::{Event, RelayServer, RelayTransport, Transmit},
    path::{AllocationId, Hop, Local},
    turn::{Allocation, AllocationChange, AllocationEnd, ServerMessage},
};

pub(crate) use attempt::AttemptState;
use attempt::RelayAttempt;
use selected::{SelectedRelays, expedite_standby};

/// How long an allocation is kept after a better one has taken its place, so that its packets can move over.
const RETIREMENT_PERIOD: Duration = Duration::from_secs(30);
/// Bounds the attempts considered.
const MAX_ATTEMPTS: usize = 24;

/// A change that concerns peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayChange {
    /// A relayed address was won or lost.
    Allocations,
    /// A server sees us at another public address than before.
    PublicAddress,
    /// The channel of this allocation to this peer address is bound.
    ChannelBound(AllocationId, SocketAddr),
}

/// The sinks a relay call writes to.
pub(crate) struct RelayOutput<'a> {
    pub(crate) transmits: &'a mut VecDeque<Transmit>,
    pub(crate) events: &'a mut VecDeque<Event>,
}

/// All attempts, best first, and the allocations they have requested or hold.
///
/// Invariant: every allocation belongs to exactly one attempt, which names it.
pub(crate) struct RelayPool {
    attempts: Vec<RelayAttempt>,
    allocations: BTreeMap<AllocationId, Allocation>,
    next_id: u32,
    rng: ChaCha20Rng,
    keepalive: Duration,
    changes: Vec<RelayChange>,
}

impl RelayPool {
    pub(crate) const fn new(rng: ChaCha20Rng, keepalive: Duration) -> Self {
        Self {
            attempts: Vec::new(),
            allocations: BTreeMap::new(),
            next_id: 0,
            rng,
            keepalive,
            changes: Vec::new(),
        }
    }

    /// Replaces the list of servers, preferred relay first. Allocations at servers that stay in the list are kept, and
    /// refreshed with the new credentials, since no allocation at Partyline's own relay outlives those it was granted with.
    pub(crate) fn set_servers(
        &mut self,
        now: Instant,
        mut servers: Vec<RelayServer>,
        out: &mut RelayOutput<'_>,
    ) {
        let mut names: Vec<String> = Vec::new();
        for server in &servers {
            if !names.contains(&server.name) {
                names.push(server.name.clone());
            }
        }
        let rank = |server: &RelayServer| names.iter().position(|name| *name == server.name).unwrap_or(0);
        servers.sort_by_key(|server| (rank(server), server.transport));
        servers.truncate(MAX_ATTEMPTS);
        debug!(count = servers.len(), relays = names.len(), "relay servers set");
        let mut old = std::mem::take(&mut self.attempts);
        for server in servers {
            let rank = rank(&server);
            let Some(at) = old.iter().position(|attempt| attempt.is_to(&server)) else {
                self.attempts.push(RelayAttempt::new(now, server, rank));
                continue;
            };
            let attempt = old.swap_remove(at);
            let allocation = attempt.allocation.and_then(|id| self.allocations.get_mut(&id));
            if let Some(allocation) = allocation {
                allocation.set_credentials(&server.username, &server.password);
            }
            self.attempts.push(attempt.with_server(server, rank));
        }
        for id in old.iter_mut().filter_map(|attempt| attempt.reset("server no longer listed")) {
            self.close(now, id, out);
        }
        self.rearrange(now);
    }

    /// Reacts to a possible change of network: reopens streams, and asks servers whether they still know us.
    pub(crate) fn on_network_changed(&mut self, now: Instant, out: &mut RelayOutput<'_>) {
        for at in 0..self.attempts.len() {
            let Some(attempt) = self.attempts.get_mut(at) else { continue };
            attempt.retry_now(now);
            let Some(id) = attempt.allocation else { continue };
            let held_over_udp = self
                .allocations
                .get_mut(&id)
                .filter(|held| held.relayed().is_some() && matches!(held.local, Local::Socket(_)));
            if let Some(allocation) = held_over_udp {
                allocation.verify_now(now, out.transmits);
            } else if let Some(id) = attempt.reset("network changed") {
                self.close(now, id, out);
            }
        }
        self.rearrange(now);
    }

    /// Returns the servers that leave questions about an allocation unanswered.
    pub(crate) fn unanswered(&self, now: Instant) -> impl Iterator<Item = SocketAddr> {
        let unanswered = self.allocations.values().filter(move |allocation| allocation.is_unanswered(now));
        unanswered.map(|allocation| allocation.server.address)
    }

    /// Asks every server that granted an allocation whether it still stands.
    pub(crate) fn verify(&mut self, now: Instant, out: &mut RelayOutput<'_>) {
        self.allocations.values_mut().for_each(|allocation| allocation.verify(now, out.transmits));
    }

    pub(crate) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        self.allocations.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.allocations.get_mut(&id)
    }

    /// Returns true if an allocation is only kept until its peers have moved to a better one.
    pub(crate) fn is_retiring(&self, id: AllocationId) -> bool {
        self.attempts.iter().any(|attempt| attempt.allocation == Some(id) && attempt.retire_at.is_some())
    }

    /// Returns the allocations whose relayed addresses are announced, best first.
    pub(crate) fn announced(&self) -> impl Iterator<Item = &Allocation> {
        let kept = self.attempts.iter().filter(|attempt| attempt.retire_at.is_none());
        let allocations = kept.filter_map(|attempt| self.allocations.get(&attempt.allocation?));
        allocations.filter(|allocation| allocation.relayed().is_some())
    }

    /// Returns each server with the state of its attempt, best first.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&RelayServer, AttemptState)> {
        self.attempts.iter().map(|attempt| (&attempt.server, attempt.state()))
    }

    fn at_source(&mut self, local: Local, source: SocketAddr) -> impl Iterator<Item = &mut Allocation> {
        self.allocations.values_mut().filter(move |allocation| match local {
            Local::Socket(_) => allocation.local == local && allocation.server.address == source,
            Local::Stream(_) => allocation.local == local,
            Local::Member(_) => false,
        })
    }

    /// Returns the allocation and the peer that ChannelData is from, and where the data lies.
    pub(crate) fn channel_data(
        &mut self,
        local: Local,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Option<(AllocationId, SocketAddr, std::ops::Range<usize>)> {
        self.at_source(local, source).find_map(|allocation| {
            let (peer, payload) = allocation.channel_data(bytes)?;
            Some((allocation.id, peer, payload))
        })
    }

    /// Passes a STUN message to the allocation it belongs to, if there is one. Returns the allocation, and the message
    /// as [`Allocation::handle_message`] understood it; changes are applied already.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        local: Local,
        source: SocketAddr,
        bytes: &[u8],
        out: &mut RelayOutput<'_>,
    ) -> Option<(AllocationId, ServerMessage)> {
        let (id, message) = self
            .at_source(local, source)
            .map(|allocation| (allocation.id, allocation.handle_message(now, bytes, out.transmits)))
            .find(|(_, message)| *message != ServerMessage::Foreign)?;
        if let ServerMessage::Response(Some(change)) = message {
            self.apply(now, id, change, out.events);
        }
        Some((id, message))
    }

    /// Returns how packets leave to a peer address through an allocation, once the channel is bound.
    pub(crate) fn hop(&self, id: AllocationId, peer: SocketAddr) -> Option<Hop> {
        self.allocations.get(&id)?.hop(peer)
    }

    /// Requests the allocation whose stream is open now.
    pub(crate) fn on_stream_opened(&mut self, now: Instant, stream: StreamId, out: &mut RelayOutput<'_>) {
        let local = Local::Stream(stream);
        if let Some(allocation) = self.allocations.values_mut().find(|held| held.local == local) {
            debug!(stream = stream.0, relay = %allocation.server.name, "relay stream open");
            allocation.start(now, out.transmits);
        }
    }

    /// Ends the allocation whose stream has been closed.
    pub(crate) fn on_stream_closed(&mut self, now: Instant, stream: StreamId) {
        let local = Local::Stream(stream);
        let id = self.allocations.values().find(|held| held.local == local).map(|held| held.id);
        if let Some(id) = id {
            debug!(stream = stream.0, "relay stream closed");
            self.on_ended(now, id, AllocationEnd::StreamClosed);
        }
    }

    fn apply(
        &mut self,
        now: Instant,
        id: AllocationId,
        change: AllocationChange,
        events: &mut VecDeque<Event>,
    ) {
        match change {
            AllocationChange::ChannelBound(peer) => self.changes.push(RelayChange::ChannelBound(id, peer)),
            AllocationChange::Granted => self.on_granted(now, id),
            AllocationChange::Ended(end) => {
                if let Some(Local::Stream(stream)) = self.allocations.get(&id).map(|held| held.local) {
                    events.push_back(Event::CloseStream(stream));
                }
                self.on_ended(now, id, end);
            }
        }
    }

    /// Takes the changes that concern peers since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<RelayChange> {
        std::mem::take(&mut self.changes)
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let selected = SelectedRelays::of(&self.attempts);
        let waiting = |(rank, attempt): &(usize, &RelayAttempt)| {
            attempt.allocation.is_none() && selected.wants(&self.attempts, *rank)
        };
        let start = self.attempts.iter().enumerate().filter(waiting).map(|(_, attempt)| attempt.not_before);
        let retire = self.attempts.iter().filter_map(|attempt| attempt.retire_at);
        start.chain(retire).chain(self.allocations.values().filter_map(Allocation::deadline)).min()
    }

    /// Does what is due: keeps allocations, retires those that were replaced, and makes new attempts.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut RelayOutput<'_>) {
        let mut changes = Vec::new();
        for allocation in self.allocations.values_mut() {
            let due = allocation.deadline().is_some_and(|at| at <= now);
            let change = due.then(|| allocation.handle_timeout(now, out.transmits)).flatten();
            changes.extend(change.map(|change| (allocation.id, change)));
        }
        for (id, change) in changes {
            self.apply(now, id, change, out.events);
        }
        self.retire(now, out);
        let selected = SelectedRelays::of(&self.attempts);
        for at in 0..self.attempts.len() {
            let due = |attempt: &RelayAttempt| attempt.allocation.is_none() && attempt.not_before <= now;
            if selected.wants(&self.attempts, at) && self.attempts.get(at).is_some_and(due) {
                self.open(now, at, out);
            }
        }
    }

    fn open(&mut self, now: Instant, at: usize, out: &mut RelayOutput<'_>) {
        let Ok(rng) = ChaCha20Rng::from_rng(&mut self.rng) else { return };
        let Some(attempt) = self.attempts.get_mut(at) else { return };
        self.next_id += 1;
        let (id, stream) = (AllocationId(self.next_id), StreamId(self.next_id));
        let server = attempt.server.clone();
        let credentials = attempt.on_requested(now, id);
        let udp = server.transport == RelayTransport::Udp;
        let local = if udp { Local::Socket(SocketId::MAIN) } else { Local::Stream(stream) };
        let RelayServer { transport, address, host, .. } = server.clone();
        let mut allocation = Allocation::new(id, server, local, rng, self.keepalive, credentials);
        if udp {
            allocation.start(now, out.transmits);
        } else {
            debug!(stream = stream.0, ?transport, %address, "opening relay stream");
            out.events.push_back(Event::OpenStream { stream, transport, address, host });
        }
        self.allocations.insert(id, allocation);
    }

    fn on_granted(&mut self, now: Instant, id: AllocationId) {
        let mapped = self.allocations.get(&id).and_then(Allocation::mapped);
        debug!(allocation = %id, held = self.allocations.len(), "allocation usable");
        let attempt = self.attempts.iter_mut().find(|attempt| attempt.allocation == Some(id));
        if attempt.is_some_and(|attempt| attempt.on_granted(now, mapped)) {
            debug!(?mapped, reason = "relay server sees another address", "public address changed");
            self.changes.push(RelayChange::PublicAddress);
        }
        self.rearrange(now);
    }

    fn on_ended(&mut self, now: Instant, id: AllocationId, end: AllocationEnd) {
        let ended = self.allocations.remove(&id);
        let Some(at) = self.attempts.iter().position(|attempt| attempt.allocation == Some(id)) else {
            return;
        };
        let was_granted = ended.as_ref().is_some_and(|allocation| allocation.relayed().is_some());
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let mut others = self.attempts.iter().enumerate().filter(|(rank, _)| *rank != at);
        let alone = !others.any(|(_, attempt)| attempt.is_granted());
        if let Some(attempt) = self.attempts.get_mut(at) {
            attempt.on_ended(now, end, alone, share, ended.and_then(Allocation::into_credentials));
        }
        if was_granted {
            debug!(allocation = %id, alone, reason = ?end, "relayed address lost; other relays wait their turn");
            // The lost one has the first turn.
            for attempt in self.attempts.iter_mut().skip(at + 1) {
                attempt.not_before = attempt.not_before.max(now + attempt.head_start);
            }
            self.rearrange(now);
        }
    }

    /// Decides which allocations are wanted. Granted ones that are no longer wanted stay open until their traffic has
    /// moved.
    fn rearrange(&mut self, now: Instant) {
        let selected = SelectedRelays::of(&self.attempts);
        let wanted: Vec<bool> =
            (0..self.attempts.len()).map(|rank| selected.wants(&self.attempts, rank)).collect();
        for (attempt, wanted) in self.attempts.iter_mut().zip(wanted) {
            let period = if attempt.is_granted() { RETIREMENT_PERIOD } else { Duration::ZERO };
            let retires = !wanted && attempt.allocation.is_some();
            if retires && attempt.retire_at.is_none() {
                let relay = &attempt.server.name;
                debug!(%relay, after_ms = period.as_millis(), reason = "better relays work", "relay retires");
            }
            attempt.retire_at = retires.then(|| attempt.retire_at.unwrap_or(now + period));
        }
        expedite_standby(now, &mut self.attempts);
        self.changes.push(RelayChange::Allocations);
    }

    fn retire(&mut self, now: Instant, out: &mut RelayOutput<'_>) {
        let due = |attempt: &&mut RelayAttempt| attempt.retire_at.is_some_and(|at| at <= now);
        let retired: Vec<AllocationId> =
            self.attempts.iter_mut().filter(due).filter_map(|attempt| attempt.reset("retired")).collect();
        for id in retired {
            self.close(now, id, out);
        }
    }

    fn close(&mut self, now: Instant, id: AllocationId, out: &mut RelayOutput<'_>) {
        let Some(mut allocation) = self.allocations.remove(&id) else { return };
        if allocation.relayed().is_some() {
            allocation.release(now, out.transmits);
            self.changes.push(RelayChange::Allocations);
        }
        if let Local::Stream(stream) = allocation.local {
            debug!(stream = stream.0, relay = %allocation.server.name, "closing relay stream");
            out.events.push_back(Event::CloseStream(stream));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sinks {
        transmits: VecDeque<Transmit>,
        events: VecDeque<Event>,
    }

    impl Sinks {
        fn out(&mut self) -> RelayOutput<'_> {
            RelayOutput { transmits: &mut self.transmits, events: &mut self.events }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn pool() -> (RelayPool, Sinks, Instant) {
        let rng = ChaCha20Rng::from_seed([5; 32]);
        (RelayPool::new(rng, Duration::from_secs(15)), Sinks::default(), Instant::now())
    }

    fn server(name: &str, host: u8, transport: RelayTransport) -> RelayServer {
        RelayServer {
            name: name.into(),
            transport,
            address: ([203, 0, 113, host], 3478).into(),
            host: "relay.test".into(),
            username: "user".into(),
            password: "secret".into(),
        }
    }

    #[test]
    fn streams_are_opened_a_second_after_udp() {
        let (mut pool, mut sinks, now) = pool();
        let servers = [RelayTransport::Tls, RelayTransport::Udp].map(|transport| server("a", 1, transport));
        pool.set_servers(now, servers.to_vec(), &mut sinks.out());
        pool.handle_timeout(now, &mut sinks.out());
        assert_eq!((sinks.transmits.len(), sinks.events.len()), (1, 0));
        let later = now + Duration::from_secs(1);
        assert!(pool.deadline() <= Some(later));
        pool.handle_timeout(later, &mut sinks.out());
        assert!(matches!(sinks.events.pop_front(), Some(Event::OpenStream { .. })));
    }

    #[test]
    fn a_closed_stream_is_opened_again_after_a_pause() {
        let (mut pool, mut sinks, now) = pool();
        pool.set_servers(now, vec![server("a", 1, RelayTransport::Tls)], &mut sinks.out());
        let now = pool.deadline().unwrap();
        pool.handle_timeout(now, &mut sinks.out());
        let Some(Event::OpenStream { stream, .. }) = sinks.events.pop_front() else { panic!("no stream") };
        pool.on_stream_opened(now, stream, &mut sinks.out());
        assert_eq!(sinks.transmits.len(), 1);
        pool.on_stream_closed(now, stream);
        let pause = pool.deadline().unwrap() - now;
        assert!(pause >= Duration::from_millis(250) && pause <= Duration::from_millis(500), "{pause:?}");
        let ended = AttemptState::Ended(Duration::ZERO, AllocationEnd::StreamClosed);
        assert_eq!(pool.states().next().map(|(_, state)| state), Some(ended));
    }

    #[test]
    fn servers_that_are_no_longer_listed_are_closed() {
        let (mut pool, mut sinks, now) = pool();
        pool.set_servers(now, vec![server("a", 1, RelayTransport::Tcp)], &mut sinks.out());
        let now = now + Duration::from_secs(1);
        pool.handle_timeout(now, &mut sinks.out());
        pool.set_servers(now, Vec::new(), &mut sinks.out());
        assert!(matches!(sinks.events.pop_back(), Some(Event::CloseStream(_))));
        assert_eq!((pool.deadline(), pool.states().count()), (None, 0));
    }

    #[test]
    fn messages_count_only_from_the_servers_own_address() {
        let (mut pool, mut sinks, now) = pool();
        pool.set_servers(now, vec![server("a", 1, RelayTransport::Udp)], &mut sinks.out());
        pool.handle_timeout(now, &mut sinks.out());
        let mut response = sinks.transmits.pop_front().unwrap().bytes;
        // An error response without attributes to the Allocate request.
        response.truncate(20);
        response[..4].copy_from_slice(&[0x01, 0x13, 0, 0]);
        let main = Local::Socket(SocketId::MAIN);
        let stranger = ([198, 51, 100, 9], 3478).into();
        assert!(pool.handle_message(now, main, stranger, &response, &mut sinks.out()).is_none());
        let own = ([203, 0, 113, 1], 3478).into();
        assert!(pool.handle_message(now, main, own, &response, &mut sinks.out()).is_some());
        let refused = AttemptState::Ended(Duration::ZERO, AllocationEnd::Refused(0));
        assert_eq!(pool.states().next().map(|(_, state)| state), Some(refused));
    }
}
