//! IPv4 servers on networks that have IPv6 alone: a NAT64 reaches them at addresses that carry the IPv4 address.
//!
//! Names are translated by the network's DNS64, literal addresses by nobody. The prefix that the network translates
//! is learned from the addresses it makes up for a name that has IPv4 addresses only (RFC 7050), and put in front of the
//! IPv4 address (RFC 6052).
//!
//! Connections are made to such an address directly. For datagrams this computer translates addresses itself, as the
//! customer's side of 464XLAT does (RFC 6877), so that everything above knows the IPv4 addresses that others know: those of
//! servers, of what STUN reports, and of members.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use partyline_model::is_public;
use tokio::{net::lookup_host, time::timeout};

/// The name that has IPv4 addresses only, and these (RFC 7050, section 2.2).
const IPV4_ONLY: &str = "ipv4only.arpa";
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How long the resolver may take to tell the prefix.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// A prefix whose addresses a NAT64 translates (RFC 6052, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nat64Prefix {
    prefix: [u8; 16],
    /// Its length in bytes: 4 to 8, or 12.
    length: usize,
}

impl Nat64Prefix {
    /// The lengths that a prefix may have, in bytes; the usual one first.
    const LENGTHS: [usize; 6] = [12, 8, 7, 6, 5, 4];

    /// Returns the prefix of an address that a DNS64 made up for the well-known name; `None` if it holds neither of that
    /// name's addresses.
    #[must_use]
    pub fn of_well_known(address: Ipv6Addr) -> Option<Self> {
        Self::LENGTHS.into_iter().find_map(|length| {
            let mut prefix = [0; 16];
            prefix[..length].copy_from_slice(&address.octets()[..length]);
            let prefix = Self { prefix, length };
            WELL_KNOWN.iter().any(|ip| prefix.synthesize(*ip) == address).then_some(prefix)
        })
    }

    /// Returns the address at which the NAT64 reaches an IPv4 address. Bits 64 to 71 stay zero.
    #[must_use]
    pub fn synthesize(&self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.prefix;
        let places = (self.length..16).filter(|place| *place != 8);
        places.zip(ip.octets()).for_each(|(place, octet)| octets[place] = octet);
        octets.into()
    }

    /// Returns the IPv4 address that an address with this prefix carries; `None` if it has another prefix.
    #[must_use]
    pub fn extract(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        let places = (self.length..16).filter(|place| *place != 8);
        let mut ip = [0; 4];
        ip.iter_mut().zip(places).for_each(|(octet, place)| *octet = octets[place]);
        let ip = Ipv4Addr::from(ip);
        (self.synthesize(ip) == address).then_some(ip)
    }

    /// Returns where a datagram for an address has to be sent: a public IPv4 address is reached through the NAT64, any
    /// other as it is. Private ones must not be translated (RFC 6052, section 3.1).
    #[must_use]
    pub fn outward(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if is_public(to.ip()) => SocketAddr::new(self.synthesize(ip).into(), to.port()),
            _ => to,
        }
    }

    /// Returns from where a datagram came: the IPv4 address behind the NAT64, if it came through that.
    #[must_use]
    pub fn inward(&self, from: SocketAddr) -> SocketAddr {
        let carried = match from.ip() {
            IpAddr::V6(ip) => self.extract(ip),
            IpAddr::V4(_) => None,
        };
        carried.map_or(from, |ip| SocketAddr::new(ip.into(), from.port()))
    }
}

/// Returns true if this computer has no way to IPv4 addresses, so that a NAT64 is of use.
#[must_use]
pub fn lacks_ipv4() -> bool {
    !has_route(SocketAddr::new(WELL_KNOWN[0].into(), 9))
}

/// Asks the network's DNS64 for the prefix of its NAT64 (RFC 7050, section 3); `None` if there is none.
pub async fn find_nat64() -> Option<Nat64Prefix> {
    timeout(DISCOVERY_TIMEOUT, discover()).await.ok()?.into_iter().next()
}

/// Turns addresses that the network's DNS64 made up back into the IPv4 addresses that they carry, and drops doubles.
pub(crate) async fn without_synthesized(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if addresses.iter().all(SocketAddr::is_ipv4) || !lacks_ipv4() {
        return addresses;
    }
    let prefixes = discover().await;
    let mut plain: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        let carried = prefixes.iter().map(|prefix| prefix.inward(address)).find(SocketAddr::is_ipv4);
        let address = carried.unwrap_or(address);
        if !plain.contains(&address) {
            plain.push(address);
        }
    }
    plain
}

