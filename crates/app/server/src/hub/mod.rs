//! The rendezvous server's sessions around its pure state: one lock, and a send queue for every member.
//!
//! A session hands in the frames its member sends; the answers go straight into the send queues of the members they are
//! for, whose tasks are woken. No session waits for another: a queue that grows too long is closed, and the proofs of
//! members are verified without the lock. A sweep once a second
//! advances the state's time, pings one in sixty members, and closes those that have been silent for too long.

mod send_queue;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use partyline_rendezvous::{AdmissionError, ConnectionId, Event, Limits, RelayOffer, Rendezvous, Stats};
use partyline_wire::rendezvous::close;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    clock::now,
    counters::{Histogram, Reason as _, ReasonCounters, SessionEnd},
    limiter::Permit,
};
use send_queue::{Item, SendQueue};

/// Sweeps between two pings of a member; a sweep takes place every second.
const SWEEPS_PER_PING: u64 = 60;

/// Seconds after which a silent member is considered gone.
const SILENCE_TIMEOUT: u32 = 150;

/// RFC 6455's code for a close without a fault.
pub(crate) const CLOSE_NORMAL: u16 = 1000;

/// Upper bounds of the histogram of session durations, in seconds.
const SESSION_BUCKETS: [f64; 8] = [1.0, 10.0, 60.0, 600.0, 3600.0, 6.0 * 3600.0, 86_400.0, 7.0 * 86_400.0];

/// The rendezvous state with the send queues of all members.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    limits: Limits,
    /// Bytes in all send queues.
    queued: AtomicUsize,
    stopping: AtomicBool,
    started: Instant,
    ended: ReasonCounters<SessionEnd>,
    durations: Histogram,
}

#[derive(Debug)]
struct State {
    rendezvous: Rendezvous,
    /// Send queues by connection, in as many shards as there are sweeps between two pings.
    shards: Vec<HashMap<ConnectionId, Arc<SendQueue>>>,
}

impl Hub {
    /// Returns a hub without members.
    #[must_use]
    pub fn new(limits: Limits, relays: Option<RelayOffer>) -> Arc<Self> {
        let rendezvous = Rendezvous::new(now(), limits.clone(), relays, rand::random());
        let shards = (0..SWEEPS_PER_PING).map(|_| HashMap::new()).collect();
        Arc::new(Self {
            state: Mutex::new(State { rendezvous, shards }),
            limits,
            queued: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            ended: ReasonCounters::default(),
            durations: Histogram::new(&SESSION_BUCKETS),
        })
    }

    /// Opens a session for a new member.
    pub(crate) fn connect(self: &Arc<Self>, permit: Permit) -> Result<ConnectionHandle, AdmissionError> {
        let mut state = self.lock();
        if self.is_stopping() {
            return Err(AdmissionError::ServerFull);
        }
        let id = state.rendezvous.handle_connect(now(), permit.address())?;
        let queue = Arc::new(SendQueue::new(self.seconds()));
        state.shard(id).insert(id, Arc::clone(&queue));
        self.drain_events(&mut state);
        tracing::debug!(session = id.0, "rendezvous session opened");
        Ok(ConnectionHandle { hub: Arc::clone(self), id, queue, opened: Instant::now(), _permit: permit })
    }

