//! Fetches and reads a router's UPnP device description, an XML document served over HTTP.
//!
//! The document is not trusted, so everything is bounded: its length, the time to fetch it, the expansion of its entities,
//! and the number of services considered. Its URLs may point only to the host that served it. The descriptions of the
//! services themselves (SCPD) are not fetched: the arguments of the actions used here are fixed by the standard.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use url::Url;
use xml::{ParserConfig, reader::XmlEvent};

use super::ssdp::is_on_host;
use crate::error::MappingError;

/// Bounds the time to fetch a description, even if it arrives slowly.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest description accepted, in bytes; real ones have 3 to 10 kB.
const MAX_DESCRIPTION: usize = 256 * 1024;
/// The deepest nesting of elements: reading gets slow with depth.
const MAX_DEPTH: usize = 64;
/// The longest text of an element that is kept, in bytes.
const MAX_TEXT: usize = 1024;
/// The most services of one router that are considered.
const MAX_SERVICES: usize = 8;

/// A service that maps ports or opens pinholes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// The service type, a URN.
    pub(crate) kind: String,
    /// The control URL, on the host that served the description.
    pub(crate) control: Url,
}

/// Fetches and reads a description.
///
/// # Errors
/// If it cannot be fetched in time, is not valid, or contains no service that maps ports.
pub(crate) async fn fetch(address: SocketAddr, location: &Url) -> Result<Vec<Service>, MappingError> {
    let bytes =
        timeout(FETCH_TIMEOUT, get(address, location)).await.unwrap_or(Err(MappingError::NoResponse))?;
    let services = read(address, location, &bytes)?;
    if services.is_empty() {
        return Err(MappingError::InvalidResponse("it describes no way to open ports".into()));
    }
    Ok(services)
}

async fn get(address: SocketAddr, location: &Url) -> Result<Bytes, MappingError> {
    let invalid = |error: hyper::Error| MappingError::InvalidResponse(format!("no description: {error}"));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(invalid)?;
    let request = Request::get(&location[url::Position::BeforePath..url::Position::AfterQuery])
        .header(HOST, &location[url::Position::BeforeHost..url::Position::AfterPort])
        .body(Empty::<Bytes>::new())
        .map_err(|error| MappingError::InvalidResponse(error.to_string()))?;
    let fetching = async {
        let response = sender.send_request(request).await.map_err(invalid)?;
        if !response.status().is_success() {
            // Redirections are not followed: the host that answered the search has the description.
            return Err(MappingError::InvalidResponse(format!(
                "no description: status {}",
                response.status()
            )));
        }
        let body = Limited::new(response.into_body(), MAX_DESCRIPTION).collect().await;
        Ok(body
            .map_err(|error| MappingError::InvalidResponse(format!("no description: {error}")))?
            .to_bytes())
    };
    let mut fetching = std::pin::pin!(fetching);
    tokio::select! {
        fetched = &mut fetching => fetched,
        // The connection may end with its last byte; the response is then complete or will never be.
        _ = connection => fetching.await,
    }
}

/// Finds the services that map ports, anywhere in the tree of devices.
pub(crate) fn read(address: SocketAddr, location: &Url, bytes: &[u8]) -> Result<Vec<Service>, MappingError> {
    let config = ParserConfig::new().max_entity_expansion_length(1000).max_entity_expansion_depth(2);
    let (mut base, mut services) = (location.clone(), Vec::new());
    let (mut element, mut text) = (String::new(), String::new());
    let (mut kind, mut control, mut depth) = (String::new(), String::new(), 0);
    for event in config.create_reader(bytes) {
        match event.map_err(|error| MappingError::InvalidResponse(format!("the description: {error}")))? {
            XmlEvent::StartElement { name, .. } => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(MappingError::InvalidResponse("the description is nested too deeply".into()));
                }
                element = name.local_name;
                text.clear();
                if element == "service" {
                    (kind, control) = (String::new(), String::new());
                }
            }
            XmlEvent::Characters(more) | XmlEvent::CData(more) if text.len() + more.len() < MAX_TEXT => {
                text += &more
            }
            XmlEvent::EndElement { name } => {
                depth -= 1;
                let value = || text.trim().to_owned();
                match name.local_name.as_str() {
                    "URLBase" if element == "URLBase" => {
                        let stated = Url::parse(text.trim()).ok();
                        base = stated.filter(|url| is_on_host(address, url)).unwrap_or(base);
                    }
                    "serviceType" => kind = value(),
                    "controlURL" => control = value(),
                    "service" => services.extend(service(address, &base, &kind, &control)),
                    _ => {}
                }
                text.clear();
            }
            _ => {}
        }
        if services.len() >= MAX_SERVICES {
            break;
        }
    }
    Ok(services)
}

