//! The sockets on which clients reach the server, and how they relate to each other (RFC 5780).

use std::net::SocketAddr;

use crate::settings::Listener;

/// All listeners, addressed by their index.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<Listener>);

impl Listeners {
    pub(crate) const fn new(listeners: Vec<Listener>) -> Self {
        Self(listeners)
    }

    /// Returns the public address of a listener.
    pub(crate) fn public(&self, index: u8) -> Option<SocketAddr> {
        self.0.get(usize::from(index)).map(|listener| listener.public)
    }

    /// Returns true if a listener is reached at this address.
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|listener| listener.local == address || listener.public == address)
    }

    /// Returns the listener that differs from one in IP address, in port, in both, or in neither (the same one).
    pub(crate) fn other(&self, index: u8, change_ip: bool, change_port: bool) -> Option<u8> {
        let this = self.public(index)?;
        let matches = |listener: &Listener| {
            let that = listener.public;
            that.is_ipv4() == this.is_ipv4()
                && (that.ip() != this.ip()) == change_ip
                && (that.port() != this.port()) == change_port
        };
        self.0.iter().position(matches).and_then(|found| u8::try_from(found).ok())
    }

    /// Returns the public address that differs in both IP address and port: OTHER-ADDRESS.
    pub(crate) fn other_address(&self, index: u8) -> Option<SocketAddr> {
        self.other(index, true, true).and_then(|other| self.public(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(addresses: &[&str]) -> Listeners {
        let listener = |text: &&str| {
            let address = text.parse().unwrap();
            Listener { local: address, public: address }
        };
        Listeners::new(addresses.iter().map(listener).collect())
    }

    #[test]
    fn other_listener_differs_in_what_was_asked_for() {
        let four =
            listeners(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:2", "192.0.2.2:2", "[2001:db8::1]:2"]);
        for (ip, port, found) in [(false, false, 0), (true, false, 1), (false, true, 2), (true, true, 3)] {
            assert_eq!(four.other(0, ip, port), Some(found));
        }
        assert_eq!(four.other(4, false, true), None);
        assert_eq!(four.other_address(1), "192.0.2.1:2".parse().ok());
        assert_eq!(four.other(9, false, false), None);
    }
}
