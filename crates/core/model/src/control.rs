//! The commands of clients and the engine's replies, as the local socket carries them.

use std::{num::NonZeroU8, time::Duration};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    DeviceId, IncomingLevel, InviteId, OfferedPort, PartyId, PortRule, RelaySetting, Role, Sample,
    ServicePort, Settings, Snapshot, Timestamp,
};

/// How long an invite is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum InviteLifetime {
    /// One hour.
    Hour,
    /// One day.
    Day,
    /// Seven days.
    Week,
    /// Until revoked.
    Never,
}

impl InviteLifetime {
    /// Returns the span, or `None` if the invite never expires.
    #[must_use]
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Hour => Some(Duration::from_secs(3600)),
            Self::Day => Some(Duration::from_secs(86_400)),
            Self::Week => Some(Duration::from_secs(7 * 86_400)),
            Self::Never => None,
        }
    }
}

/// What an invite allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct InviteTerms {
    /// How long it is valid.
    pub lifetime: InviteLifetime,
    /// The number of devices that may join by it; `None` for any number.
    #[cfg_attr(feature = "specta", specta(type = Option<u8>))]
    pub uses: Option<NonZeroU8>,
    /// The role that the joiner gets; never `Owner`.
    pub role: Role,
}

impl InviteTerms {
    /// What fits a group of friends: ten devices, one day.
    pub const FRIENDS: Self =
        Self { lifetime: InviteLifetime::Day, uses: NonZeroU8::new(10), role: Role::Member };
}

/// What ends along with the membership of somebody who is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct KickScope {
    /// Everybody who joined by the same link is removed, too: it may be the same person with another device.
    pub same_link: bool,
    /// All links that any member has made so far end. Only the owner may do that.
    pub all_links: bool,
}

