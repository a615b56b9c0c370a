//! Finds routers by SSDP (UPnP Device Architecture 1.1, section 1.3): a question by multicast, answers by unicast.
//!
//! Multicast gets lost on wireless networks, so the question is repeated, and the default gateway is asked directly as
//! well. Anybody on the network may answer. Whoever does must be on a private network or be the gateway, and may only
//! send us to itself: an answer that names another host's address is dropped, so that nobody makes us visit third
//! parties.

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
use url::{Host, Url};

/// When the question is asked, after the start.
const QUESTIONS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1500)];
/// How long answers are taken.
pub(crate) const SEARCH: Duration = Duration::from_secs(4);
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc);
const PORT: u16 = 1900;
/// Different answers taken on one network.
const ANSWERS: usize = 8;

/// From where to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    V4 { local: Ipv4Addr, gateway: Option<Ipv4Addr> },
    V6 { local: Ipv6Addr, interface: u32 },
}

/// Where somebody says that a router describes itself.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) location: Url,
    pub(crate) address: SocketAddr,
    pub(crate) local: IpAddr,
}

/// Asks, and passes answers on as they come, until time is up or nobody listens.
pub(crate) async fn search(source: Source, answers: mpsc::Sender<Answer>) {
    if let Err(error) = try_search(source, &answers).await {
        tracing::debug!(%error, ?source, "no search for routers");
    }
}

async fn try_search(source: Source, answers: &mpsc::Sender<Answer>) -> io::Result<()> {
    let (socket, groups) = open(source)?;
    let begun = Instant::now();
    let asking = async {
        for at in QUESTIONS {
            sleep_until(begun + at).await;
            for to in &groups {
                for target in targets(to) {
                    // One that cannot be reached is no reason not to ask the other.
                    let _ = socket.send_to(question(to, target).as_bytes(), to).await;
                }
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = asking => {}
        () = take_answers(source, &socket, begun + SEARCH, answers) => {}
    }
    Ok(())
}

async fn take_answers(source: Source, socket: &UdpSocket, end: Instant, answers: &mpsc::Sender<Answer>) {
    let mut seen: Vec<Url> = Vec::new();
    let mut bytes = [0; 1500];
    while let Ok(received) = timeout_at(end, socket.recv_from(&mut bytes)).await {
        let answer = received.ok().and_then(|(length, from)| read(source, from, &bytes[..length]));
        let Some(answer) = answer.filter(|answer| !seen.contains(&answer.location)) else {
            tokio::task::yield_now().await;
            continue;
        };
        seen.push(answer.location.clone());
        if seen.len() > ANSWERS || answers.send(answer).await.is_err() {
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
    let groups = match source {
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
    Ok((UdpSocket::from_std(socket.into())?, groups))
}

/// What to ask for. Devices that do version 2 answer to version 1 as well; some answer to a service only.
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

fn question(to: &SocketAddr, target: &str) -> String {
    let host = match to {
        SocketAddr::V4(v4) => v4.to_string(),
        SocketAddr::V6(v6) => format!("[{}]:{}", v6.ip(), v6.port()),
    };
    format!("M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nST: {target}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\r\n")
}

fn read(source: Source, from: SocketAddr, bytes: &[u8]) -> Option<Answer> {
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
    is_neighbour(source, from.ip()).then_some(Answer { location, address, local })
}

/// The address in a URL, if it is the answering host's own.
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

/// Whether `url` leads to the host at `address`.
pub(crate) fn leads_to(address: SocketAddr, url: &Url) -> bool {
    own_address(address, url).is_some()
}

fn is_neighbour(source: Source, from: IpAddr) -> bool {
    match (source, from) {
        (Source::V4 { gateway, .. }, IpAddr::V4(from)) => {
            gateway == Some(from) || from.is_private() || from.is_link_local()
        }
        // The question does not leave the link.
        (Source::V6 { .. }, IpAddr::V6(from)) => !from.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source =
        Source::V4 { local: Ipv4Addr::new(192, 168, 1, 2), gateway: Some(Ipv4Addr::new(11, 0, 0, 1)) };

    fn taken(from: &str, answer: &str) -> bool {
        let from = SocketAddr::new(from.parse().expect("an address"), 1900);
        read(SOURCE, from, answer.as_bytes()).is_some()
    }

    fn answer(location: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {location}\r\n\r\n")
    }

    #[test]
    fn only_the_answering_hosts_own_description_counts() {
        assert!(taken("192.168.1.1", &answer("http://192.168.1.1:5000/root.xml")));
        assert!(taken("11.0.0.1", &answer("http://11.0.0.1/")));
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
            assert!(!taken("192.168.1.1", &answer(location)), "{location}");
        }
    }

    #[test]
    fn strangers_and_other_messages_are_not_heard() {
        assert!(!taken("8.8.8.8", &answer("http://8.8.8.8/")));
        assert!(!taken("192.168.1.1", "NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n"));
        assert!(!taken("192.168.1.1", "HTTP/1.1 404 No\r\nLocation: http://192.168.1.1/\r\n\r\n"));
        assert!(!taken("192.168.1.1", "HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!taken("192.168.1.1", ""));
    }
}
