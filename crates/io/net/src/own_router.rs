//! Servers at the public address of this network's own router.
//!
//! A server in a home has the home's public address. From inside, that address leads to the router, and most routers keep
//! such packets for themselves (no hairpinning, RFC 4787, section 6): they refuse, or show their own pages. Nothing needs
//! to know the public address to recognize it: an address that answers packets with a hop limit of one is the router's,
//! where this computer's own address is private. A router that refuses or answers in everybody's name does so for an
//! address of nobody as well.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use partyline_model::is_public;
use socket2::SockRef;
use tokio::{net::TcpSocket, time::timeout};

use crate::{CertificateProblem, ConnectError, lookup, portal::NOBODY};

/// How long the router may take to answer. It is the next hop.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Explains a failure by the server's address being this network's own, if so; otherwise returns it as it is.
pub(crate) async fn explain(error: ConnectError, host: &str, port: u16) -> ConnectError {
    if !may_be_the_router(&error) {
        return error;
    }
    for address in lookup(host, port).await.unwrap_or_default() {
        if is_behind_nat(address) && is_own_router(address).await {
            tracing::debug!(host, %address, reason = "it answers at a distance of one hop", "the server's address is the router's");
            return ConnectError::OwnRouter { host: host.to_owned() };
        }
    }
    error
}

/// Returns true for what a router in the server's place may cause.
const fn may_be_the_router(error: &ConnectError) -> bool {
    match error {
        ConnectError::Certificate { problem, .. } => {
            !matches!(problem, CertificateProblem::Expired | CertificateProblem::NotYetValid)
        }
        ConnectError::Refused { .. }
        | ConnectError::Timeout { .. }
        | ConnectError::Tls { .. }
        | ConnectError::Http { .. }
        | ConnectError::Protocol { .. } => true,
        _ => false,
    }
}

/// Returns true if packets to a public address leave from a private one. Connecting a UDP socket sends nothing.
fn is_behind_nat(remote: SocketAddr) -> bool {
    let local = || {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(remote)?;
        io::Result::Ok(socket.local_addr()?.ip())
    };
    remote.is_ipv4() && is_public(remote.ip()) && local().is_ok_and(|local: IpAddr| !is_public(local))
}

async fn is_own_router(address: SocketAddr) -> bool {
    let nobody = SocketAddr::new(NOBODY.ip(), address.port());
    let (router, everybody) = tokio::join!(is_one_hop_away(address), is_one_hop_away(nobody));
    router && !everybody
}

/// Returns true if a TCP connection to the address is accepted or refused by the next hop.
async fn is_one_hop_away(address: SocketAddr) -> bool {
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        SockRef::from(&socket).set_ttl_v4(1)?;
        socket.connect(address).await
    };
    match timeout(PROBE_TIMEOUT, connect).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn neighbors_that_accept_or_refuse_are_one_hop_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_one_hop_away(address).await, "accepted");
        drop(listener);
        assert!(is_one_hop_away(address).await, "refused");
    }

    #[tokio::test]
    async fn private_address_is_never_taken_for_the_routers_public_one() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(!is_behind_nat(address));
        let refused = ConnectError::Refused { host: "127.0.0.1".to_owned(), port: address.port() };
        let error = explain(refused, "127.0.0.1", address.port()).await;
        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    }

    #[test]
    fn errors_that_name_another_cause_stay() {
        let host = || "party.example".to_owned();
        let certificate = |problem| ConnectError::Certificate { host: host(), problem };
        assert!(may_be_the_router(&certificate(CertificateProblem::WrongName)));
        assert!(may_be_the_router(&ConnectError::Timeout { host: host(), port: 443 }));
        for other in [
            certificate(CertificateProblem::Expired),
            ConnectError::CaptivePortal { host: host(), login: None },
            ConnectError::Name { host: host(), cause: "none".to_owned() },
        ] {
            assert!(!may_be_the_router(&other), "{other}");
        }
    }
}
