//! MAP and PEER requests of the Port Control Protocol and their responses (RFC 6887, sections 7, 8.1, 11 and 12).
//!
//! The two are laid out alike; PEER also contains the remote end, and so requests one flow only.
//!
//! A request contains the client's address, and the router refuses it if its source is another one (ADDRESS_MISMATCH).
//! So the socket is bound to that address: an IPv6 router is known by a link-local address, to which the system would
//! send from a link-local address.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};
use tracing::trace;

use crate::{Protocol, error::MappingError};

/// The mapping nonce (RFC 6887 section 11.1): it shows the router that renewal and deletion come from the mapping's owner.
pub(super) type Nonce = [u32; 3];

const VERSION: u8 = 2;
const MAP: u8 = 1;
const PEER: u8 = 2;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;
const UNSUPPORTED_VERSION: u8 = 1;
/// The length of the header with the opcode data of MAP, in requests and responses alike.
const LENGTH: usize = 60;
/// The length of the remote end that PEER has after that.
const REMOTE_LENGTH: usize = 20;
/// The longest message, in bytes (section 7).
const MAX_MESSAGE: usize = 1100;
/// The time to wait for a response after each transmission: four within eight seconds; the keeper's retries do the rest.
const RESPONSE_TIMEOUTS: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// ICMP errors after which the protocol counts as not supported. A router that has just started may not listen yet, so
/// one is not enough.
const MAX_UNREACHABLE: usize = 2;

/// A MAP or PEER request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) nonce: Nonce,
    pub(super) internal_port: u16,
    /// The suggested external port; 0 leaves it to the router.
    pub(super) external_port: u16,
    /// The requested lease in seconds; 0 deletes the mapping.
    pub(super) lifetime: u32,
    /// The remote end of the flow (PEER), or `None` for a mapping for everybody (MAP).
    pub(super) remote: Option<SocketAddr>,
}

impl Request {
    const fn opcode(self) -> u8 {
        if self.remote.is_some() { PEER } else { MAP }
    }
}

/// A successful response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) external: SocketAddr,
    /// The granted lease in seconds.
    pub(super) lifetime: u32,
    /// Seconds since the router lost its state last (section 8.5).
    pub(super) epoch: u32,
}

/// Sends a request from one of this computer's addresses and waits for the response.
///
/// # Errors
/// If the router refuses, or does not answer any transmission.
pub(super) async fn exchange(
    router: SocketAddr,
    client: IpAddr,
    request: Request,
) -> Result<Response, MappingError> {
    let socket = UdpSocket::bind((client, 0)).await?;
    socket.connect(router).await?;
    let bytes = encode(client, request);
    let mut unreachable = 0;
    for wait in RESPONSE_TIMEOUTS {
        // It fails only with the ICMP error to the one before, as receiving does.
        unreachable += usize::from(socket.send(&bytes).await.is_err_and(|error| is_closed(&error)));
        trace!(%router, lifetime = request.lifetime, remote = ?request.remote, wait_ms = wait.as_millis(), "request sent");
        let deadline = Instant::now() + wait;
        while let Ok(received) = timeout_at(deadline, receive(&socket, request)).await {
            match received {
                Ok(Some(response)) => return response,
                Ok(None) => {
                    trace!(reason = "not to this request", "response ignored");
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    trace!(reason = %error, "request did not arrive");
                    unreachable += usize::from(is_closed(&error));
                    tokio::task::yield_now().await;
                }
            }
        }
        if unreachable >= MAX_UNREACHABLE {
            return Err(MappingError::NotSupported(protocol(client)));
        }
    }
    Err(MappingError::NoResponse)
}

/// Returns true for the ICMP error that the router's port is closed.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

const fn protocol(client: IpAddr) -> Protocol {
    if client.is_ipv6() { Protocol::PcpV6 } else { Protocol::Pcp }
}

async fn receive(socket: &UdpSocket, request: Request) -> io::Result<Option<Result<Response, MappingError>>> {
    let mut buffer = [0; MAX_MESSAGE];
    let length = socket.recv(&mut buffer).await?;
    Ok(decode(&buffer[..length], request))
}

