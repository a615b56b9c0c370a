//! Making allocations (RFC 8656, section 7).
//!
//! The machine chooses ports and the owner of the sockets binds them, so a request that passes every check waits until
//! [`Relay::handle_socket_opened`] has been called for each of its relayed addresses; then it is answered. A port that turns out to
//! be taken by another program is replaced by another one a few times.
//!
//! Left out, and answered as the RFC says for servers without them: DONT-FRAGMENT (420), and pairs of ports, that is
//! EVEN-PORT with its reservation bit and RESERVATION-TOKEN (508). EVEN-PORT alone is served.

use std::net::SocketAddr;

use partyline_model::Now;
use rand_chacha::rand_core::RngCore;
use stun_rs::{
    ErrorCode, StunAttribute, TransactionId,
    attributes::{
        stun::XorMappedAddress,
        turn::{AddressErrorCode, LifeTime, XorRelayedAddress},
    },
    methods::ALLOCATE,
};

use crate::{
    Event, Relay,
    allocation::{Allocation, Client, Pending, RelaySocket},
    credentials::{Identity, quota_name},
    limit::neighbourhood,
    request::{Reply, Request, is_v6},
};

/// What a client gets that asks for less, in seconds (RFC 8656, section 3.2).
const DEFAULT_LIFETIME_S: u64 = 600;
/// Bind attempts per allocation before it is refused.
const ATTEMPTS: u8 = 8;
/// Ports tried at random before the range is searched in order.
const DRAWS: usize = 16;

pub(crate) const DONT_FRAGMENT: u16 = 0x001A;

/// What an Allocate request asks for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    v6: bool,
    both: bool,
    even_port: bool,
}

impl Relay {
    /// The reply to an Allocate request with valid credentials; `None` if it has to wait.
    pub(crate) fn allocate(
        &mut self,
        now: Now,
        client: Client,
        request: &Request<'_>,
        identity: Identity,
        standing: Option<usize>,
    ) -> Option<Reply> {
        let id = request.id();
        if let Some(at) = standing {
            return self.repeated(now, at, id);
        }
        let unknown = request.not_understood(&[DONT_FRAGMENT]);
        if !unknown.is_empty() {
            return Some(Reply::unknown_attributes(ALLOCATE, id, &unknown));
        }
        let wish = wish(request).and_then(|wish| self.within_quotas(client, &identity, wish));
        let wish = match wish {
            Ok(wish) => wish,
            Err(code) => return Some(Reply::error(ALLOCATE, id, code)),
        };
        let end = self.ns(now) + self.lifetime_s(request) * 1_000_000_000;
        let pending = Pending {
            signature: identity.signature,
            fingerprint: request.has_fingerprint(),
            even_port: wish.even_port,
            waiting: 0,
            attempts: ATTEMPTS,
        };
        let allocation = Allocation::new(client, &identity.username, id, end, &self.hasher, pending);
        self.admit(allocation, wish)
    }

    /// RFC 8656, section 7.2: a retransmission gets the same answer again, any other request 437.
    fn repeated(&self, now: Now, at: usize, id: TransactionId) -> Option<Reply> {
        let allocation = self.allocations.get(at).filter(|allocation| allocation.transaction == id);
        match allocation {
            None => Some(Reply::error(ALLOCATE, id, 437)),
            Some(waiting) if waiting.pending.is_some() => None,
            Some(made) => Some(success(made, self.ns(now))),
        }
    }

    /// The time to live a request gets, in seconds.
    pub(crate) fn lifetime_s(&self, request: &Request<'_>) -> u64 {
        let asked = request.find(|attribute| attribute.as_life_time().ok().map(LifeTime::as_u32));
        let most = self.settings.max_lifetime.as_secs().max(DEFAULT_LIFETIME_S);
        asked.map_or(DEFAULT_LIFETIME_S, u64::from).clamp(DEFAULT_LIFETIME_S, most)
    }

