//! How the system would send a packet: by which interface, and from which address.

use std::{io, net::IpAddr};

/// The interface and the source address that the system chooses for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The index of the interface, where the system tells it.
    pub interface: Option<u32>,
    /// The source address, if the system has one.
    pub source: Option<IpAddr>,
}

/// Asks the system how it would send to an address. Nothing is sent.
///
/// # Errors
/// If no route leads there, or the system does not answer.
pub fn departure(destination: IpAddr) -> io::Result<Departure> {
    let (interface, source) = system::departure(destination)?;
    Ok(Departure { interface, source })
}

/// The rules of policy routing count here, as they do for packets.
#[cfg(target_os = "linux")]
mod system {
    use std::{io, net::IpAddr};

    use netlink_packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage},
    };

    use crate::netlink;

    pub(super) fn departure(destination: IpAddr) -> io::Result<(Option<u32>, Option<IpAddr>)> {
        let mut request = RouteMessage::default();
        let (family, bits, address) = match destination {
            IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
        };
        (request.header.address_family, request.header.destination_prefix_length) = (family, bits);
        request.attributes.push(RouteAttribute::Destination(address));
        let answer = netlink::get(RouteNetlinkMessage::GetRoute(request))?;
        let Some(RouteNetlinkMessage::NewRoute(route)) = answer else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (mut interface, mut source) = (None, None);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(index),
                RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => source = Some(v4.into()),
                RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => source = Some(v6.into()),
                _ => {}
            }
        }
        Ok((interface, source))
    }
}

/// The source address is one of the interface, on Windows always and on macOS wherever it has a usable one.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::{
        io,
        net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    };

    pub(super) fn departure(destination: IpAddr) -> io::Result<(Option<u32>, Option<IpAddr>)> {
        let any: IpAddr = match destination {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // Connecting a UDP socket sends nothing. The port does not matter.
        socket.connect((destination, 9))?;
        Ok((None, Some(socket.local_addr()?.ip())))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn loopback_is_reached_from_itself() {
        let found = departure(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(found.source, Some(Ipv4Addr::LOCALHOST.into()));
    }
}
