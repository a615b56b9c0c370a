//! One allocation: asking, keeping, binding channels, losing.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use partyline_wire::{
    credentials::Credentials,
    datagram::{self, FIRST_CHANNEL, LAST_CHANNEL},
};
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

use super::indication;
use crate::api::{AllocationId, Local, RelayServer, RelayTransport, Transmit};

/// Gap before the first repetition of a request over UDP; each further one doubles.
const FIRST_GAP: Duration = Duration::from_millis(250);
/// How often a request is sent over UDP before it counts as unanswered, about 8 s in all.
const MAX_TRIES: u8 = 5;
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

struct Ask {
    id: [u8; 12],
    what: What,
    bytes: Vec<u8>,
    tries: u8,
    challenges: u8,
    next: Instant,
}

struct Channel {
    number: u16,
    bound: bool,
    users: u32,
    rebind_at: Option<Instant>,
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
    channels: BTreeMap<SocketAddr, Channel>,
    numbers: BTreeMap<u16, SocketAddr>,
    next_channel: u16,
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
            channels: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_channel: FIRST_CHANNEL,
            keepalive,
            refresh_at: None,
            verified_at: None,
        }
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
        self.channels.get(&peer).filter(|c| c.bound).map(|c| c.number)
    }

    /// Wants a channel to an address. Every call needs an [`Self::unbind`].
    pub(crate) fn bind(&mut self, now: Instant, peer: SocketAddr, out: &mut VecDeque<Transmit>) {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.users += 1;
        } else if let Some(number) = self.former_channel(peer).or_else(|| self.free_channel()) {
            self.numbers.insert(number, peer);
            self.channels.insert(peer, Channel { number, bound: false, users: 1, rebind_at: None });
            self.ask(now, What::Bind(peer), 0, out);
        }
    }

    /// No longer wants a channel. It stays with the server until it expires there, which refuses the address another
    /// number until then (RFC 8656, section 12.2): so the address keeps its own, and no other gets it before all others
    /// were given away.
    pub(crate) fn unbind(&mut self, peer: SocketAddr) {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.users -= 1;
            if channel.users == 0 {
                self.channels.remove(&peer);
            }
        }
    }

    /// Makes sure that the server still knows this allocation; asks at most once a second.
    pub(crate) fn verify(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        let lately = self.verified_at.is_some_and(|at| now < at + VERIFY_GAP);
        if self.relayed.is_some() && !lately && !self.asks.iter().any(|ask| ask.what == What::Refresh) {
            self.verified_at = Some(now);
            self.ask(now, What::Refresh, 0, out);
        }
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
        let peer = self.numbers.get(&number).filter(|peer| self.channels.contains_key(peer))?;
        Some((*peer, payload))
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
            MessageClass::SuccessResponse if self.credentials.proven(bytes, &message) => {
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
        let rebind = self.channels.values().filter_map(|c| c.rebind_at).min();
        self.asks.iter().map(|ask| ask.next).chain(rebind).chain(self.refresh_at).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Transmit>) -> Option<Change> {
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            self.verify(now, out);
        }
        let due = |c: &Channel| c.rebind_at.is_some_and(|at| at <= now);
        let peers: Vec<SocketAddr> =
            self.channels.iter().filter(|(_, c)| due(c)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.ask(now, What::Bind(peer), 0, out);
        }
        self.repeat(now, out)
    }

    /// Sends again what was not answered, and gives up on what was not answered often enough.
    fn repeat(&mut self, now: Instant, out: &mut VecDeque<Transmit>) -> Option<Change> {
        let mut over = None;
        let (local, dst) = (self.local, self.server.address);
        let channels = &mut self.channels;
        self.asks.retain_mut(|ask| {
            if ask.next > now {
                return true;
            }
            if ask.tries < MAX_TRIES && matches!(local, Local::Udp(_)) {
                ask.next = now + FIRST_GAP * (1 << ask.tries);
                ask.tries += 1;
                out.push_back(Transmit { local, dst, bytes: ask.bytes.clone() });
                return true;
            }
            match ask.what {
                What::Bind(peer) => {
                    if let Some(channel) = channels.get_mut(&peer) {
                        channel.rebind_at = Some(now + REFUSED);
                    }
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
                let channel = self.channels.get_mut(&peer)?;
                channel.rebind_at = Some(now + REBIND);
                let first = !std::mem::replace(&mut channel.bound, true);
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
            (401 | 438, what) => match self.credentials.challenged(message) {
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
                let channel = self.channels.get_mut(&peer)?;
                channel.rebind_at = Some(now + REFUSED);
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
        if let What::Bind(peer) = what
            && let Some(channel) = self.channels.get_mut(&peer)
        {
            channel.rebind_at = None;
        }
        let wait = if matches!(self.local, Local::Udp(_)) { FIRST_GAP } else { STREAM_PATIENCE };
        out.push_back(Transmit { local: self.local, dst: self.server.address, bytes: bytes.clone() });
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
                let number = self.channels.get(&peer)?.number;
                message(CHANNEL_BIND)
                    .with_attribute(ChannelNumber::new(number))
                    .with_attribute(XorPeerAddress::from(peer))
            }
        })
    }

    fn former_channel(&self, peer: SocketAddr) -> Option<u16> {
        self.numbers.iter().find(|(_, owner)| **owner == peer).map(|(number, _)| *number)
    }

    /// A number nobody had, else one whose owner does not want it any more.
    fn free_channel(&mut self) -> Option<u16> {
        let count = LAST_CHANNEL - FIRST_CHANNEL + 1;
        let next = |number| if number == LAST_CHANNEL { FIRST_CHANNEL } else { number + 1 };
        let order = std::iter::successors(Some(self.next_channel), |number| Some(next(*number)));
        let mut candidates = order.take(count.into());
        let owner = |number: &u16| self.numbers.get(number);
        let unwanted = |number: &u16| owner(number).is_some_and(|peer| !self.channels.contains_key(peer));
        let number = candidates
            .clone()
            .find(|number| owner(number).is_none())
            .or_else(|| candidates.find(unwanted))?;
        self.next_channel = next(number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::api::{RelayTransport, SocketId};

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn an_address_that_is_wanted_again_has_its_channel_again() {
        let (now, mut out) = (Instant::now(), VecDeque::new());
        let server = RelayServer {
            name: "relay".into(),
            transport: RelayTransport::Udp,
            address: ([192, 0, 2, 1], 3478).into(),
            host: "relay".into(),
            username: String::new(),
            password: String::new(),
        };
        let (local, rng) = (Local::Udp(SocketId::MAIN), ChaCha20Rng::from_seed([1; 32]));
        let mut allocation = Allocation::new(AllocationId(1), server, local, rng, Duration::from_secs(15));
        let [one, other] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 2], port)));
        let number = |allocation: &Allocation, peer| allocation.channels.get(&peer).map(|c| c.number);
        allocation.bind(now, one, &mut out);
        let first = number(&allocation, one);
        allocation.unbind(one);
        allocation.bind(now, other, &mut out);
        allocation.bind(now, one, &mut out);
        assert!(first.is_some());
        assert_eq!(number(&allocation, one), first);
        assert_ne!(number(&allocation, other), first);
    }
}
