//! Finds routers by SSDP (UPnP Device Architecture 1.1, section 1.3): a search by multicast, responses by unicast.
//!
//! Multicast gets lost on wireless networks, so the search is repeated, and also sent to the default gateway directly.
//! Any host on the network may respond. A response is accepted only from a private address or the gateway, and only if
//! its location is on the responding host: so no response can aim this computer at third parties.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, trace};
use url::{Host, Url};

/// When the search is sent, after the start.
const SEARCH_TIMES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1500)];
/// How long responses are accepted.
pub(crate) const SEARCH_TIME: Duration = Duration::from_secs(4);
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc);
const PORT: u16 = 1900;
/// The most different responses accepted on one network.
const MAX_RESPONSES: usize = 8;

/// The local address to search from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    V4 { local: Ipv4Addr, gateway: Option<Ipv4Addr> },
    V6 { local: Ipv6Addr, interface: u32 },
}

/// An accepted response.
#[derive(Debug, Clone)]
pub(crate) struct SearchResponse {
    /// The URL of the device description.
    pub(crate) location: Url,
    /// The address of the host in that URL.
    pub(crate) address: SocketAddr,
    /// This computer's address on that network.
    pub(crate) local: IpAddr,
}

/// Searches, and sends responses as they arrive, until the search time is over or the receiver is gone.
pub(crate) async fn search(source: Source, responses: mpsc::Sender<SearchResponse>) {
    if let Err(error) = try_search(source, &responses).await {
        debug!(reason = %error, ?source, "search for routers failed");
    }
}