fn encode(client: IpAddr, request: Request) -> Vec<u8> {
    let mut bytes = vec![VERSION, request.opcode(), 0, 0];
    bytes.extend(request.lifetime.to_be_bytes());
    bytes.extend(mapped(client).octets());
    bytes.extend(request.nonce.iter().flat_map(|word| word.to_be_bytes()));
    bytes.extend([UDP, 0, 0, 0]);
    bytes.extend(request.internal_port.to_be_bytes());
    bytes.extend(request.external_port.to_be_bytes());
    // No address is preferred: all zeros, in the family that is asked for.
    let none: IpAddr = if client.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    bytes.extend(mapped(none).octets());
    bytes.extend(request.remote.into_iter().flat_map(remote));
    bytes
}

fn remote(remote: SocketAddr) -> [u8; REMOTE_LENGTH] {
    let mut bytes = [0; REMOTE_LENGTH];
    bytes[..2].copy_from_slice(&remote.port().to_be_bytes());
    bytes[4..].copy_from_slice(&mapped(remote.ip()).octets());
    bytes
}

/// Returns an IPv4 address as an IPv4-mapped IPv6 one (section 5).
const fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Decodes a response. Returns `None` if it does not belong to this request: the right one may follow.
fn decode(bytes: &[u8], request: Request) -> Option<Result<Response, MappingError>> {
    let result = *bytes.get(3)?;
    if bytes[0] != VERSION {
        let refused = || {
            let reason = "it does not speak this version of PCP";
            Err(MappingError::refused_with(UNSUPPORTED_VERSION.into(), reason))
        };
        return (bytes[1] & RESPONSE != 0 && result == UNSUPPORTED_VERSION).then(refused);
    }
    let (bytes, rest): (&[u8; LENGTH], _) = bytes.split_first_chunk()?;
    let sent = encode(Ipv6Addr::UNSPECIFIED.into(), request);
    // Nonce, protocol, internal port and remote end are echoed.
    let same = |part: std::ops::Range<usize>| bytes[part.clone()] == sent[part];
    let same_remote = request.remote.is_none_or(|to| rest.first_chunk() == Some(&remote(to)));
    if bytes[1] != request.opcode() | RESPONSE || !same(24..37) || !same(40..42) || !same_remote {
        return None;
    }
    if result != 0 {
        return Some(Err(refusal(result)));
    }
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let address: [u8; 16] = *bytes[44..].first_chunk()?;
    let port = u16::from_be_bytes([bytes[42], bytes[43]]);
    let external = SocketAddr::new(IpAddr::from(address).to_canonical(), port);
    Some(Ok(Response { external, lifetime: word(4), epoch: word(8) }))
}

