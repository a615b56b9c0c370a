//! STUN client transactions (RFC 8489, section 6.2.1): a request is retransmitted until it is answered or times out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::SocketId;
use partyline_timing::{RtoBounds, RttEstimator};
use partyline_wire::credentials::Credentials;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use tracing::{debug, trace};

use crate::{
    api::{StunCredentials, Transmit},
    counters::Counters,
    purpose::Purpose,
    stun::{self, BindingResponse, Id, ResponseError, ResponseRouting},
};

/// Requests of one transaction (Rc in RFC 8489).
const MAX_REQUESTS: u32 = 7;
/// The longest retransmission interval, as a fraction of the transaction's timeout.
const MAX_INTERVAL_FRACTION: u32 = 5;
/// Transactions repeated because the server requires authentication or another nonce.
const MAX_CHALLENGES: u8 = 2;
/// How long a transaction that is over is remembered, so that late responses are recognized.
const LATE_RESPONSE_WINDOW: Duration = Duration::from_secs(20);
/// More transactions than any measurement has; beyond it the oldest are forgotten.
const MAX_TRANSACTIONS: usize = 512;
/// Servers whose round-trip time is estimated; further ones get the estimate of the others.
const MAX_ESTIMATES: usize = 64;

/// RFC 8489 allows an initial RTO below 500 ms where the application knows better: games are not played over paths
/// with longer round trips, and one more request does no harm there.
const RTO: RtoBounds = RtoBounds {
    initial: Duration::from_millis(250),
    min: Duration::from_millis(100),
    max: Duration::from_secs(1),
};

/// Whether a request is retransmitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Until a response comes or the timeout passes.
    Retransmit { timeout: Duration },
    /// Never; the sender counts losses itself and takes every response.
    Once,
}

/// A request to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) socket: SocketId,
    pub(crate) destination: SocketAddr,
    pub(crate) routing: ResponseRouting,
    /// Where a server that honors `routing` responds from.
    pub(crate) expected_source: SocketAddr,
    pub(crate) purpose: Purpose,
    pub(crate) delivery: Delivery,
}

impl Request {
    /// Returns a request without CHANGE-REQUEST and RESPONSE-PORT.
    pub(crate) const fn plain(
        socket: SocketId,
        destination: SocketAddr,
        purpose: Purpose,
        delivery: Delivery,
    ) -> Self {
        let (routing, expected_source) = (ResponseRouting::Default, destination);
        Self { socket, destination, routing, expected_source, purpose, delivery }
    }

    /// Returns true if a response may come from `source` at `socket`.
    fn accepts(&self, socket: SocketId, source: SocketAddr) -> bool {
        socket == self.socket && (source == self.destination || source == self.expected_source)
    }
}

/// The outcome of a request that the server responded to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Response {
    pub(crate) socket: SocketId,
    pub(crate) purpose: Purpose,
    pub(crate) destination: SocketAddr,
    pub(crate) sent_at: Instant,
    pub(crate) received_at: Instant,
    /// True if the response came from where the server was asked to respond from.
    pub(crate) from_expected_source: bool,
    /// True if the transaction had timed out before.
    pub(crate) late: bool,
    /// The round-trip time, unless it is unclear to which transmission the server responded (Karn's algorithm).
    pub(crate) rtt: Option<Duration>,
    /// `None` if the server refused the request or redirected the client.
    pub(crate) binding: Option<BindingResponse>,
    /// The server that a redirection names.
    pub(crate) alternate: Option<SocketAddr>,
}

impl Response {
    const fn refusal(request: &Request, sent_at: Instant, received_at: Instant) -> Self {
        let &Request { socket, destination, purpose, .. } = request;
        Self {
            socket,
            purpose,
            destination,
            sent_at,
            received_at,
            from_expected_source: false,
            late: false,
            rtt: None,
            binding: None,
            alternate: None,
        }
    }
}

