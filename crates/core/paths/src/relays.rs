//! Which allocations there are, and by which transport.
//!
//! Every way of reaching a relay has its rank: the preferred relay first, and within a relay UDP before TCP before
//! TLS. A way is tried once its time has come and no better one works. At the start that time is now for UDP, a
//! second later for TCP and TLS together, so that networks without UDP are served soon after, and four seconds later
//! for the next relay. A way that failed waits with jittered, doubling pauses; so a better one is found again some
//! time after it came back, and what a worse one carries is moved over before that is given up.
//!
//! Once one relay works, the best way to another is opened as well and kept. It stands by: its relayed address is
//! announced and its channels are bound, so that packets take it at once when the first falls silent. And since
//! both are measured through, from end to end, each pair of members uses the one that is nearer to the two of them.

mod way;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    api::{AllocationId, Event, Hop, Local, RelayServer, RelayTransport, SocketId, StreamId, Transmit},
    turn::{Allocation, Change, Ending},
};

pub(crate) use way::Standing;
use way::{Kept, Way, hasten};

/// How long an allocation is kept after a better one came.
const GRACE: Duration = Duration::from_secs(30);
/// Ways that are considered at all.
const MAX_WAYS: usize = 24;

/// A change that concerns peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayChange {
    /// A relayed address was won or lost.
    Allocations,
    /// A server sees us at another address than before.
    Moved,
    /// Packets can be exchanged with this address through this allocation.
    Bound(AllocationId, SocketAddr),
}

pub(crate) struct Relays {
    ways: Vec<Way>,
    allocations: BTreeMap<AllocationId, Allocation>,
    next_id: u32,
    rng: ChaCha20Rng,
    keepalive: Duration,
    changes: Vec<RelayChange>,
}

impl Relays {
    pub(crate) fn new(rng: ChaCha20Rng, keepalive: Duration) -> Self {
        Self {
            ways: Vec::new(),
            allocations: BTreeMap::new(),
            next_id: 0,
            rng,
            keepalive,
            changes: Vec::new(),
        }
    }

    /// Replaces the list, preferred relay first. Ways that were there before are kept with what they have; new
    /// credentials count from their next allocation on, since a server ties an allocation to its user name.
    pub(crate) fn set(
        &mut self,
        now: Instant,
        mut servers: Vec<RelayServer>,
        out: &mut VecDeque<Transmit>,
        events: &mut VecDeque<Event>,
    ) {
        let mut names: Vec<String> = Vec::new();
        for server in &servers {
            if !names.contains(&server.name) {
                names.push(server.name.clone());
            }
        }
        let group = |server: &RelayServer| names.iter().position(|name| *name == server.name).unwrap_or(0);
        servers.sort_by_key(|server| (group(server), server.transport));
        servers.truncate(MAX_WAYS);
        let mut old = std::mem::take(&mut self.ways);
        for server in servers {
            let rank = group(&server);
            self.ways.push(match old.iter().position(|way| way.is(&server)) {
                Some(at) => old.swap_remove(at).renewed(server, rank),
                None => Way::new(now, server, rank),
            });
        }
        for id in old.into_iter().filter_map(|way| way.allocation) {
            self.close(now, id, out, events);
        }
        self.arrange(now);
    }

    /// The network may be another one: streams are opened anew, and servers are asked whether they still know us.
    pub(crate) fn network_changed(
        &mut self,
        now: Instant,
        out: &mut VecDeque<Transmit>,
        events: &mut VecDeque<Event>,
    ) {
        for at in 0..self.ways.len() {
            let Some(way) = self.ways.get_mut(at) else { continue };
            way.start_over(now);
            let Some(id) = way.allocation else { continue };
            let asked = self
                .allocations
                .get_mut(&id)
                .filter(|a| a.relayed().is_some() && matches!(a.local, Local::Socket(_)));
            if let Some(allocation) = asked {
                allocation.doubt(now, out);
            } else {
                way.allocation = None;
                way.standing = Standing::Idle;
                self.close(now, id, out, events);
            }
        }
        self.arrange(now);
    }