/// Explains the result codes of section 7.4.
fn refusal(code: u8) -> MappingError {
    let denied = |reason| MappingError::Denied { code, reason };
    let reason = match code {
        2 => return denied("this computer may not open ports"),
        4 => return denied("it opens no ports"),
        8 => return denied("it has no room"),
        10 => return denied("this computer has too many mappings"),
        11 => return denied("it cannot give such a port outside"),
        1 => "it does not speak this version of PCP",
        3 => "it cannot read the request",
        5 | 6 => "it does not know an option",
        7 => "its network is out of order",
        9 => "it maps no UDP",
        12 => "there is a NAT between it and this computer",
        13 => "too many peers",
        other => return MappingError::refused_with(code.into(), format!("code {other}")),
    };
    MappingError::refused_with(code.into(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        nonce: [1, 2, 3],
        internal_port: 41_641,
        external_port: 41_641,
        lifetime: 600,
        remote: None,
    };

    fn peer() -> Request {
        Request { external_port: 0, remote: Some(([11, 0, 0, 9], 3478).into()), ..REQUEST }
    }

    /// The response of a router that grants an external port.
    fn grant(request: &[u8], external: IpAddr, port: u16) -> Vec<u8> {
        let mut answer = request.to_vec();
        (answer[1], answer[3]) = (request[1] | RESPONSE, 0);
        answer[8..24].fill(0);
        answer[8..12].copy_from_slice(&77_u32.to_be_bytes());
        answer[42..44].copy_from_slice(&port.to_be_bytes());
        answer[44..60].copy_from_slice(&mapped(external).octets());
        answer
    }

    #[test]
    fn request_is_laid_out_as_in_the_rfc() {
        let bytes = encode([192, 168, 1, 7].into(), REQUEST);
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 2, 88]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 7]);
        assert_eq!(bytes[24..36], [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0xa2, 0xa9, 0xa2, 0xa9]);
        assert_eq!(bytes[44..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn refusals_are_decoded_and_other_responses_ignored() {
        let request = encode([192, 168, 1, 7].into(), REQUEST);
        let answer = grant(&request, [11, 0, 0, 1].into(), 5000);
        let external = ([11, 0, 0, 1], 5000).into();
        assert_eq!(
            decode(&answer, REQUEST).unwrap().unwrap(),
            Response { external, lifetime: 600, epoch: 77 }
        );
        for code in 1..=20 {
            let mut refusal = answer.clone();
            refusal[3] = code;
            let denied = [2, 4, 8, 10, 11].contains(&code);
            match decode(&refusal, REQUEST) {
                Some(Err(MappingError::Denied { .. })) => assert!(denied, "code {code}"),
                Some(Err(MappingError::Refused { .. })) => assert!(!denied, "code {code}"),
                other => panic!("code {code}: {other:?}"),
            }
        }
        assert!(
            matches!(decode(&[0, 129, 0, 1], REQUEST), Some(Err(MappingError::Refused { .. }))),
            "NAT-PMP only"
        );
        for at in [1, 24, 35, 36, 40, 41] {
            let mut other = answer.clone();
            other[at] ^= 1;
            assert!(decode(&other, REQUEST).is_none(), "byte {at}");
        }
        assert!(decode(&request, REQUEST).is_none(), "our own request");
        (0..answer.len())
            .for_each(|length| assert!(decode(&answer[..length], REQUEST).is_none(), "{length}"));
    }

    #[test]
    fn peer_contains_the_remote_and_ignores_responses_about_another() {
        let request = encode([192, 168, 1, 7].into(), peer());
        assert_eq!((request.len(), request[1]), (LENGTH + REMOTE_LENGTH, PEER));
        assert_eq!(request[40..44], [0xa2, 0xa9, 0, 0]);
        assert_eq!(request[60..], [0x0d, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 11, 0, 0, 9]);
        let answer = grant(&request, [11, 0, 0, 1].into(), 5000);
        let external = ([11, 0, 0, 1], 5000).into();
        assert_eq!(
            decode(&answer, peer()).unwrap().unwrap(),
            Response { external, lifetime: 600, epoch: 77 }
        );
        assert!(decode(&answer, REQUEST).is_none() && decode(&answer[..60], peer()).is_none());
        for at in [1, 24, 35, 36, 40, 41, 60, 61, 76, 79] {
            let mut other = answer.clone();
            other[at] ^= 1;
            assert!(decode(&other, peer()).is_none(), "byte {at}");
        }
    }

    #[tokio::test]
    async fn source_is_the_clients_address_and_foreign_responses_are_ignored() {
        for (client, external) in [("127.0.0.3", "11.0.0.1"), ("::1", "2001:db8::7")] {
            let client: IpAddr = client.parse().unwrap();
            let router =
                UdpSocket::bind((if client.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).await.unwrap();
            let address = router.local_addr().unwrap();
            let external: IpAddr = external.parse().unwrap();
            let serving = tokio::spawn(async move {
                let mut buffer = [0; MAX_MESSAGE];
                let (length, from) = router.recv_from(&mut buffer).await.unwrap();
                let stranger = grant(&encode(from.ip(), Request { nonce: [9; 3], ..REQUEST }), external, 1);
                router.send_to(&[2, 129], from).await.unwrap();
                router.send_to(&stranger, from).await.unwrap();
                router.send_to(&grant(&buffer[..length], external, 5000), from).await.unwrap();
                from.ip()
            });
            let response = exchange(address, client, REQUEST).await.unwrap();
            assert_eq!(response.external, SocketAddr::new(external, 5000));
            assert_eq!(serving.await.unwrap(), client);
        }
    }

    #[tokio::test]
    async fn router_with_a_closed_port_does_not_support_pcp() {
        let closed = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let error = exchange(closed, [127, 0, 0, 1].into(), REQUEST).await.unwrap_err();
        assert!(matches!(error, MappingError::NotSupported(Protocol::Pcp)), "{error}");
    }
}
