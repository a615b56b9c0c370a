//! The server as one state machine: packets and time in, packets and socket requests out.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;
use partyline_model::{Now, Timestamp, host_network};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use stun_rs::{
    MessageMethod, TransactionId,
    attributes::turn::LifeTime,
    methods::{ALLOCATE, BINDING, CHANNEL_BIND, CREATE_PERMMISSION, REFRESH},
};
use tracing::{debug, trace};

use crate::{
    allocate::{self, AllocateRequest},
    allocation::{Allocation, Pending},
    allocations::Allocations,
    binding,
    channel::BindError,
    classic::ClassicRequest,
    client::{Client, ClientTransport, RelaySocket},
    counters::{Counters, DropReason, Refusal},
    credentials::{Credentials, Identity, is_same_user},
    event::{Event, Forward, Transmit},
    forward::Forwarder,
    frame::{self, Class, Packet},
    listeners::Listeners,
    own_addresses::OwnAddresses,
    rejection::Rejection,
    relayed_addresses::RelayedAddresses,
    request::{NotARequest, Request},
    response::Response,
    settings::{Listener, RelayAddress, Settings},
    source::SourceLimiter,
};

/// The lifetime of an allocation whose client asks for less, in seconds (RFC 8656, section 3.2).
const DEFAULT_LIFETIME_S: u64 = 600;
/// Attempts to bind a socket before an allocation is refused.
const MAX_BIND_ATTEMPTS: u8 = 8;
/// The channel numbers that can be bound. RFC 8656 ends them at 0x4FFF, but RFC 5766, which many clients still follow, at
/// 0x7FFF. Nothing else at a TURN server's port begins with those bytes.
const CHANNEL_NUMBERS: RangeInclusive<u16> = 0x4000..=0x7FFF;

/// How many times longer than its request a response over UDP may be.
const MAX_AMPLIFICATION: usize = 4;

/// What a TURN request led to: a response, or `None` if there will be one once the sockets are bound.
type Outcome = Result<Option<Response>, Rejection>;

/// A TURN and STUN server without sockets.
///
/// After each input, poll [`Self::poll_transmit`] and [`Self::poll_event`] until both return `None`. The packet path does
/// not queue: [`Self::handle_client`] and [`Self::handle_peer`] return at once where to send which part of the buffer.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    listeners: Listeners,
    credentials: Credentials,
    allocations: Allocations,
    forwarder: Forwarder,
    /// Limits answers to clients without an allocation.
    sources: SourceLimiter,
    counters: Counters,
    transmits: VecDeque<Transmit>,
    rng: ChaCha8Rng,
    hasher: FixedState,
}

impl Relay {
    /// Creates a server without allocations. Clients name listeners by their index. Of the relay addresses, the first of each
    /// family counts. The seed must be secret and fresh.
    #[must_use]
    pub fn new(settings: Settings, listeners: Vec<Listener>, relay: &[RelayAddress], seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let hasher = FixedState::with_seed(rng.next_u64());
        let mut nonce_key = [0; 32];
        rng.fill_bytes(&mut nonce_key);
        let mut forwarder_seed = [0; 32];
        rng.fill_bytes(&mut forwarder_seed);
        let forwarder_rng = ChaCha8Rng::from_seed(forwarder_seed);
        let relayed = RelayedAddresses::new(relay, settings.ports.clone(), &hasher);
        debug!(count = listeners.len(), ?relay, ports = ?settings.ports, "relay created");
        Self {
            credentials: Credentials::new(&settings, nonce_key, rng.next_u64()),
            allocations: Allocations::new(relayed, &hasher),
            forwarder: Forwarder::new(&settings, OwnAddresses::new(&listeners, relay), forwarder_rng),
            sources: SourceLimiter::of_answers(settings.quotas.unauthenticated_per_second, rng.next_u64()),
            settings,
            listeners: Listeners::new(listeners),
            counters: Counters::default(),
            transmits: VecDeque::new(),
            rng,
            hasher,
        }
    }

