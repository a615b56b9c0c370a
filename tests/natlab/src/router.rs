//! Options of a customer's router, and the nftables rules that implement them.

use std::fmt::Write;

use partyline_nat::Rules;

use crate::{Line, nat64::DEVICE};

/// The NAT that a router applies to IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Linux masquerade: one external port for all destinations, equal to the internal port if that is free (EI
    /// mapping, PD filtering, PP allocation).
    PortRestricted,
    /// Linux masquerade with a random port per destination (PD mapping, PD filtering, RD allocation).
    Symmetric,
    /// A [model](partyline_nat) in user space, which can be any NAT type.
    Modelled(Rules),
}

/// The behavior of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterOptions {
    /// The NAT between LAN and internet.
    pub nat: Nat,
    /// True if hosts on the LAN have IPv4 addresses.
    pub ipv4: bool,
    /// True if hosts on the LAN have global IPv6 addresses behind a stateful firewall.
    pub ipv6: bool,
    /// True if the router has a NAT64 and a DNS64, so that hosts without IPv4 reach IPv4 addresses (RFC 6146, RFC 6147).
    pub nat64: bool,
    /// True if the router forwards nothing but TCP to port 443.
    pub only_https: bool,
    /// Third octet of the LAN's subnet, 192.168.`subnet`.0/24. `None` picks one that no other LAN of the lab uses.
    pub subnet: Option<u8>,
    /// True for a carrier-grade NAT, whose LAN is 100.64.`subnet`.0/24 (RFC 6598).
    pub carrier: bool,
    /// Latency, jitter and loss of the line to the internet. `None` is a plain veth without any.
    pub line: Option<Line>,
}

impl RouterOptions {
    /// A home with a port-restricted NAT, as most homes have, and without IPv6.
    pub const HOME: Self = Self {
        nat: Nat::PortRestricted,
        ipv4: true,
        ipv6: false,
        nat64: false,
        only_https: false,
        subnet: None,
        carrier: false,
        line: None,
    };
    /// A home whose router allocates a random port per destination.
    pub const SYMMETRIC: Self = Self { nat: Nat::Symmetric, ..Self::HOME };
    /// A home with IPv6 and NAT for IPv4.
    pub const DUAL_STACK: Self = Self { ipv6: true, ..Self::HOME };
    /// A home with IPv6 only.
    pub const IPV6_ONLY: Self = Self { ipv4: false, ..Self::DUAL_STACK };
    /// A home with IPv6 only, whose provider or router translates to IPv4.
    pub const NAT64: Self = Self { nat64: true, ..Self::IPV6_ONLY };
    /// An office that allows nothing but outgoing HTTPS.
    pub const OFFICE: Self = Self { only_https: true, ..Self::HOME };

    /// Returns the nftables rules of the router, between `wan0` and `lan0`.
    ///
    /// Unsolicited packets are dropped on input too. If they were accepted there, they would create a
    /// connection-tracking entry that occupies the port that a later punched flow needs.
    pub(crate) fn rules(self) -> String {
        let outward = if self.only_https { "tcp dport 443" } else { "" };
        let masquerade = r#"meta nfproto ipv4 oifname "wan0" masquerade"#;
        let translator = if self.nat64 {
            format!(
                r#"iifname "lan0" oifname "{DEVICE}" accept
                    iifname "{DEVICE}" oifname "wan0" accept"#
            )
        } else {
            String::new()
        };
        let (translate, untracked, modelled) = match self.nat {
            Nat::PortRestricted => (masquerade.to_owned(), "", String::new()),
            Nat::Symmetric => (format!("{masquerade} fully-random"), "", String::new()),
            Nat::Modelled(_) => (String::new(), "meta nfproto ipv4 notrack", modelled(outward)),
        };
        let mut rules = String::new();
        let _ = write!(
            rules,
            r#"table inet router {{
                chain input {{
                    type filter hook input priority filter; policy accept;
                    ct state established,related accept
                    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
                    iifname "wan0" drop
                }}
                chain forward {{
                    type filter hook forward priority filter; policy drop;
                    ct state established,related accept
                    iifname "lan0" oifname "wan0" {outward} accept
                    {translator}
                    {modelled}
                }}
                chain prerouting {{
                    type filter hook prerouting priority raw;
                    {untracked}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    {translate}
                }}
            }}"#
        );
        rules
    }
}

/// Returns the forward rules for packets to and from the device `nat0` in which the model translates.
fn modelled(outward: &str) -> String {
    format!(
        r#"iifname "lan0" oifname "nat0" {outward} accept
        iifname "wan0" oifname "nat0" accept
        iifname "nat0" accept"#
    )
}
