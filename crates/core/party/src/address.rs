//! Virtual addresses as functions of the party, the device and the claimed host number.
//!
//! IPv4: every member claims a host number in the party's range, by preference the hash of its device id (see
//! [`claim`](crate::claim)). IPv6: a unique local /64 (RFC 4193) from the party id with an interface identifier from the
//! device id; 64 bits of hash do not clash.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv4Net;
use partyline_model::{DeviceId, PartyId};
use sha2::{Digest, Sha256};

/// Number of host numbers that are tried by hash before the first free one is taken.
const HASH_ATTEMPTS: u16 = 256;

/// Returns the number of host numbers in a range, network and broadcast address excluded.
pub(crate) fn capacity(range: Ipv4Net) -> u16 {
    let hosts = (1_u32 << 32_u8.saturating_sub(range.prefix_len()).clamp(2, 16)) - 2;
    u16::try_from(hosts).unwrap_or(u16::MAX)
}

/// Returns the address of a host number, if the range contains it.
pub(crate) fn v4(range: Ipv4Net, host: u16) -> Option<Ipv4Addr> {
    let fits = (1..=capacity(range)).contains(&host);
    fits.then(|| Ipv4Addr::from_bits(range.network().to_bits() | u32::from(host)))
}

/// Returns the host number that a device claims: the first of its own sequence of hashes that is not taken, else the
/// first free one; `None` if all are taken.
pub(crate) fn choose(device: &DeviceId, range: Ipv4Net, taken: &BTreeSet<u16>) -> Option<u16> {
    let capacity = capacity(range);
    let hashed = (0..HASH_ATTEMPTS).map(|attempt| {
        let hash = digest(b"partyline host", &[&device.0, &attempt.to_be_bytes()]);
        u16::from_be_bytes([hash[0], hash[1]]) % capacity + 1
    });
    hashed.chain(1..=capacity).find(|host| !taken.contains(host))
}

/// Returns a member's IPv6 address.
pub(crate) fn v6(party: &PartyId, device: &DeviceId) -> Ipv6Addr {
    let (prefix, interface) =
        (digest(b"partyline ula", &[&party.0]), digest(b"partyline iid", &[&party.0, &device.0]));
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&prefix[..7]);
    bytes[8..].copy_from_slice(&interface[..8]);
    // Locally administered (RFC 4291, appendix A), and so never a reserved anycast address (RFC 2526).
    bytes[8] &= !0x02;
    Ipv6Addr::from(bytes)
}

fn digest(domain: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(domain);
    parts.iter().fold(hash, |hash, part| hash.chain_update(part)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_range_has_no_address_left() {
        let range: Ipv4Net = "10.1.2.0/28".parse().unwrap();
        let mut taken = BTreeSet::new();
        for n in 0..14 {
            let host = choose(&DeviceId([n; 32]), range, &taken).unwrap();
            assert!(v4(range, host).is_some_and(|address| range.contains(&address)));
            assert!(taken.insert(host));
        }
        assert_eq!(choose(&DeviceId([99; 32]), range, &taken), None);
    }

    #[test]
    fn network_and_broadcast_addresses_are_never_assigned() {
        for range in
            ["10.0.0.0/16", "192.168.7.0/24", "172.16.0.16/28"].map(|text| text.parse::<Ipv4Net>().unwrap())
        {
            assert_eq!(v4(range, 0), None);
            let last = v4(range, capacity(range)).unwrap();
            assert_eq!(last.to_bits() + 1, range.broadcast().to_bits());
            assert_eq!(v4(range, capacity(range) + 1), None);
        }
    }

    #[test]
    fn ipv6_addresses_are_unique_local() {
        let address = v6(&PartyId([1; 32]), &DeviceId([2; 32]));
        assert!(address.is_unique_local());
        assert_ne!(address, v6(&PartyId([1; 32]), &DeviceId([3; 32])));
    }
}
