//! What clients of the engine see: whole snapshots, never differences. No 64-bit integers, so that every client
//! language can read them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    AppError, Attempt, Badge, DeviceId, InviteId, NatProfile, NetworkReport, PartyId, PathKind, Quality,
    Settings,
};

/// Everything there is to show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Snapshot {
    /// Grows with every change.
    pub revision: u32,
    /// What the engine is doing.
    pub phase: Phase,
    /// This computer.
    pub device: DeviceView,
    /// Parties in the order they were joined.
    pub parties: Vec<PartyView>,
    /// The network this computer is in.
    pub network: NetworkView,
    /// What the user has set; passwords are left out.
    pub settings: Settings,
}

/// The engine's own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading state, opening sockets.
    Starting,
    /// At work.
    Ready,
    /// Saying goodbye.
    Stopping,
}

/// This computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct DeviceView {
    /// Its identity.
    pub id: DeviceId,
    /// The engine's version.
    pub version: String,
}

/// The network this computer is in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct NetworkView {
    /// What was measured.
    pub nat: NatProfile,
    /// The same in one word, once known.
    pub badge: Option<Badge>,
    /// The UDP port all parties share.
    pub port: u16,
    /// How the measurement goes, and what else it found.
    pub report: NetworkReport,
}

/// How far a party is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum PartyPhase {
    /// Switched off by the user.
    Down,
    /// Switched on, no address yet or no signalling channel yet.
    Connecting,
    /// Has an address and a device.
    Up,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds the party's authority key.
    Owner,
    /// May invite and remove on the owner's behalf.
    CoOwner,
    /// Plays.
    Member,
}

/// One party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PartyView {
    /// Its identity.
    pub id: PartyId,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub phase: PartyPhase,
    /// This computer's role in it.
    pub role: Role,
    /// The address range, once known.
    #[cfg_attr(feature = "specta", specta(type = Option<String>))]
    pub range: Option<Ipv4Net>,
    /// The network device's name while up.
    pub interface: Option<String>,
    /// Members, this computer first, then by name.
    pub members: Vec<MemberView>,
    /// Invites that can still be used and were made here.
    pub invites: Vec<InviteView>,
    /// Rendezvous servers of the party.
    pub servers: Vec<ServerView>,
    /// What keeps it from working, with what to do.
    pub problem: Option<AppError>,
}

/// A rendezvous server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct ServerView {
    /// Its URL.
    pub url: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Why not.
    pub problem: Option<AppError>,
}

/// An invite that can still be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct InviteView {
    /// Its identity, for revoking.
    pub id: InviteId,
    /// Seconds since 1970; `None` if it never expires.
    pub expires: Option<u32>,
    /// What it makes of the joiner.
    pub role: Role,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct MemberView {
    /// Whose device.
    pub id: DeviceId,
    /// The name its user chose.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether this is the computer itself.
    pub me: bool,
    /// Whether the owner's device has confirmed it.
    pub confirmed: bool,
    /// Whether it was heard from lately.
    pub online: bool,
    /// Its virtual addresses, once claimed.
    pub address: Option<Ipv4Addr>,
    /// Its virtual IPv6 address.
    pub address_v6: Option<Ipv6Addr>,
    /// What it says of its own network.
    pub badge: Option<Badge>,
    /// The path in use.
    pub path: Option<PathView>,
    /// How good the path is.
    pub quality: Quality,
    /// What went to and fro.
    pub traffic: TrafficView,
    /// Paths used so far, oldest first, at most 32.
    pub history: Vec<PathEvent>,
}

/// The path in use to a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PathView {
    /// What carries it.
    pub kind: PathKind,
    /// The far end of it: the member's address, or the relay's.
    pub remote: SocketAddr,
    /// The relay's name, if relayed.
    pub relay: Option<String>,
    /// The member that passes the packets on, if one does.
    pub via: Option<DeviceId>,
    /// Seconds it has been in use.
    pub age_s: u32,
    /// Seconds since the last WireGuard handshake.
    pub handshake_s: Option<u32>,
    /// What was tried, in order.
    pub why: Vec<Attempt>,
}

/// Packets and bytes since the member was first connected. Bytes are numbers with a fraction only because they may
/// exceed 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct TrafficView {
    /// Bytes received.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub received_bytes: f64,
    /// Bytes sent.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub sent_bytes: f64,
    /// Bytes received per second, smoothed over some 2 s.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub receiving: f32,
    /// Bytes sent per second, smoothed over some 2 s.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub sending: f32,
    /// Packets dropped, whatever the reason.
    pub dropped: u32,
}

/// A change of path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PathEvent {
    /// Seconds since 1970.
    pub at: u32,
    /// To what; `None` if the member became unreachable.
    pub kind: Option<PathKind>,
}
