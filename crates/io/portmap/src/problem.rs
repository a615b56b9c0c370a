//! What a router grants, and why it grants nothing.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::Protocol;

/// What a router granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) external: SocketAddr,
    /// `None`: for ever.
    pub(crate) lifetime: Option<Duration>,
}

impl Grant {
    /// The grant, unless it names an address at which nobody can be reached.
    pub(crate) fn sensible(self) -> Result<Self, Problem> {
        let ip = self.external.ip().to_canonical();
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
        if ip.is_unspecified()
            || ip.is_multicast()
            || ip.is_loopback()
            || broadcast
            || self.external.port() == 0
        {
            return Err(Problem::Nonsense(format!("{} is no address to be reached at", self.external)));
        }
        if self.lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            return Err(Problem::Nonsense("a mapping for no time".into()));
        }
        Ok(self)
    }

    /// Whether the outside address is itself behind another NAT.
    pub(crate) fn is_shared(&self) -> bool {
        match self.external.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
                ip.is_private() || ip.is_link_local() || shared
            }
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        }
    }
}

/// Why a router granted nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("no router answered")]
    Silent,
    /// It says so, or that nobody listens where it would be spoken.
    #[error("the router does not speak {0}")]
    Unspoken(Protocol),
    #[error("no default gateway is known")]
    NoGateway,
    #[error("this network has no global IPv6 address")]
    NoIpv6,
    #[error("the router refused: {0}")]
    Refused(String),
    /// It understood, and opens no ports, at least not for us.
    #[error("the router refused: {0}")]
    Declined(&'static str),
    #[error("the router's answer makes no sense: {0}")]
    Nonsense(String),
    #[error("{}", plain(.0))]
    Network(#[from] io::Error),
}

impl Problem {
    /// A router may put a book into its answer: a line of it is enough.
    pub(crate) fn line(&self) -> String {
        let text: String =
            self.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        text.trim_end().to_owned()
    }
}

/// The system's error, as a person would say it.
fn plain(error: &io::Error) -> String {
    use ErrorKind as E;
    let words = match error.kind() {
        E::ConnectionRefused => "the router does not answer where it said that it would",
        E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::UnexpectedEof => {
            "the router broke off in the middle"
        }
        E::NetworkUnreachable | E::HostUnreachable | E::NetworkDown => "there is no way to the router",
        E::AddrNotAvailable => "this computer does not have its address on that network any more",
        E::TimedOut => "no router answered",
        E::PermissionDenied => "this computer's firewall does not let the router be asked",
        _ => return format!("the network failed: {error}"),
    };
    words.into()
}

/// What a look at a standing mapping showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing has changed, as far as can be told.
    Stands,
    /// The router restarted, has another address, or does not know the mapping: ask again.
    Changed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(address: &str) -> Grant {
        Grant { external: address.parse().expect("an address"), lifetime: None }
    }

    #[test]
    fn private_and_shared_outside_addresses_mean_another_nat_above() {
        for (address, double) in [
            ("10.0.0.1:1", true),
            ("100.64.0.1:1", true),
            ("100.128.0.1:1", false),
            ("11.0.0.1:1", false),
            ("[fd00::1]:1", true),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(grant(address).is_shared(), double, "{address}");
        }
    }

    #[test]
    fn addresses_at_which_nobody_can_be_are_refused() {
        for address in
            ["0.0.0.0:1", "255.255.255.255:1", "127.0.0.1:1", "224.0.0.1:1", "11.0.0.1:0", "[::]:1"]
        {
            assert!(grant(address).sensible().is_err(), "{address}");
        }
        assert!(grant("11.0.0.1:1").sensible().is_ok());
    }

    #[test]
    fn no_number_of_an_error_reaches_a_person() {
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable]
        {
            let said = Problem::from(io::Error::from(kind)).line();
            assert!(said.contains("router") || said.contains("this computer"), "{said}");
        }
        assert_eq!(Problem::from(io::Error::from_raw_os_error(111)).line().find("os error"), None);
        assert_eq!(Problem::Unspoken(Protocol::Pcp).line(), "the router does not speak PCP");
    }

    #[test]
    fn a_routers_novel_becomes_one_line() {
        assert!(Problem::Refused("x\n".repeat(5000)).line().len() <= 200);
    }
}
