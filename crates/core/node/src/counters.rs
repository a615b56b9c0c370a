//! Everything the node counts, for metrics.

use std::collections::BTreeMap;

use partyline_model::DeviceId;

use crate::{
    connectivity::{MemberRelayCounters, ProbeResponderCounters},
    signaling::{ResendCounters, SignalingCounters},
};

/// Everything that was counted since the start. The parts have labels for each of their counters.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Sealed messages, by channel.
    pub signaling: SignalingCounters,
    /// Messages that rendezvous servers refused for now.
    pub resends: ResendCounters,
    /// Messages relayed between members.
    pub member_relays: MemberRelayCounters,
    /// Filtering probes sent on behalf of other members.
    pub probe_responder: ProbeResponderCounters,
    /// Control messages from members that could not be read.
    pub malformed_control_messages: u64,
    /// Datagrams that the path machine dropped.
    pub paths: partyline_paths::Counters,
    /// Packets that the tunnel dropped.
    pub tunnel: partyline_tunnel::DropCounters,
    /// Packets from and to each present member that the tunnel dropped, in all parties together.
    pub tunnel_peers: BTreeMap<DeviceId, partyline_tunnel::DropCounters>,
    /// WireGuard handshakes.
    pub handshakes: partyline_tunnel::HandshakeCounters,
    /// Requests of the network check.
    pub netcheck: partyline_netcheck::Counters,
    /// Lookups in the DHT.
    pub dht: partyline_dht::Counters,
}