    /// Takes the addresses of the computer's network interfaces in place of those before. Programs there are no peers,
    /// unless private peers are allowed.
    pub fn set_interface_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.forwarder.set_interface_addresses(addresses);
    }

    /// Handles a datagram or stream frame from a client.
    pub fn handle_client(&mut self, now: Now, client: Client, packet: &mut Packet<'_>) -> Forward {
        let tables = (&mut self.allocations, &self.listeners);
        let result = match frame::classify(packet.bytes()) {
            Class::ChannelData => self.forwarder.forward_channel_data(now.instant, tables, client, packet),
            Class::SendIndication => {
                self.forwarder.forward_send_indication(now.instant, tables, client, packet)
            }
            Class::Stun => self.handle_stun(now, client, packet.bytes()).map(|()| Forward::Consumed),
            Class::Classic => self.handle_classic(now, client, packet.bytes()).map(|()| Forward::Consumed),
            Class::Unknown => Err(DropReason::Malformed),
        };
        result.unwrap_or_else(|reason| self.drop_packet(client.address, reason))
    }

    /// Handles a datagram that a peer sent to a relayed address.
    pub fn handle_peer(
        &mut self,
        now: Now,
        socket: RelaySocket,
        peer: SocketAddr,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let result =
            self.forwarder.forward_from_peer(now.instant, &mut self.allocations, socket, peer, packet);
        result.unwrap_or_else(|reason| self.drop_packet(peer, reason))
    }

    /// Handles the end of a client's connection, which ends its allocation (RFC 8656, section 4).
    pub fn handle_disconnect(&mut self, client: Client) {
        match self.allocations.find(client) {
            Some(at) => self.allocations.remove(at, "client disconnected"),
            None => trace!(client = %client.address, "client without an allocation disconnected"),
        }
    }

    /// Handles the answer to [`Event::OpenSocket`]: the socket is bound, or could not be.
    pub fn handle_socket_opened(&mut self, now: Now, socket: RelaySocket, bound: bool) {
        let (at, v6) = (socket.allocation(), socket.is_v6());
        let Some(allocation) = self.allocations.get_mut(at) else {
            return trace!(socket = socket.index(), bound, reason = "allocation is gone", "report ignored");
        };
        let (is_additional, is_open) =
            (v6 && allocation.relayed[0].is_some(), allocation.relayed[usize::from(v6)].is_some());
        let Some(pending) = allocation.pending.as_mut().filter(|_| is_open) else { return };
        pending.sockets = pending.sockets.saturating_sub(1);
        trace!(socket = socket.index(), bound, waiting = pending.sockets, "socket reported");
        if bound || self.retry_socket(at, v6) {
            return self.answer_if_ready(now.instant, at);
        }
        if is_additional {
            debug!(reason = "no free port", "additional address family left out");
            if let Some(allocation) = self.allocations.get_mut(at) {
                allocation.additional_error = Some(Refusal::InsufficientCapacity);
            }
            return self.answer_if_ready(now.instant, at);
        }
        self.abandon(at);
    }

    /// Handles the expiry of allocations.
    pub fn handle_timeout(&mut self, now: Now) {
        self.allocations.expire(now.instant);
    }

    /// Returns the moment to call [`Self::handle_timeout`], if any.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocations.poll_timeout()
    }

    /// Returns the next response to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns the next request to the owner of the sockets.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.allocations.poll_event()
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (packets, bytes) = self.forwarder.relayed();
        Counters { allocations_active: self.allocations.len() as u64, packets, bytes, ..self.counters }
    }

    /// Handles any STUN message but a Send indication. Every method is dispatched here.
    fn handle_stun(&mut self, now: Now, client: Client, bytes: &[u8]) -> Result<(), DropReason> {
        // A client with an allocation has authenticated itself; all others share a rate limit by address before anything
        // is parsed.
        let own = self.allocations.find(client);
        if own.is_none() {
            self.take_answer(now.instant, client)?;
        }
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(NotARequest::Indication) => {
                trace!(client = %client.address, "indication ignored");
                return Ok(());
            }
            Err(NotARequest::Invalid) => return Err(DropReason::Malformed),
            Err(NotARequest::Malformed { method, id }) => {
                if own.is_some() {
                    self.take_answer(now.instant, client)?;
                }
                let method = stun_rs::MessageType::from(method).method();
                let rejection = Refusal::BadRequest.because("malformed attributes");
                let response = self.reject(client, method, id.into(), &rejection);
                self.send(client, response, bytes.len());
                return Ok(());
            }
        };
        self.counters.requests += 1;
        match request.method() {
            BINDING => {
                self.handle_binding(client, &request, bytes.len());
                Ok(())
            }
            ALLOCATE | REFRESH | CREATE_PERMMISSION | CHANNEL_BIND => {
                self.handle_turn(now, client, &request, own, bytes.len())
            }
            method => {
                debug!(client = %client.address, method = method.as_u16(), reason = "unknown method", "request ignored");
                Err(DropReason::Malformed)
            }
        }
    }

    fn handle_binding(&mut self, client: Client, request: &Request<'_>, question: usize) {
        let has_fingerprint = request.has_fingerprint();
        match binding::answer(&self.listeners, client, request) {
            Ok(answer) => {
                self.counters.bindings += 1;
                trace!(client = %client.address, destination = %answer.destination, "binding answered");
                let response = answer.response.fingerprint(has_fingerprint);
                match response.encode(max_answer(client.transport, question)) {
                    Some(payload) => self.transmit(answer.transport, answer.destination, payload),
                    None => self.drop_answer(client),
                }
            }
            Err(rejection) => {
                let response = self.reject(client, BINDING, request.id(), &rejection);
                self.send(client, response.fingerprint(has_fingerprint), question);
            }
        }
    }

    /// Handles a Binding request of RFC 3489.
    fn handle_classic(&mut self, now: Now, client: Client, bytes: &[u8]) -> Result<(), DropReason> {
        let ClientTransport::Udp(index) = client.transport else { return Err(DropReason::Malformed) };
        let request = ClassicRequest::decode(bytes).ok_or(DropReason::Malformed)?;
        self.take_answer(now.instant, client)?;
        self.counters.requests += 1;
        let Some((from, payload)) = request.answer(&self.listeners, index, client.address) else {
            debug!(client = %client.address, reason = "no such listener", "classic binding ignored");
            return Ok(());
        };
        self.counters.bindings += 1;
        trace!(client = %client.address, "classic binding answered");
        self.transmit(ClientTransport::Udp(from), client.address, payload);
        Ok(())
    }

    /// Authenticates a TURN request and answers it, with what the request was signed with.
    fn handle_turn(
        &mut self,
        now: Now,
        client: Client,
        request: &Request<'_>,
        own: Option<usize>,
        question: usize,
    ) -> Result<(), DropReason> {
        let (method, id) = (request.method(), request.id());
        let response = match self.credentials.authenticate(now, request, client.address.ip()) {
            Ok(identity) => {
                trace!(client = %client.address, method = method_name(method), "request authenticated");
                let signature = identity.signature.clone();
                match self.handle_authenticated(now, client, request, identity, own) {
                    Ok(Some(response)) => response.signed(signature),
                    Ok(None) => return Ok(()),
                    Err(rejection) => self.reject(client, method, id, &rejection).signed(signature),
                }
            }
            Err(rejection) => {
                if own.is_some() {
                    self.take_answer(now.instant, client)?;
                }
                let response = self.reject(client, method, id, &rejection);
                if rejection.refusal.is_challenge() {
                    self.credentials.add_challenge(response, now, client.address.ip())
                } else {
                    response
                }
            }
        };
        self.send(client, response.fingerprint(request.has_fingerprint()), question);
        Ok(())
    }

    fn handle_authenticated(
        &mut self,
        now: Now,
        client: Client,
        request: &Request<'_>,
        identity: Identity,
        own: Option<usize>,
    ) -> Outcome {
        let allocation = own.and_then(|at| Some((at, self.allocations.get(at)?)));
        if request.method() == ALLOCATE {
            return match allocation {
                Some((_, allocation)) => retransmitted(allocation, request.id(), now.instant),
                None => self.allocate(now, client, request, identity),
            };
        }
        let Some((at, allocation)) = allocation else {
            return Err(Refusal::AllocationMismatch.because("no allocation"));
        };
        if allocation.pending.is_some() {
            debug!(client = %client.address, reason = "allocation waits for its sockets", "request ignored");
            return Ok(None);
        }
        if !is_same_user(&allocation.username, &identity.username) {
            return Err(Refusal::WrongCredentials.because("allocation of another user"));
        }
        Rejection::unless_understood(request.not_understood(&[]))?;
        let success = Response::success(request.method(), request.id());
        match request.method() {
            REFRESH => self
                .refresh(now, at, request, &identity)
                .map(|lifetime_s| success.with(LifeTime::new(lifetime_s))),
            CREATE_PERMMISSION => self.create_permission(now.instant, at, request).map(|()| success),
            _ => self.bind_channel(now.instant, at, request).map(|()| success),
        }
        .map(Some)
    }

    /// Creates an allocation (RFC 8656, section 7.2). It is answered once its sockets are bound.
    fn allocate(&mut self, now: Now, client: Client, request: &Request<'_>, identity: Identity) -> Outcome {
        let wanted = AllocateRequest::parse(request)?;
        debug!(
            client = %client.address,
            v6 = wanted.v6,
            additional_v6 = wanted.additional_v6,
            even_port = wanted.even_port,
            lifetime_s = request.lifetime_s(),
            "allocation requested"
        );
        if !self.allocations.relayed.supports(wanted.v6) {
            return Err(Refusal::AddressFamilyNotSupported.because("no relay address of this family"));
        }
        self.allocations.check_quotas(&self.settings.quotas, &identity.username, client.address)?;
        let pending = Pending {
            signature: identity.signature,
            fingerprint: request.has_fingerprint(),
            even_port: wanted.even_port,
            sockets: 0,
            attempts: MAX_BIND_ATTEMPTS,
        };
        let expires = now.instant + self.lifetime(now, request, identity.expires);
        let allocation =
            Allocation::new(client, &identity.username, request.id(), expires, &self.hasher, pending);
        let at = self.allocations.insert(allocation);
        if !self.allocations.open_socket(at, wanted.v6, &mut self.rng) {
            return Err(self.allocations.abandon(at));
        }
        if wanted.additional_v6 {
            self.open_additional(at);
        }
        Ok(None)
    }

    /// Opens the IPv6 address in addition to the IPv4 one, or notes why not.
    fn open_additional(&mut self, at: usize) {
        let error = if !self.allocations.relayed.supports(true) {
            Some(Refusal::AddressFamilyNotSupported)
        } else if !self.allocations.open_socket(at, true, &mut self.rng) {
            Some(Refusal::InsufficientCapacity)
        } else {
            None
        };
        if let Some(error) = error {
            debug!(code = error.code(), refusal = error.label(), "additional address family refused");
        }
        if let Some(allocation) = self.allocations.get_mut(at) {
            allocation.additional_error = error;
        }
    }

    /// Replaces a port that turned out to be taken by another program. Returns false after too many attempts.
    fn retry_socket(&mut self, at: usize, v6: bool) -> bool {
        self.allocations.forget_socket(at, v6);
        let pending = self.allocations.get_mut(at).and_then(|allocation| allocation.pending.as_mut());
        let Some(pending) = pending else { return false };
        pending.attempts = pending.attempts.saturating_sub(1);
        debug!(attempts_left = pending.attempts, reason = "port is taken", "relayed address not bound");
        pending.attempts > 0 && self.allocations.open_socket(at, v6, &mut self.rng)
    }

    fn answer_if_ready(&mut self, now: Instant, at: usize) {
        let Some(allocation) = self.allocations.get_mut(at) else { return };
        let Some(pending) = allocation.pending.take_if(|pending| pending.sockets == 0) else { return };
        let client = allocation.client;
        debug!(client = %client.address, relayed = ?allocation.relayed, "allocation created");
        let response = allocate::success_response(allocation, now);
        self.counters.allocations_created += 1;
        let Pending { signature, fingerprint, .. } = *pending;
        self.send_later(client, response.signed(signature).fingerprint(fingerprint));
    }

    /// Refuses an allocation for which no socket could be bound.
    fn abandon(&mut self, at: usize) {
        let Some(allocation) = self.allocations.get_mut(at) else { return };
        let (client, id, pending) = (allocation.client, allocation.transaction, allocation.pending.take());
        let rejection = self.allocations.abandon(at);
        let response = self.reject(client, ALLOCATE, id, &rejection);
        if let Some(Pending { signature, fingerprint, .. }) = pending.map(|pending| *pending) {
            self.send_later(client, response.signed(signature).fingerprint(fingerprint));
        }
    }

    /// Refreshes or deletes an allocation, or one of its two relayed addresses (RFC 8656, section 8.2). Returns the
    /// remaining lifetime in seconds.
    fn refresh(
        &mut self,
        now: Now,
        at: usize,
        request: &Request<'_>,
        identity: &Identity,
    ) -> Result<u32, Rejection> {
        let deletes = request.lifetime_s() == Some(0);
        if let (Some(v6), Some(allocation)) = (request.requests_v6(), self.allocations.get(at)) {
            let relayed = allocation.relayed;
            if relayed[usize::from(v6)].is_none() {
                return Err(Refusal::PeerAddressFamilyMismatch.because("no relayed address of this family"));
            }
            if deletes && relayed[usize::from(!v6)].is_some() {
                debug!(relayed = ?relayed[usize::from(v6)], reason = "client request", "relayed address deleted");
                self.allocations.close_socket(at, v6);
                return Ok(0);
            }
        }
        if deletes {
            self.allocations.remove(at, "client request");
            return Ok(0);
        }
        let lifetime = self.lifetime(now, request, identity.expires);
        self.allocations.set_expiry(at, now.instant + lifetime);
        debug!(lifetime_s = lifetime.as_secs(), "allocation refreshed");
        Ok(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX))
    }

    /// Installs or refreshes permissions (RFC 8656, section 10.2).
    fn create_permission(&mut self, now: Instant, at: usize, request: &Request<'_>) -> Result<(), Rejection> {
        let peers =
            request.all(|attribute| attribute.as_xor_peer_address().ok().map(|peer| *peer.socket_address()));
        if peers.is_empty() {
            return Err(Refusal::BadRequest.because("XOR-PEER-ADDRESS is missing"));
        }
        peers.iter().try_for_each(|peer| self.check_peer(at, *peer))?;
        let max = self.settings.quotas.peers_per_allocation;
        let allocation = self.allocations.get_mut(at);
        if !allocation.is_some_and(|allocation| allocation.permit(&peers, max, now)) {
            return Err(Refusal::InsufficientCapacity.because("permissions per allocation"));
        }
        Ok(())
    }

    /// Binds a channel or refreshes its binding (RFC 8656, section 12.2).
    fn bind_channel(&mut self, now: Instant, at: usize, request: &Request<'_>) -> Result<(), Rejection> {
        let channel =
            request.find(|attribute| attribute.as_channel_number().ok().map(|channel| channel.number()));
        let peer =
            request.find(|attribute| attribute.as_xor_peer_address().ok().map(|peer| *peer.socket_address()));
        let (Some(channel), Some(peer)) = (channel, peer) else {
            return Err(Refusal::BadRequest.because("CHANNEL-NUMBER or XOR-PEER-ADDRESS is missing"));
        };
        if !CHANNEL_NUMBERS.contains(&channel) {
            return Err(Refusal::BadRequest.because("channel number out of range"));
        }
        self.check_peer(at, peer)?;
        let max = self.settings.quotas.peers_per_allocation;
        let allocation = self
            .allocations
            .get_mut(at)
            .ok_or_else(|| Refusal::AllocationMismatch.because("no allocation"))?;
        match allocation.bind_channel(channel, peer, max, now) {
            Ok(()) => Ok(()),
            Err(BindError::Conflict) => {
                Err(Refusal::BadRequest.because("channel or peer is bound otherwise"))
            }
            Err(BindError::Full) => Err(Refusal::InsufficientCapacity.because("channels per allocation")),
        }
    }

    /// Checks that the allocation has an address of the peer's family, and that the operator allows the peer.
    fn check_peer(&self, at: usize, peer: SocketAddr) -> Result<(), Rejection> {
        if self.allocations.get(at).and_then(|allocation| allocation.relayed_for(peer.ip())).is_none() {
            return Err(Refusal::PeerAddressFamilyMismatch.because("no relayed address of the peer's family"));
        }
        // Another allocation of this server; which port is open is checked with each packet.
        if self.allocations.relayed.is_relay_ip(peer.ip()) {
            return Ok(());
        }
        if self.forwarder.refuses_own(peer.ip()) {
            debug!(%peer, reason = "an address of this server", "peer refused");
            return Err(Refusal::Forbidden.because("peer address of the server itself"));
        }
        if !self.settings.peers.permits(peer.ip()) {
            debug!(%peer, reason = "denied by the operator", "peer refused");
            return Err(Refusal::Forbidden.because("peer address denied by the operator"));
        }
        Ok(())
    }

    /// Returns the lifetime that a request gets (RFC 8656, section 7.2), which ends with the user name at the latest: else
    /// a client would keep for good what it was granted for hours.
    fn lifetime(&self, now: Now, request: &Request<'_>, expires: Option<Timestamp>) -> Duration {
        let max = self.settings.max_lifetime.as_secs().max(DEFAULT_LIFETIME_S);
        let seconds = request.lifetime_s().map_or(DEFAULT_LIFETIME_S, u64::from);
        let lifetime = Duration::from_secs(seconds.clamp(DEFAULT_LIFETIME_S, max));
        expires.map_or(lifetime, |expires| lifetime.min(expires.since(now.unix)))
    }

    /// Takes one answer out of the rate limit of a client's address.
    fn take_answer(&mut self, now: Instant, client: Client) -> Result<(), DropReason> {
        if self.sources.take(now, client.address.ip(), 1) {
            return Ok(());
        }
        trace!(source = %host_network(client.address.ip()), reason = "rate of its source", "client not answered");
        Err(DropReason::RateLimited)
    }

    /// Counts and logs a refusal, and returns the error response. Every error response is made here.
    fn reject(
        &mut self,
        client: Client,
        method: MessageMethod,
        id: TransactionId,
        rejection: &Rejection,
    ) -> Response {
        let Rejection { refusal, reason, unknown } = rejection;
        self.counters.refused.count(*refusal);
        debug!(
            client = %client.address,
            method = method_name(method),
            code = refusal.code(),
            refusal = refusal.label(),
            reason,
            unknown = ?unknown,
            "request refused"
        );
        Response::error(method, id, rejection)
    }

    /// Sends the response to a request of `question` bytes.
    fn send(&mut self, client: Client, response: Response, question: usize) {
        match response.encode(max_answer(client.transport, question)) {
            Some(payload) => self.transmit(client.transport, client.address, payload),
            None => self.drop_answer(client),
        }
    }

    /// Sends the response to an Allocate request once its sockets are bound. The client has authenticated itself from its
    /// address, and so cannot have forged it.
    fn send_later(&mut self, client: Client, response: Response) {
        self.send(client, response, usize::MAX);
    }

    fn drop_answer(&mut self, client: Client) {
        self.drop_packet(client.address, DropReason::Amplification);
    }

    fn transmit(&mut self, transport: ClientTransport, destination: SocketAddr, payload: Vec<u8>) {
        trace!(?transport, %destination, bytes = payload.len(), "response sent");
        self.transmits.push_back(Transmit { transport, destination, payload });
    }

    fn drop_packet(&mut self, source: SocketAddr, reason: DropReason) -> Forward {
        self.counters.dropped.count(reason);
        trace!(%source, reason = reason.label(), "packet dropped");
        Forward::Consumed
    }
}

