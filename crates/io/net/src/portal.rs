//! Captive portals: networks that let nothing through, and answer in the servers' place, until the user has logged in.
//!
//! A portal shows in what comes instead of a WebSocket: the status made for it (RFC 6585, section 6), a redirection to
//! another host, or a certificate for another name. Where it shows nothing, an address is asked over plain HTTP at which
//! nobody can be: whatever answers there answers for everybody. No third party learns of the question.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use partyline_model::AddressScope;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::http::Uri;

use crate::{CertificateProblem, ConnectError, happy_eyeballs::lookup_within};

/// An address that belongs to nobody (TEST-NET-1, RFC 5737).
pub(crate) const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
const HTTP: u16 = 80;
/// How long an answer to one question may take. A portal is near, and a connection waits to be tried again.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The most of an answer that is read, in bytes.
const MAX_HEAD: usize = 4096;
/// The longest login page that is shown, in bytes.
const MAX_LOGIN: usize = 200;
/// Network Authentication Required (RFC 6585, section 6).
const AUTHENTICATION_REQUIRED: u16 = 511;

/// The head of an HTTP response, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
}

/// Where questions go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probes {
    nobody: SocketAddr,
    port: u16,
}

impl Probes {
    pub(crate) const INTERNET: Self = Self { nobody: NOBODY, port: HTTP };
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let mut words = lines.next()?.split_whitespace();
        let version = words.next()?;
        let status = words.next()?.parse().ok()?;
        let location = lines.take_while(|line| !line.is_empty()).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        version.starts_with("HTTP/").then_some(Self { status, location })
    }

    /// Returns true if a response in the name of `host` is a portal's: by its status, or because it sends the client to
    /// a host of another name.
    pub(crate) fn is_portal(&self, host: &str) -> bool {
        let redirects = (300..400).contains(&self.status);
        let elsewhere = |to: &str| host_of(to).is_some_and(|to| !is_same_site(&to, host));
        self.status == AUTHENTICATION_REQUIRED
            || (redirects && self.location.as_deref().is_some_and(elsewhere))
    }

    /// Returns the portal error for a host, with the login page where that can be shown.
    pub(crate) fn error(self, host: &str) -> ConnectError {
        let shown = |url: &String| url.len() <= MAX_LOGIN && url.bytes().all(|byte| byte.is_ascii_graphic());
        let login = self.location.filter(|url| host_of(url).is_some() && shown(url));
        ConnectError::CaptivePortal { host: host.to_owned(), login }
    }
}

