//! Transport protocol and port of a service.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum PortProtocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

/// The protocol and port that a service listens on, written `tcp/445`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct ServicePort {
    /// The transport protocol.
    pub protocol: PortProtocol,
    /// The port, 1 to 65,535.
    pub port: u16,
}

impl ServicePort {
    /// Returns a port of TCP.
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self { protocol: PortProtocol::Tcp, port }
    }

    /// Returns a port of UDP.
    #[must_use]
    pub const fn udp(port: u16) -> Self {
        Self { protocol: PortProtocol::Udp, port }
    }
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

/// A text that is no protocol with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write protocol and port, such as tcp/445 or udp/27015")]
pub struct ServicePortError;

impl FromStr for ServicePort {
    type Err = ServicePortError;

    /// Parses `tcp/445`; upper case and `445/tcp` are understood too.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, second) = text.split_once('/').ok_or(ServicePortError)?;
        let digits_first = first.starts_with(|letter: char| letter.is_ascii_digit());
        let (protocol, port) = if digits_first { (second, first) } else { (first, second) };
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => PortProtocol::Tcp,
            "udp" => PortProtocol::Udp,
            _ => return Err(ServicePortError),
        };
        let port = port.parse().map_err(|_| ServicePortError)?;
        if port == 0 { Err(ServicePortError) } else { Ok(Self { protocol, port }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        for port in [ServicePort::tcp(445), ServicePort::udp(65_535)] {
            assert_eq!(port.to_string().parse(), Ok(port));
        }
        assert_eq!("TCP/22".parse(), Ok(ServicePort::tcp(22)));
        assert_eq!("22/udp".parse(), Ok(ServicePort::udp(22)));
        for text in ["", "/", "22", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/-1", "sctp/22", "tcp/22/udp"] {
            assert_eq!(text.parse::<ServicePort>(), Err(ServicePortError), "{text}");
        }
    }
}
