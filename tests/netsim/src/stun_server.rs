//! A STUN server for NAT behavior discovery (RFC 5780), correct or with a chosen fault.

use std::net::{IpAddr, SocketAddr};

use stun_rs::{
    MessageClass, StunMessage, StunMessageBuilder,
    attributes::{
        discovery::{ChangeRequest, ChangeRequestFlags, OtherAddress, ResponseOrigin, ResponsePort},
        stun::{Fingerprint, MappedAddress, XorMappedAddress},
    },
};

use crate::{network::Datagram, stun};

/// How a server handles CHANGE-REQUEST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRequests {
    /// Responds from the requested address, as RFC 5780 requires.
    Honored,
    /// Responds from the address that received the request.
    Ignored,
    /// Responds with error 420.
    Refused,
    /// Does not respond.
    Unanswered,
    /// Honors a change of the port alone, and does not respond if another IP address is requested.
    PortOnly,
}

/// A STUN server.
#[derive(Debug, Clone)]
pub struct StunServer {
    /// Its primary address.
    pub address: SocketAddr,
    /// Its alternate IP address and port, if it supports NAT behavior discovery.
    pub other: Option<SocketAddr>,
    /// What it does about CHANGE-REQUEST.
    pub change_requests: ChangeRequests,
    /// True if it knows MAPPED-ADDRESS alone, as in RFC 3489.
    pub classic: bool,
    /// True if it never responds.
    pub silent: bool,
    /// True if it ignores RESPONSE-PORT.
    pub ignores_response_port: bool,
}

impl StunServer {
    /// Returns a correct server with one address.
    #[must_use]
    pub fn new(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            address: SocketAddr::new(ip.into(), port),
            other: None,
            change_requests: ChangeRequests::Honored,
            classic: false,
            silent: false,
            ignores_response_port: false,
        }
    }

    /// Gives it an alternate address and port.
    #[must_use]
    pub fn with_other(self, ip: impl Into<IpAddr>, port: u16) -> Self {
        Self { other: Some(SocketAddr::new(ip.into(), port)), ..self }
    }

    /// Makes it handle CHANGE-REQUEST otherwise.
    #[must_use]
    pub fn with_change_requests(self, change_requests: ChangeRequests) -> Self {
        Self { change_requests, ..self }
    }

    /// Returns its IP addresses.
    #[must_use]
    pub fn ips(&self) -> Vec<IpAddr> {
        let other = self.other.map(|other| other.ip()).filter(|ip| *ip != self.address.ip());
        [Some(self.address.ip()), other].into_iter().flatten().collect()
    }

    /// Returns the response to a Binding request that arrived at `local` from `remote`, or `None` if there is none.
    #[must_use]
    pub fn respond(&self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) -> Option<Datagram> {
        if self.silent || !self.is_at(local) {
            return None;
        }
        let request = stun::decode(bytes)?;
        let change = change_request(&request);
        let source = match change {
            Some(changes) => self.source_of_response(local, changes)?,
            None => local,
        };
        let refused = change.is_some() && self.change_requests == ChangeRequests::Refused;
        let response = if refused {
            stun::error_response(&request, 420)
        } else {
            self.success_response(&request, remote, source)
        };
        let response = match self.other {
            Some(_) => response.with_attribute(OtherAddress::from(self.opposite(local))),
            None => response,
        };
        let bytes = stun::encode(&response.with_attribute(Fingerprint::default()).build());
        Some(Datagram { source, destination: self.destination(&request, remote), bytes, sender: None })
    }

    fn success_response(
        &self,
        request: &StunMessage,
        remote: SocketAddr,
        source: SocketAddr,
    ) -> StunMessageBuilder {
        let response = stun::response(request, MessageClass::SuccessResponse);
        if self.classic {
            return response.with_attribute(MappedAddress::from(remote));
        }
        response.with_attribute(XorMappedAddress::from(remote)).with_attribute(ResponseOrigin::from(source))
    }

    /// Returns the address from which the response to a CHANGE-REQUEST is sent, or `None` if there is no response.
    fn source_of_response(&self, local: SocketAddr, [ip, port]: [bool; 2]) -> Option<SocketAddr> {
        let opposite = self.other.map_or(local, |_| self.opposite(local));
        let changed = SocketAddr::new(
            if ip { opposite.ip() } else { local.ip() },
            if port { opposite.port() } else { local.port() },
        );
        match self.change_requests {
            ChangeRequests::Honored => Some(changed),
            ChangeRequests::PortOnly => Some(changed).filter(|_| !ip),
            ChangeRequests::Ignored | ChangeRequests::Refused => Some(local),
            ChangeRequests::Unanswered => None,
        }
    }

    /// Returns the address with the other IP address and the other port.
    fn opposite(&self, local: SocketAddr) -> SocketAddr {
        let other = self.other.unwrap_or(self.address);
        SocketAddr::new(
            if local.ip() == other.ip() { self.address.ip() } else { other.ip() },
            if local.port() == other.port() { self.address.port() } else { other.port() },
        )
    }

    fn destination(&self, request: &StunMessage, remote: SocketAddr) -> SocketAddr {
        let port = request.get::<ResponsePort>().and_then(|port| port.as_response_port().ok());
        let port = port.filter(|_| !self.ignores_response_port);
        SocketAddr::new(remote.ip(), port.map_or(remote.port(), |port| port.as_u16()))
    }

    fn is_at(&self, local: SocketAddr) -> bool {
        let Some(other) = self.other else { return local == self.address };
        [self.address.ip(), other.ip()].contains(&local.ip())
            && [self.address.port(), other.port()].contains(&local.port())
    }
}

