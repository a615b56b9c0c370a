//! One allocation: asking, keeping, binding channels, losing.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use partyline_wire::{credentials::Credentials, datagram};
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use stun_rs::{
    MessageClass, MessageDecoder, MessageMethod, StunMessage, StunMessageBuilder,
    attributes::{
        stun::{ErrorCode, XorMappedAddress},
        turn::{ChannelNumber, LifeTime, RequestedTrasport, XorPeerAddress, XorRelayedAddress},
    },
    methods::{ALLOCATE, CHANNEL_BIND, REFRESH},
    protocols::UDP,
};

use super::{channels::Channels, indication};
use crate::api::{AllocationId, Local, RelayServer, RelayTransport, Transmit};

/// Gap before the first repetition of a request over UDP; each further one doubles.
const FIRST_GAP: Duration = Duration::from_millis(250);
/// How often a channel is asked for before the request counts as unanswered, about 8 s in all.
const MAX_TRIES: u8 = 5;
/// The longest gap between repetitions of questions about the allocation itself, and how many there are in 8 s. There
/// is one such question at a time, and people who play wait for the answer when the network is back.
const STEADY_GAP: Duration = Duration::from_millis(500);
const STEADY_TRIES: u8 = 17;
/// How long a request over a stream may stay unanswered.
const STREAM_PATIENCE: Duration = Duration::from_secs(8);
/// Over a stream nothing needs keeping alive but the allocation itself, which lasts ten minutes.
const STREAM_REFRESH: Duration = Duration::from_secs(60);
/// Permissions last five minutes and come with the channel.
const REBIND: Duration = Duration::from_secs(240);
/// How long a channel that was refused is left alone.
const REFUSED: Duration = Duration::from_secs(30);
/// The least time between two questions whether the allocation still exists.
const VERIFY_GAP: Duration = Duration::from_secs(1);
/// How often one request may be asked again because of a new nonce.
const MAX_CHALLENGES: u8 = 3;

/// What happened to an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has a relayed address now.
    Live,
    /// Packets can be exchanged with this address now.
    Bound(SocketAddr),
    /// It is over.
    Over(Ending),
}

/// Why an allocation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The server did not answer.
    NoAnswer,
    /// The server forgot it, probably because it restarted.
    Forgotten,
    /// The server refused it with this error code; zero if its challenge made no sense.
    Refused(u16),
    /// The stream closed.
    Closed,
}

/// What a message from the server was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// No answer to anything asked here.
    Foreign,
    /// An answer, with what it changed.
    Answer(Option<Change>),
    /// Data from a peer, and where it lies in the message.
    Data { peer: SocketAddr, payload: Range<usize> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Allocate,
    Refresh,
    /// Gives up an older allocation of the same five-tuple that the server still remembers.
    Release,
    Bind(SocketAddr),
}

impl What {
    /// How often it is asked over UDP, and the longest gap between two times.
    const fn patience(self) -> (u8, Duration) {
        match self {
            Self::Bind(_) => (MAX_TRIES, Duration::MAX),
            Self::Allocate | Self::Refresh | Self::Release => (STEADY_TRIES, STEADY_GAP),
        }
    }
}

struct Ask {
    id: [u8; 12],
    what: What,
    bytes: Vec<u8>,
    tries: u8,
    challenges: u8,
    next: Instant,
}

pub(crate) struct Allocation {
    pub(crate) id: AllocationId,
    pub(crate) server: RelayServer,
    pub(crate) local: Local,
    credentials: Credentials,
    rng: ChaCha20Rng,
    relayed: Option<SocketAddr>,
    mapped: Option<SocketAddr>,
    asks: Vec<Ask>,
    channels: Channels,
    keepalive: Duration,
    refresh_at: Option<Instant>,
    /// When the server was last asked whether it still knows this allocation.
    verified_at: Option<Instant>,
}

impl Allocation {
    pub(crate) fn new(
        id: AllocationId,
        server: RelayServer,
        local: Local,
        rng: ChaCha20Rng,
        keepalive: Duration,
    ) -> Self {
        let keepalive = if server.transport == RelayTransport::Udp { keepalive } else { STREAM_REFRESH };
        Self {
            credentials: Credentials::new(&server.username, &server.password),
            id,
            server,
            local,
            rng,
            relayed: None,
            mapped: None,
            asks: Vec::new(),
            channels: Channels::new(),
            keepalive,
            refresh_at: None,
            verified_at: None,
        }
    }