    pub(crate) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        self.allocations.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.allocations.get_mut(&id)
    }

    /// Whether an allocation only waits for its peers to use a better one.
    pub(crate) fn retires(&self, id: AllocationId) -> bool {
        self.ways.iter().any(|way| way.allocation == Some(id) && way.retire_at.is_some())
    }

    /// Allocations with a relayed address for peers to use, best first.
    pub(crate) fn offered(&self) -> impl Iterator<Item = &Allocation> {
        let ids = self.ways.iter().filter(|way| way.retire_at.is_none()).filter_map(|way| way.allocation);
        ids.filter_map(|id| self.allocations.get(&id)).filter(|a| a.relayed().is_some())
    }

    /// Ways and how far they are, best first.
    pub(crate) fn standings(&self) -> impl Iterator<Item = (&RelayServer, Standing)> {
        self.ways.iter().map(|way| (&way.server, way.standing))
    }

    /// The allocation whose server sends from this address by this socket or stream.
    pub(crate) fn by_source(
        &mut self,
        local: Local,
        src: SocketAddr,
    ) -> impl Iterator<Item = &mut Allocation> {
        self.allocations.values_mut().filter(move |a| match local {
            Local::Socket(_) => a.local == local && a.server.address == src,
            Local::Stream(_) => a.local == local,
            Local::Member(_) => false,
        })
    }

    /// The way out to an address through an allocation, once its channel is bound.
    pub(crate) fn hop(&self, id: AllocationId, remote: SocketAddr) -> Option<Hop> {
        let allocation = self.allocations.get(&id)?;
        let channel = allocation.channel(remote)?;
        Some(Hop { local: allocation.local, destination: allocation.server.address, channel: Some(channel) })
    }

    pub(crate) fn stream_opened(&mut self, now: Instant, stream: StreamId, out: &mut VecDeque<Transmit>) {
        if let Some(allocation) = self.allocations.values_mut().find(|a| a.local == Local::Stream(stream)) {
            allocation.start(now, out);
        }
    }

    pub(crate) fn stream_closed(&mut self, now: Instant, stream: StreamId) {
        let id = self.allocations.values().find(|a| a.local == Local::Stream(stream)).map(|a| a.id);
        if let Some(id) = id {
            self.changed(now, id, Change::Over(Ending::Closed), None);
        }
    }

    /// Takes note of what happened to an allocation.
    pub(crate) fn changed(
        &mut self,
        now: Instant,
        id: AllocationId,
        change: Change,
        events: Option<&mut VecDeque<Event>>,
    ) {
        match change {
            Change::Bound(peer) => self.changes.push(RelayChange::Bound(id, peer)),
            Change::Live => self.became_live(now, id),
            Change::Over(ending) => self.ended(now, id, ending, events),
        }
    }

    /// What peers must know of, since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<RelayChange> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let kept = Kept::of(&self.ways);
        let waits = |(rank, way): &(usize, &Way)| way.allocation.is_none() && kept.wants(&self.ways, *rank);
        let start = self.ways.iter().enumerate().filter(waits).map(|(_, way)| way.not_before);
        let retire = self.ways.iter().filter_map(|way| way.retire_at);
        start.chain(retire).chain(self.allocations.values().filter_map(Allocation::deadline)).min()
    }

    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut VecDeque<Transmit>,
        events: &mut VecDeque<Event>,
    ) {
        let mut changes = Vec::new();
        for allocation in self.allocations.values_mut() {
            let due = allocation.deadline().is_some_and(|at| at <= now);
            if let Some(change) = due.then(|| allocation.handle_timeout(now, out)).flatten() {
                changes.push((allocation.id, change));
            }
        }
        for (id, change) in changes {
            self.changed(now, id, change, Some(events));
        }
        self.retire(now, out, events);
        let kept = Kept::of(&self.ways);
        for at in 0..self.ways.len() {
            let due = |way: &Way| way.allocation.is_none() && way.not_before <= now;
            if kept.wants(&self.ways, at) && self.ways.get(at).is_some_and(due) {
                self.open(now, at, out, events);
            }
        }
    }

    fn open(&mut self, now: Instant, at: usize, out: &mut VecDeque<Transmit>, events: &mut VecDeque<Event>) {
        let Ok(rng) = ChaCha20Rng::from_rng(&mut self.rng) else { return };
        let Some(way) = self.ways.get_mut(at) else { return };
        self.next_id += 1;
        let id = AllocationId(self.next_id);
        let server = way.server.clone();
        let before = if let Standing::Failed(_, ending) = way.standing { Some(ending) } else { None };
        (way.allocation, way.standing) = (Some(id), Standing::Trying(now, before));
        let stream = StreamId(self.next_id);
        let local = if server.transport == RelayTransport::Udp {
            Local::Socket(SocketId::MAIN)
        } else {
            Local::Stream(stream)
        };
        let known = way.credentials.take();
        let mut allocation = Allocation::new(id, server, local, rng, self.keepalive).challenged_before(known);
        if let Local::Stream(stream) = local {
            let RelayServer { transport, address, host, .. } = way.server.clone();
            events.push_back(Event::OpenStream { stream, transport, address, host });
        } else {
            allocation.start(now, out);
        }
        self.allocations.insert(id, allocation);
    }

    fn became_live(&mut self, now: Instant, id: AllocationId) {
        let seen = self.allocations.get(&id).and_then(Allocation::mapped);
        let way = self.ways.iter_mut().find(|way| way.allocation == Some(id));
        if way.is_some_and(|way| way.became_live(now, seen)) {
            self.changes.push(RelayChange::Moved);
        }
        self.arrange(now);
    }

    fn ended(
        &mut self,
        now: Instant,
        id: AllocationId,
        ending: Ending,
        events: Option<&mut VecDeque<Event>>,
    ) {
        let gone = self.allocations.remove(&id);
        if let (Some(Allocation { local: Local::Stream(stream), .. }), Some(events)) = (&gone, events) {
            events.push_back(Event::CloseStream(*stream));
        }
        let Some(at) = self.ways.iter().position(|way| way.allocation == Some(id)) else { return };
        let was_live = gone.as_ref().is_some_and(|allocation| allocation.relayed().is_some());
        let spread = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let others = self.ways.iter().enumerate().filter(|(rank, way)| *rank != at && way.is_live());
        let alone = others.count() == 0;
        if let Some(way) = self.ways.get_mut(at) {
            way.ended(now, ending, alone, spread);
            way.credentials = gone.and_then(Allocation::into_challenge);
        }
        if was_live {
            // The lost one has the first turn.
            for way in self.ways.iter_mut().skip(at + 1) {
                way.not_before = way.not_before.max(now + way.stagger);
            }
            self.arrange(now);
        }
    }

    /// Something changed about which ways work: those that are not wanted any more give what they carry time to move
    /// over, and the others stay or get their turn.
    fn arrange(&mut self, now: Instant) {
        let kept = Kept::of(&self.ways);
        let wanted: Vec<bool> = (0..self.ways.len()).map(|rank| kept.wants(&self.ways, rank)).collect();
        for (way, wanted) in self.ways.iter_mut().zip(wanted) {
            let grace = if way.is_live() { GRACE } else { Duration::ZERO };
            let retires = !wanted && way.allocation.is_some();
            way.retire_at = retires.then(|| way.retire_at.unwrap_or(now + grace));
        }
        hasten(now, &mut self.ways);
        self.changes.push(RelayChange::Allocations);
    }

    fn retire(&mut self, now: Instant, out: &mut VecDeque<Transmit>, events: &mut VecDeque<Event>) {
        let mut gone = Vec::new();
        for way in self.ways.iter_mut().filter(|way| way.retire_at.is_some_and(|at| at <= now)) {
            way.retire_at = None;
            way.standing = Standing::Idle;
            gone.extend(way.allocation.take());
        }
        for id in gone {
            self.close(now, id, out, events);
        }
    }

    fn close(
        &mut self,
        now: Instant,
        id: AllocationId,
        out: &mut VecDeque<Transmit>,
        events: &mut VecDeque<Event>,
    ) {
        let Some(mut allocation) = self.allocations.remove(&id) else { return };
        if allocation.relayed().is_some() {
            allocation.release(now, out);
            self.changes.push(RelayChange::Allocations);
        }
        if let Local::Stream(stream) = allocation.local {
            events.push_back(Event::CloseStream(stream));
        }
    }
}
