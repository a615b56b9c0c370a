//! The rendezvous among its sockets: one lock around the pure state, and an outbox for every member.
//!
//! A session hands in what its member said; the answers go straight into the outboxes of whom they concern, whose
//! sessions are woken. Nobody waits for anybody: an outbox that grows too long is closed. A sweep once a second
//! moves the state's time on, pings a sixtieth of all members, and closes those that were silent for too long.

mod outbox;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use partyline_model::{Now, Timestamp};
use partyline_rendezvous::{AdmissionError, ConnectionId, Event, Limits, RelayOffer, Rendezvous, Stats};
use partyline_wire::rendezvous::close;
use tokio::time::{MissedTickBehavior, interval};

use crate::gate::Ticket;
use outbox::{Item, Outbox};

/// How many sweeps go by between two pings of a member; seconds.
const PING_EVERY: u64 = 60;

/// How long a member may be silent before it is taken for dead; seconds.
const SILENCE: u32 = 150;

/// Bytes queued for all members beyond which those with a backlog are let go.
const QUEUED: usize = 256 << 20;

/// What all connections share.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    /// Bytes in all outboxes.
    queued: AtomicUsize,
    stopping: AtomicBool,
    started: Instant,
}

#[derive(Debug)]
struct State {
    core: Rendezvous,
    /// Outboxes by connection, in as many parts as there are sweeps between two pings.
    seats: Vec<HashMap<ConnectionId, Arc<Outbox>>>,
}

impl Hub {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits, relays: Option<RelayOffer>) -> Arc<Self> {
        let core = Rendezvous::new(now(), limits, relays, rand::random());
        let seats = (0..PING_EVERY).map(|_| HashMap::new()).collect();
        Arc::new(Self {
            state: Mutex::new(State { core, seats }),
            queued: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
        })
    }

    /// A place for a member.
    pub(crate) fn connect(self: &Arc<Self>, ticket: Ticket) -> Result<Seat, AdmissionError> {
        let mut state = self.lock();
        if self.is_stopping() {
            return Err(AdmissionError::ServerFull);
        }
        let id = state.core.handle_connect(now(), ticket.address())?;
        let outbox = Arc::new(Outbox::new(self.seconds()));
        state.part(id).insert(id, Arc::clone(&outbox));
        self.deliver(&mut state);
        Ok(Seat { hub: Arc::clone(self), id, outbox, _ticket: ticket })
    }

    /// Tells all members that the server stops, and takes no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        for outbox in self.lock().seats.iter().flat_map(HashMap::values) {
            outbox.close(
                &self.queued,
                close::GOING_AWAY,
                "the server is restarting; connect again in a moment",
            );
        }
    }

    /// Whether [`stop`](Self::stop) was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Sweeps once a second, for ever.
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
        state.core.handle_timeout(now());
        let mut silent = Vec::new();
        for (id, outbox) in state.part(ConnectionId(turn)) {
            if outbox.silent_for(seconds) > SILENCE {
                outbox.close(&self.queued, close::SILENT, "no answer to pings");
                silent.push(*id);
            } else {
                outbox.push(&self.queued, Item::Ping);
            }
        }
        silent.into_iter().for_each(|id| state.core.handle_disconnect(now(), id));
        self.deliver(&mut state);
    }

    /// Figures for the operator: the state's, and bytes waiting in outboxes.
    pub(crate) fn stats(&self) -> (Stats, usize) {
        (self.lock().core.stats(), self.queued.load(Ordering::Relaxed))
    }

    fn deliver(&self, state: &mut State) {
        while let Some(event) = state.core.poll_event() {
            match event {
                Event::Send { to, frame } => {
                    let outbox = state.part(to).get(&to);
                    if outbox.is_some_and(|outbox| !outbox.push(&self.queued, Item::Message(frame))) {
                        // The others need not wait for its goodbye.
                        state.core.handle_disconnect(now(), to);
                    }
                }
                Event::Close { connection, code, reason } => {
                    if let Some(outbox) = state.part(connection).get(&connection) {
                        outbox.close(&self.queued, code, reason);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since the start.
    fn seconds(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

impl State {
    fn part(&mut self, id: ConnectionId) -> &mut HashMap<ConnectionId, Arc<Outbox>> {
        let parts = self.seats.len() as u64;
        // There are sixty parts, and the remainder is less.
        &mut self.seats[(id.0 % parts) as usize]
    }
}

/// One member's place. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Arc<Hub>,
    id: ConnectionId,
    outbox: Arc<Outbox>,
    /// Counts its connection while it lasts.
    _ticket: Ticket,
}

impl Seat {
    /// The member said something.
    pub(crate) fn handle(&self, message: &[u8]) {
        let mut state = self.hub.lock();
        state.core.handle_frame(now(), self.id, message);
        self.hub.deliver(&mut state);
    }

    /// The member is alive.
    pub(crate) fn heard(&self) {
        self.outbox.heard(self.hub.seconds());
    }

    /// The member wants its ping answered.
    pub(crate) fn pong(&self, payload: &[u8]) {
        self.outbox.push(&self.hub.queued, Item::Pong(payload.into()));
    }

    /// Nothing more is to be sent but a goodbye.
    pub(crate) fn close(&self, code: u16, reason: &'static str) {
        self.outbox.close(&self.hub.queued, code, reason);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.outbox.is_closing()
    }

    /// Whom to wake when there is something to send.
    pub(crate) fn register(&self, waker: &Waker) {
        self.outbox.register(waker);
    }

    /// Bytes queued for the member.
    pub(crate) fn backlog(&self) -> usize {
        self.outbox.backlog()
    }

    /// Moves what is queued to the end of `out`, until that holds `enough`. Says whether the goodbye was among it.
    pub(crate) fn collect(&self, out: &mut Vec<u8>, enough: usize) -> bool {
        self.outbox.collect(&self.hub.queued, out, enough)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.part(self.id).remove(&self.id);
        state.core.handle_disconnect(now(), self.id);
        self.outbox.discard(&self.hub.queued);
        self.hub.deliver(&mut state);
    }
}

/// Both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix: Timestamp(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)) }
}

#[cfg(test)]
mod tests;
