//! How many TCP connections are open, in all and from one address, whatever they are for.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Gate {
    most: usize,
    most_per_address: usize,
    open: Mutex<Open>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    turned_away: u64,
}

impl Gate {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_address, open: Mutex::default(), emptied: Notify::new() })
    }

    /// Lets a connection in, unless there are too many. It counts until the ticket is dropped.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Ticket> {
        let address = site(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_address.get(&address).copied().unwrap_or_default();
        if open.all >= self.most || here >= self.most_per_address {
            open.turned_away += 1;
            return None;
        }
        open.all += 1;
        open.by_address.insert(address, here + 1);
        Some(Ticket { gate: Arc::clone(self), address })
    }

    /// Connections now, and how many were turned away.
    pub(crate) fn count(&self) -> (usize, u64) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        (open.all, open.turned_away)
    }

    /// Waits until no connection is open.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.count().0 == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn leave(&self, address: IpAddr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(here) = open.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&address);
            }
        }
        if open.all == 0 {
            self.emptied.notify_waiters();
        }
    }
}

/// One connection that was let in.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Ticket {
    /// Where the connection is from; for IPv6, the network.
    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.leave(self.address);
    }
}

/// An IPv6 customer has a /64.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_a_dropped_ticket_makes_room() {
        let gate = Gate::new(3, 2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = gate.enter(a).unwrap();
        let _second = gate.enter(a).unwrap();
        assert!(gate.enter(a).is_none());
        let _third = gate.enter(b).unwrap();
        assert!(gate.enter(b).is_none());
        drop(first);
        assert!(gate.enter(b).is_some());
        assert_eq!(gate.count(), (2, 2));
    }
}