async fn try_search(source: Source, responses: &mpsc::Sender<SearchResponse>) -> io::Result<()> {
    let (socket, destinations) = open(source)?;
    debug!(?source, "search for routers begins");
    let begun = Instant::now();
    let sending = async {
        for at in SEARCH_TIMES {
            sleep_until(begun + at).await;
            for to in &destinations {
                for target in targets(to) {
                    // One destination that cannot be reached is no reason to leave out the other.
                    if let Err(error) = socket.send_to(search_request(to, target).as_bytes(), to).await {
                        trace!(%to, reason = %error, "search not sent");
                    }
                }
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = sending => {}
        () = receive(source, &socket, begun + SEARCH_TIME, responses) => {}
    }
    Ok(())
}

async fn receive(source: Source, socket: &UdpSocket, end: Instant, responses: &mpsc::Sender<SearchResponse>) {
    let mut seen: Vec<Url> = Vec::new();
    let mut bytes = [0; 1500];
    while let Ok(received) = timeout_at(end, socket.recv_from(&mut bytes)).await {
        let response = received.ok().and_then(|(length, from)| read(source, from, &bytes[..length]));
        let Some(response) = response.filter(|response| !seen.contains(&response.location)) else {
            trace!(reason = "repeated or not acceptable", "search response ignored");
            tokio::task::yield_now().await;
            continue;
        };
        debug!(location = %response.location, "router found");
        seen.push(response.location.clone());
        if seen.len() > MAX_RESPONSES || responses.send(response).await.is_err() {
            return;
        }
    }
}

fn open(source: Source) -> io::Result<(UdpSocket, Vec<SocketAddr>)> {
    let (domain, local): (_, SocketAddr) = match source {
        Source::V4 { local, .. } => (Domain::IPV4, (local, 0).into()),
        Source::V6 { local, .. } => (Domain::IPV6, (local, 0).into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    let destinations = match source {
        Source::V4 { local, gateway } => {
            socket.set_multicast_if_v4(&local)?;
            socket.set_multicast_ttl_v4(2)?;
            [GROUP_V4].into_iter().chain(gateway).map(|ip| (ip, PORT).into()).collect()
        }
        Source::V6 { interface, .. } => {
            socket.set_multicast_if_v6(interface)?;
            vec![SocketAddrV6::new(GROUP_V6, PORT, 0, interface).into()]
        }
    };
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok((UdpSocket::from_std(socket.into())?, destinations))
}

/// Returns the search targets. Devices of version 2 respond to version 1 as well; some respond to a service only.
const fn targets(to: &SocketAddr) -> &'static [&'static str] {
    match to {
        SocketAddr::V4(_) => &[
            "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
            "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
            "urn:schemas-upnp-org:service:WANIPConnection:1",
            "urn:schemas-upnp-org:service:WANPPPConnection:1",
        ],
        SocketAddr::V6(_) => &[
            "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
            "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
        ],
    }
}

fn search_request(to: &SocketAddr, target: &str) -> String {
    let host = match to {
        SocketAddr::V4(v4) => v4.to_string(),
        SocketAddr::V6(v6) => format!("[{}]:{}", v6.ip(), v6.port()),
    };
    format!(
        "M-SEARCH_TIME * HTTP/1.1\r\nHOST: {host}\r\nST: {target}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\r\n"
    )
}

fn read(source: Source, from: SocketAddr, bytes: &[u8]) -> Option<SearchResponse> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let status = lines.next()?;
    if !(status.starts_with("HTTP/1.") && status.split_whitespace().nth(1) == Some("200")) {
        return None;
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let location = fields.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("location"))?.1;
    let location = Url::parse(location.trim()).ok()?;
    let address = own_address(from, &location)?;
    let local = match source {
        Source::V4 { local, .. } => local.into(),
        Source::V6 { local, .. } => local.into(),
    };
    is_neighbour(source, from.ip()).then_some(SearchResponse { location, address, local })
}

/// Returns the address in a URL, if it is the responding host's own.
fn own_address(from: SocketAddr, url: &Url) -> Option<SocketAddr> {
    let ip = match url.host()? {
        Host::Ipv4(ip) => IpAddr::V4(ip),
        Host::Ipv6(ip) => IpAddr::V6(ip),
        Host::Domain(_) => return None,
    };
    let port = url.port_or_known_default().filter(|port| *port != 0)?;
    let plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
    let mut address = from;
    address.set_port(port);
    (plain && ip == from.ip()).then_some(address)
}

/// Returns true if `url` is on the host at `address`.
pub(crate) fn is_on_host(address: SocketAddr, url: &Url) -> bool {
    own_address(address, url).is_some()
}

fn is_neighbour(source: Source, from: IpAddr) -> bool {
    match (source, from) {
        (Source::V4 { gateway, .. }, IpAddr::V4(from)) => {
            gateway == Some(from) || from.is_private() || from.is_link_local()
        }
        // The search does not leave the link.
        (Source::V6 { .. }, IpAddr::V6(from)) => !from.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source =
        Source::V4 { local: Ipv4Addr::new(192, 168, 1, 2), gateway: Some(Ipv4Addr::new(11, 0, 0, 1)) };

    fn accepted(from: &str, response: &str) -> bool {
        let from = SocketAddr::new(from.parse().expect("an address"), 1900);
        read(SOURCE, from, response.as_bytes()).is_some()
    }

    fn response(location: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {location}\r\n\r\n")
    }

    #[test]
    fn location_must_be_on_the_responding_host() {
        assert!(accepted("192.168.1.1", &response("http://192.168.1.1:5000/root.xml")));
        assert!(accepted("11.0.0.1", &response("http://11.0.0.1/")));
        for location in [
            "http://192.168.1.9:5000/root.xml",
            "http://127.0.0.1:631/",
            "http://router.example/root.xml",
            "https://192.168.1.1/root.xml",
            "http://admin:secret@192.168.1.1/",
            "http://192.168.1.1:0/",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!accepted("192.168.1.1", &response(location)), "{location}");
        }
    }

    #[test]
    fn responses_from_public_addresses_and_other_messages_are_ignored() {
        assert!(!accepted("8.8.8.8", &response("http://8.8.8.8/")));
        assert!(!accepted("192.168.1.1", "NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n"));
        assert!(!accepted("192.168.1.1", "HTTP/1.1 404 No\r\nLocation: http://192.168.1.1/\r\n\r\n"));
        assert!(!accepted("192.168.1.1", "HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!accepted("192.168.1.1", ""));
    }
}