    fn within_quotas(&mut self, client: Client, identity: &Identity, wish: Wish) -> Result<Wish, u16> {
        if self.addresses[usize::from(wish.v6)].is_none() {
            return Err(440);
        }
        let quotas = &self.settings.quotas;
        let user = self.per_user.get(quota_name(&identity.username)).copied().unwrap_or(0);
        let address = self.per_address.get(&neighbourhood(client.address.ip())).copied().unwrap_or(0);
        let code = if user >= quotas.allocations_per_user || address >= quotas.allocations_per_address {
            486
        } else if self.allocations.len() >= quotas.allocations {
            508
        } else {
            return Ok(wish);
        };
        self.counters.refused.insufficient_capacity += 1;
        Err(code)
    }

    /// Enters an allocation into all tables and asks for its sockets.
    fn admit(&mut self, allocation: Allocation, wish: Wish) -> Option<Reply> {
        let (client, id, end) = (allocation.client, allocation.transaction, allocation.expires_ns);
        *self.per_user.entry_ref(quota_name(&allocation.username)).or_insert(0) += 1;
        *self.per_address.entry(neighbourhood(client.address.ip())).or_insert(0) += 1;
        let at = self.allocations.insert(allocation);
        self.clients.insert(client, at);
        self.ends.insert((end, at));
        if !self.open(at, wish.v6) {
            self.remove(at);
            self.counters.refused.insufficient_capacity += 1;
            return Some(Reply::error(ALLOCATE, id, 508));
        }
        if wish.both {
            let code = if self.addresses[1].is_none() { 440 } else { 508 };
            if self.addresses[1].is_none() || !self.open(at, true) {
                self.allocations[at].additional_error = Some(code);
            }
        }
        None
    }

    /// Reserves a port and asks for a socket on it; false if there is none.
    fn open(&mut self, at: usize, v6: bool) -> bool {
        let Some(address) = self.addresses[usize::from(v6)] else { return false };
        let Some(even) = self.allocations[at].pending.as_ref().map(|pending| pending.even_port) else {
            return false;
        };
        let Some(port) = self.free_port(|port| SocketAddr::new(address.public, port), even) else {
            return false;
        };
        let (socket, public) = (RelaySocket::new(at, v6), SocketAddr::new(address.public, port));
        self.relayed.insert(public, socket);
        let allocation = &mut self.allocations[at];
        allocation.relayed[usize::from(v6)] = Some(public);
        if let Some(pending) = &mut allocation.pending {
            pending.waiting += 1;
        }
        self.events.push_back(Event::OpenSocket { socket, address: SocketAddr::new(address.local, port) });
        true
    }

    fn free_port(&mut self, public: impl Fn(u16) -> SocketAddr, even: bool) -> Option<u16> {
        let (first, last) = (u64::from(*self.settings.ports.start()), u64::from(*self.settings.ports.end()));
        let count = (last + 1).checked_sub(first).filter(|count| *count > 0)?;
        let mut draw = || (first + self.rng.next_u64() % count) as u16;
        let drawn: [u16; DRAWS] = std::array::from_fn(|_| draw());
        let from = u64::from(drawn[0]) - first;
        let searched = (0..count).map(|step| (first + (from + step) % count) as u16);
        let is_free =
            |port: &u16| (!even || port.is_multiple_of(2)) && !self.relayed.contains_key(&public(*port));
        drawn.into_iter().chain(searched).find(is_free)
    }

    /// A socket asked for with [`Event::OpenSocket`] is bound, or could not be.
    pub fn handle_socket_opened(&mut self, now: Now, socket: RelaySocket, bound: bool) {
        let (at, v6) = (socket.allocation(), socket.is_v6());
        let Some(allocation) = self.allocations.get_mut(at) else { return };
        let (main_v6, public) = (allocation.relayed[0].is_none(), allocation.relayed[usize::from(v6)]);
        let (Some(pending), Some(public)) = (&mut allocation.pending, public) else { return };
        pending.waiting = pending.waiting.saturating_sub(1);
        if !bound {
            pending.attempts = pending.attempts.saturating_sub(1);
            let again = pending.attempts > 0;
            allocation.relayed[usize::from(v6)] = None;
            self.relayed.remove(&public);
            let goes_on = (again && self.open(at, v6)) || self.goes_without(at, v6 && !main_v6);
            if !goes_on {
                return;
            }
        }
        self.answer_if_ready(now, at);
    }

