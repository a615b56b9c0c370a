use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn families_alternate_starting_with_the_resolvers_first() {
    let list = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address).to_vec();
    let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(address).to_vec();
    assert_eq!(interleave(list), expected);
    assert_eq!(interleave(vec![address("1.1.1.1:1")]), [address("1.1.1.1:1")]);
}

#[tokio::test]
async fn a_refusing_address_does_not_delay_the_next() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let good = listener.local_addr().unwrap();
    let bad = closed_port().await;
    let stream = race(vec![bad, good]).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
}

#[tokio::test]
async fn a_silent_address_does_not_delay_the_next_beyond_the_attempt_delay() {
    // A listener whose backlog is full answers no further handshakes.
    let hole = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    hole.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    hole.listen(0).unwrap();
    let silent = hole.local_addr().unwrap().as_socket().unwrap();
    let _filler = TcpStream::connect(silent).await.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let good = listener.local_addr().unwrap();
    let stream = race(vec![silent, good]).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_different_errors() {
    let port = closed_port().await.port();
    assert!(matches!(connect_tcp("127.0.0.1", port).await, Err(ConnectError::Refused { .. })));
    assert!(matches!(connect_tcp("no such name", 1).await, Err(ConnectError::Name { .. })));
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}
