//! The engine's state as clients see it: whole snapshots, never differences. There are no 64-bit integers, so that
//! every client language can read them.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU8,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    AppError, Attempt, Badge, DeviceId, IncomingPolicy, InviteId, NatProfile, NetworkReport, PartyId,
    PathKind, Quality, Settings, SharedNat,
};

/// The engine's whole state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Snapshot {
    /// A number that grows with every change.
    pub revision: u32,
    /// The phase of the engine.
    pub phase: Phase,
    /// This computer's identity.
    pub device: DeviceView,
    /// The parties in the order in which they were joined.
    pub parties: Vec<PartyView>,
    /// Parties that this computer was in before it got a new identity. An invite brings each back.
    #[serde(default)]
    pub former_parties: Vec<FormerPartyView>,
    /// The network of this computer.
    pub network: NetworkView,
    /// The user's settings without passwords.
    pub settings: Settings,
}

/// The phase of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The engine reads its state and opens sockets.
    Starting,
    /// The engine is running.
    Ready,
    /// The engine sends its leave messages and stops.
    Stopping,
}

/// This computer's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct DeviceView {
    /// The device's identity.
    pub id: DeviceId,
    /// The engine's version.
    pub version: String,
}

/// The network of this computer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct NetworkView {
    /// The measured NAT behavior.
    pub nat: NatProfile,
    /// The NAT type in one word, once known.
    pub badge: Option<Badge>,
    /// The UDP port that all parties share.
    pub port: u16,
    /// The progress of the measurement, and what else it found.
    pub report: NetworkReport,
}

/// The phase of a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum PartyPhase {
    /// The user has switched it off.
    Down,
    /// It is switched on, but has no address or no signaling channel yet.
    Connecting,
    /// It has an address and a network device.
    Up,
}

/// The rights of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The owner, whose device holds the party's authority key.
    Owner,
    /// A co-owner, who may invite and remove members on the owner's behalf.
    CoOwner,
    /// A member without further rights.
    Member,
}

/// A party of this computer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PartyView {
    /// The party's identity.
    pub id: PartyId,
    /// The party's name.
    pub name: String,
    /// The phase of the party.
    pub phase: PartyPhase,
    /// This computer's role in the party.
    pub role: Role,
    /// The address range, once known.
    #[cfg_attr(feature = "specta", specta(type = Option<String>))]
    pub range: Option<Ipv4Net>,
    /// True while this computer asks the owner for another range.
    #[serde(default)]
    pub range_requested: bool,
    /// What the party's members may reach on this computer.
    #[serde(default)]
    pub incoming: IncomingPolicy,
    /// The network device's name while up.
    pub interface: Option<String>,
    /// The members: this computer first, the others by name.
    pub members: Vec<MemberView>,
    /// Invites that were created on this computer and can still be used.
    pub invites: Vec<InviteView>,
    /// True if the owner approves every joiner before it is let in.
    #[serde(default)]
    pub approval: bool,
    /// Devices that ask the owner to be let in, on the owner's computer.
    #[serde(default)]
    pub join_requests: Vec<JoinRequestView>,
    /// What this computer waits for, until a member has let it in.
    #[serde(default)]
    pub waits_for: Option<JoinWait>,
    /// The party's rendezvous servers.
    pub servers: Vec<ServerView>,
    /// How friends are found, in a party without a server.
    #[serde(default)]
    pub discovery: Option<Discovery>,
    /// What keeps the party from working, and what to do about it.
    pub problem: Option<AppError>,
}

/// How friends are found in a party without a server, beside the local network and the addresses in links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Discovery {
    /// The DHT is switched off.
    Off,
    /// The DHT is asked where the others are.
    Searching,
    /// This computer's addresses stand in the DHT, where friends find them.
    Listed,
    /// Other members keep the party's addresses in the DHT.
    Kept,
    /// No node of the DHT answers.
    Blocked,
}

/// A device that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct JoinRequestView {
    /// The device.
    pub device: DeviceId,
    /// The name that its user chose.
    pub name: String,
    /// True if its name can be taken for that of somebody else in the party, or who asks to join.
    #[serde(default)]
    pub alike: bool,
    /// The invite that it has.
    pub invite: InviteId,
    /// True if the owner has declined it, and can still let it in.
    pub declined: bool,
}