fn service(address: SocketAddr, base: &Url, kind: &str, control: &str) -> Option<Service> {
    let known = [
        "urn:schemas-upnp-org:service:WANIPConnection:1",
        "urn:schemas-upnp-org:service:WANIPConnection:2",
        "urn:schemas-upnp-org:service:WANPPPConnection:1",
        "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
    ];
    let url = base.join(control).ok().filter(|url| !control.is_empty() && is_on_host(address, url))?;
    known.contains(&kind).then(|| Service { kind: kind.to_owned(), control: url })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAN: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

    fn services(text: &str) -> Result<Vec<Service>, MappingError> {
        let location = Url::parse("http://192.168.1.1:5000/dir/root.xml").expect("a URL");
        read("192.168.1.1:5000".parse().expect("an address"), &location, text.as_bytes())
    }

    fn document(before: &str, control: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><root>{before}<device><deviceList><device><serviceList><service>\
             <serviceType>{WAN}</serviceType><controlURL>{control}</controlURL></service></serviceList></device>\
             </deviceList></device></root>"
        )
    }

    #[test]
    fn control_url_may_be_relative_or_absolute_but_only_on_the_same_host() {
        for (before, control, url) in [
            ("", "/ctl", Some("http://192.168.1.1:5000/ctl")),
            ("", "ctl", Some("http://192.168.1.1:5000/dir/ctl")),
            ("<URLBase>http://192.168.1.1:80/</URLBase>", "ctl", Some("http://192.168.1.1/ctl")),
            ("<URLBase>http://10.0.0.1/</URLBase>", "/ctl", Some("http://192.168.1.1:5000/ctl")),
            ("", "http://192.168.1.1:99/ctl", Some("http://192.168.1.1:99/ctl")),
            ("", "http://127.0.0.1/ctl", None),
            ("", "https://192.168.1.1/ctl", None),
            ("", "", None),
        ] {
            let found = services(&document(before, control)).expect("well-formed");
            assert_eq!(found.first().map(|service| service.control.as_str()), url, "{before} {control}");
        }
    }

    #[test]
    fn entity_bombs_and_garbage_are_errors() {
        let mut entities = "<!ENTITY a \"aaaaaaaaaaaaaaaaaaaa\">".to_owned();
        for (this, last) in "bcdefghij".chars().zip("abcdefghi".chars()) {
            entities += &format!("<!ENTITY {this} \"{}\">", format!("&{last};").repeat(20));
        }
        let bomb =
            format!("<?xml version=\"1.0\"?><!DOCTYPE root [{entities}]><root><URLBase>&j;</URLBase></root>");
        assert!(services(&bomb).is_err());
        for text in ["", "<root>", "<root></toor>", "\0\0\0", "HTTP"] {
            assert!(services(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nesting_and_number_of_services_are_bounded() {
        assert!(services(&"<device>".repeat(20_000)).is_err());
        let service =
            format!("<service><serviceType>{WAN}</serviceType><controlURL>/c</controlURL></service>");
        let many = format!("<root>{}</root>", service.repeat(1000));
        assert_eq!(services(&many).expect("well-formed").len(), MAX_SERVICES);
    }
}
