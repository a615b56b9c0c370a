//! A router that translates in user space by a [`partyline_nat`] model, for NAT types that the kernel does not
//! implement.
//!
//! The router's namespace has a TUN device, `nat0`. Policy routing sends packets from the LAN, and packets to the
//! outside address, into the device. The translated packets come out of it and are routed as usual. Everything else
//! stays with the kernel: ARP, reassembly, IPv6 and its firewall.

mod packet;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use anyhow::Result;
use partyline_nat::{Nat, Protocol, Rules};
use tun_rs::SyncDevice;

use self::packet::{Header, Kind, Side};
use crate::{
    device::{Carried, Carrier, MAX_PACKET_LEN, tun},
    namespace::Namespace,
};

/// Starts the NAT of a router between `lan0` with the subnet `lan`.0/24 and `wan0` with the address `outside`. It runs
/// until the returned value is dropped.
pub(crate) fn start(namespace: &Namespace, rules: Rules, outside: Ipv4Addr, lan: [u8; 3]) -> Result<Carried> {
    let device = tun(namespace, "nat0", MAX_PACKET_LEN as u16)?;
    // Translated packets come out of `nat0` with the router's own address as their source.
    namespace.sysctl(&[("net/ipv4/conf/nat0/accept_local", "1")])?;
    steer(namespace, outside, lan)?;
    let seed = u64::from(u32::from(outside));
    Carried::start("nat", Translator { nat: Nat::new(seed, outside.into(), rules), lan, device })
}

/// Routes packets into the NAT. The lookup of the table `local`, by default the first rule, has to move behind the new
/// rules.
fn steer(namespace: &Namespace, outside: Ipv4Addr, [a, b, c]: [u8; 3]) -> Result<()> {
    let lines = [
        "route add default dev nat0 table 100".to_owned(),
        "rule add pref 50 lookup local".to_owned(),
        "rule del pref 0".to_owned(),
        "rule add pref 10 iif lan0 to 224.0.0.0/3 goto 50".to_owned(),
        format!("rule add pref 11 iif lan0 to {a}.{b}.{c}.0/24 goto 50"),
        "rule add pref 20 iif lan0 lookup 100".to_owned(),
    ];
    // The rules match protocols, since ARP for the outside address must stay with the kernel.
    let inward = (30..)
        .zip(["udp", "tcp", "icmp"])
        .map(|(pref, what)| format!("rule add pref {pref} iif wan0 to {outside} ipproto {what} lookup 100"));
    namespace.ip(&lines.into_iter().chain(inward).collect::<Vec<_>>().join("\n"))
}

struct Translator {
    nat: Nat,
    lan: [u8; 3],
    device: SyncDevice,
}

impl Carrier for Translator {
    fn devices(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.device.as_fd()]
    }

    fn readable(&mut self, _: usize, buffer: &mut [u8]) {
        let Ok(length) = self.device.recv(buffer) else { return };
        let packet = &mut buffer[..length];
        if self.translate(packet).is_some() {
            let _ = self.device.send(packet);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn due(&mut self) {}
}

impl Translator {
    /// Translates a packet in place. Returns `None` if the packet is to be dropped.
    fn translate(&mut self, packet: &mut [u8]) -> Option<()> {
        let header = packet::read(packet)?;
        let from_inside = header.source.ip().octets()[..3] == self.lan;
        let to_outside = IpAddr::V4(*header.destination.ip()) == self.nat.outside();
        match (header.kind, from_inside, to_outside) {
            (Kind::Error(quoted), ..) => self.translate_error(packet, quoted, from_inside, header),
            (Kind::Flow(protocol), true, true) => self.turn_around(packet, protocol, header),
            (Kind::Flow(protocol), true, false) => {
                let (source, destination) = (header.source.into(), header.destination.into());
                let external = self.nat.outbound(Instant::now(), protocol, source, destination)?;
                packet::rewrite(packet, Side::Source, v4(external)?)
            }
            (Kind::Flow(protocol), false, true) => {
                let (source, destination) = (header.source.into(), header.destination.into());
                let inside = self.nat.inbound(Instant::now(), protocol, destination, source)?;
                packet::rewrite(packet, Side::Destination, v4(inside)?)
            }
            (Kind::Flow(_), false, false) => None,
        }
    }

    fn turn_around(&mut self, packet: &mut [u8], protocol: Protocol, header: Header) -> Option<()> {
        let (source, destination) = (header.source.into(), header.destination.into());
        let turned = self.nat.hairpin(Instant::now(), protocol, source, destination)?;
        packet::rewrite(packet, Side::Source, v4(turned.source)?)?;
        packet::rewrite(packet, Side::Destination, v4(turned.inside)?)
    }

    /// Translates an ICMP error and the packet that it quotes: the sender has to see the quoted packet as it was sent.
    fn translate_error(&self, packet: &mut [u8], at: usize, from_inside: bool, header: Header) -> Option<()> {
        let quoted = packet::read(packet.get(at..)?)?;
        let Kind::Flow(protocol) = quoted.kind else { return None };
        let (source, destination) = (quoted.source.into(), quoted.destination.into());
        let now = Instant::now();
        if from_inside {
            let external = v4(self.nat.lookup_outbound(now, protocol, destination, source)?)?;
            packet::rewrite(&mut packet[at..], Side::Destination, external)?;
            packet::rewrite(packet, Side::Source, external)?;
        } else {
            let inside = v4(self.nat.lookup_inbound(now, protocol, source, destination)?)?;
            packet::rewrite(&mut packet[at..], Side::Source, inside)?;
            packet::rewrite(
                packet,
                Side::Destination,
                SocketAddrV4::new(*inside.ip(), header.destination.port()),
            )?;
        }
        packet::seal_icmp(packet)
    }
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}