/// What a joiner waits for, as far as members have told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum JoinWait {
    /// A member that is online and lets it in.
    Member,
    /// The owner, who approves every joiner.
    Approval,
    /// Another invite: as many devices as this one allows have joined by it.
    OtherInvite,
    /// The owner to think better of it: the owner declined.
    Reconsideration,
}

/// A party that this computer was in under an earlier identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct FormerPartyView {
    /// The party's identity.
    pub id: PartyId,
    /// The party's name.
    pub name: String,
    /// The name under which its members knew this computer's user.
    pub display_name: String,
}

/// A rendezvous server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct ServerView {
    /// The server's URL.
    pub url: String,
    /// True if the server is connected.
    pub connected: bool,
    /// Why it is not connected.
    pub problem: Option<AppError>,
}

/// An invite that can still be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct InviteView {
    /// The invite's identity, for revoking it.
    pub id: InviteId,
    /// When it expires, in seconds since 1970; `None` if it never does.
    pub expires: Option<u32>,
    /// The number of devices that have joined by it.
    #[serde(default)]
    pub used: u8,
    /// The number of devices that may join by it; `None` for any number.
    #[serde(default)]
    #[cfg_attr(feature = "specta", specta(type = Option<u8>))]
    pub uses: Option<NonZeroU8>,
    /// The role that the joiner gets.
    pub role: Role,
}

/// A member of a party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct MemberView {
    /// The member's device.
    pub id: DeviceId,
    /// The name that its user chose.
    pub name: String,
    /// True if its name can be taken for that of somebody else in the party, or who asks to join. Its id should stand beside
    /// it then.
    #[serde(default)]
    pub alike: bool,
    /// Its rights.
    pub role: Role,
    /// True for this computer itself.
    pub me: bool,
    /// True if the owner's device has confirmed its certificate.
    pub confirmed: bool,
    /// The invite that it joined by.
    pub invite: InviteId,
    /// When it joined by its own clock, in seconds since 1970.
    pub joined_at: u32,
    /// True if it has sent something lately.
    pub online: bool,
    /// Its virtual IPv4 address, once it has claimed one.
    pub address: Option<Ipv4Addr>,
    /// Its virtual IPv6 address.
    pub address_v6: Option<Ipv6Addr>,
    /// The NAT type of its network, as it announces it.
    pub badge: Option<Badge>,
    /// The path in use.
    pub path: Option<PathView>,
    /// The quality of the path.
    pub quality: Quality,
    /// Packets and bytes exchanged with it.
    pub traffic: TrafficView,
    /// The paths used so far, oldest first, at most 32.
    pub history: Vec<PathEvent>,
    /// What somebody should know of it.
    #[serde(default)]
    pub notices: MemberNotices,
}

/// What somebody in the party should know of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct MemberNotices {
    /// The number of its broadcasts dropped since the start, if some were in the last minute: it sends more than the limit
    /// of 250 a second.
    pub broadcasts_dropped: Option<u32>,
    /// The network of the member that the party's range clashes with, if it asks for another range.
    #[cfg_attr(feature = "specta", specta(type = Option<String>))]
    pub range_clash: Option<Ipv4Net>,
    /// True if a copy of its keys was met on another computer within the last hour, and stood back.
    pub copied: bool,
    /// The NAT that this computer and the member share, if no direct path was found because it does not hairpin.
    #[serde(default)]
    pub no_hairpin: Option<SharedNat>,
}

/// The path in use to a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PathView {
    /// The kind of path.
    pub kind: PathKind,
    /// The remote address: the member's, or the relay's.
    pub remote: SocketAddr,
    /// The relay's name, if relayed.
    pub relay: Option<String>,
    /// The member that forwards the packets, if one does.
    pub via: Option<DeviceId>,
    /// Seconds for which it has been in use.
    pub age_s: u32,
    /// Seconds since the last WireGuard handshake.
    pub handshake_s: Option<u32>,
    /// The attempts that led to this path, in order.
    pub why: Vec<Attempt>,
}

/// Traffic with a member since it was first connected. Bytes are floating-point numbers, since they may exceed 32 bits.
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
    /// Packets dropped for any reason.
    pub dropped: u32,
}

/// A change of path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PathEvent {
    /// When the path changed, in seconds since 1970.
    pub at: u32,
    /// The new path; `None` if the member became unreachable.
    pub kind: Option<PathKind>,
}
