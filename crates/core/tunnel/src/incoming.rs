//! The filter for packets of members: what they may reach on this computer.
//!
//! A packet comes in if its destination port is open by the policy, or if it belongs to a flow that this computer opened
//! ([`FlowTable`]). Flows are followed only where the local port is not open anyway, so that with the usual policy hardly any
//! packet costs more than a look at a short list, and members cannot fill the table: only what programs of this computer
//! send opens a flow.
//!
//! - **TCP** ports that are not open take neither a SYN nor anything else that belongs to no flow. What this computer sends
//!   from the port of a system service, or from one that the user blocked, opens a flow only with a SYN: otherwise the answers
//!   of the service would open it to those whom it answers. From other ports any segment does, so that connections outlive a
//!   change of the policy and a restart.
//! - **UDP** from a port opens a flow to the member it goes to, and a broadcast one to everybody, so that answers to
//!   the discovery of games come in. A port that the user blocked takes no UDP at all, since a service's answers cannot be
//!   told from requests.
//! - **Broadcasts and multicasts** of members are judged by their port like all other packets.
//! - **ICMP**: errors, echo and what IPv6 needs for neighbors and groups come in, nothing that asks the computer about itself.
//! - **Fragments** behind the first have no ports. They come in, and are worth nothing without the first one, which was
//!   judged. A first one that ends before the flags of TCP, and one that would overwrite them, are dropped (RFC 1858, RFC 3128;
//!   IPv6 hosts drop overlapping fragments, RFC 5722).
//! - **Other protocols** do not come in: no game uses one.

use std::time::Instant;

use partyline_model::{IncomingPolicy, PortProtocol};
use tracing::trace;

use crate::{
    flows::{Activity, FlowKey, FlowTable},
    ip::{ICMP, ICMP_V6, IpHeader, TCP, Transport, UDP},
    port_map::{PortMap, Treatment, admits_everything},
    routing::Scope,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Echo reply, Destination Unreachable, Echo, Time Exceeded, Parameter Problem (RFC 792).
const ICMP_TYPES: [u8; 5] = [0, 3, 8, 11, 12];
/// Errors, Echo (RFC 4443), MLD (RFC 2710, RFC 3810), Neighbor Discovery (RFC 4861).
const ICMP_V6_TYPES: [u8; 12] = [1, 2, 3, 4, 128, 129, 130, 131, 132, 135, 136, 143];

/// The filter of one party.
#[derive(Debug)]
pub(crate) struct IncomingFilter {
    /// `None` lets everything in.
    ports: Option<Ports>,
    flows: FlowTable,
}

#[derive(Debug)]
struct Ports {
    tcp: PortMap,
    udp: PortMap,
}

impl Default for IncomingFilter {
    fn default() -> Self {
        Self::new(&IncomingPolicy::default())
    }
}

impl IncomingFilter {
    pub(crate) fn new(policy: &IncomingPolicy) -> Self {
        Self { ports: ports(policy), flows: FlowTable::default() }
    }

    /// Replaces the policy. It holds for connections that exist, too; flows that this computer opened go on.
    pub(crate) fn set_policy(&mut self, policy: &IncomingPolicy) {
        self.ports = ports(policy);
        if self.ports.is_none() {
            self.flows = FlowTable::default();
        }
    }

    /// Notes a packet that this computer sends to a member or to all.
    pub(crate) fn on_outgoing(&mut self, now: Instant, packet: &[u8], header: &IpHeader, scope: Scope) {
        let Some(ports) = &self.ports else { return };
        let Transport::Whole(protocol, payload) = header.transport(packet) else { return };
        let Some([local_port, remote_port]) = ports_of(payload) else { return };
        let broadcast = scope == Scope::Broadcast;
        let (activity, opens) = match protocol {
            TCP => {
                let (treatment, Some(flags)) = (ports.tcp.get(local_port), payload.get(13)) else { return };
                if treatment == Treatment::Open {
                    return;
                }
                let opens = flags & (SYN | ACK) == SYN || treatment == Treatment::Closed;
                let transitory = flags & (SYN | FIN | RST) != 0;
                (if transitory { Activity::Transitory } else { Activity::Established }, opens)
            }
            UDP => match ports.udp.get(local_port) {
                Treatment::Open | Treatment::Blocked => return,
                _ if broadcast => (Activity::Broadcast, true),
                _ => (Activity::Udp, true),
            },
            _ => return,
        };
        let key = if broadcast {
            FlowKey::broadcast(protocol, local_port)
        } else {
            FlowKey { protocol, remote: header.destination, remote_port, local_port }
        };
        self.flows.on_outgoing(now, key, activity, opens);
    }

    /// Returns true if a member's packet may come in.
    pub(crate) fn admits(&self, now: Instant, packet: &[u8], header: &IpHeader) -> bool {
        let Some(ports) = &self.ports else { return true };
        match header.transport(packet) {
            Transport::Whole(TCP, segment) => {
                ports_of(segment).is_some_and(|[remote, local]| {
                    // Without its flags in the first fragment, a segment could become a SYN behind it.
                    segment.len() > 13
                        && (ports.tcp.get(local) == Treatment::Open
                            || self.answers(now, TCP, header, remote, local))
                })
            }
            Transport::Whole(UDP, datagram) => {
                ports_of(datagram).is_some_and(|[remote, local]| match ports.udp.get(local) {
                    Treatment::Open => true,
                    Treatment::Blocked => false,
                    Treatment::Closed | Treatment::Service => self.answers(now, UDP, header, remote, local),
                })
            }
            Transport::Whole(protocol, message) => admits_icmp(protocol, header, message),
            // Eight bytes from the start: over the flags of TCP.
            Transport::LaterFragment { protocol: TCP, offset: 1 } => false,
            Transport::LaterFragment { .. } => true,
            Transport::Incomplete => false,
        }
    }

    /// Returns true if a packet belongs to a flow that this computer opened.
    fn answers(
        &self,
        now: Instant,
        protocol: u8,
        header: &IpHeader,
        remote_port: u16,
        local_port: u16,
    ) -> bool {
        let flow = FlowKey { protocol, remote: header.source, remote_port, local_port };
        let open = self.flows.is_open(now, flow)
            || protocol == UDP && self.flows.is_open(now, FlowKey::broadcast(protocol, local_port));
        if !open {
            trace!(protocol, port = local_port, source = %header.source, "port is not open to members");
        }
        open
    }
}

fn ports(policy: &IncomingPolicy) -> Option<Ports> {
    (!admits_everything(policy)).then(|| Ports {
        tcp: PortMap::new(policy, PortProtocol::Tcp),
        udp: PortMap::new(policy, PortProtocol::Udp),
    })
}

/// Returns source and destination port of TCP and UDP.
fn ports_of(payload: &[u8]) -> Option<[u16; 2]> {
    let [a, b, c, d] = *payload.first_chunk()?;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

fn admits_icmp(protocol: u8, header: &IpHeader, message: &[u8]) -> bool {
    let Some(kind) = message.first() else { return false };
    match protocol {
        ICMP => header.source.is_ipv4() && ICMP_TYPES.contains(kind),
        ICMP_V6 => header.source.is_ipv6() && ICMP_V6_TYPES.contains(kind),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
