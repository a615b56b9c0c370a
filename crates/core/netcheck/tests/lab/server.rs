//! A STUN server with two addresses (RFC 5780), correct or not.

use std::net::{IpAddr, SocketAddr};

use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessageBuilder,
    attributes::{
        discovery::{ChangeRequest, ChangeRequestFlags, OtherAddress, ResponsePort},
        stun::{ErrorCode, Fingerprint, MappedAddress, XorMappedAddress},
    },
    methods::BINDING,
};

/// How a server handles CHANGE-REQUEST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// As RFC 5780 requires.
    Honours,
    /// Responds from the address that received the request.
    Ignores,
    /// Refuses with 420.
    Refuses,
    /// Does not respond.
    Swallows,
    /// Honours the port but is silent when asked to answer from its other address.
    PortOnly,
}

/// A STUN server.
#[derive(Debug, Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub other: Option<SocketAddr>,
    pub manners: Manners,
    /// Sends only MAPPED-ADDRESS, as RFC 3489 has it.
    pub old: bool,
    /// Does not respond at all.
    pub dead: bool,
}

impl Server {
    pub fn new(ip: [u8; 4], port: u16) -> Self {
        let address = SocketAddr::new(IpAddr::from(ip), port);
        Self { address, other: None, manners: Manners::Honours, old: false, dead: false }
    }

    pub fn with_other(mut self, ip: [u8; 4], port: u16) -> Self {
        self.other = Some(SocketAddr::new(IpAddr::from(ip), port));
        self
    }

    pub fn with_manners(mut self, manners: Manners) -> Self {
        self.manners = manners;
        self
    }

    /// Returns the response to a datagram with the address it is sent from, if the datagram was for this server.
    pub fn answer(&self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        if self.dead || !self.owns(to) {
            return None;
        }
        let (request, _) =
            MessageDecoderBuilder::default().build().decode(bytes).expect("requests are well-formed");
        request.get::<Fingerprint>().expect("requests carry a fingerprint");
        let change =
            request.get::<ChangeRequest>().and_then(|c| c.as_change_request().ok()).map(ChangeRequest::flags);
        let source = match change {
            Some(_) if self.manners == Manners::Swallows => return None,
            Some(flags)
                if flags.contains(ChangeRequestFlags::ChangeIp) && self.manners == Manners::PortOnly =>
            {
                return None;
            }
            Some(flags) if matches!(self.manners, Manners::Honours | Manners::PortOnly) => {
                self.changed(to, flags.bits())
            }
            _ => to,
        };
        let refused = change.is_some() && self.manners == Manners::Refuses;
        let class = if refused { MessageClass::ErrorResponse } else { MessageClass::SuccessResponse };
        let mut answer =
            StunMessageBuilder::new(BINDING, class).with_transaction_id(*request.transaction_id());
        if refused {
            let code = stun_rs::ErrorCode::new(420, "Unknown Attribute").expect("a valid code");
            answer = answer.with_attribute(ErrorCode::from(code));
        } else if self.old {
            answer = answer.with_attribute(MappedAddress::from(from));
        } else {
            answer = answer.with_attribute(XorMappedAddress::from(from));
        }
        if let Some(other) = self.other {
            let opposite = SocketAddr::new(
                if to.ip() == other.ip() { self.address.ip() } else { other.ip() },
                if to.port() == other.port() { self.address.port() } else { other.port() },
            );
            answer = answer.with_attribute(OtherAddress::from(opposite));
        }
        let mut buffer = [0; 256];
        let answer = answer.with_attribute(Fingerprint::default()).build();
        let length = MessageEncoderBuilder::default().build().encode(&mut buffer, &answer).expect("room");
        Some((source, buffer[..length].to_vec()))
    }

    /// Returns the address that a response is sent to.
    pub fn reply_to(from: SocketAddr, bytes: &[u8]) -> SocketAddr {
        let request = MessageDecoderBuilder::default().build().decode(bytes).map(|(request, _)| request);
        let port =
            request.ok().and_then(|r| Some(r.get::<ResponsePort>()?.as_response_port().ok()?.as_u16()));
        SocketAddr::new(from.ip(), port.unwrap_or(from.port()))
    }

    fn owns(&self, to: SocketAddr) -> bool {
        match self.other {
            Some(other) => {
                [self.address.ip(), other.ip()].contains(&to.ip())
                    && [self.address.port(), other.port()].contains(&to.port())
            }
            None => to == self.address,
        }
    }

    fn changed(&self, to: SocketAddr, flags: u32) -> SocketAddr {
        let Some(other) = self.other else { return to };
        let flip = |value, one, two| if value == one { two } else { one };
        let ip = if flags & 4 == 0 { to.ip() } else { flip(to.ip(), self.address.ip(), other.ip()) };
        let port = if flags & 2 == 0 {
            to.port()
        } else if to.port() == self.address.port() {
            other.port()
        } else {
            self.address.port()
        };
        SocketAddr::new(ip, port)
    }
}