/// A command that the node carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(tag = "command", rename_all = "snake_case", rename_all_fields = "snake_case")]
pub enum Command {
    /// Returns the current snapshot. Answered by [`Reply::Snapshot`].
    Snapshot,
    /// Creates a party and switches it on. Answered by [`Reply::Created`].
    Create {
        /// The party's name, 1 to 40 characters.
        name: String,
        /// The name that friends see, 1 to 32 characters.
        display_name: String,
        /// Rendezvous servers (`wss://…`, or `ws://` where allowed); empty means the configured ones.
        servers: Vec<String>,
        /// The address range; `None` chooses one that collides with no local route.
        #[cfg_attr(feature = "specta", specta(type = Option<String>))]
        range: Option<Ipv4Net>,
    },
    /// Decodes the invite in a text without using it. Answered by [`Reply::Preview`].
    Preview {
        /// An invite link, or a text that has one in it.
        link: String,
    },
    /// Joins a party with an invite link and switches it on. Answered by [`Reply::Joined`].
    Join {
        /// An invite link, or a text that has one in it.
        link: String,
        /// The name that friends see, 1 to 32 characters.
        display_name: String,
    },
    /// Creates an invite. Answered by [`Reply::Invite`].
    Invite {
        /// The party to invite to.
        party: PartyId,
        /// What the invite allows.
        terms: InviteTerms,
    },
    /// Revokes an invite. Answered by [`Reply::Done`].
    #[expect(missing_docs, reason = "the names say it")]
    Revoke { party: PartyId, invite: InviteId },
    /// Leaves a party for good. Answered by [`Reply::Done`].
    #[expect(missing_docs, reason = "the names say it")]
    Leave { party: PartyId },
    /// Removes a member and replaces the party secret, so that it stays removed. The invite that it joined by ends. Answered
    /// by [`Reply::Done`].
    Kick {
        /// The party.
        party: PartyId,
        /// The member.
        member: DeviceId,
        /// What ends along with its membership.
        #[serde(default)]
        scope: KickScope,
    },
    /// Sets whether the owner approves every joiner before it is let in. Only the owner may do that. Answered by
    /// [`Reply::Done`].
    #[expect(missing_docs, reason = "the names say it")]
    SetApproval { party: PartyId, on: bool },
    /// Lets a device in that asks to join, or declines it. Only the owner may do that. Answered by [`Reply::Done`].
    AnswerJoin {
        /// The party.
        party: PartyId,
        /// The device, one of [`PartyView::join_requests`](crate::PartyView::join_requests).
        device: DeviceId,
        /// True to let it in.
        approve: bool,
    },
    /// Switches a party on. Answered by [`Reply::Done`].
    #[expect(missing_docs, reason = "the names say it")]
    Up { party: PartyId },
    /// Switches a party off without leaving it. Answered by [`Reply::Done`].
    #[expect(missing_docs, reason = "the names say it")]
    Down { party: PartyId },
    /// Moves a party to another address range. Only its owner may do that. Answered by [`Reply::Done`].
    SetRange {
        /// The party to move.
        party: PartyId,
        /// A private IPv4 range, prefix 16 to 28; `None` chooses one that clashes with no network of this computer and of
        /// the members that asked for another range.
        #[cfg_attr(feature = "specta", specta(type = Option<String>))]
        range: Option<Ipv4Net>,
    },
    /// Asks the party's owner for another address range, because this one clashes with a network of this computer. The
    /// request stands until the clash has gone. Answered by [`Reply::Done`].
    #[expect(missing_docs, reason = "the name says it")]
    RequestRange { party: PartyId },
    /// Sets what members of a party may reach on this computer. Answered by [`Reply::Done`].
    #[expect(missing_docs, reason = "the names say it")]
    SetIncomingLevel { party: PartyId, level: IncomingLevel },
    /// Allows or blocks a port of this computer for the members of a party, whatever the level says. Answered by
    /// [`Reply::Done`].
    SetPortRule {
        /// The party.
        party: PartyId,
        /// The port.
        port: ServicePort,
        /// The rule; `None` leaves the port to the level.
        rule: Option<PortRule>,
    },
    /// Gives this computer a new identity, with new keys. All parties are left to the computer that has the old ones, and
    /// remembered in [`Snapshot::former_parties`], so that an invite brings each back. Answered by [`Reply::Done`].
    NewIdentity,
    /// Forgets a party that this computer was in under an earlier identity. Answered by [`Reply::Done`].
    #[expect(missing_docs, reason = "the name says it")]
    ForgetFormer { party: PartyId },
    /// Measures one round trip to a member through the tunnel. Answered by [`Reply::Pong`].
    #[expect(missing_docs, reason = "the names say it")]
    Ping { party: PartyId, member: DeviceId },
    /// Measures the paths to members now, for somebody who looks at them; otherwise idle paths are measured every 15
    /// s. Skips members beyond the first 32 and paths that were measured within the last second. Answered by
    /// [`Reply::Done`].
    MeasurePaths {
        /// The party.
        party: PartyId,
        /// The members to whom the paths lead.
        members: Vec<DeviceId>,
    },
    /// Measures the network again. Its progress is in [`crate::NetworkReport`] of the snapshots. Answered by
    /// [`Reply::Done`].
    Netcheck {
        /// STUN servers to ask in addition to the parties' own (`host` or `host:port`), at most 8.
        stun: Vec<String>,
    },
    /// Replaces the settings. They are applied at once and kept across restarts. Another `port` needs a new socket, so
    /// that all paths have to be found again. Answered by [`Reply::Done`], or by an error that changes nothing.
    Configure {
        /// All settings. Relays without a password keep the stored one.
        settings: Box<Settings>,
    },
    /// Confirms a server that others named, so that it is used at private addresses, too, and the relays that it names.
    /// Servers that the user named, in the settings or for a new party, need no confirmation. Answered by
    /// [`Reply::Done`].
    TrustServer {
        /// The server's URL, as the party names it.
        url: String,
    },
    /// Returns the samples of a member's paths of the last hour. Answered by [`Reply::Samples`].
    #[expect(missing_docs, reason = "the names say it")]
    Samples { party: PartyId, member: DeviceId },
    /// Checks everything that commonly goes wrong. Answered by [`Reply::Doctor`].
    Doctor,
    /// Ends the engine cleanly. Answered by [`Reply::Done`].
    Stop,
}

