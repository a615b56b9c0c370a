//! A socket of this computer that takes what nobody has asked for.

use std::net::IpAddr;

use partyline_model::ServicePort;

/// A socket that takes what nobody has asked for: a TCP listener, or a UDP socket that is not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The protocol and port.
    pub port: ServicePort,
    /// The address that it is bound to; unspecified for all addresses of the computer.
    pub address: IpAddr,
    /// The program that has it open, if this process may know that.
    pub program: Option<String>,
    /// True if this process has it open.
    pub own: bool,
}
