//! MAP and PEER requests of the Port Control Protocol and the answers to them (RFC 6887, sections 7, 8.1, 11 and 12).
//!
//! The two are laid out alike; PEER also names whom the port talks to, and so asks for one flow only.
//!
//! A request names the address of whoever asks, and the router refuses it where that is not its source
//! (ADDRESS_MISMATCH). So the socket is bound to that address: an IPv6 router is known by a link-local address, to
//! which the system would send from one of the same kind.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use crate::{Protocol, problem::Problem};

/// Shows the router that renewals and the deletion come from who made the mapping.
pub(super) type Nonce = [u32; 3];

const VERSION: u8 = 2;
const MAP: u8 = 1;
const PEER: u8 = 2;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;
const UNSUPPORTED_VERSION: u8 = 1;
/// Header and MAP's own part, of requests and answers alike.
const LENGTH: usize = 60;
/// PEER's part after that.
const REMOTE: usize = 20;
/// The longest message (section 7).
const LONGEST: usize = 1100;
/// Waits after each transmission: four in under eight seconds; the keeper's own pauses do the rest.
const WAITS: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// A router that has just started may not listen yet, so that nobody listens counts the second time.
const REFUSALS: usize = 2;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) nonce: Nonce,
    pub(super) internal_port: u16,
    /// 0 leaves it to the router.
    pub(super) external_port: u16,
    /// In seconds; 0 deletes the mapping.
    pub(super) lifetime: u32,
    /// Whom it is for (PEER); `None`: everybody (MAP).
    pub(super) remote: Option<SocketAddr>,
}

impl Wish {
    const fn opcode(self) -> u8 {
        if self.remote.is_some() { PEER } else { MAP }
    }
}

/// What the router says it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) external: SocketAddr,
    /// In seconds.
    pub(super) lifetime: u32,
    pub(super) epoch: u32,
}

/// Asks a router on behalf of one of this computer's addresses, until it answers or time is up.
pub(super) async fn ask(router: SocketAddr, client: IpAddr, wish: Wish) -> Result<Mapped, Problem> {
    let socket = UdpSocket::bind((client, 0)).await?;
    socket.connect(router).await?;
    let request = encode(client, wish);
    let mut refusals = 0;
    for wait in WAITS {
        // It fails only with the ICMP error to the one before, as receiving does.
        refusals += usize::from(socket.send(&request).await.is_err_and(|error| is_closed(&error)));
        let deadline = Instant::now() + wait;
        while let Ok(received) = timeout_at(deadline, receive(&socket, wish)).await {
            match received {
                Ok(Some(answer)) => return answer,
                Ok(None) => tokio::task::yield_now().await,
                Err(error) => {
                    refusals += usize::from(is_closed(&error));
                    tokio::task::yield_now().await;
                }
            }
        }
        if refusals >= REFUSALS {
            return Err(Problem::Unspoken(spoken(client)));
        }
    }
    Err(Problem::Silent)
}

/// An ICMP error says that nobody listens at the router's port.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

const fn spoken(client: IpAddr) -> Protocol {
    if client.is_ipv6() { Protocol::PcpV6 } else { Protocol::Pcp }
}

async fn receive(socket: &UdpSocket, wish: Wish) -> io::Result<Option<Result<Mapped, Problem>>> {
    let mut buffer = [0; LONGEST];
    let length = socket.recv(&mut buffer).await?;
    Ok(decode(&buffer[..length], wish))
}

fn encode(client: IpAddr, wish: Wish) -> Vec<u8> {
    let mut bytes = vec![VERSION, wish.opcode(), 0, 0];
    bytes.extend(wish.lifetime.to_be_bytes());
    bytes.extend(mapped(client).octets());
    bytes.extend(wish.nonce.iter().flat_map(|word| word.to_be_bytes()));
    bytes.extend([UDP, 0, 0, 0]);
    bytes.extend(wish.internal_port.to_be_bytes());
    bytes.extend(wish.external_port.to_be_bytes());
    // No address is preferred: all zeros, in the family that is asked for.
    let none: IpAddr = if client.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    bytes.extend(mapped(none).octets());
    bytes.extend(wish.remote.into_iter().flat_map(remote));
    bytes
}

fn remote(remote: SocketAddr) -> [u8; REMOTE] {
    let mut bytes = [0; REMOTE];
    bytes[..2].copy_from_slice(&remote.port().to_be_bytes());
    bytes[4..].copy_from_slice(&mapped(remote.ip()).octets());
    bytes
}

/// IPv4 addresses travel as IPv6 ones (section 5).
const fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// `None` if it is not the answer to this wish: the true one may follow.
fn decode(bytes: &[u8], wish: Wish) -> Option<Result<Mapped, Problem>> {
    let result = *bytes.get(3)?;
    if bytes[0] != VERSION {
        let refused = || Err(Problem::Refused("it does not speak this version of PCP".into()));
        return (bytes[1] & RESPONSE != 0 && result == UNSUPPORTED_VERSION).then(refused);
    }
    let (bytes, rest): (&[u8; LENGTH], _) = bytes.split_first_chunk()?;
    let request = encode(Ipv6Addr::UNSPECIFIED.into(), wish);
    // Nonce, protocol, internal port and whom it is for come back as they went out.
    let same = |part: std::ops::Range<usize>| bytes[part.clone()] == request[part];
    let for_whom = wish.remote.is_none_or(|to| rest.first_chunk() == Some(&remote(to)));
    if bytes[1] != wish.opcode() | RESPONSE || !same(24..37) || !same(40..42) || !for_whom {
        return None;
    }
    if result != 0 {
        return Some(Err(refusal(result)));
    }
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let address: [u8; 16] = *bytes[44..].first_chunk()?;
    let port = u16::from_be_bytes([bytes[42], bytes[43]]);
    let external = SocketAddr::new(IpAddr::from(address).to_canonical(), port);
    Some(Ok(Mapped { external, lifetime: word(4), epoch: word(8) }))
}

