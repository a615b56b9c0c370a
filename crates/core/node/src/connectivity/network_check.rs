//! What the network check needs from outside netcheck, and its report for people: servers that the user named, what the
//! router's port mapping protocols did, and which servers answer over TCP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use partyline_model::{AppError, ErrorCode, NetworkReport, Now, RouterCheck, ServerCheck, Timestamp};
use partyline_netcheck::{Report, ServerReport, StunServer};
use tracing::debug;

use super::known_networks::timestamp;
use crate::host_names::Host;

/// STUN servers that may be named besides the parties' own.
const MAX_NAMED_SERVERS: usize = 8;
/// The longest host name (RFC 1035, section 2.3.4).
const MAX_HOST_LEN: usize = 253;
const STUN_PORT: u16 = 3478;

/// What the network check knows besides netcheck.
#[derive(Debug, Default)]
pub(super) struct NetworkCheck {
    /// Servers that the user named, with their addresses once resolved.
    named: BTreeMap<Host, Vec<SocketAddr>>,
    router: Vec<RouterCheck>,
    /// When the result shown was measured, as long as it is from an earlier visit to this network.
    recalled_at: Option<Timestamp>,
    /// Servers that answer over TCP.
    tcp_reachable: BTreeSet<IpAddr>,
}

impl NetworkCheck {
    /// Takes the servers that the user named; returns the hosts to resolve.
    ///
    /// # Errors
    /// Too many, or something that is no server.
    pub(super) fn begin(&mut self, servers: &[String]) -> Result<BTreeSet<Host>, AppError> {
        let wanted: Option<BTreeSet<_>> = servers.iter().map(|server| parse(server)).collect();
        let wanted = wanted.filter(|_| servers.len() <= MAX_NAMED_SERVERS).ok_or_else(not_servers)?;
        debug!(named = wanted.len(), "network check requested");
        self.tcp_reachable.clear();
        if !wanted.is_empty() && !self.named.keys().eq(&wanted) {
            self.named = wanted.iter().map(|server| (server.clone(), Vec::new())).collect();
        }
        Ok(wanted)
    }

    /// Returns the hosts that the user named.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.named.keys()
    }

    /// Takes the addresses to use for a host, if it was named; returns true if they are others than before.
    pub(super) fn on_resolved(&mut self, host: &Host, addresses: &[SocketAddr]) -> bool {
        let Some(known) = self.named.get_mut(host).filter(|known| *known != addresses) else { return false };
        *known = addresses.to_vec();
        true
    }

    /// Returns the servers that the user named, one for each address family.
    pub(super) fn named_servers(&self) -> impl Iterator<Item = StunServer> {
        self.named.iter().flat_map(|((host, port), addresses)| {
            [true, false].into_iter().filter_map(move |v4| {
                let best = addresses.iter().find(|address| address.is_ipv4() == v4)?;
                Some(StunServer::new(format!("{host}:{port}"), *best))
            })
        })
    }

    /// Takes what the router's port mapping protocols did; returns true if that is news.
    pub(super) fn set_router(&mut self, checks: Vec<RouterCheck>) -> bool {
        let changed = self.router != checks;
        self.router = checks;
        changed
    }

    /// Notes that a server answers over TCP; returns all that do.
    pub(super) fn on_tcp_reachable(&mut self, address: IpAddr) -> impl Iterator<Item = IpAddr> {
        if self.tcp_reachable.insert(address) {
            debug!(%address, "silent server answers over TCP");
        }
        self.tcp_reachable.iter().copied()
    }

    /// Forgets what was learned about another network.
    pub(super) fn on_network_changed(&mut self) {
        self.tcp_reachable.clear();
        self.recalled_at = None;
    }

    /// Notes that what is shown is from an earlier visit to this network; `None` if it is not.
    pub(super) const fn set_recalled(&mut self, at: Option<Timestamp>) {
        self.recalled_at = at;
    }

    /// Describes the check for people.
    pub(super) fn report(&self, now: Now, report: Report) -> NetworkReport {
        let finished_at = report.finished_at.map(|at| timestamp(now, at));
        let measured_at = finished_at.or(self.recalled_at);
        NetworkReport {
            enabled: report.enabled,
            running: report.enabled && !report.finished && !report.servers.is_empty(),
            steps: report.steps,
            servers: report.servers.into_iter().map(server_check).collect(),
            router: self.router.clone(),
            gaps: report.gaps.into_iter().map(str::to_owned).collect(),
            confidence: report.confidence,
            measured_at: measured_at.map(|at| u32::try_from(at.seconds()).unwrap_or(u32::MAX)),
            took_ms: report.duration.map_or(0, milliseconds),
            packets: report.packets,
        }
    }
}

fn server_check(server: ServerReport) -> ServerCheck {
    ServerCheck {
        name: server.name,
        address: server.address,
        rtt_ms: server.rtt.map(milliseconds),
        reflexive: server.reflexive,
        two_addresses: server.other_address.is_some(),
        silent: server.timed_out,
    }
}

fn milliseconds(span: std::time::Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Reads `host`, `host:port`, an address, or `[address]:port`.
fn parse(server: &str) -> Option<(String, u16)> {
    if let Ok(address) = server.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| (address.ip().to_string(), address.port()));
    }
    if let Ok(address) = server.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some((address.to_string(), STUN_PORT));
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (server, STUN_PORT),
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    (!host.is_empty() && host.len() <= MAX_HOST_LEN && host.bytes().all(letters))
        .then(|| (host.to_owned(), port))
}

fn not_servers() -> AppError {
    AppError::new(
        ErrorCode::InvalidInput,
        "Those are not the names of STUN servers.",
        "Name at most 8, as host or host:port.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_host_or_address() {
        let name = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(parse("stun.example"), name("stun.example", 3478));
        assert_eq!(parse("stun.example:19302"), name("stun.example", 19302));
        assert_eq!(parse("11.0.0.1:3478"), name("11.0.0.1", 3478));
        assert_eq!(parse("2001:db8::1"), name("2001:db8::1", 3478));
        assert_eq!(parse("[2001:db8::1]:99"), name("2001:db8::1", 99));
        for bad in ["", ":1", "a:0", "a b", "a:port", "a/b"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn named_server_is_asked_at_one_address_of_each_family() {
        let mut check = NetworkCheck::default();
        assert!(check.begin(&vec!["stun.example".to_owned(); 9]).is_err(), "too many");
        let wanted = check.begin(&["stun.example".to_owned()]).expect("a server");
        assert_eq!(wanted.into_iter().collect::<Vec<_>>(), [("stun.example".to_owned(), 3478)]);
        let address = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 3478);
        let addresses = [address("11.0.0.1"), address("11.0.0.2"), address("2001:db8::1")];
        assert!(check.on_resolved(&("stun.example".to_owned(), 3478), &addresses));
        assert!(!check.on_resolved(&("other.example".to_owned(), 3478), &addresses));
        let asked: Vec<_> = check.named_servers().map(|server| server.address).collect();
        assert_eq!(asked, [address("11.0.0.1"), address("2001:db8::1")]);
        check.begin(&[]).expect("no servers");
        assert_eq!(check.named_servers().count(), 2, "those named before are kept");
    }
}
