//! One allocation: requesting, refreshing, binding channels, losing it.

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
use tracing::{debug, trace};

use crate::{
    api::{RelayServer, RelayTransport, Transmit},
    path::{AllocationId, Hop, Local},
    turn::{
        channels::Channels,
        indication,
        requests::{PendingRequests, Request, RequestKind},
    },
};

/// Refresh interval over a stream: nothing needs keeping alive but the allocation, which lasts ten minutes.
const STREAM_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Interval at which channels are bound again: the permission that comes with one lasts five minutes.
const REBIND_INTERVAL: Duration = Duration::from_secs(240);
/// Pause before a channel that was refused is requested again.
const REFUSED_CHANNEL_PAUSE: Duration = Duration::from_secs(30);
/// Least interval between two requests whether the server still knows the allocation.
const MIN_VERIFY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a server may take to answer before it is in doubt. The allocation is given up much later.
const UNANSWERED_AFTER: Duration = Duration::from_secs(2);
/// How often a request may be signed again because of a new nonce.
const MAX_CHALLENGES: u8 = 3;
/// Marks a request that releases an older allocation, or follows such a release, so that it happens only once.
const AFTER_RELEASE: u8 = MAX_CHALLENGES + 1;

const UNAUTHORIZED: u16 = 401;
const ALLOCATION_MISMATCH: u16 = 437;
const STALE_NONCE: u16 = 438;
const WRONG_CREDENTIALS: u16 = 441;
/// Least time until the next Refresh, whatever lifetime the server grants.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// What changed about an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AllocationChange {
    /// The server granted a relayed address.
    Granted,
    /// The channel to this peer address is bound.
    ChannelBound(SocketAddr),
    /// The allocation has ended.
    Ended(AllocationEnd),
}

/// Why an allocation has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AllocationEnd {
    /// The server did not respond.
    NoResponse,
    /// The server lost the allocation, probably because it restarted.
    Lost,
    /// The server refused with this error code; zero if its response made no sense.
    Refused(u16),
    /// The stream was closed.
    StreamClosed,
}

/// What a message from the server was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerMessage {
    /// Not the response to a request of this allocation.
    Foreign,
    /// A response, with what it changed.
    Response(Option<AllocationChange>),
    /// Data from a peer, and where it lies in the message.
    Data {
        /// The peer's address as the server sees it.
        peer: SocketAddr,
        /// Where the data lies in the message.
        payload: Range<usize>,
    },
}

/// An allocation that is requested or held.
pub(crate) struct Allocation {
    pub(crate) id: AllocationId,
    pub(crate) server: RelayServer,
    pub(crate) local: Local,
    credentials: Credentials,
    /// User name and password of a newer grant, to be used from the next Refresh on.
    next_credentials: Option<(String, String)>,
    /// Those used before, until the server has accepted the newer ones for this allocation.
    former_credentials: Option<Credentials>,
    rng: ChaCha20Rng,
    relayed: Option<SocketAddr>,
    mapped: Option<SocketAddr>,
    requests: PendingRequests,
    channels: Channels,
    refresh_interval: Duration,
    refresh_at: Option<Instant>,
    /// When the server was last asked whether it still knows this allocation.
    verified_at: Option<Instant>,
}

impl Allocation {
    /// Creates an allocation that is not requested yet. `credentials` are those of an earlier allocation at the same
    /// server, whose challenge need not be repeated.
    pub(crate) fn new(
        id: AllocationId,
        server: RelayServer,
        local: Local,
        rng: ChaCha20Rng,
        keepalive: Duration,
        credentials: Option<Credentials>,
    ) -> Self {
        let udp = server.transport == RelayTransport::Udp;
        Self {
            credentials: credentials.unwrap_or_else(|| Credentials::new(&server.username, &server.password)),
            next_credentials: None,
            former_credentials: None,
            id,
            server,
            local,
            rng,
            relayed: None,
            mapped: None,
            requests: PendingRequests::new(matches!(local, Local::Socket(_))),
            channels: Channels::new(),
            refresh_interval: if udp { keepalive } else { STREAM_REFRESH_INTERVAL },
            refresh_at: None,
            verified_at: None,
        }
    }

    /// Returns the credentials if they hold a challenge that the next allocation at this server can answer at once.
    pub(crate) fn into_credentials(self) -> Option<Credentials> {
        Some(self.credentials).filter(Credentials::signs_requests)
    }

