//! Hears routers say that they have restarted or got another address.
//!
//! NAT-PMP and PCP servers send their answers unasked to 224.0.0.1 port 5350 then (RFC 6886 section 3.2.1, RFC 6887
//! section 14.1.1), ten times in growing intervals. Only the router's own word counts, and what it says is not used:
//! it only makes the keepers ask, soon.

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

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const PORT: u16 = 5350;
/// Repetitions of an announcement are not news.
const CALM: Duration = Duration::from_secs(5);

/// Listens in a task of its own until `stop` changes. Where that is impossible, the regular looks have to do.
pub(crate) fn listen(
    router: Option<Ipv4Addr>,
    local: Ipv4Addr,
    tasks: &mut JoinSet<()>,
    mut stop: watch::Receiver<()>,
) -> watch::Receiver<u64> {
    let heard = watch::Sender::new(0);
    let restarts = heard.subscribe();
    let socket = open(local).inspect_err(|error| tracing::debug!(%error, "no ear for announcements"));
    tasks.spawn(async move {
        let hearing = async {
            match (socket, router) {
                (Ok(socket), Some(router)) => hear(&socket, router, &heard).await,
                // The sender has to live: the keepers wait for it.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stop.changed() => {}
            () = hearing => {}
        }
    });
    restarts
}

fn open(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Every program that maps ports listens here.
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    // Linux wants no membership for the group of all systems, others do.
    let _ = socket.join_multicast_v4(&GROUP, &local);
    UdpSocket::from_std(socket.into())
}

async fn hear(socket: &UdpSocket, router: Ipv4Addr, heard: &watch::Sender<u64>) {
    let mut last: Option<Instant> = None;
    let mut bytes = [0; 64];
    loop {
        match socket.recv_from(&mut bytes).await {
            Ok((length, from)) if from.ip() == router && is_announcement(&bytes[..length]) => {
                if last.is_none_or(|at| at.elapsed() > CALM) {
                    last = Some(Instant::now());
                    tracing::info!("the router says that it has restarted or changed its address");
                    heard.send_modify(|count| *count += 1);
                }
            }
            Ok(_) => {}
            Err(_) => sleep(CALM).await,
        }
    }
}

/// An answer to NAT-PMP's question of the address, or to PCP's ANNOUNCE, without an error.
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
    fn only_whole_answers_without_error_announce() {
        assert!(is_announcement(&[0, 128, 0, 0, 0, 0, 0, 1, 11, 0, 0, 1]));
        assert!(!is_announcement(&[0, 128, 0, 0]));
        assert!(!is_announcement(&[0, 128, 0, 3, 0, 0, 0, 1, 11, 0, 0, 1]));
        assert!(is_announcement(&[&[2, 128, 0, 0][..], &[0; 20]].concat()));
        assert!(!is_announcement(&[&[2, 129, 0, 0][..], &[0; 20]].concat()));
        assert!(!is_announcement(&[]));
    }
}
