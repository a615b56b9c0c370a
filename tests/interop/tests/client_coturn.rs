//! Our TURN client against coturn: UDP, TCP, wrong credentials, and a restart of the server.

mod client;

use partyline_model::AttemptOutcome;
use partyline_paths::{PeerId, RelayTransport};

use self::client::{Coturn, Member, run_until, talk};

#[tokio::test]
async fn coturn_relays_between_two_members_over_udp() {
    let server = Coturn::start("udp").await;
    let mut a = Member::new(0, vec![server.way(RelayTransport::Udp, "secret")]).await;
    let mut b = Member::new(1, vec![server.way(RelayTransport::Udp, "secret")]).await;
    talk(&mut a, &mut b, 1).await;
    assert_ne!(a.relayed(), None);
    assert_ne!(a.relayed(), b.relayed());
}

#[tokio::test]
async fn member_without_udp_reaches_coturn_over_tcp() {
    let server = Coturn::start("tcp").await;
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let mut udp = server.way(RelayTransport::Udp, "secret");
    udp.address = silent.local_addr().expect("its address");
    let mut a = Member::new(0, vec![udp, server.way(RelayTransport::Tcp, "secret")]).await;
    let mut b = Member::new(1, vec![server.way(RelayTransport::Udp, "secret")]).await;
    talk(&mut a, &mut b, 1).await;
}

#[tokio::test]
async fn wrong_credentials_are_reported_as_such() {
    let server = Coturn::start("wrong").await;
    let mut a = Member::new(0, vec![server.way(RelayTransport::Udp, "wrong")]).await;
    let mut b = Member::new(1, Vec::new()).await;
    a.meet(&b);
    let refused = |a: &Member, _: &Member| {
        let why =
            a.paths.view(std::time::Instant::now(), PeerId(0)).map(|view| view.attempts).unwrap_or_default();
        why.iter().any(|a| a.outcome == AttemptOutcome::NoAnswer && a.note.contains("credentials"))
    };
    run_until(&mut a, &mut b, "a refusal", refused).await;
}

#[tokio::test]
async fn allocation_is_renewed_after_a_restart_of_coturn() {
    let mut server = Coturn::start("restart").await;
    let mut a = Member::new(0, vec![server.way(RelayTransport::Udp, "secret")]).await;
    let mut b = Member::new(1, vec![server.way(RelayTransport::Udp, "secret")]).await;
    talk(&mut a, &mut b, 1).await;
    server.restart().await;
    talk(&mut a, &mut b, 2).await;
}