/// A command that the engine carries out itself, since only it has the sockets and the metrics registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(tag = "command", rename_all = "snake_case", rename_all_fields = "snake_case")]
pub enum EngineCommand {
    /// Connects to a server or relay now, whether or not it is in the settings. Answered by [`Reply::Pong`] with the
    /// round trip to it, or by an error that says what is wrong.
    TestServer {
        /// The server or relay to test.
        target: TestTarget,
    },
    /// Lists the ports that programs of this computer offer to a party, and those with a rule. Answered by
    /// [`Reply::OfferedPorts`].
    #[expect(missing_docs, reason = "the name says it")]
    OfferedPorts { party: PartyId },
    /// Returns what the process that hosts the engine has counted since its start. Answered by [`Reply::Metrics`].
    Metrics,
}

/// Everything that a client may ask of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(untagged)]
pub enum ClientCommand {
    /// A command that the node answers.
    Node(Command),
    /// A command that the engine answers itself.
    Engine(EngineCommand),
}

impl From<Command> for ClientCommand {
    fn from(command: Command) -> Self {
        Self::Node(command)
    }
}

impl From<EngineCommand> for ClientCommand {
    fn from(command: EngineCommand) -> Self {
        Self::Engine(command)
    }
}

impl PartialEq<Command> for ClientCommand {
    fn eq(&self, other: &Command) -> bool {
        matches!(self, Self::Node(command) if command == other)
    }
}

/// A server that [`EngineCommand::TestServer`] can test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "snake_case")]
pub enum TestTarget {
    /// A rendezvous server.
    Server {
        /// `wss://host`, or `ws://` where allowed.
        url: String,
    },
    /// A relay. Without a password it is used with the one in the settings.
    Relay {
        /// The relay and its credentials.
        relay: RelaySetting,
    },
}

/// The answer to a [`ClientCommand`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// The current state.
    Snapshot(Box<Snapshot>),
    /// A party was created.
    Created {
        /// The new party.
        party: PartyId,
        /// A link to invite friends with, valid for a day.
        link: String,
    },
    /// A party was joined.
    Joined {
        /// The party.
        party: PartyId,
    },
    /// An invite was created.
    Invite {
        /// The invite link: `https://<server>/join#…` where the party has a server, else `partyline://join/…`.
        link: String,
    },
    /// The contents of an invite.
    Preview(InvitePreview),
    /// A round trip was measured.
    Pong(PingSample),
    /// Samples, oldest first, at most 3,600.
    Samples(Vec<Sample>),
    /// The findings of a check-up.
    Doctor(Vec<DoctorFinding>),
    /// The ports of this computer, by protocol and number.
    OfferedPorts(Vec<OfferedPort>),
    /// The metrics of the process.
    Metrics {
        /// The metrics in the Prometheus text format.
        text: String,
    },
    /// The command was carried out.
    Done,
}

/// The contents of an invite link. Nothing of it is verified before joining.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct InvitePreview {
    /// The party that the invite leads to.
    pub party: PartyId,
    /// The party's name when the invite was created.
    pub name: String,
    /// The inviter's name when the invite was created.
    pub inviter: String,
    /// The number of members when the invite was created.
    pub members: u8,
    /// When the invite expires; `None` if it never does.
    pub expires: Option<Timestamp>,
    /// The role that the joiner gets.
    pub role: Role,
    /// The party's rendezvous servers.
    pub servers: Vec<String>,
    /// True if this computer is a member already.
    pub member: bool,
}

/// A measured round trip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PingSample {
    /// The round-trip time in milliseconds.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub rtt_ms: f32,
}

/// One finding of a check-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct DoctorFinding {
    /// What was checked.
    pub what: String,
    /// The state it is in.
    pub verdict: Verdict,
    /// Details, and what to do if something is wrong.
    pub note: String,
}

/// The state of something that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but could be better.
    Fair,
    /// It keeps something from working.
    Bad,
}