/// What became of a datagram.
#[derive(Debug)]
pub(crate) enum Handled {
    /// It responds to no request of this client.
    Foreign,
    /// It was dropped, or it began another transaction.
    Consumed,
    Response(Response),
}

#[derive(Debug)]
struct Transaction {
    request: Request,
    sent_at: Instant,
    rto: Duration,
    requests: u32,
    challenges: u8,
    retransmit_at: Option<Instant>,
    ends_at: Instant,
    over: bool,
    answered: bool,
}

/// All transactions that are under way or not yet forgotten.
#[derive(Debug)]
pub(crate) struct Client {
    transactions: BTreeMap<Id, Transaction>,
    transmits: VecDeque<Transmit>,
    /// Every destination since the last [`Client::clear`].
    destinations: BTreeMap<SocketId, BTreeSet<SocketAddr>>,
    estimates: BTreeMap<IpAddr, RttEstimator>,
    /// Signing state by server address.
    credentials: BTreeMap<IpAddr, Credentials>,
    rng: ChaCha12Rng,
    pub(crate) counters: Counters,
    /// Datagrams sent so far.
    pub(crate) sent: u32,
}

impl Client {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            transactions: BTreeMap::new(),
            transmits: VecDeque::new(),
            destinations: BTreeMap::new(),
            estimates: BTreeMap::new(),
            credentials: BTreeMap::new(),
            rng: ChaCha12Rng::from_seed(seed),
            counters: Counters::default(),
            sent: 0,
        }
    }

    /// Forgets all transactions and destinations. Responses still to come are foreign from now on.
    pub(crate) fn clear(&mut self) {
        let open = self.transactions.values().filter(|t| !t.over).count();
        if open > 0 {
            debug!(count = open, reason = "another measurement begins", "transactions abandoned");
        }
        self.transactions.clear();
        self.transmits.clear();
        self.destinations.clear();
    }

    /// Adds credentials for servers that have none yet, so that a known realm and nonce stay in use.
    pub(crate) fn add_credentials<'a>(
        &mut self,
        credentials: impl Iterator<Item = (IpAddr, &'a StunCredentials)>,
    ) {
        for (server, credentials) in credentials {
            if let (false, Some(signing)) = (self.credentials.contains_key(&server), credentials.signing()) {
                self.credentials.insert(server, signing);
            }
        }
    }

    pub(crate) fn clear_credentials(&mut self) {
        self.credentials.clear();
    }

    /// Begins a transaction.
    pub(crate) fn send(&mut self, now: Instant, request: Request) {
        self.begin(now, request, 0);
    }

    /// Sends an indication, which opens the NAT for the destination and gets no response.
    pub(crate) fn send_indication(&mut self, socket: SocketId, destination: SocketAddr, purpose: Purpose) {
        let bytes = stun::indication(self.random_id());
        self.push(socket, destination, purpose, bytes);
    }

    /// Returns the destinations that a socket has sent to since the last [`Client::clear`].
    pub(crate) fn destinations(&self, socket: SocketId) -> impl Iterator<Item = SocketAddr> {
        self.destinations.get(&socket).into_iter().flatten().copied()
    }

    pub(crate) fn has_sent_to(&self, socket: SocketId, destination: SocketAddr) -> bool {
        self.destinations.get(&socket).is_some_and(|sent| sent.contains(&destination))
    }

    /// Takes a datagram that arrived at one of the client's sockets.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Handled {
        let Some(id) = stun::response_id(bytes) else { return Handled::Foreign };
        let Some(transaction) = self.transactions.get(&id) else { return Handled::Foreign };
        let (request, answered, challenges) =
            (transaction.request, transaction.answered, transaction.challenges);
        if !request.accepts(socket, source) {
            self.counters.dropped.wrong_source += 1;
            debug!(%source, ?socket, server = %request.destination, reason = "wrong source", "response dropped");
            return Handled::Consumed;
        }
        let (binding, alternate) = match self.parse(&request, source, bytes) {
            Ok(binding) => (Some(binding), None),
            Err(ResponseError::Malformed) => {
                self.counters.dropped.malformed += 1;
                debug!(%source, reason = "malformed", "response dropped");
                return Handled::Consumed;
            }
            Err(ResponseError::Challenge) if !answered && challenges < MAX_CHALLENGES => {
                return self.on_challenge(now, id, bytes);
            }
            Err(ResponseError::Redirect(to)) => (None, Some(to)),
            Err(error @ (ResponseError::Unusable | ResponseError::Challenge)) => {
                self.on_refused(&request, error);
                (None, None)
            }
        };
        self.on_response(now, id, source, binding, alternate)
    }

    fn parse(
        &mut self,
        request: &Request,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<BindingResponse, ResponseError> {
        // coturn signs no response that it sends from another address; those are as good as from a server that signs
        // none at all.
        let signed = source == request.destination;
        let credentials = self.credentials.get_mut(&request.destination.ip()).filter(|_| signed);
        stun::parse_response(bytes, request.destination, credentials)
    }

    fn on_response(
        &mut self,
        now: Instant,
        id: Id,
        source: SocketAddr,
        binding: Option<BindingResponse>,
        alternate: Option<SocketAddr>,
    ) -> Handled {
        let Some(transaction) = self.transactions.get_mut(&id) else { return Handled::Foreign };
        let (request, sent_at) = (transaction.request, transaction.sent_at);
        let once = request.delivery == Delivery::Once;
        if transaction.answered && !once {
            self.counters.dropped.duplicate += 1;
            trace!(%source, purpose = ?request.purpose, reason = "duplicate", "response dropped");
            return Handled::Consumed;
        }
        let late = transaction.over && !once;
        let rtt = (transaction.requests == 1).then(|| now.saturating_duration_since(sent_at));
        transaction.finish(now);
        transaction.answered = true;
        self.counters.responses.increment(request.purpose.test());
        rtt.into_iter().for_each(|rtt| self.sample_rtt(source.ip(), rtt));
        let from_expected_source = source == request.expected_source;
        let refusal = Response::refusal(&request, sent_at, now);
        let response = Response { from_expected_source, late, rtt, binding, alternate, ..refusal };
        trace!(%source, ?response, rtt_ms = rtt.map(|rtt| rtt.as_millis()), "response received");
        Handled::Response(response)
    }

    fn on_refused(&mut self, request: &Request, error: ResponseError) {
        self.counters.dropped.unusable += 1;
        debug!(server = %request.destination, purpose = ?request.purpose, reason = ?error, "request refused");
    }

    /// Begins another transaction with the server's realm and nonce; refused if there are no credentials, or none
    /// other than before.
    fn on_challenge(&mut self, now: Instant, id: Id, bytes: &[u8]) -> Handled {
        let Some(transaction) = self.transactions.get_mut(&id) else { return Handled::Foreign };
        (transaction.over, transaction.answered) = (true, true);
        let (request, challenges, sent_at) =
            (transaction.request, transaction.challenges + 1, transaction.sent_at);
        let credentials = self.credentials.get_mut(&request.destination.ip());
        let accepted = credentials.zip(stun::decode(bytes)).map(|(c, message)| c.on_challenge(&message));
        // Several requests may be under way with the old nonce: each is sent again.
        if matches!(accepted, Some(Ok(_))) {
            debug!(server = %request.destination, count = challenges, reason = "challenged", "request sent again");
            self.begin(now, request, challenges);
            return Handled::Consumed;
        }
        self.on_refused(&request, ResponseError::Challenge);
        Handled::Response(Response::refusal(&request, sent_at, now))
    }

    /// Returns the purpose of a request that another socket of this client sent, and that a NAT turned around.
    pub(crate) fn hairpinned(&self, socket: SocketId, bytes: &[u8]) -> Option<Purpose> {
        let request = &self.transactions.get(&stun::request_id(bytes)?)?.request;
        (request.socket != socket).then_some(request.purpose)
    }

    /// Returns the purpose of a request whose response arrived at another socket, as RESPONSE-PORT asked.
    pub(crate) fn redirected_response(
        &self,
        socket: SocketId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Option<Purpose> {
        let request = &self.transactions.get(&stun::response_id(bytes)?)?.request;
        let to_port = matches!(request.routing, ResponseRouting::ToPort(_));
        let asked_for = to_port && request.destination == source && request.socket != socket;
        (asked_for && stun::parse_response(bytes, source, None).is_ok()).then_some(request.purpose)
    }

    /// Retransmits what is due. Returns the transactions that timed out.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<(SocketAddr, Purpose)> {
        self.transactions.retain(|_, t| !(t.over && t.ends_at <= now));
        let (mut timed_out, mut due) = (Vec::new(), Vec::new());
        for (id, transaction) in self.transactions.iter_mut().filter(|(_, t)| !t.over) {
            let Request { destination, purpose, .. } = transaction.request;
            if transaction.ends_at <= now {
                let after_ms = now.saturating_duration_since(transaction.sent_at).as_millis();
                debug!(server = %destination, ?purpose, count = transaction.requests, after_ms, "request timed out");
                transaction.finish(now);
                self.counters.timeouts.increment(purpose.test());
                timed_out.push((destination, purpose));
            } else if transaction.retransmit_at.is_some_and(|at| at <= now) {
                transaction.schedule_retransmission(now);
                let retry_ms = transaction.retransmit_at.map(|at| (at - now).as_millis());
                debug!(
                    server = %destination, ?purpose, count = transaction.requests, retry_ms,
                    reason = "no response", "request retransmitted"
                );
                due.push((*id, transaction.request));
            }
        }
        for (id, request) in due {
            self.counters.retransmissions.increment(request.purpose.test());
            self.transmit(id, &request);
        }
        timed_out
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let open = self.transactions.values().filter(|t| !t.over);
        open.map(|t| t.retransmit_at.map_or(t.ends_at, |at| at.min(t.ends_at))).min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns twelve random bytes.
    pub(crate) fn random_id(&mut self) -> Id {
        let mut id = Id::default();
        self.rng.fill_bytes(&mut id);
        id
    }

    fn begin(&mut self, now: Instant, request: Request, challenges: u8) {
        if self.transactions.len() >= MAX_TRANSACTIONS {
            self.forget_oldest();
        }
        let id = self.random_id();
        let rto = self.rto(request.destination.ip());
        let (ends_at, retransmit_at) = match request.delivery {
            Delivery::Once => (now + LATE_RESPONSE_WINDOW, None),
            Delivery::Retransmit { timeout } => (now + timeout, Some(now + rto)),
        };
        self.transmit(id, &request);
        let over = retransmit_at.is_none();
        let (sent_at, requests, answered) = (now, 1, false);
        self.transactions.insert(
            id,
            Transaction {
                request,
                sent_at,
                rto,
                requests,
                challenges,
                retransmit_at,
                ends_at,
                over,
                answered,
            },
        );
    }

    fn transmit(&mut self, id: Id, request: &Request) {
        let credentials = self.credentials.get(&request.destination.ip());
        let bytes = stun::request(id, request.routing, credentials);
        self.push(request.socket, request.destination, request.purpose, bytes);
    }

    fn push(&mut self, socket: SocketId, destination: SocketAddr, purpose: Purpose, bytes: Vec<u8>) {
        trace!(%destination, ?socket, ?purpose, "request sent");
        self.counters.requests.increment(purpose.test());
        self.sent = self.sent.saturating_add(1);
        self.destinations.entry(socket).or_default().insert(destination);
        self.transmits.push_back(Transmit { socket, destination, bytes });
    }

    fn sample_rtt(&mut self, server: IpAddr, rtt: Duration) {
        if self.estimates.contains_key(&server) || self.estimates.len() < MAX_ESTIMATES {
            self.estimates.entry(server).or_default().on_sample(rtt);
        }
    }

    /// Returns the wait before a first retransmission. An address without samples is taken to be as far as the farthest
    /// one that has some, since it is most often the other address of the same server.
    fn rto(&self, server: IpAddr) -> Duration {
        let farthest = || self.estimates.values().map(|estimate| estimate.rto(&RTO)).max();
        self.estimates
            .get(&server)
            .map(|estimate| estimate.rto(&RTO))
            .or_else(farthest)
            .unwrap_or(RTO.initial)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.transactions.iter().min_by_key(|(_, t)| t.sent_at).map(|(id, _)| *id);
        if let Some(id) = oldest {
            debug!(reason = "too many transactions", "oldest transaction forgotten");
            self.transactions.remove(&id);
        }
    }
}

impl Transaction {
    fn finish(&mut self, now: Instant) {
        self.over = true;
        self.retransmit_at = None;
        self.ends_at = now + LATE_RESPONSE_WINDOW;
    }

    /// Each interval is twice the one before, up to a fraction of the timeout.
    fn schedule_retransmission(&mut self, now: Instant) {
        let Delivery::Retransmit { timeout } = self.request.delivery else { return };
        self.requests += 1;
        let interval = (self.rto * 2u32.pow(self.requests - 1)).min(timeout / MAX_INTERVAL_FRACTION);
        self.retransmit_at = (self.requests < MAX_REQUESTS).then(|| now + interval.max(self.rto));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nat::start;

    const MAIN: SocketId = SocketId::MAIN;
    const TIMEOUT: Duration = Duration::from_millis(2500);

    fn server() -> SocketAddr {
        ([11, 0, 1, 1], 3478).into()
    }

    fn request(delivery: Delivery) -> Request {
        Request::plain(MAIN, server(), Purpose::CompareMapping, delivery)
    }

    /// A success response to a request.
    fn response(to: &Transmit) -> Vec<u8> {
        let mut bytes = vec![1, 1, 0, 12];
        bytes.extend_from_slice(&to.bytes[4..20]);
        bytes.extend_from_slice(&[0, 1, 0, 8, 0, 1, 0x10, 0, 11, 0, 0, 1]);
        bytes
    }

    /// The moments at which a request without response is sent, in milliseconds, and that of its timeout.
    fn drive_without_response(client: &mut Client, from: Instant) -> (Vec<u128>, u128) {
        let (mut sent, mut now) = (Vec::new(), from);
        loop {
            while client.poll_transmit().is_some() {
                sent.push((now - from).as_millis());
            }
            now = client.poll_timeout().expect("the transaction is open");
            if let [(destination, purpose)] = client.handle_timeout(now)[..] {
                assert_eq!((destination, purpose), (server(), Purpose::CompareMapping));
                return (sent, (now - from).as_millis());
            }
        }
    }

    #[test]
    fn unanswered_request_is_retransmitted_with_growing_intervals_and_times_out() {
        let mut client = Client::new([1; 32]);
        client.send(start(), request(Delivery::Retransmit { timeout: TIMEOUT }));
        let (sent, timed_out) = drive_without_response(&mut client, start());
        assert_eq!((sent, timed_out), (vec![0, 250, 750, 1250, 1750, 2250], 2500));
        assert_eq!((client.counters.requests.mapping, client.counters.retransmissions.mapping), (6, 5));
        assert_eq!((client.counters.timeouts.mapping, client.counters.responses.mapping), (1, 0));
        assert_eq!(client.poll_timeout(), None);
    }

    #[test]
    fn retransmissions_follow_the_measured_round_trip() {
        let mut client = Client::new([1; 32]);
        client.send(start(), request(Delivery::Retransmit { timeout: TIMEOUT }));
        let sent = client.poll_transmit().expect("a request");
        let now = start() + Duration::from_millis(40);
        assert!(matches!(
            client.handle_datagram(now, MAIN, server(), &response(&sent)),
            Handled::Response(_)
        ));
        client.send(now, request(Delivery::Retransmit { timeout: TIMEOUT }));
        let (sent, _) = drive_without_response(&mut client, now);
        assert_eq!(sent[..3], [0, 120, 360], "SRTT 40 ms, RTTVAR 20 ms");
        let other = Request { destination: ([11, 0, 1, 2], 3478).into(), ..request(Delivery::Once) };
        assert_eq!(client.rto(other.destination.ip()), client.rto(server().ip()));
    }

    #[test]
    fn response_to_a_retransmitted_request_gives_no_round_trip() {
        let mut client = Client::new([1; 32]);
        client.send(start(), request(Delivery::Retransmit { timeout: TIMEOUT }));
        let sent = client.poll_transmit().expect("a request");
        let now = start() + Duration::from_millis(250);
        assert!(client.handle_timeout(now).is_empty());
        let Handled::Response(response) = client.handle_datagram(now, MAIN, server(), &response(&sent))
        else {
            panic!("the response is taken");
        };
        assert_eq!((response.rtt, response.late), (None, false));
    }

    #[test]
    fn late_response_is_marked_and_the_next_one_is_a_duplicate() {
        let mut client = Client::new([1; 32]);
        client.send(start(), request(Delivery::Retransmit { timeout: TIMEOUT }));
        let sent = client.poll_transmit().expect("a request");
        drive_without_response(&mut client, start());
        let now = start() + Duration::from_secs(3);
        let bytes = response(&sent);
        let Handled::Response(response) = client.handle_datagram(now, MAIN, server(), &bytes) else {
            panic!("the response is taken");
        };
        assert!(response.late && response.binding.is_some());
        assert!(matches!(client.handle_datagram(now, MAIN, server(), &bytes), Handled::Consumed));
        assert_eq!(client.counters.dropped.duplicate, 1);
        client.handle_timeout(now + LATE_RESPONSE_WINDOW);
        assert!(matches!(client.handle_datagram(now, MAIN, server(), &bytes), Handled::Foreign));
    }

    #[test]
    fn response_from_elsewhere_or_at_another_socket_is_dropped() {
        let mut client = Client::new([1; 32]);
        client.send(start(), request(Delivery::Once));
        let bytes = response(&client.poll_transmit().expect("a request"));
        let stranger = ([11, 9, 9, 9], 3478).into();
        for (socket, source) in [(MAIN, stranger), (SocketId::probe(0), server())] {
            assert!(matches!(client.handle_datagram(start(), socket, source, &bytes), Handled::Consumed));
        }
        assert_eq!(client.counters.dropped.wrong_source, 2);
    }

    #[test]
    fn request_sent_once_is_neither_retransmitted_nor_timed_out() {
        let mut client = Client::new([1; 32]);
        client.send(start(), request(Delivery::Once));
        assert_eq!(client.poll_timeout(), None);
        assert!(client.handle_timeout(start() + Duration::from_secs(60)).is_empty());
        assert_eq!(client.counters.timeouts.mapping, 0);
    }

    #[test]
    fn request_seen_at_another_socket_was_hairpinned() {
        let mut client = Client::new([1; 32]);
        client.send(start(), request(Delivery::Once));
        let bytes = client.poll_transmit().expect("a request").bytes;
        assert_eq!(client.hairpinned(MAIN, &bytes), None, "its own socket");
        assert_eq!(client.hairpinned(SocketId::probe(0), &bytes), Some(Purpose::CompareMapping));
    }

    #[test]
    fn oldest_transactions_give_way_to_new_ones() {
        let mut client = Client::new([1; 32]);
        for n in 0..u64::try_from(MAX_TRANSACTIONS).expect("few") + 9 {
            client.send(start() + Duration::from_millis(n), request(Delivery::Once));
        }
        assert_eq!(client.transactions.len(), MAX_TRANSACTIONS);
    }
}
