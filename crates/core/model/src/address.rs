//! Which addresses are of the Internet.

use std::net::IpAddr;

/// Returns true for an address of the Internet, false for one of a private, shared, link-local or loopback range.
#[must_use]
pub const fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified();
            !local && !is_shared(ip)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local())
        }
    }
}

/// Returns true for 100.64.0.0/10 (RFC 6598), the space between a carrier's NAT and its customers' routers.
#[must_use]
pub const fn is_shared(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64,
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_shared_addresses_are_not_public() {
        for (ip, public) in [
            ([11, 0, 0, 1], true),
            ([100, 63, 255, 255], true),
            ([100, 64, 0, 0], false),
            ([100, 127, 255, 255], false),
            ([100, 128, 0, 0], true),
            ([10, 1, 2, 3], false),
            ([169, 254, 0, 1], false),
            ([127, 0, 0, 1], false),
        ] {
            assert_eq!(is_public(ip.into()), public, "{ip:?}");
        }
        assert!(is_public("2001:db8::1".parse().expect("an address")));
        assert!(!is_public("fd00::1".parse().expect("an address")));
    }
}
