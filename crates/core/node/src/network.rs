//! The check of the network: sockets lent to it, servers asked for it, and what it reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use partyline_model::{AppError, ErrorCode, NetworkReport, Now, Reply, RouterCheck, ServerCheck, Timestamp};
use partyline_netcheck::{PeerMapping, StunServer, Transmit};

use crate::{Node, egress::Local, io::Output};

/// STUN servers that may be asked for besides the parties' own.
const MOST_SERVERS: usize = 8;
const LONGEST_HOST: usize = 253;
const STUN_PORT: u16 = 3478;

/// What the check knows besides what netcheck does.
#[derive(Debug, Default)]
pub struct NetworkCheck {
    /// Servers that somebody wants asked, with their addresses once looked up.
    stun: BTreeMap<(String, u16), Vec<SocketAddr>>,
    router: Vec<RouterCheck>,
    /// When what is shown was measured, as long as it is from an earlier visit.
    pub(crate) recalled: Option<Timestamp>,
    /// Where something answers over TCP.
    reachable: BTreeSet<IpAddr>,
}

impl Node {
    /// Takes how the ways of asking the router for a port fare; the whole list every time.
    pub fn handle_router(&mut self, checks: Vec<RouterCheck>) {
        if self.network.router != checks {
            self.network.router = checks;
            self.touch();
        }
    }

    /// Takes what the router promises for the tunnel socket's flows to servers; the whole list every time.
    pub fn handle_peer_mappings(&mut self, now: Now, promises: Vec<PeerMapping>) {
        self.netcheck.set_peer_mappings(now.instant, promises);
    }

    /// The servers by which the tunnel's socket wants to be heard at any time.
    #[must_use]
    pub fn keepalive_servers(&self) -> Vec<SocketAddr> {
        self.netcheck.keepalive_servers()
    }

    /// Takes the address of a server that answers over TCP, as [`Output::Reach`] asked.
    pub fn handle_reached(&mut self, now: Now, address: IpAddr) {
        self.network.reachable.insert(address);
        self.netcheck.set_tcp_reachable(now.instant, self.network.reachable.iter().copied());
    }

    /// Measures again, with further servers where some are named.
    pub(crate) fn check_network(&mut self, now: Now, stun: &[String]) -> Result<Reply, AppError> {
        let wanted: Option<BTreeSet<_>> = stun.iter().map(|server| parse(server)).collect();
        let wanted = wanted.filter(|_| stun.len() <= MOST_SERVERS).ok_or_else(not_servers)?;
        self.network.reachable.clear();
        if !wanted.is_empty() && !self.network.stun.keys().eq(&wanted) {
            self.network.stun = wanted.iter().map(|server| (server.clone(), Vec::new())).collect();
        }
        for (host, port) in wanted {
            self.outputs.push_back(Output::Resolve { host, port });
        }
        self.netcheck.remeasure(now.instant);
        Ok(Reply::Done)
    }

    /// Takes the addresses of a server named for the check.
    pub(crate) fn note_stun(&mut self, host: &str, port: u16, addresses: &[SocketAddr]) {
        if let Some(known) = self.network.stun.get_mut(&(host.to_owned(), port)) {
            *known = addresses.to_vec();
        }
    }

    /// All STUN servers: the relays, and those named for the check, one of each address family.
    pub(crate) fn stun_servers(&self) -> Vec<StunServer> {
        let mut servers = self.relays.stun();
        for ((host, port), addresses) in &self.network.stun {
            for v4 in [true, false] {
                let best = addresses.iter().find(|address| address.is_ipv4() == v4);
                servers.extend(best.map(|address| StunServer::new(format!("{host}:{port}"), *address)));
            }
        }
        servers
    }

    /// Tells the path machine what the NAT does, and who can say where a fresh socket is seen.
    pub(crate) fn tell_nat(&mut self, now: Now) {
        let observers = self.stun_servers().into_iter().map(|server| server.address).collect();
        self.paths.set_nat(now.instant, self.netcheck.profile().clone(), observers);
    }

    pub(crate) fn send_netcheck(&mut self, transmit: &Transmit) {
        let Transmit { socket, destination, bytes } = transmit;
        self.transmits.push(Local::Socket(*socket), *destination, bytes);
    }

    pub(crate) fn network_report(&self, now: Now) -> NetworkReport {
        let report = self.netcheck.report();
        let at = report.finished_at.map(|at| {
            let age = now.instant.saturating_duration_since(at);
            Timestamp(now.unix.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
        });
        NetworkReport {
            enabled: report.enabled,
            running: report.enabled && !report.finished && !report.servers.is_empty(),
            steps: report.steps,
            servers: report.servers.into_iter().map(server_check).collect(),
            router: self.network.router.clone(),
            gaps: report.gaps.into_iter().map(str::to_owned).collect(),
            confidence: report.confidence,
            measured_at: at
                .or(self.network.recalled)
                .map(|at| u32::try_from(at.seconds()).unwrap_or(u32::MAX)),
            took_ms: report.duration.map_or(0, milliseconds),
            packets: report.packets,
        }
    }
}

fn server_check(server: partyline_netcheck::ServerReport) -> ServerCheck {
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

/// `host`, `host:port`, an address, or `[address]:port`.
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
    (!host.is_empty() && host.len() <= LONGEST_HOST && host.bytes().all(letters))
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
    use super::parse;

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
}
