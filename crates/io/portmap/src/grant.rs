//! What a router grants, and whether it still has it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::error::MappingError;

/// A mapping as the router granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The external address and port.
    pub(crate) external: SocketAddr,
    /// The lease; `None` if permanent.
    pub(crate) lifetime: Option<Duration>,
}

impl Grant {
    /// Returns the grant, unless its external address cannot be reached by anybody or its lease is zero.
    ///
    /// # Errors
    /// [`MappingError::InvalidResponse`] then.
    pub(crate) fn validated(self) -> Result<Self, MappingError> {
        let ip = self.external.ip().to_canonical();
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
        if ip.is_unspecified()
            || ip.is_multicast()
            || ip.is_loopback()
            || broadcast
            || self.external.port() == 0
        {
            let reason = format!("{} is no address to be reached at", self.external);
            return Err(MappingError::InvalidResponse(reason));
        }
        if self.lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            return Err(MappingError::InvalidResponse("a mapping for no time".into()));
        }
        Ok(self)
    }

    /// Returns true if the external address is private or shared (RFC 6598), so that another NAT lies above the router.
    pub(crate) fn is_double_nat(&self) -> bool {
        match self.external.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
                ip.is_private() || ip.is_link_local() || shared
            }
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        }
    }
}

/// The result of checking a mapping between two renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MappingStatus {
    /// The router still has the mapping, as far as it can tell.
    Unchanged,
    /// The router restarted, has another address, or does not have the mapping any more: it has to be requested again.
    Changed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(address: &str) -> Grant {
        Grant { external: address.parse().expect("an address"), lifetime: None }
    }

    #[test]
    fn private_or_shared_external_address_is_double_nat() {
        for (address, double) in [
            ("10.0.0.1:1", true),
            ("100.64.0.1:1", true),
            ("100.128.0.1:1", false),
            ("11.0.0.1:1", false),
            ("[fd00::1]:1", true),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(grant(address).is_double_nat(), double, "{address}");
        }
    }

    #[test]
    fn unreachable_external_address_is_invalid() {
        for address in
            ["0.0.0.0:1", "255.255.255.255:1", "127.0.0.1:1", "224.0.0.1:1", "11.0.0.1:0", "[::]:1"]
        {
            assert!(grant(address).validated().is_err(), "{address}");
        }
        assert!(grant("11.0.0.1:1").validated().is_ok());
    }

    #[test]
    fn lease_of_zero_is_invalid() {
        let leased = |lifetime| Grant { lifetime: Some(lifetime), ..grant("11.0.0.1:1") };
        assert!(leased(Duration::ZERO).validated().is_err());
        assert!(leased(Duration::from_secs(1)).validated().is_ok());
    }
}
