use std::{net::Ipv4Addr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;

use super::*;
use crate::{CertificateProblem, Roots};

/// An authority of our own, which the client is told to trust.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    client: TlsClient,
    _folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        let client = TlsClient::new(&Roots { extra_ca: Some(file) }).unwrap();
        Self { issuer: Issuer::new(params, key), client, _folder: folder }
    }

    fn acceptor(&self, name: &str, years: (i32, i32)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Serves one TLS connection with an echo and gives its URL.
async fn echo_once(acceptor: TlsAcceptor) -> String {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let mut socket = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    });
    format!("wss://localhost:{port}")
}

#[tokio::test]
async fn messages_are_exchanged_over_tls_with_a_trusted_server() {
    let authority = Authority::new();
    let url = echo_once(authority.acceptor("localhost", (2020, 2100))).await;
    let mut socket = connect_ws(&url, &authority.client, AddressScope::Any).await.unwrap();
    socket.send(vec![7; 40_000]).await.unwrap();
    assert_eq!(socket.next().await, Some(Ok(vec![7; 40_000])));
    socket.close().await;
}

#[tokio::test]
async fn each_certificate_problem_has_its_own_error() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let cases = [
        (authority.acceptor("localhost", (2020, 2021)), CertificateProblem::Expired),
        (authority.acceptor("localhost", (2090, 2100)), CertificateProblem::NotYetValid),
        (authority.acceptor("other.example", (2020, 2100)), CertificateProblem::WrongName),
        (stranger.acceptor("localhost", (2020, 2100)), CertificateProblem::UnknownIssuer),
    ];
    for (acceptor, expected) in cases {
        let url = echo_once(acceptor).await;
        let error = connect_ws(&url, &authority.client, AddressScope::Any).await.unwrap_err();
        let ConnectError::Certificate { problem, .. } = &error else { panic!("{error}") };
        assert_eq!(problem, &expected, "{error}");
    }
}

#[tokio::test]
async fn a_server_without_websocket_is_an_http_or_protocol_error() {
    let authority = Authority::new();
    for (answer, http) in
        [("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", true), ("SSH-2.0-x\r\n\r\n", false)]
    {
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 2048]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = connect_ws(&format!("ws://127.0.0.1:{port}"), &authority.client, AddressScope::Any)
            .await
            .unwrap_err();
        match error {
            ConnectError::Http { status: 503, .. } if http => {}
            ConnectError::Protocol { .. } if !http => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn server_that_others_named_receives_no_connection_at_a_private_address() {
    let authority = Authority::new();
    let (listener, port) = listen().await;
    for url in [
        format!("ws://127.0.0.1:{port}"),
        format!("wss://127.0.0.1:{port}"),
        // A name, as in DNS rebinding, and spellings that only the resolver turns into the address.
        format!("ws://localhost:{port}"),
        format!("ws://127.1:{port}"),
        format!("ws://[::ffff:127.0.0.1]:{port}"),
    ] {
        let refused = connect_ws(&url, &authority.client, AddressScope::Public).await;
        assert!(matches!(refused, Err(ConnectError::Private { .. })), "{url}: {refused:?}");
    }
    // What was connected first is accepted first.
    let own = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (_, from) = listener.accept().await.unwrap();
    assert_eq!(from, own.local_addr().unwrap(), "no connection before this one");
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_an_error() {
    let authority = Authority::new();
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP ready, and some more text\r\n").await.unwrap();
        let _ = stream.read(&mut [0; 2048]).await;
    });
    let error = connect_ws(&format!("wss://localhost:{port}"), &authority.client, AddressScope::Any)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn the_servers_close_frame_is_returned_with_code_and_reason() {
    let authority = Authority::new();
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        let frame = CloseFrame { code: CloseCode::Library(4000), reason: "replaced".into() };
        socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    });
    let mut socket =
        connect_ws(&format!("ws://127.0.0.1:{port}"), &authority.client, AddressScope::Any).await.unwrap();
    let closed = WebSocketError::Closed { code: 4000, reason: "replaced".to_owned() };
    assert_eq!(socket.next().await, Some(Err(closed)));
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn unreadable_root_certificates_are_named_in_the_error() {
    let missing = Roots { extra_ca: Some("/nonexistent/ca.pem".into()) };
    assert!(matches!(TlsClient::new(&missing), Err(ConnectError::Roots { .. })));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "no certificate").unwrap();
    assert!(matches!(TlsClient::new(&Roots { extra_ca: Some(file) }), Err(ConnectError::Roots { .. })));
}

#[test]
fn urls_are_parsed_with_their_defaults() {
    let target = |url: &str| Target::parse(url).map(|t| (t.secure, t.host, t.port, t.url));
    let some = |secure, host: &str, port, url: &str| Some((secure, host.to_owned(), port, url.to_owned()));
    assert_eq!(target("wss://a.example"), some(true, "a.example", 443, "wss://a.example/v1"));
    assert_eq!(target("https://a.example/"), some(true, "a.example", 443, "wss://a.example/v1"));
    assert_eq!(target("ws://a.example:81/x"), some(false, "a.example", 81, "ws://a.example:81/x"));
    assert_eq!(target("ws://[::1]:9"), some(false, "::1", 9, "ws://[::1]:9/v1"));
    for bad in ["", "a.example", "ftp://a.example", "wss://", "wss://u:p@a.example", "wss:///x"] {
        assert_eq!(target(bad), None, "{bad}");
    }
}
