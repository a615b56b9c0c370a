//! What signaling asks the other parts of the node, and the engine, to do.

use std::net::SocketAddr;

use partyline_model::{AddressScope, DeviceId, PartyId};
use partyline_paths::PeerParams;
use partyline_tunnel::PeerConfig;
use partyline_wire::rendezvous::RelayGrant;
use x25519_dalek::StaticSecret;

use crate::{
    control::ControlMessage,
    io::{DeviceConfig, Output, ServerId},
};

/// Something for another part of the node. It has no `Debug`, since it may hold a party's secret.
pub(crate) enum Event {
    /// For the engine, as it is.
    Output(Output),
    /// A datagram for the main socket.
    Datagram {
        /// Where it goes.
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// The addresses at which nodes of the DHT see the main socket.
    SeenByDht(Vec<SocketAddr>),
    /// A message for a member's engine, through the tunnel to it. Dropped if there is no session.
    Control {
        /// The party both are in.
        party: PartyId,
        to: DeviceId,
        message: ControlMessage,
    },
    /// A party's network has to exist with these addresses.
    PartyUp {
        party: PartyId,
        /// This device's WireGuard key in it.
        secret: StaticSecret,
        /// Addresses and MTU.
        device: DeviceConfig,
    },
    /// A party's network and all its sessions have to go.
    PartyDown { party: PartyId },
    /// A member is new, or something known about it changed.
    PeerChanged(Box<PeerInfo>),
    /// A member is to be forgotten, with its paths and session.
    PeerRemoved { party: PartyId, device: DeviceId },
    /// A signal between path machines arrived from a member.
    SignalReceived { party: PartyId, from: DeviceId, bytes: Vec<u8> },
    /// A rendezvous server granted credentials of relays, which may be at these addresses.
    RelaysGranted { server: ServerId, grant: RelayGrant, scope: AddressScope },
    /// The user confirmed a rendezvous server; relays that it names may be at private addresses.
    ServerTrusted { server: ServerId },
    /// An open connection to a rendezvous server has ended.
    ServerDown { server: ServerId },
    /// No party uses the server any more; what it granted is void.
    ServerForgotten { server: ServerId },
    /// A rendezvous server is connected now (true), or none is any more (false).
    Online(bool),
    /// The snapshot may have changed.
    Changed,
}

/// What is known about how to reach one member.
pub(crate) struct PeerInfo {
    pub party: PartyId,
    pub device: DeviceId,
    /// Its tunnel key and virtual addresses.
    pub tunnel: PeerConfig,
    /// What connectivity checks with it need; `None` until its present session nonce is known.
    pub paths: Option<PeerParams>,
    /// True if its engine was restarted since the last time and has lost its session keys.
    pub restarted: bool,
    /// Names connection attempts between the two in distributed traces.
    pub trace_id: [u8; 16],
}
