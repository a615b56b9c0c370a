//! TURN URLs (RFC 7065).

use std::net::IpAddr;

use partyline_paths::RelayTransport;

/// The parts of a TURN URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnUrl {
    /// The transport to the relay.
    pub transport: RelayTransport,
    /// Its host name, or a literal address.
    pub host: String,
    /// Its port; 3478, or 5349 over TLS, if the URL names none.
    pub port: u16,
}

impl TurnUrl {
    /// Reads `turn:host[:port][?transport=udp|tcp]` or `turns:host[:port][?transport=tcp]`; `None` for anything else.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let secure = match scheme {
            "turn" => false,
            "turns" => true,
            _ => return None,
        };
        let transport = match (secure, query) {
            (true, "" | "transport=tcp") => RelayTransport::Tls,
            (false, "" | "transport=udp") => RelayTransport::Udp,
            (false, "transport=tcp") => RelayTransport::Tcp,
            _ => return None,
        };
        let (host, port) = split_port(authority, if secure { 5349 } else { 3478 })?;
        Some(Self { transport, host, port })
    }
}

fn split_port(authority: &str, default: u16) -> Option<(String, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<IpAddr>().ok()?;
        let port = port.strip_prefix(':').map_or(Some(default), |port| port.parse().ok())?;
        return Some((address.to_owned(), port));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default),
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_urls_are_parsed_and_others_refused() {
        let url = TurnUrl::parse("turns:relay.example:443?transport=tcp").unwrap();
        assert_eq!(url, TurnUrl { transport: RelayTransport::Tls, host: "relay.example".into(), port: 443 });
        let url = TurnUrl::parse("turn:[2001:db8::1]:99").unwrap();
        assert_eq!(url, TurnUrl { transport: RelayTransport::Udp, host: "2001:db8::1".into(), port: 99 });
        assert_eq!(TurnUrl::parse("turn:relay").unwrap().port, 3478);
        for bad in
            ["stun:relay", "turn:", "turns:relay?transport=udp", "turn:relay:port", "turn:[x]:1", "turn"]
        {
            assert_eq!(TurnUrl::parse(bad), None, "{bad}");
        }
    }
}