    /// Goes on without a socket: the allocation, if it was the additional one, else nothing.
    fn goes_without(&mut self, at: usize, additional: bool) -> bool {
        let allocation = &mut self.allocations[at];
        if additional {
            allocation.additional_error = Some(508);
            return true;
        }
        let (client, id) = (allocation.client, allocation.transaction);
        let pending = allocation.pending.take();
        self.counters.refused.insufficient_capacity += 1;
        self.remove(at);
        if let Some(Pending { signature, fingerprint, .. }) = pending.map(|pending| *pending) {
            self.reply(client, Reply::error(ALLOCATE, id, 508).signed(signature).fingerprint(fingerprint));
        }
        false
    }

    fn answer_if_ready(&mut self, now: Now, at: usize) {
        let now_ns = self.ns(now);
        let Some(allocation) = self.allocations.get_mut(at) else { return };
        if allocation.pending.as_ref().is_none_or(|pending| pending.waiting > 0) {
            return;
        }
        let pending = allocation.pending.take();
        let (client, reply) = (allocation.client, success(allocation, now_ns));
        self.counters.allocations_created += 1;
        if let Some(Pending { signature, fingerprint, .. }) = pending.map(|pending| *pending) {
            self.reply(client, reply.signed(signature).fingerprint(fingerprint));
        }
    }
}

fn success(allocation: &Allocation, now_ns: u64) -> Reply {
    let left = allocation.expires_ns.saturating_sub(now_ns).div_ceil(1_000_000_000);
    let mut reply = Reply::success(ALLOCATE, allocation.transaction);
    for address in allocation.relayed.into_iter().flatten() {
        reply = reply.with(XorRelayedAddress::from(address));
    }
    reply = reply
        .with(LifeTime::new(u32::try_from(left).unwrap_or(u32::MAX)))
        .with(XorMappedAddress::from(allocation.client.address));
    let error = allocation.additional_error.and_then(|code| ErrorCode::new(code, "Not available").ok());
    match error {
        Some(error) => reply.with(AddressErrorCode::new(stun_rs::AddressFamily::IPv6, error)),
        None => reply,
    }
}

/// RFC 8656, section 7.2, steps 4 to 10: what is asked for, or the code of the error.
fn wish(request: &Request<'_>) -> Result<Wish, u16> {
    let transport = request
        .find(|attribute| attribute.as_requested_trasport().ok().map(|asked| asked.protocol().as_u8()));
    match transport {
        None => return Err(400),
        Some(17) => {}
        Some(_) => return Err(442),
    }
    let family = request
        .find(|attribute| attribute.as_requested_address_family().ok().map(|asked| is_v6(asked.family())));
    let additional = request
        .find(|attribute| attribute.as_additional_address_family().ok().map(|asked| is_v6(asked.family())));
    let even = request.find(|attribute| attribute.as_even_port().ok().map(|even| even.reserve()));
    let token =
        request.find(|attribute| matches!(attribute, StunAttribute::ReservationToken(_)).then_some(()));
    if token.is_some() {
        let contradicts = even.is_some() || family.is_some() || additional.is_some();
        return Err(if contradicts { 400 } else { 508 });
    }
    match (family, additional, even) {
        (Some(_), Some(_), _) | (_, Some(false), _) | (_, Some(_), Some(true)) => Err(400),
        (_, _, Some(true)) => Err(508),
        _ => Ok(Wish { v6: family == Some(true), both: additional.is_some(), even_port: even.is_some() }),
    }
}