/// Adds the addresses at which a NAT64 reaches IPv4 addresses that this computer has no way to.
pub(crate) async fn add_synthesized(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let reachable = addresses.iter().any(|address| address.is_ipv6() || has_route(*address));
    if reachable || addresses.is_empty() {
        return addresses;
    }
    let prefixes = discover().await;
    let synthesized = prefixes.iter().flat_map(|prefix| {
        addresses.iter().filter_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(SocketAddr::new(prefix.synthesize(ip).into(), address.port())),
            IpAddr::V6(_) => None,
        })
    });
    let synthesized: Vec<_> = synthesized.collect();
    if !synthesized.is_empty() {
        tracing::debug!(?addresses, ?synthesized, "no IPv4 here; using the network's NAT64");
    }
    [synthesized, addresses].concat()
}

/// Learns the network's prefixes (RFC 7050, section 3).
async fn discover() -> Vec<Nat64Prefix> {
    let mut prefixes = Vec::new();
    let found = lookup_host((IPV4_ONLY, 0)).await.inspect_err(|error| {
        tracing::debug!(reason = %error, "no NAT64 prefix could be learned");
    });
    for address in found.into_iter().flatten() {
        if let IpAddr::V6(ip) = address.ip()
            && let Some(prefix) = Nat64Prefix::of_well_known(ip)
            && !prefixes.contains(&prefix)
        {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// Returns true if the system knows a way to the address. Connecting a UDP socket sends nothing.
fn has_route(address: SocketAddr) -> bool {
    let connect = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.connect((address.ip(), 9));
    connect().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);

    /// The table of RFC 6052, section 2.4, and the well-known prefix.
    const TABLE: [(&str, usize, &str); 7] = [
        ("2001:db8::", 4, "2001:db8:c000:221::"),
        ("2001:db8:100::", 5, "2001:db8:1c0:2:21::"),
        ("2001:db8:122::", 6, "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::", 7, "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::", 8, "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::", 12, "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::", 12, "64:ff9b::192.0.2.33"),
    ];

    fn prefix(text: &str, length: usize) -> Nat64Prefix {
        Nat64Prefix { prefix: text.parse::<Ipv6Addr>().unwrap().octets(), length }
    }

    #[test]
    fn addresses_are_synthesized_as_in_the_rfc() {
        for (text, length, expected) in TABLE {
            assert_eq!(prefix(text, length).synthesize(IP), expected.parse::<Ipv6Addr>().unwrap(), "{text}");
        }
    }

    #[test]
    fn addresses_of_datagrams_are_translated_both_ways() {
        for (text, length, expected) in TABLE {
            let prefix = prefix(text, length);
            assert_eq!(prefix.extract(expected.parse().unwrap()), Some(IP), "{text}");
            let plain = SocketAddr::new(IP.into(), 3478);
            assert_eq!(prefix.inward(prefix.outward(plain)), plain, "{text}");
        }
        let prefix = prefix("64:ff9b::", 12);
        for other in ["192.168.1.7:1", "127.0.0.1:1", "[2001:db8::1]:1", "[64:ff9b:1::c000:221]:1"] {
            let other: SocketAddr = other.parse().unwrap();
            assert_eq!((prefix.outward(other), prefix.inward(other)), (other, other));
        }
    }

    #[test]
    fn prefixes_of_all_lengths_are_learned_from_the_well_known_name() {
        for (text, length, _) in TABLE {
            let prefix = prefix(text, length);
            for ip in WELL_KNOWN {
                assert_eq!(
                    Nat64Prefix::of_well_known(prefix.synthesize(ip)),
                    Some(prefix),
                    "{text}/{length}"
                );
            }
            assert_eq!(Nat64Prefix::of_well_known(prefix.synthesize(IP)), None);
        }
    }

    #[tokio::test]
    async fn addresses_that_have_a_route_stay_as_they_are() {
        let addresses: Vec<SocketAddr> = vec!["127.0.0.1:1".parse().unwrap()];
        assert_eq!(add_synthesized(addresses.clone()).await, addresses);
    }
}