/// Returns the host of an absolute URL.
fn host_of(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")))?;
    uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

/// Returns true if one name is the other, or lies below it: `www.party.example` and `party.example`.
fn is_same_site(one: &str, other: &str) -> bool {
    let below = |low: &str, high: &str| {
        let prefix = low.len().checked_sub(high.len()).and_then(|at| Some((low.get(..at)?, low.get(at..)?)));
        prefix.is_some_and(|(prefix, rest)| {
            rest.eq_ignore_ascii_case(high) && (prefix.is_empty() || prefix.ends_with('.'))
        })
    };
    below(one, other) || below(other, one)
}

/// Explains a failure by a portal, if there is one; otherwise returns it as it is.
pub(crate) async fn explain(
    error: ConnectError,
    (host, port, scope): (&str, u16, AddressScope),
    probes: Probes,
) -> ConnectError {
    let intercepted = match &error {
        // Times have to do with clocks, which is said better without a detour.
        ConnectError::Certificate {
            problem: CertificateProblem::Expired | CertificateProblem::NotYetValid,
            ..
        } => return error,
        ConnectError::Certificate { .. } | ConnectError::Tls { .. } | ConnectError::Protocol { .. } => true,
        ConnectError::Refused { .. } | ConnectError::Timeout { .. } | ConnectError::Http { .. } => false,
        _ => return error,
    };
    // What answered in the server's place may say what it is when it is asked over plain HTTP.
    let addresses = lookup_within(host, port, scope).await.unwrap_or_default();
    if intercepted {
        for address in &addresses {
            let answer = ask(SocketAddr::new(address.ip(), probes.port), host).await;
            if let Some(head) = answer.filter(|head| head.is_portal(host)) {
                tracing::debug!(host, ?head, "a captive portal answered in the server's place");
                return head.error(host);
            }
        }
    }
    if addresses.iter().all(|address| address.ip().is_loopback()) && probes.nobody == NOBODY {
        return error;
    }
    // A proxy in the way says that it cannot reach the address; a portal answers as if it were there.
    let answers = |head: &Head| matches!(head.status, 200..400 | AUTHENTICATION_REQUIRED);
    match ask(probes.nobody, &probes.nobody.ip().to_string()).await.filter(answers) {
        Some(head) => {
            tracing::debug!(host, ?head, "a captive portal answers for everybody");
            head.error(host)
        }
        None => error,
    }
}

/// Asks an address for a page in the name of a host; `None` if nothing answers in time.
async fn ask(address: SocketAddr, host: &str) -> Option<Head> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        while head.len() < MAX_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer).await.ok()? {
                0 => break,
                length => head.extend_from_slice(&buffer[..length]),
            }
        }
        Head::parse(&head)
    };
    timeout(PROBE_TIMEOUT, asked).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const HOST: &str = "party.example";

    fn head(status: u16, location: &str) -> Head {
        Head { status, location: Some(location.to_owned()) }
    }

    /// Answers every connection with this text; returns the address.
    async fn serve(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        address
    }

    async fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    fn wrong_name() -> ConnectError {
        ConnectError::Certificate { host: HOST.to_owned(), problem: CertificateProblem::WrongName }
    }

    async fn explained(error: ConnectError, web: SocketAddr, nobody: SocketAddr) -> ConnectError {
        let host = ("127.0.0.1", 443, AddressScope::Any);
        explain(error, host, Probes { nobody, port: web.port() }).await
    }

    #[test]
    fn portals_are_told_from_redirections_within_a_site() {
        assert!(head(511, "").is_portal(HOST));
        for elsewhere in [
            "http://10.0.0.1/login",
            "https://wifi.hotel.example/?u=1",
            "http://[fd00::1]:8080/",
            "http://notparty.example/",
        ] {
            assert!(head(302, elsewhere).is_portal(HOST), "{elsewhere}");
        }
        for same in [
            "https://party.example/v1",
            "https://www.party.example",
            "http://PARTY.example:80/",
            "/login",
            "",
        ] {
            assert!(!head(307, same).is_portal(HOST), "{same}");
        }
        assert!(!head(200, "http://10.0.0.1/").is_portal(HOST) && !head(404, "").is_portal(HOST));
    }

    #[test]
    fn login_page_is_shown_unless_it_could_mislead() {
        let login = |url: &str| match head(302, url).error(HOST) {
            ConnectError::CaptivePortal { login, .. } => login,
            other => panic!("{other}"),
        };
        assert_eq!(login("http://10.0.0.1/login").as_deref(), Some("http://10.0.0.1/login"));
        for hidden in
            ["javascript:alert(1)", "http://a b/", "/login", &format!("http://a/{}", "x".repeat(200))]
        {
            assert_eq!(login(hidden), None, "{hidden}");
        }
    }

    #[tokio::test]
    async fn certificate_of_another_name_is_a_portal_if_its_owner_redirects_elsewhere() {
        let portal = serve("HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/\r\n\r\n").await;
        let web = serve("HTTP/1.1 301 Moved\r\nlocation: https://127.0.0.1/\r\n\r\n").await;
        let error = explained(wrong_name(), portal, closed().await).await;
        let ConnectError::CaptivePortal { login, .. } = error else { panic!("{error}") };
        assert_eq!(login.as_deref(), Some("http://login.hotel.example/"));
        let error = explained(wrong_name(), web, closed().await).await;
        assert!(matches!(error, ConnectError::Certificate { .. }), "{error}");
    }

    #[tokio::test]
    async fn silence_is_a_portal_only_if_an_address_of_nobody_answers() {
        let silent = || ConnectError::Timeout { host: HOST.to_owned(), port: 443 };
        let nothing = closed().await;
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n<html>Welcome!",
            "HTTP/1.0 511 Network Authentication Required\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n",
        ] {
            let error = explained(silent(), nothing, serve(answer).await).await;
            assert!(matches!(error, ConnectError::CaptivePortal { .. }), "{answer}: {error}");
        }
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "SSH-2.0-x\r\n", ""] {
            let error = explained(silent(), nothing, serve(answer).await).await;
            assert!(matches!(error, ConnectError::Timeout { .. }), "{answer}: {error}");
        }
    }

    #[tokio::test]
    async fn expired_certificate_is_no_portal() {
        let portal = serve("HTTP/1.1 511 x\r\n\r\n").await;
        let expired =
            ConnectError::Certificate { host: HOST.to_owned(), problem: CertificateProblem::Expired };
        assert!(matches!(explained(expired, portal, portal).await, ConnectError::Certificate { .. }));
    }
}