    /// Takes the credentials of a newer grant. The server may refuse them for an allocation that was made with others.
    pub(crate) fn set_credentials(&mut self, username: &str, password: &str) {
        let is_new = !self.credentials.belong_to(username, password);
        self.next_credentials = is_new.then(|| (username.to_owned(), password.to_owned()));
    }

    /// Uses newer credentials, unless a response is awaited that the server signs with those at hand.
    fn adopt_credentials(&mut self) {
        if !self.requests.is_empty() {
            return;
        }
        if let Some((username, password)) = self.next_credentials.take() {
            debug!(relay = %self.server.name, reason = "new grant", "allocation refreshed with new credentials");
            let next = self.credentials.with_user(&username, &password);
            self.former_credentials = Some(std::mem::replace(&mut self.credentials, next));
        }
    }

    /// Requests the allocation; over a stream, once that is open.
    pub(crate) fn start(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        self.request(now, RequestKind::Allocate, 0, out);
    }

    /// Returns the relayed address, once granted.
    pub(crate) const fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Returns the address at which the server sees the main UDP socket; `None` over streams.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        self.mapped.filter(|_| self.server.transport == RelayTransport::Udp)
    }

    /// Returns how packets leave to a peer address, once its channel is bound.
    pub(crate) fn hop(&self, peer: SocketAddr) -> Option<Hop> {
        let channel = self.channels.get(peer).filter(|channel| channel.bound)?.number;
        Some(Hop { local: self.local, destination: self.server.address, channel: Some(channel) })
    }

    /// Acquires the channel to a peer address, which is bound if it is not yet. Returns true if it is bound already.
    /// Every call needs a [`Self::release_channel`].
    pub(crate) fn acquire_channel(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        out: &mut VecDeque<Transmit>,
    ) -> bool {
        if self.channels.acquire(peer) {
            debug!(relay = %self.server.name, %peer, "binding a channel");
            self.request(now, RequestKind::ChannelBind(peer), 0, out);
        }
        self.channels.get(peer).is_some_and(|channel| channel.bound)
    }

    /// Releases the channel to a peer address.
    pub(crate) fn release_channel(&mut self, peer: SocketAddr) {
        trace!(relay = %self.server.name, %peer, "channel released by a pair");
        self.channels.release(peer);
    }

    /// Asks the server, at most once a second, whether it still knows the allocation.
    pub(crate) fn verify(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        let recent = self.verified_at.is_some_and(|at| now < at + MIN_VERIFY_INTERVAL);
        if self.relayed.is_some() && !recent && !self.requests.contains(RequestKind::Refresh) {
            trace!(relay = %self.server.name, "asking the server whether the allocation still stands");
            self.verified_at = Some(now);
            self.adopt_credentials();
            self.request(now, RequestKind::Refresh, 0, out);
        }
    }

    /// Returns true if the server has left a question about the allocation unanswered for so long that it may be gone.
    pub(crate) fn is_unanswered(&self, now: Instant) -> bool {
        let asked = self.verified_at.filter(|_| self.requests.contains(RequestKind::Refresh));
        asked.is_some_and(|at| now >= at + UNANSWERED_AFTER)
    }

    /// Asks the server at once, whatever is pending, because the network may be another one.
    pub(crate) fn verify_now(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        debug!(relay = %self.server.name, reason = "network changed", "asking the server at once");
        self.verified_at = None;
        self.requests.cancel(RequestKind::Refresh);
        self.verify(now, out);
    }

    /// Gives the allocation back, without waiting for the response.
    pub(crate) fn release(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        if self.relayed.is_some() {
            debug!(relay = %self.server.name, "allocation released");
            self.request(now, RequestKind::Release, 0, out);
        }
    }

    /// Returns the peer that ChannelData is from, and where the data lies.
    pub(crate) fn channel_data(&self, bytes: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
        let (number, payload) = datagram::channel_data(bytes)?;
        Some((self.channels.peer_of(number)?, payload))
    }

    /// Takes a STUN message that arrived from the server's address.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        bytes: &[u8],
        out: &mut VecDeque<Transmit>,
    ) -> ServerMessage {
        if bytes.get(..2) == Some(&indication::DATA) {
            return indication::parse(bytes)
                .map_or(ServerMessage::Foreign, |(peer, payload)| ServerMessage::Data { peer, payload });
        }
        if !self.requests.is_asked(bytes) {
            return ServerMessage::Foreign;
        }
        let Ok((message, _)) = MessageDecoder::default().decode(bytes) else { return ServerMessage::Foreign };
        let success = match message.class() {
            MessageClass::SuccessResponse if self.credentials.verify(bytes, &message) => true,
            MessageClass::ErrorResponse => false,
            class => {
                debug!(relay = %self.server.name, ?class, reason = "no valid integrity", "response dropped");
                return ServerMessage::Foreign;
            }
        };
        let Some(request) = self.requests.take(bytes) else { return ServerMessage::Foreign };
        ServerMessage::Response(if success {
            self.on_success(now, request.kind, &message, out)
        } else {
            self.on_error(now, &request, &message, out)
        })
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let rebind = self.channels.next_rebind();
        self.requests.deadline().into_iter().chain(rebind).chain(self.refresh_at).min()
    }

    /// Sends what is due. Requests that time out end the allocation, except for channels.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut VecDeque<Transmit>,
    ) -> Option<AllocationChange> {
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            self.verify(now, out);
        }
        while let Some(peer) = self.channels.pop_due(now) {
            self.request(now, RequestKind::ChannelBind(peer), 0, out);
        }
        self.retransmit(now, out)
    }

    fn retransmit(&mut self, now: Instant, out: &mut VecDeque<Transmit>) -> Option<AllocationChange> {
        let (local, destination, relay) = (self.local, self.server.address, &self.server.name);
        let timed_out = self.requests.handle_timeout(now, |request, count| {
            trace!(%relay, request = ?request.kind, count, "request retransmitted");
            out.push_back(Transmit { local, destination, bytes: request.bytes.clone() });
        });
        let mut change = None;
        for request in timed_out {
            debug!(relay = %self.server.name, request = ?request.kind, "request timed out");
            match request.kind {
                RequestKind::ChannelBind(peer) => self.pause_channel(now, peer),
                _ => change = Some(AllocationChange::Ended(AllocationEnd::NoResponse)),
            }
        }
        change
    }

    fn pause_channel(&mut self, now: Instant, peer: SocketAddr) {
        debug!(
            relay = %self.server.name, %peer, retry_ms = REFUSED_CHANNEL_PAUSE.as_millis(),
            "channel not bound"
        );
        self.channels.set_rebind(peer, Some(now + REFUSED_CHANNEL_PAUSE));
    }

    fn on_success(
        &mut self,
        now: Instant,
        kind: RequestKind,
        message: &StunMessage,
        out: &mut VecDeque<Transmit>,
    ) -> Option<AllocationChange> {
        match kind {
            RequestKind::Allocate => Some(self.on_allocated(now, message)),
            RequestKind::Refresh => {
                trace!(relay = %self.server.name, after_ms = self.since_verified(now), "allocation refreshed");
                self.former_credentials = None;
                self.refresh_at = Some(now + self.refresh_delay(message));
                None
            }
            RequestKind::Release => {
                self.request(now, RequestKind::Allocate, 0, out);
                None
            }
            RequestKind::ChannelBind(peer) => {
                let first = self.channels.on_bound(peer, now + REBIND_INTERVAL)?;
                trace!(relay = %self.server.name, %peer, first, "channel bound");
                first.then_some(AllocationChange::ChannelBound(peer))
            }
        }
    }

    fn since_verified(&self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.verified_at?);
        u64::try_from(since.as_millis()).ok()
    }

    fn on_allocated(&mut self, now: Instant, message: &StunMessage) -> AllocationChange {
        let relayed = message.get::<XorRelayedAddress>().and_then(|a| a.as_xor_relayed_address().ok());
        let mapped = message.get::<XorMappedAddress>().and_then(|a| a.as_xor_mapped_address().ok());
        let Some(relayed) = relayed else {
            debug!(relay = %self.server.name, reason = "no relayed address", "response makes no sense");
            return AllocationChange::Ended(AllocationEnd::Refused(0));
        };
        self.relayed = Some(*relayed.socket_address());
        self.mapped = mapped.map(|a| *a.socket_address());
        let (relayed, mapped) = (self.relayed, self.mapped);
        debug!(relay = %self.server.name, ?relayed, ?mapped, "relayed address granted");
        self.refresh_at = Some(now + self.refresh_delay(message));
        AllocationChange::Granted
    }

    /// Returns the time until the next Refresh: no later than the allocation ends, so that one that ends with its
    /// credentials is noticed at once.
    fn refresh_delay(&self, message: &StunMessage) -> Duration {
        let lifetime = message.get::<LifeTime>().and_then(|a| a.as_life_time().ok());
        let lifetime = lifetime.map(|lifetime| Duration::from_secs(lifetime.as_u32().into()));
        lifetime.map_or(self.refresh_interval, |end| self.refresh_interval.min(end).max(MIN_REFRESH_INTERVAL))
    }

    /// Takes an error response. Errors are believed without integrity: a server that cannot check ours cannot give
    /// its own.
    fn on_error(
        &mut self,
        now: Instant,
        request: &Request,
        message: &StunMessage,
        out: &mut VecDeque<Transmit>,
    ) -> Option<AllocationChange> {
        let code = message.get::<ErrorCode>().and_then(|a| a.as_error_code().ok());
        let code = code.map_or(0, |a| a.error_code().error_code());
        trace!(relay = %self.server.name, request = ?request.kind, code, "error response");
        match (code, request.kind) {
            (UNAUTHORIZED | STALE_NONCE, _) => self.on_challenge(now, request, message, code, out),
            (ALLOCATION_MISMATCH, RequestKind::Allocate) if request.challenges <= MAX_CHALLENGES => {
                debug!(relay = %self.server.name, "server remembers an older allocation; releasing it");
                self.request(now, RequestKind::Release, AFTER_RELEASE, out);
                None
            }
            (WRONG_CREDENTIALS, kind) if self.former_credentials.is_some() => {
                debug!(relay = %self.server.name, "server wants the allocation's first credentials");
                self.credentials = self.former_credentials.take()?;
                self.request(now, kind, 0, out);
                None
            }
            (_, RequestKind::Release) => {
                self.request(now, RequestKind::Allocate, AFTER_RELEASE, out);
                None
            }
            (ALLOCATION_MISMATCH, kind) => {
                debug!(relay = %self.server.name, request = ?kind, "server has lost the allocation");
                Some(AllocationChange::Ended(AllocationEnd::Lost))
            }
            (_, RequestKind::ChannelBind(peer)) => {
                self.pause_channel(now, peer);
                None
            }
            _ => Some(AllocationChange::Ended(AllocationEnd::Refused(code))),
        }
    }

    fn on_challenge(
        &mut self,
        now: Instant,
        request: &Request,
        message: &StunMessage,
        code: u16,
        out: &mut VecDeque<Transmit>,
    ) -> Option<AllocationChange> {
        match self.credentials.on_challenge(message) {
            Ok(true) if request.challenges < MAX_CHALLENGES => {
                self.request(now, request.kind, request.challenges + 1, out);
                None
            }
            Ok(_) => {
                debug!(relay = %self.server.name, code, count = request.challenges, "credentials refused");
                Some(AllocationChange::Ended(AllocationEnd::Refused(code)))
            }
            Err(_) => Some(AllocationChange::Ended(AllocationEnd::Refused(0))),
        }
    }

    fn request(&mut self, now: Instant, kind: RequestKind, challenges: u8, out: &mut VecDeque<Transmit>) {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        let Some(bytes) = self.message(kind, id).and_then(|message| self.credentials.sign(message)) else {
            return;
        };
        if let RequestKind::ChannelBind(peer) = kind {
            self.channels.set_rebind(peer, None);
        }
        trace!(relay = %self.server.name, request = ?kind, challenges, "request sent");
        let (local, destination) = (self.local, self.server.address);
        out.push_back(Transmit { local, destination, bytes: bytes.clone() });
        self.requests.add(now, id, kind, bytes, challenges);
    }

    fn message(&self, kind: RequestKind, id: [u8; 12]) -> Option<StunMessageBuilder> {
        let message = |method: MessageMethod| {
            StunMessageBuilder::new(method, MessageClass::Request).with_transaction_id(id.into())
        };
        Some(match kind {
            RequestKind::Allocate => message(ALLOCATE).with_attribute(RequestedTrasport::new(UDP)),
            RequestKind::Refresh => message(REFRESH),
            RequestKind::Release => message(REFRESH).with_attribute(LifeTime::from(0)),
            RequestKind::ChannelBind(peer) => {
                let number = self.channels.get(peer)?.number;
                message(CHANNEL_BIND)
                    .with_attribute(ChannelNumber::new(number))
                    .with_attribute(XorPeerAddress::from(peer))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::SocketId;
    use rand_core::SeedableRng;
    use stun_rs::{
        HMACKey, MessageEncoderBuilder,
        attributes::stun::{MessageIntegrity, Nonce, Realm},
    };

    use super::*;

    const KEEPALIVE: Duration = Duration::from_secs(15);

    /// An allocation and the server it talks to, which answers one request at a time as the test says.
    struct Exchange {
        allocation: Allocation,
        out: VecDeque<Transmit>,
        now: Instant,
    }

    impl Exchange {
        #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
        fn new() -> Self {
            let server = RelayServer {
                name: "relay".into(),
                transport: RelayTransport::Udp,
                address: "203.0.113.1:3478".parse().unwrap(),
                host: "relay.test".into(),
                username: "user".into(),
                password: "secret".into(),
            };
            let local = Local::Socket(SocketId::MAIN);
            let rng = ChaCha20Rng::from_seed([1; 32]);
            let mut allocation = Allocation::new(AllocationId(1), server, local, rng, KEEPALIVE, None);
            let (mut out, now) = (VecDeque::new(), Instant::now());
            allocation.start(now, &mut out);
            Self { allocation, out, now }
        }

        /// An exchange whose allocation was granted.
        fn granted() -> Self {
            let mut exchange = Self::new();
            assert_eq!(exchange.refuse(401), ServerMessage::Response(None));
            assert_eq!(exchange.grant(), ServerMessage::Response(Some(AllocationChange::Granted)));
            exchange
        }

        /// The request that was sent last.
        fn request(&mut self) -> StunMessage {
            let transmit = self.out.pop_back().expect("a request was sent");
            self.out.clear();
            MessageDecoder::default().decode(&transmit.bytes).unwrap().0
        }

        fn respond(&mut self, message: StunMessageBuilder) -> ServerMessage {
            let mut bytes = vec![0; 512];
            let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message.build()).unwrap();
            self.allocation.handle_message(self.now, &bytes[..len], &mut self.out)
        }

        fn refuse(&mut self, code: u16) -> ServerMessage {
            let request = self.request();
            let error = stun_rs::ErrorCode::new(code, "no").unwrap();
            self.respond(
                StunMessageBuilder::new(request.method(), MessageClass::ErrorResponse)
                    .with_transaction_id(*request.transaction_id())
                    .with_attribute(ErrorCode::from(error))
                    .with_attribute(Realm::new("test").unwrap())
                    .with_attribute(Nonce::new("nonce").unwrap()),
            )
        }

        fn grant(&mut self) -> ServerMessage {
            let request = self.request();
            let algorithm = stun_rs::Algorithm::from(stun_rs::AlgorithmId::MD5);
            let key = HMACKey::new_long_term("user", "test", "secret", algorithm).unwrap();
            self.respond(
                StunMessageBuilder::new(request.method(), MessageClass::SuccessResponse)
                    .with_transaction_id(*request.transaction_id())
                    .with_attribute(XorRelayedAddress::from(SocketAddr::from(([203, 0, 113, 1], 50_000))))
                    .with_attribute(XorMappedAddress::from(SocketAddr::from(([198, 51, 100, 1], 40_000))))
                    .with_attribute(MessageIntegrity::new(key)),
            )
        }

        fn pass(&mut self, span: Duration) -> Option<AllocationChange> {
            self.now += span;
            self.allocation.handle_timeout(self.now, &mut self.out)
        }
    }

    fn peer() -> SocketAddr {
        ([192, 0, 2, 9], 9).into()
    }

    #[test]
    fn a_challenge_is_answered_and_the_allocation_granted() {
        let exchange = Exchange::granted();
        assert_eq!(exchange.allocation.relayed(), Some("203.0.113.1:50000".parse().unwrap()));
        assert_eq!(exchange.allocation.mapped(), Some("198.51.100.1:40000".parse().unwrap()));
        assert_eq!(exchange.allocation.deadline(), Some(exchange.now + KEEPALIVE));
    }

    #[test]
    fn wrong_credentials_end_it_after_few_challenges() {
        let mut exchange = Exchange::new();
        let refused = AllocationChange::Ended(AllocationEnd::Refused(401));
        let count =
            (0..).take_while(|_| exchange.refuse(401) != ServerMessage::Response(Some(refused))).count();
        assert!(count <= usize::from(MAX_CHALLENGES), "{count}");
    }

    #[test]
    fn unsigned_success_is_not_believed() {
        let mut exchange = Exchange::new();
        exchange.refuse(401);
        let request = exchange.request();
        let forged = StunMessageBuilder::new(request.method(), MessageClass::SuccessResponse)
            .with_transaction_id(*request.transaction_id())
            .with_attribute(XorRelayedAddress::from(peer()));
        assert_eq!(exchange.respond(forged), ServerMessage::Foreign);
        assert_eq!(exchange.allocation.relayed(), None);
    }

    #[test]
    fn an_older_allocation_is_released_once() {
        let mut exchange = Exchange::new();
        exchange.refuse(401);
        assert_eq!(exchange.refuse(437), ServerMessage::Response(None));
        assert_eq!(exchange.grant(), ServerMessage::Response(None), "released");
        assert_eq!(exchange.grant(), ServerMessage::Response(Some(AllocationChange::Granted)));
    }

    #[test]
    fn a_server_that_lost_the_allocation_ends_it_at_the_next_refresh() {
        let mut exchange = Exchange::granted();
        assert_eq!(exchange.pass(KEEPALIVE), None);
        let lost = AllocationChange::Ended(AllocationEnd::Lost);
        assert_eq!(exchange.refuse(437), ServerMessage::Response(Some(lost)));
    }

    #[test]
    fn a_refresh_without_response_ends_it_after_eight_seconds() {
        let mut exchange = Exchange::granted();
        exchange.pass(KEEPALIVE);
        let begin = exchange.now;
        let end = loop {
            let wait = exchange.allocation.deadline().unwrap() - exchange.now;
            if let Some(change) = exchange.pass(wait) {
                break change;
            }
        };
        assert_eq!(end, AllocationChange::Ended(AllocationEnd::NoResponse));
        assert_eq!((exchange.now - begin).as_millis(), 8250);
    }

    #[test]
    fn the_server_is_asked_at_most_once_a_second() {
        let mut exchange = Exchange::granted();
        exchange.allocation.verify(exchange.now, &mut exchange.out);
        exchange.grant();
        exchange.allocation.verify(exchange.now + Duration::from_millis(999), &mut exchange.out);
        assert!(exchange.out.is_empty());
        exchange.allocation.verify_now(exchange.now, &mut exchange.out);
        assert_eq!(exchange.out.len(), 1);
    }

    #[test]
    fn an_allocation_is_refreshed_with_the_credentials_of_a_newer_grant() {
        let mut exchange = Exchange::granted();
        exchange.allocation.set_credentials("user", "newer");
        exchange.pass(KEEPALIVE);
        // At once, since the challenge is known.
        assert!(exchange.request().get::<MessageIntegrity>().is_some());
        assert!(exchange.allocation.credentials.belong_to("user", "newer"));
    }

    #[test]
    fn a_server_that_refuses_newer_credentials_gets_the_former_ones() {
        let mut exchange = Exchange::granted();
        exchange.allocation.set_credentials("other", "newer");
        exchange.pass(KEEPALIVE);
        assert_eq!(exchange.refuse(441), ServerMessage::Response(None));
        assert_eq!(exchange.grant(), ServerMessage::Response(None), "refreshed with the former credentials");
        let refused = AllocationChange::Ended(AllocationEnd::Refused(441));
        exchange.pass(KEEPALIVE);
        assert_eq!(exchange.refuse(441), ServerMessage::Response(Some(refused)));
    }

    #[test]
    fn a_channel_carries_packets_once_bound_and_is_bound_again_in_time() {
        let mut exchange = Exchange::granted();
        assert!(!exchange.allocation.acquire_channel(exchange.now, peer(), &mut exchange.out));
        assert_eq!(exchange.allocation.hop(peer()), None);
        let bound = AllocationChange::ChannelBound(peer());
        assert_eq!(exchange.grant(), ServerMessage::Response(Some(bound)));
        let hop = exchange.allocation.hop(peer()).unwrap();
        let mut data = datagram::channel_header(hop.channel.unwrap(), 3).to_vec();
        data.extend(b"abc");
        assert_eq!(exchange.allocation.channel_data(&data), Some((peer(), 4..7)));
        exchange.pass(REBIND_INTERVAL);
        assert_eq!(exchange.request().method(), CHANNEL_BIND);
    }

    #[test]
    fn a_refused_channel_is_requested_again_later_and_does_not_end_the_allocation() {
        let mut exchange = Exchange::granted();
        exchange.allocation.acquire_channel(exchange.now, peer(), &mut exchange.out);
        assert_eq!(exchange.refuse(403), ServerMessage::Response(None));
        exchange.allocation.refresh_at = None;
        assert_eq!(exchange.allocation.deadline(), Some(exchange.now + REFUSED_CHANNEL_PAUSE));
        exchange.allocation.release_channel(peer());
        assert_eq!(exchange.allocation.deadline(), None);
    }
}
