//! Receives the announcements of routers that have restarted or got another address.
//!
//! NAT-PMP and PCP servers then send unsolicited responses to 224.0.0.1 port 5350 (RFC 6886 section 3.2.1, RFC 6887
//! section 14.1.1), ten times at growing intervals. Only those from the router's own address count, and their contents
//! are not used: an announcement only makes the keepers renew their mappings early.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{debug, info, trace};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const PORT: u16 = 5350;
/// Within this time, a further announcement is a repetition. Also the pause after an error of the socket.
const REPEAT_WINDOW: Duration = Duration::from_secs(5);

/// Listens in a task of its own until `stop` changes, and counts announcements. Where listening is impossible, the
/// regular checks have to suffice.
pub(crate) fn listen(
    router: Option<Ipv4Addr>,
    local: Ipv4Addr,
    tasks: &mut JoinSet<()>,
    mut stop: watch::Receiver<()>,
) -> watch::Receiver<u64> {
    let announced = watch::Sender::new(0);
    let restarts = announced.subscribe();
    let socket = open(local)
        .inspect_err(|error| debug!(reason = %error, "announcements of routers cannot be received"));
    tasks.spawn(async move {
        let listening = async {
            match (socket, router) {
                (Ok(socket), Some(router)) => receive(&socket, router, &announced).await,
                // The sender has to live: the keepers wait for it.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stop.changed() => {}
            () = listening => {}
        }
    });
    restarts
}

fn open(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Every program that maps ports listens on this port.
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    // Linux needs no membership for the group of all systems, others do.
    let _ = socket.join_multicast_v4(&GROUP, &local);
    UdpSocket::from_std(socket.into())
}

async fn receive(socket: &UdpSocket, router: Ipv4Addr, announced: &watch::Sender<u64>) {
    let mut last: Option<Instant> = None;
    let mut bytes = [0; 64];
    loop {
        match socket.recv_from(&mut bytes).await {
            Ok((length, from)) if from.ip() == router && is_announcement(&bytes[..length]) => {
                if last.is_none_or(|at| at.elapsed() > REPEAT_WINDOW) {
                    last = Some(Instant::now());
                    info!("the router announced that it restarted or changed its address");
                    announced.send_modify(|count| *count += 1);
                } else {
                    trace!(reason = "repetition", "announcement ignored");
                }
            }
            Ok((length, from)) => {
                trace!(%from, length, reason = "not from the router", "announcement ignored")
            }
            Err(error) => {
                debug!(reason = %error, retry_ms = REPEAT_WINDOW.as_millis(), "announcements cannot be received");
                sleep(REPEAT_WINDOW).await;
            }
        }
    }
}

/// Returns true for a whole response without an error to NAT-PMP's request for the external address or to PCP's ANNOUNCE.
fn is_announcement(bytes: &[u8]) -> bool {
    match bytes {
        [0, 128, 0, 0, ..] => bytes.len() >= 12,
        [2, 128, _, 0, ..] => bytes.len() >= 24,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_announcement;

    #[test]
    fn only_complete_responses_without_error_are_announcements() {
        assert!(is_announcement(&[0, 128, 0, 0, 0, 0, 0, 1, 11, 0, 0, 1]));
        assert!(!is_announcement(&[0, 128, 0, 0]));
        assert!(!is_announcement(&[0, 128, 0, 3, 0, 0, 0, 1, 11, 0, 0, 1]));
        assert!(is_announcement(&[&[2, 128, 0, 0][..], &[0; 20]].concat()));
        assert!(!is_announcement(&[&[2, 129, 0, 0][..], &[0; 20]].concat()));
        assert!(!is_announcement(&[]));
    }
}