/// The result codes of section 7.4.
fn refusal(code: u8) -> Problem {
    let declined = |words| Problem::Declined(words);
    let words = match code {
        2 => return declined("this computer may not open ports"),
        4 => return declined("it opens no ports"),
        8 => return declined("it has no room"),
        10 => return declined("this computer has too many mappings"),
        11 => return declined("it cannot give such a port outside"),
        1 => "it does not speak this version of PCP",
        3 => "it cannot read the request",
        5 | 6 => "it does not know an option",
        7 => "its network is out of order",
        9 => "it maps no UDP",
        12 => "there is a NAT between it and this computer",
        13 => "too many peers",
        other => return Problem::Refused(format!("code {other}")),
    };
    Problem::Refused(words.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish =
        Wish { nonce: [1, 2, 3], internal_port: 41_641, external_port: 41_641, lifetime: 600, remote: None };

    fn peer() -> Wish {
        Wish { external_port: 0, remote: Some(([11, 0, 0, 9], 3478).into()), ..WISH }
    }

    /// What a router answers that grants a port outside.
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
    fn a_request_is_laid_out_as_in_the_rfc() {
        let bytes = encode([192, 168, 1, 7].into(), WISH);
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 2, 88]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 7]);
        assert_eq!(bytes[24..36], [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0xa2, 0xa9, 0xa2, 0xa9]);
        assert_eq!(bytes[44..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn refusals_are_told_and_what_answers_something_else_is_not_looked_at() {
        let request = encode([192, 168, 1, 7].into(), WISH);
        let answer = grant(&request, [11, 0, 0, 1].into(), 5000);
        let external = ([11, 0, 0, 1], 5000).into();
        assert_eq!(decode(&answer, WISH).unwrap().unwrap(), Mapped { external, lifetime: 600, epoch: 77 });
        for code in 1..=20 {
            let mut refusal = answer.clone();
            refusal[3] = code;
            let declined = [2, 4, 8, 10, 11].contains(&code);
            match decode(&refusal, WISH) {
                Some(Err(Problem::Declined(_))) => assert!(declined, "code {code}"),
                Some(Err(Problem::Refused(_))) => assert!(!declined, "code {code}"),
                other => panic!("code {code}: {other:?}"),
            }
        }
        assert!(matches!(decode(&[0, 129, 0, 1], WISH), Some(Err(Problem::Refused(_)))), "NAT-PMP only");
        for at in [1, 24, 35, 36, 40, 41] {
            let mut other = answer.clone();
            other[at] ^= 1;
            assert!(decode(&other, WISH).is_none(), "byte {at}");
        }
        assert!(decode(&request, WISH).is_none(), "our own request");
        (0..answer.len()).for_each(|length| assert!(decode(&answer[..length], WISH).is_none(), "{length}"));
    }

    #[test]
    fn peer_names_the_remote_and_takes_no_answer_about_another() {
        let request = encode([192, 168, 1, 7].into(), peer());
        assert_eq!((request.len(), request[1]), (LENGTH + REMOTE, PEER));
        assert_eq!(request[40..44], [0xa2, 0xa9, 0, 0]);
        assert_eq!(request[60..], [0x0d, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 11, 0, 0, 9]);
        let answer = grant(&request, [11, 0, 0, 1].into(), 5000);
        let external = ([11, 0, 0, 1], 5000).into();
        assert_eq!(decode(&answer, peer()).unwrap().unwrap(), Mapped { external, lifetime: 600, epoch: 77 });
        assert!(decode(&answer, WISH).is_none() && decode(&answer[..60], peer()).is_none());
        for at in [1, 24, 35, 36, 40, 41, 60, 61, 76, 79] {
            let mut other = answer.clone();
            other[at] ^= 1;
            assert!(decode(&other, peer()).is_none(), "byte {at}");
        }
    }

    #[tokio::test]
    async fn the_source_is_the_address_that_asks_and_strangers_answers_are_passed_over() {
        for (client, external) in [("127.0.0.3", "11.0.0.1"), ("::1", "2001:db8::7")] {
            let client: IpAddr = client.parse().unwrap();
            let router =
                UdpSocket::bind((if client.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).await.unwrap();
            let address = router.local_addr().unwrap();
            let external: IpAddr = external.parse().unwrap();
            let serving = tokio::spawn(async move {
                let mut buffer = [0; LONGEST];
                let (length, from) = router.recv_from(&mut buffer).await.unwrap();
                let stranger = grant(&encode(from.ip(), Wish { nonce: [9; 3], ..WISH }), external, 1);
                router.send_to(&[2, 129], from).await.unwrap();
                router.send_to(&stranger, from).await.unwrap();
                router.send_to(&grant(&buffer[..length], external, 5000), from).await.unwrap();
                from.ip()
            });
            let mapped = ask(address, client, WISH).await.unwrap();
            assert_eq!(mapped.external, SocketAddr::new(external, 5000));
            assert_eq!(serving.await.unwrap(), client);
        }
    }

    #[tokio::test]
    async fn a_router_that_listens_to_nobody_does_not_speak_pcp() {
        let closed = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let problem = ask(closed, [127, 0, 0, 1].into(), WISH).await.unwrap_err();
        assert!(matches!(problem, Problem::Unspoken(Protocol::Pcp)), "{problem}");
    }
}