    /// Closes all sessions, since the server is stopping, and admits no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let state = self.lock();
        let queues = state.shards.iter().flat_map(HashMap::values);
        tracing::debug!(count = queues.clone().count(), "closing all rendezvous sessions");
        for queue in queues {
            let reason = "the server is restarting; connect again in a moment";
            queue.close(&self.queued, close::GOING_AWAY, reason);
        }
    }

    /// Returns true once [`stop`](Self::stop) was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Sweeps once a second until the future is dropped.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for turn in 0.. {
            seconds.tick().await;
            self.sweep_once(turn, self.seconds());
        }
    }

    fn sweep_once(&self, turn: u64, seconds: u32) {
        let mut state = self.lock();
        state.rendezvous.handle_timeout(now());
        let mut silent = Vec::new();
        for (id, queue) in state.shard(ConnectionId(turn)) {
            let silent_for = queue.silent_for(seconds);
            if silent_for > SILENCE_TIMEOUT {
                tracing::debug!(session = id.0, silent_s = silent_for, "member does not answer pings");
                queue.close(&self.queued, close::SILENT, "no answer to pings");
                silent.push(*id);
            } else {
                queue.push(&self.queued, Item::Ping);
            }
        }
        silent.into_iter().for_each(|id| state.rendezvous.handle_disconnect(now(), id));
        self.drain_events(&mut state);
    }

    /// Returns the counters and gauges of the rendezvous state.
    pub(crate) fn stats(&self) -> Stats {
        self.lock().rendezvous.stats()
    }

    /// Returns the bytes in all send queues.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the sessions that ended, by reason.
    pub(crate) const fn ended(&self) -> &ReasonCounters<SessionEnd> {
        &self.ended
    }

    /// Returns the durations of the sessions that ended.
    pub(crate) const fn durations(&self) -> &Histogram {
        &self.durations
    }

    /// Hands an input to the state, and the answers to the members they are for.
    fn apply<T>(&self, input: impl FnOnce(&mut Rendezvous) -> T) -> T {
        let mut state = self.lock();
        let output = input(&mut state.rendezvous);
        self.drain_events(&mut state);
        output
    }

    fn drain_events(&self, state: &mut State) {
        while let Some(event) = state.rendezvous.poll_event() {
            match event {
                Event::Send { to, frame } => {
                    let queue = state.shard(to).get(&to);
                    if queue.is_some_and(|queue| !queue.push(&self.queued, Item::Message(frame))) {
                        // The other members learn of it now, not when the connection is down.
                        state.rendezvous.handle_disconnect(now(), to);
                    }
                }
                Event::Close { connection, code, reason } => {
                    tracing::debug!(session = connection.0, code, reason, "closing a rendezvous session");
                    if let Some(queue) = state.shard(connection).get(&connection) {
                        queue.close(&self.queued, code, reason);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the seconds since the start.
    fn seconds(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

impl State {
    fn shard(&mut self, id: ConnectionId) -> &mut HashMap<ConnectionId, Arc<SendQueue>> {
        let count = self.shards.len() as u64;
        // There are sixty shards, and the remainder is less.
        &mut self.shards[(id.0 % count) as usize]
    }
}

/// One member's session in the hub. Dropping it disconnects the member.
#[derive(Debug)]
pub(crate) struct ConnectionHandle {
    hub: Arc<Hub>,
    id: ConnectionId,
    queue: Arc<SendQueue>,
    opened: Instant,
    /// Counts the TCP connection while the session lasts.
    _permit: Permit,
}

impl ConnectionHandle {
    /// Handles a message from the member.
    pub(crate) fn handle_message(&self, message: &[u8]) {
        let entry = self.hub.apply(|rendezvous| rendezvous.handle_frame(now(), self.id, message));
        if let Some(entry) = entry {
            // Without the lock, so that strangers who try proofs keep only their own connections waiting.
            let entry = entry.verify();
            self.hub.apply(|rendezvous| rendezvous.handle_entry(now(), entry));
        }
    }

    /// Notes that bytes came from the member.
    pub(crate) fn on_received(&self) {
        self.queue.on_received(self.hub.seconds());
    }

    /// Queues the answer to the member's ping.
    pub(crate) fn pong(&self, payload: &[u8]) {
        self.queue.push(&self.hub.queued, Item::Pong(payload.into()));
    }

    /// Queues a close frame; nothing follows it.
    pub(crate) fn close(&self, code: u16, reason: &'static str) {
        self.queue.close(&self.hub.queued, code, reason);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.queue.is_closing()
    }

    /// Sets the waker that is notified when there is something to send.
    pub(crate) fn register(&self, waker: &Waker) {
        self.queue.register(waker);
    }

    /// Returns the bytes queued for the member.
    pub(crate) fn backlog(&self) -> usize {
        self.queue.backlog()
    }

    /// Moves queued items as frames to the end of `out` until that holds `enough` bytes. Returns true if the close frame
    /// was among them.
    pub(crate) fn drain_into(&self, out: &mut Vec<u8>, enough: usize) -> bool {
        self.queue.drain_into(&self.hub.queued, out, enough)
    }

    fn end_reason(&self) -> SessionEnd {
        match self.queue.close_code() {
            None => SessionEnd::ConnectionLost,
            Some(close::GOING_AWAY) if self.hub.is_stopping() => SessionEnd::GoingAway,
            Some(close::REPLACED) => SessionEnd::Replaced,
            Some(close::MALFORMED) => SessionEnd::Malformed,
            Some(close::RATE) => SessionEnd::RateLimited,
            Some(close::SLOW) => SessionEnd::Slow,
            Some(close::SILENT) => SessionEnd::Unresponsive,
            Some(close::IDLE) => SessionEnd::Idle,
            Some(1002 | 1003 | 1009) => SessionEnd::WebSocketViolation,
            // The member's own code is echoed.
            Some(_) => SessionEnd::ClosedByClient,
        }
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.shard(self.id).remove(&self.id);
        state.rendezvous.handle_disconnect(now(), self.id);
        let (reason, duration) = (self.end_reason(), self.opened.elapsed());
        self.queue.discard(&self.hub.queued);
        self.hub.drain_events(&mut state);
        drop(state);
        self.hub.ended.count(reason);
        self.hub.durations.record(duration);
        let after_ms = duration.as_millis();
        tracing::debug!(session = self.id.0, reason = reason.label(), after_ms, "rendezvous session ended");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use partyline_model::{HandleKey, Topic};
    use partyline_wire::rendezvous::{ClientFrame, EntryProof};

    use super::*;
    use crate::limiter::{ConnectionLimiter, ConnectionLimits};

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn permit() -> Permit {
        let limits = ConnectionLimits { total: 9, per_address: 9, per_prefix56: 9, per_prefix48: 9 };
        ConnectionLimiter::new(limits).admit(LOOPBACK).unwrap()
    }

    fn connect(hub: &Arc<Hub>) -> ConnectionHandle {
        hub.connect(permit()).unwrap()
    }

    fn drain(handle: &ConnectionHandle) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let has_close = handle.drain_into(&mut out, usize::MAX);
        (out, has_close)
    }

    fn ended(hub: &Hub) -> Vec<(&'static str, u64)> {
        hub.ended().each().filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn each_member_is_pinged_once_in_sixty_sweeps() {
        let hub = Hub::new(Limits::default(), None);
        let (first, second) = (connect(&hub), connect(&hub));
        for handle in [&first, &second] {
            drain(handle);
        }
        (0..60).for_each(|turn| hub.sweep_once(turn, 0));
        assert_eq!(drain(&first), (vec![0x89, 0], false));
        assert_eq!(drain(&second), (vec![0x89, 0], false));
    }

    #[test]
    fn silent_member_is_disconnected_and_its_session_closed() {
        let hub = Hub::new(Limits::default(), None);
        let handle = connect(&hub);
        drain(&handle);
        (0..60).for_each(|turn| hub.sweep_once(turn, SILENCE_TIMEOUT + 1));
        assert_eq!(hub.stats().connections, 0);
        let (out, has_close) = drain(&handle);
        assert!(has_close);
        assert_eq!(out[2..4], close::SILENT.to_be_bytes());
        drop(handle);
        assert_eq!(ended(&hub), [("unresponsive", 1)]);
    }

    /// Proofs are verified without the lock: the state serves other connections between the two halves of an entry.
    #[test]
    fn proofs_are_verified_without_the_lock() {
        let hub = Hub::new(Limits::default(), None);
        let (stranger, member) = (connect(&hub), connect(&hub));
        [&stranger, &member].into_iter().for_each(|handle| drop(drain(handle)));
        let proof = EntryProof {
            handle_key: HandleKey([1; 32]),
            topic_signature: [0; 64],
            handle_signature: [0; 64],
        };
        let enter = ClientFrame::Enter { topic: Topic([7; 32]), proof, record: Vec::new() };
        let frame = enter.encode().unwrap();
        let entry = hub.apply(|rendezvous| rendezvous.handle_frame(now(), stranger.id, &frame)).unwrap();
        assert!(hub.state.try_lock().is_ok());
        member.handle_message(&ClientFrame::Time { echo: 1 }.encode().unwrap());
        assert!(!drain(&member).0.is_empty(), "answered while a proof waits");
        assert!(drain(&stranger).0.is_empty());
        hub.apply(|rendezvous| rendezvous.handle_entry(now(), entry.verify()));
        assert_eq!(hub.stats().refusals.bad_proof, 1);
    }

    #[test]
    fn stopping_hub_closes_sessions_and_admits_no_more() {
        let hub = Hub::new(Limits::default(), None);
        let handle = connect(&hub);
        hub.stop();
        let (out, has_close) = drain(&handle);
        assert!(has_close && out.windows(2).any(|code| code == close::GOING_AWAY.to_be_bytes()));
        assert_eq!(hub.connect(permit()).unwrap_err(), AdmissionError::ServerFull);
        drop(handle);
        assert_eq!(ended(&hub), [("going_away", 1)]);
    }

    #[test]
    fn dropped_handle_leaves_nothing_behind() {
        let hub = Hub::new(Limits::default(), None);
        drop(connect(&hub));
        assert_eq!((hub.stats().connections, hub.queued_bytes()), (0, 0));
        assert!(hub.lock().shards.iter().all(HashMap::is_empty));
        assert_eq!(ended(&hub), [("connection_lost", 1)]);
        assert_eq!(hub.durations().cumulative().last().map(|(_, count)| *count), Some(1));
    }
}
