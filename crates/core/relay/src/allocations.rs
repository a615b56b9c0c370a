//! All allocations, by client and by relayed address, with their quotas and expiry.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use partyline_timing::Deadlines;
use rand_chacha::rand_core::RngCore;
use slab::Slab;
use tracing::{debug, trace};

use crate::{
    allocation::Allocation,
    client::{Client, RelaySocket},
    counters::Refusal,
    event::Event,
    quota::QuotaUsage,
    rejection::Rejection,
    relayed_addresses::RelayedAddresses,
    settings::Quotas,
};

/// The table of allocations. Its index in the slab is an allocation's number, from which those of its sockets follow.
#[derive(Debug)]
pub(crate) struct Allocations {
    slab: Slab<Allocation>,
    by_client: HashMap<Client, usize, FixedState>,
    pub(crate) relayed: RelayedAddresses,
    usage: QuotaUsage,
    deadlines: Deadlines<usize>,
    events: VecDeque<Event>,
}

impl Allocations {
    pub(crate) fn new(relayed: RelayedAddresses, hasher: &FixedState) -> Self {
        Self {
            slab: Slab::new(),
            by_client: HashMap::with_hasher(hasher.clone()),
            relayed,
            usage: QuotaUsage::new(hasher),
            deadlines: Deadlines::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn find(&self, client: Client) -> Option<usize> {
        self.by_client.get(&client).copied()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Allocation> {
        self.slab.get(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Allocation> {
        self.slab.get_mut(at)
    }

    /// Checks the quotas for another allocation.
    pub(crate) fn check_quotas(
        &self,
        quotas: &Quotas,
        username: &str,
        address: SocketAddr,
    ) -> Result<(), Rejection> {
        self.usage.check(quotas, username, address)
    }

    /// Adds an allocation without relayed addresses and returns its number.
    pub(crate) fn insert(&mut self, allocation: Allocation) -> usize {
        let (client, expires) = (allocation.client, allocation.expires);
        self.usage.add(&allocation.username, client.address);
        let at = self.slab.insert(allocation);
        self.by_client.insert(client, at);
        self.deadlines.set(at, Some(expires));
        trace!(client = %client.address, count = self.slab.len(), "allocation waits for its sockets");
        at
    }

    /// Reserves a relayed address for a pending allocation and requests its socket. Returns false if no port is free.
    pub(crate) fn open_socket(&mut self, at: usize, v6: bool, rng: &mut impl RngCore) -> bool {
        let Some(allocation) = self.slab.get_mut(at) else { return false };
        let Some(pending) = &mut allocation.pending else { return false };
        let socket = RelaySocket::new(at, v6);
        let Some((public, local)) = self.relayed.reserve(socket, pending.even_port, rng) else {
            debug!(client = %allocation.client.address, v6, reason = "port range is full", "no relayed address");
            return false;
        };
        pending.sockets += 1;
        debug!(client = %allocation.client.address, relayed = %public, %local, "relayed address reserved");
        allocation.relayed[usize::from(v6)] = Some(public);
        self.events.push_back(Event::OpenSocket { socket, address: local });
        true
    }

    /// Takes back the relayed address of one family, whose socket could not be bound.
    pub(crate) fn forget_socket(&mut self, at: usize, v6: bool) {
        let Some(allocation) = self.slab.get_mut(at) else { return };
        if let Some(public) = allocation.relayed[usize::from(v6)].take() {
            trace!(client = %allocation.client.address, relayed = %public, "port of a relayed address freed");
            self.relayed.release(public);
        }
    }

    /// Gives up the relayed address of one family and closes its socket.
    pub(crate) fn close_socket(&mut self, at: usize, v6: bool) {
        self.forget_socket(at, v6);
        debug!(v6, "relayed address closed");
        self.events.push_back(Event::CloseSocket { socket: RelaySocket::new(at, v6) });
    }

    /// Changes when an allocation expires.
    pub(crate) fn set_expiry(&mut self, at: usize, expires: Instant) {
        if let Some(allocation) = self.slab.get_mut(at) {
            allocation.expires = expires;
            self.deadlines.set(at, Some(expires));
        }
    }

    /// Removes an allocation, closes its sockets and frees its places in all tables.
    pub(crate) fn remove(&mut self, at: usize, reason: &'static str) {
        let Some(allocation) = self.slab.try_remove(at) else { return };
        self.deadlines.set(at, None);
        self.by_client.remove(&allocation.client);
        for address in allocation.relayed.into_iter().flatten() {
            self.relayed.release(address);
            self.events.push_back(Event::CloseSocket { socket: RelaySocket::new(at, address.is_ipv6()) });
        }
        self.usage.remove(&allocation.username, allocation.client.address);
        debug!(
            client = %allocation.client.address,
            relayed = ?allocation.relayed,
            count = self.slab.len(),
            reason,
            "allocation deleted"
        );
    }

    /// Removes an allocation whose sockets could not be bound.
    pub(crate) fn abandon(&mut self, at: usize) -> Rejection {
        self.remove(at, "no relayed address");
        Refusal::InsufficientCapacity.because("no free port for a relayed address")
    }

    /// Removes the allocations that have expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(at) = self.deadlines.pop_due(now) {
            self.remove(at, "lifetime expired");
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