/// Returns whether a request asks for a response from another IP address, and from another port.
fn change_request(request: &StunMessage) -> Option<[bool; 2]> {
    let flags = request.get::<ChangeRequest>()?.as_change_request().ok()?.flags();
    Some(
        [ChangeRequestFlags::ChangeIp, ChangeRequestFlags::ChangePort]
            .map(|flag| flags.bits() & flag as u32 != 0),
    )
}

#[cfg(test)]
mod tests {
    use stun_rs::methods::BINDING;

    use super::*;

    const REMOTE: &str = "203.0.113.7:4000";

    fn server(change_requests: ChangeRequests) -> StunServer {
        StunServer::new([11, 0, 1, 1], 3478)
            .with_other([11, 0, 1, 2], 3479)
            .with_change_requests(change_requests)
    }

    /// Sends a request to the server's alternate IP address and primary port.
    fn respond(server: &StunServer, request: StunMessageBuilder) -> Option<(SocketAddr, StunMessage)> {
        let local = "11.0.1.2:3478".parse().unwrap();
        let response = server.respond(local, REMOTE.parse().unwrap(), &stun::encode(&request.build()))?;
        assert_eq!(response.destination, REMOTE.parse().unwrap());
        Some((response.source, stun::decode(&response.bytes).unwrap()))
    }

    /// Returns the address from which a response with this change is sent.
    fn source(change_requests: ChangeRequests, change: &ChangeRequest) -> Option<String> {
        let request = stun::request(BINDING).with_attribute(*change);
        let (source, _) = respond(&server(change_requests), request)?;
        Some(source.to_string())
    }

    #[test]
    fn response_names_the_mapped_the_other_and_its_own_address() {
        let (source, response) = respond(&server(ChangeRequests::Honored), stun::request(BINDING)).unwrap();
        assert_eq!(source.to_string(), "11.0.1.2:3478");
        let mapped =
            *response.get::<XorMappedAddress>().unwrap().expect_xor_mapped_address().socket_address();
        let other = *response.get::<OtherAddress>().unwrap().expect_other_address().socket_address();
        let origin = *response.get::<ResponseOrigin>().unwrap().expect_response_origin().socket_address();
        let found = [mapped, other, origin].map(|address| address.to_string());
        assert_eq!(found, [REMOTE, "11.0.1.1:3479", "11.0.1.2:3478"]);
    }

    #[test]
    fn change_request_moves_the_source_of_the_response() {
        let (ip, port) = (ChangeRequestFlags::ChangeIp, ChangeRequestFlags::ChangePort);
        let both = ChangeRequest::new(Some(ip | port));
        let [ip, port] = [ip, port].map(|flag| ChangeRequest::new(Some(flag.into())));
        for (change, expected) in [
            (&ip, "11.0.1.1:3478"),
            (&port, "11.0.1.2:3479"),
            (&both, "11.0.1.1:3479"),
            (&ChangeRequest::new(None), "11.0.1.2:3478"),
        ] {
            assert_eq!(source(ChangeRequests::Honored, change).as_deref(), Some(expected), "{change:?}");
            assert_eq!(source(ChangeRequests::Ignored, change).as_deref(), Some("11.0.1.2:3478"));
            assert_eq!(source(ChangeRequests::Unanswered, change), None);
        }
        assert_eq!(source(ChangeRequests::PortOnly, &port).as_deref(), Some("11.0.1.2:3479"));
        assert_eq!(source(ChangeRequests::PortOnly, &ip), None);
        let refusal = stun::request(BINDING).with_attribute(ip);
        let (source, refusal) = respond(&server(ChangeRequests::Refused), refusal).unwrap();
        assert_eq!((source.to_string().as_str(), stun::error_code(&refusal)), ("11.0.1.2:3478", 420));
    }

    #[test]
    fn faulty_servers_keep_to_their_fault() {
        let silent = StunServer { silent: true, ..server(ChangeRequests::Honored) };
        assert_eq!(respond(&silent, stun::request(BINDING)).map(|(source, _)| source), None);
        let classic = StunServer { classic: true, ..server(ChangeRequests::Honored) };
        let (_, response) = respond(&classic, stun::request(BINDING)).unwrap();
        assert!(response.get::<MappedAddress>().is_some() && response.get::<XorMappedAddress>().is_none());
    }
}
