//! How long an idle mapping lives (RFC 5780, section 4.6).
//!
//! Several sockets talk to a server for three seconds, so that the NAT takes each for a conversation, and then fall
//! silent, each for another span. When its span is over, another socket asks the server to answer to the outside port
//! of the silent one (RESPONSE-PORT): what arrives proves that the mapping lived. Where nothing arrives, the silent
//! socket speaks once more and the same is asked again; only if that arrives, the silence before meant that the mapping
//! was gone. The shortest span that was too long ends it: after five minutes at most, with about fifteen packets a
//! socket.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::SocketId;

use crate::{
    client::{Client, Query},
    stun::Change,
    survey::Purpose,
};

/// Just below what routers are set to, in seconds.
const SPANS: [u64; 6] = [14, 28, 58, 118, 178, 298];
const GREETINGS: u8 = 3;
const GREETING_GAP: Duration = Duration::from_millis(1100);
const KNOCKS: u8 = 5;
const KNOCK_GAP: Duration = Duration::from_millis(500);

/// A measurement under way.
#[derive(Debug)]
pub(crate) struct Lifetime {
    server: SocketAddr,
    asker: SocketId,
    patience: Duration,
    watches: Vec<Watch>,
}

/// What a measurement found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lived {
    /// This long at least, and less than the next longer span unless this is the longest.
    AtLeast(Duration),
    /// Less than the shortest span.
    Shorter,
    /// The server does not answer to where it is asked to.
    Unfit,
}

#[derive(Debug)]
struct Watch {
    socket: SocketId,
    span: Duration,
    outside: Option<SocketAddr>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting {
        sent: u8,
        next: Instant,
    },
    Idle {
        until: Instant,
    },
    /// `again`: the socket has spoken since.
    Knocking {
        sent: u8,
        next: Instant,
        again: bool,
    },
    Reviving,
    Lived,
    Gone,
    Unclear,
}

impl Lifetime {
    /// A measurement with sockets that are idle from now on; the asker is another one.
    pub(crate) fn new(
        now: Instant,
        server: SocketAddr,
        asker: SocketId,
        idle: &[SocketId],
        patience: Duration,
    ) -> Self {
        let watch = |(socket, span): (&SocketId, u64)| Watch {
            socket: *socket,
            span: Duration::from_secs(span),
            outside: None,
            state: State::Greeting { sent: 0, next: now },
        };
        Self { server, asker, patience, watches: idle.iter().zip(SPANS).map(watch).collect() }
    }

    /// A server saw one of the idle sockets.
    pub(crate) fn seen(&mut self, now: Instant, index: u8, outside: SocketAddr) {
        let Some(watch) = self.watches.get_mut(usize::from(index)) else { return };
        watch.outside = Some(outside);
        if watch.state == State::Reviving {
            watch.state = State::Knocking { sent: 0, next: now, again: true };
        }
    }

    /// A question of one of the idle sockets stayed unanswered.
    pub(crate) fn unseen(&mut self, index: u8) {
        if let Some(watch) = self.watches.get_mut(usize::from(index)) {
            watch.state = State::Unclear;
        }
    }

    /// A socket got what another one had asked for.
    pub(crate) fn arrived(&mut self, socket: SocketId, index: u8) {
        let Some(watch) = self.watches.get_mut(usize::from(index)) else { return };
        match watch.state {
            State::Knocking { again, .. } if watch.socket == socket => {
                watch.state = if again { State::Gone } else { State::Lived };
            }
            _ => {}
        }
        if watch.state == State::Gone {
            let span = watch.span;
            self.watches.retain(|watch| watch.span <= span);
        }
    }

    /// The server answered to who asked, or refused.
    pub(crate) fn is_unfit(&mut self) {
        self.watches.iter_mut().for_each(|watch| watch.state = State::Unclear);
    }

    /// Does what is due; says what was found once nothing is left to find.
    pub(crate) fn step(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<Lived> {
        for index in 0..self.watches.len() {
            self.step_watch(now, index, client);
        }
        let over = |watch: &Watch| matches!(watch.state, State::Lived | State::Gone | State::Unclear);
        self.watches.iter().all(over).then(|| self.conclude())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = |watch: &Watch| match watch.state {
            State::Greeting { next, .. } | State::Knocking { next, .. } => Some(next),
            State::Idle { until } => Some(until),
            State::Reviving | State::Lived | State::Gone | State::Unclear => None,
        };
        self.watches.iter().filter_map(due).min()
    }

    fn conclude(&self) -> Lived {
        let longest = |state| self.watches.iter().filter(|w| w.state == state).map(|w| w.span).max();
        match (longest(State::Lived), longest(State::Gone)) {
            (Some(span), _) => Lived::AtLeast(span),
            (None, Some(_)) => Lived::Shorter,
            (None, None) => Lived::Unfit,
        }
    }

    fn step_watch(&mut self, now: Instant, index: usize, client: &mut Client<Purpose>) {
        let Self { server, asker, patience, watches } = self;
        let (server, watch) = (*server, &mut watches[index]);
        let number = u8::try_from(index).unwrap_or(u8::MAX);
        let plain = Query {
            socket: watch.socket,
            destination: server,
            change: Change::Nothing,
            expected: server,
            purpose: Purpose::Greet(number),
            patience: *patience,
        };
        watch.state = match (watch.state, watch.outside) {
            (State::Greeting { sent: GREETINGS, next }, outside) if next <= now => match outside {
                Some(_) => State::Idle { until: now + watch.span - GREETING_GAP },
                None => State::Unclear,
            },
            (State::Greeting { sent, next }, _) if next <= now => {
                client.ask(now, plain);
                State::Greeting { sent: sent + 1, next: now + GREETING_GAP }
            }
            (State::Idle { until }, _) if until <= now => {
                State::Knocking { sent: 0, next: now, again: false }
            }
            (state, _) => state,
        };
        watch.state = match (watch.state, watch.outside) {
            (State::Knocking { sent: KNOCKS, next, again: false }, _) if next <= now => {
                client.ask(now, plain);
                State::Reviving
            }
            (State::Knocking { sent: KNOCKS, next, again: true }, _) if next <= now => State::Unclear,
            (State::Knocking { sent, next, again }, Some(outside)) if next <= now => {
                let (change, purpose) = (Change::ToPort(outside.port()), Purpose::Knock(number));
                let (socket, patience) = (*asker, Duration::ZERO);
                client.ask(now, Query { socket, change, purpose, patience, ..plain });
                State::Knocking { sent: sent + 1, next: now + KNOCK_GAP, again }
            }
            (state, _) => state,
        };
    }
}
