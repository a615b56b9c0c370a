//! What a customer's router lets through, as nftables rules.

use std::fmt::Write;

use partyline_nat::Rules;

use crate::Line;

/// How a router translates IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Linux masquerade: one external port for all destinations, kept equal to the inside port where free, and let in
    /// only from where it was sent to (EI mapping, PD filtering, PP allocation).
    PortRestricted,
    /// A new random port for every destination (PD mapping, PD filtering, RD allocation).
    Symmetric,
    /// No translation by the kernel but by a [model](partyline_nat) of any NAT.
    Modelled(Rules),
}

/// A router's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterOptions {
    /// Translation.
    pub nat: Nat,
    /// Whether hosts have IPv4 addresses.
    pub ipv4: bool,
    /// Whether hosts have global IPv6 addresses behind a stateful firewall.
    pub ipv6: bool,
    /// Whether only TCP to port 443 gets out.
    pub only_https: bool,
    /// The LAN is 192.168.`subnet`.0/24; `None` takes one that no other LAN of the lab has.
    pub subnet: Option<u8>,
    /// Whether it is a carrier's, whose LAN is 100.64.`subnet`.0/24 (RFC 6598).
    pub carrier: bool,
    /// The line to the internet; `None` is one without latency.
    pub line: Option<Line>,
}

impl RouterOptions {
    /// A home with the NAT most homes have, and no IPv6.
    pub const HOME: Self = Self {
        nat: Nat::PortRestricted,
        ipv4: true,
        ipv6: false,
        only_https: false,
        subnet: None,
        carrier: false,
        line: None,
    };
    /// A home whose router changes ports for every destination.
    pub const SYMMETRIC: Self = Self { nat: Nat::Symmetric, ..Self::HOME };
    /// A home with IPv6 besides NAT.
    pub const DUAL_STACK: Self = Self { ipv6: true, ..Self::HOME };
    /// A home with IPv6 alone.
    pub const IPV6_ONLY: Self = Self { ipv4: false, ..Self::DUAL_STACK };
    /// An office that lets out nothing but HTTPS.
    pub const OFFICE: Self = Self { only_https: true, ..Self::HOME };

    /// The rules of its router, between `wan0` and `lan0`.
    ///
    /// Unsolicited packets are dropped on input too: accepted there, they would leave a connection-tracking entry
    /// that takes the very port a later punched flow needs.
    pub(crate) fn rules(self) -> String {
        let outward = if self.only_https { "tcp dport 443" } else { "" };
        let masquerade = r#"meta nfproto ipv4 oifname "wan0" masquerade"#;
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

/// What passes to and from the device in which the model translates.
fn modelled(outward: &str) -> String {
    format!(
        r#"iifname "lan0" oifname "nat0" {outward} accept
        iifname "wan0" oifname "nat0" accept
        iifname "nat0" accept"#
    )
}