    /// The same, with the challenge that an allocation before had.
    pub(crate) fn challenged_before(self, known: Option<Credentials>) -> Self {
        Self { credentials: known.unwrap_or(self.credentials), ..self }
    }

    /// What the next allocation at this server need not ask for again.
    pub(crate) fn into_challenge(self) -> Option<Credentials> {
        Some(self.credentials).filter(Credentials::signs_requests)
    }

    /// Asks for the allocation; over a stream once that is open.
    pub(crate) fn start(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        self.ask(now, What::Allocate, 0, out);
    }

    /// The relayed address, once there is one.
    pub(crate) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Where the server sees us, if that says anything about the shared UDP socket.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        self.mapped.filter(|_| self.server.transport == RelayTransport::Udp)
    }

    /// The channel to an address, once bound.
    pub(crate) fn channel(&self, peer: SocketAddr) -> Option<u16> {
        self.channels.get(peer).filter(|c| c.bound).map(|c| c.number)
    }

    /// Wants a channel to an address. Every call needs an [`Self::unbind`].
    pub(crate) fn bind(&mut self, now: Instant, peer: SocketAddr, out: &mut VecDeque<Transmit>) {
        if self.channels.want(peer) {
            self.ask(now, What::Bind(peer), 0, out);
        }
    }

    /// No longer wants a channel.
    pub(crate) fn unbind(&mut self, peer: SocketAddr) {
        self.channels.leave(peer);
    }

    /// Makes sure that the server still knows this allocation; asks at most once a second.
    pub(crate) fn verify(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        let lately = self.verified_at.is_some_and(|at| now < at + VERIFY_GAP);
        if self.relayed.is_some() && !lately && !self.asks.iter().any(|ask| ask.what == What::Refresh) {
            self.verified_at = Some(now);
            self.ask(now, What::Refresh, 0, out);
        }
    }

    /// On another network: asks at once, whatever is being asked already.
    pub(crate) fn doubt(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        self.verified_at = None;
        self.asks.retain(|ask| ask.what != What::Refresh);
        self.verify(now, out);
    }

    /// Gives the allocation back, without waiting for an answer.
    pub(crate) fn release(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        if self.relayed.is_some() {
            self.ask(now, What::Release, 0, out);
        }
    }

    /// Where in ChannelData the data lies, and from whom it is.
    pub(crate) fn channel_data(&self, bytes: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
        let (number, payload) = datagram::channel_data(bytes)?;
        Some((self.channels.owner(number)?, payload))
    }

    /// Takes a STUN message that came from the server.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        bytes: &[u8],
        out: &mut VecDeque<Transmit>,
    ) -> Input {
        if bytes.get(..2) == Some(&indication::DATA) {
            return indication::data(bytes)
                .map_or(Input::Foreign, |(peer, payload)| Input::Data { peer, payload });
        }
        let Some(at) = self.asks.iter().position(|ask| bytes.get(8..20) == Some(&ask.id)) else {
            return Input::Foreign;
        };
        let Ok((message, _)) = MessageDecoder::default().decode(bytes) else { return Input::Foreign };
        match message.class() {
            MessageClass::SuccessResponse if self.credentials.verify(bytes, &message) => {
                let ask = self.asks.swap_remove(at);
                Input::Answer(self.granted(now, ask.what, &message, out))
            }
            MessageClass::ErrorResponse => {
                let ask = self.asks.swap_remove(at);
                Input::Answer(self.refused(now, &ask, &message, out))
            }
            _ => Input::Foreign,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let rebind = self.channels.rebind_at();
        self.asks.iter().map(|ask| ask.next).chain(rebind).chain(self.refresh_at).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Transmit>) -> Option<Change> {
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            self.verify(now, out);
        }
        while let Some(peer) = self.channels.pop_due(now) {
            self.ask(now, What::Bind(peer), 0, out);
        }
        self.repeat(now, out)
    }

    /// Sends again what was not answered, and gives up on what was not answered often enough.
    fn repeat(&mut self, now: Instant, out: &mut VecDeque<Transmit>) -> Option<Change> {
        let mut over = None;
        let (local, destination) = (self.local, self.server.address);
        let channels = &mut self.channels;
        self.asks.retain_mut(|ask| {
            if ask.next > now {
                return true;
            }
            let (tries, longest) = ask.what.patience();
            if ask.tries < tries && matches!(local, Local::Socket(_)) {
                ask.next = now + (FIRST_GAP * (1 << ask.tries.min(MAX_TRIES))).min(longest);
                ask.tries += 1;
                out.push_back(Transmit { local, destination, bytes: ask.bytes.clone() });
                return true;
            }
            match ask.what {
                What::Bind(peer) => {
                    channels.rebind(peer, Some(now + REFUSED));
                }
                _ => over = Some(Change::Over(Ending::NoAnswer)),
            }
            false
        });
        over
    }

    fn granted(
        &mut self,
        now: Instant,
        what: What,
        message: &StunMessage,
        out: &mut VecDeque<Transmit>,
    ) -> Option<Change> {
        match what {
            What::Allocate => {
                let relayed =
                    message.get::<XorRelayedAddress>().and_then(|a| a.as_xor_relayed_address().ok());
                let mapped = message.get::<XorMappedAddress>().and_then(|a| a.as_xor_mapped_address().ok());
                let Some(relayed) = relayed else { return Some(Change::Over(Ending::Refused(0))) };
                self.relayed = Some(*relayed.socket_address());
                self.mapped = mapped.map(|a| *a.socket_address());
                self.refresh_at = Some(now + self.keepalive);
                Some(Change::Live)
            }
            What::Refresh => {
                self.refresh_at = Some(now + self.keepalive);
                None
            }
            What::Release => {
                self.ask(now, What::Allocate, 0, out);
                None
            }
            What::Bind(peer) => {
                let channel = self.channels.get_mut(peer)?;
                let first = !std::mem::replace(&mut channel.bound, true);
                self.channels.rebind(peer, Some(now + REBIND));
                first.then_some(Change::Bound(peer))
            }
        }
    }

    /// Errors are believed without integrity: a server that cannot check ours cannot give its own.
    fn refused(
        &mut self,
        now: Instant,
        ask: &Ask,
        message: &StunMessage,
        out: &mut VecDeque<Transmit>,
    ) -> Option<Change> {
        let code = message.get::<ErrorCode>().and_then(|a| a.as_error_code().ok());
        let code = code.map_or(0, |a| a.error_code().error_code());
        match (code, ask.what) {
            (401 | 438, what) => match self.credentials.on_challenge(message) {
                Ok(true) if ask.challenges < MAX_CHALLENGES => {
                    self.ask(now, what, ask.challenges + 1, out);
                    None
                }
                Ok(_) => Some(Change::Over(Ending::Refused(code))),
                Err(_) => Some(Change::Over(Ending::Refused(0))),
            },
            (437, What::Allocate) if ask.challenges <= MAX_CHALLENGES => {
                self.ask(now, What::Release, MAX_CHALLENGES + 1, out);
                None
            }
            (_, What::Release) => {
                self.ask(now, What::Allocate, MAX_CHALLENGES + 1, out);
                None
            }
            (437, _) => Some(Change::Over(Ending::Forgotten)),
            (_, What::Bind(peer)) => {
                self.channels.rebind(peer, Some(now + REFUSED));
                None
            }
            _ => Some(Change::Over(Ending::Refused(code))),
        }
    }

    fn ask(&mut self, now: Instant, what: What, challenges: u8, out: &mut VecDeque<Transmit>) {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        let Some(bytes) = self.request(what, id).and_then(|message| self.credentials.sign(message)) else {
            return;
        };
        if let What::Bind(peer) = what {
            self.channels.rebind(peer, None);
        }
        let wait = if matches!(self.local, Local::Socket(_)) { FIRST_GAP } else { STREAM_PATIENCE };
        out.push_back(Transmit { local: self.local, destination: self.server.address, bytes: bytes.clone() });
        self.asks.push(Ask { id, what, bytes, tries: 1, challenges, next: now + wait });
    }

    fn request(&self, what: What, id: [u8; 12]) -> Option<StunMessageBuilder> {
        let message = |method: MessageMethod| {
            StunMessageBuilder::new(method, MessageClass::Request).with_transaction_id(id.into())
        };
        Some(match what {
            What::Allocate => message(ALLOCATE).with_attribute(RequestedTrasport::new(UDP)),
            What::Refresh => message(REFRESH),
            What::Release => message(REFRESH).with_attribute(LifeTime::from(0)),
            What::Bind(peer) => {
                let number = self.channels.get(peer)?.number;
                message(CHANNEL_BIND)
                    .with_attribute(ChannelNumber::new(number))
                    .with_attribute(XorPeerAddress::from(peer))
            }
        })
    }
}