/// Returns how long a response may be. The source address of a datagram may be forged, to aim the response at somebody
/// else; that of a stream cannot.
const fn max_answer(transport: ClientTransport, question: usize) -> usize {
    match transport {
        ClientTransport::Udp(_) => question.saturating_mul(MAX_AMPLIFICATION),
        ClientTransport::Stream(_) => usize::MAX,
    }
}

/// Answers an Allocate request of a client that has an allocation: a retransmission gets the same response again, any other
/// request 437 (RFC 8656, section 7.2).
fn retransmitted(allocation: &Allocation, id: TransactionId, now: Instant) -> Outcome {
    if allocation.transaction != id {
        return Err(Refusal::AllocationMismatch.because("client already has an allocation"));
    }
    let waits = allocation.pending.is_some();
    debug!(client = %allocation.client.address, waits, "allocate request retransmitted");
    Ok((!waits).then(|| allocate::success_response(allocation, now)))
}

/// Returns the method's name for the log.
const fn method_name(method: MessageMethod) -> &'static str {
    match method {
        BINDING => "binding",
        ALLOCATE => "allocate",
        REFRESH => "refresh",
        CREATE_PERMMISSION => "create_permission",
        CHANNEL_BIND => "channel_bind",
        _ => "unknown",
    }
}
