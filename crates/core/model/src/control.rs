//! What clients may ask of the engine, and what it answers. The local socket carries exactly these.

use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, InviteId, PartyId, RelaySetting, Role, Sample, Settings, Snapshot, Timestamp};

/// How long an invite can be used.
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
    /// The span, or `None` for ever.
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

/// A command that the node carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(tag = "command", rename_all = "snake_case", rename_all_fields = "snake_case")]
pub enum Command {
    /// The current snapshot. Answered by [`Reply::Snapshot`].
    Snapshot,
    /// Make a party and switch it on. Answered by [`Reply::Created`].
    Create {
        /// The party's name, 1 to 40 characters.
        name: String,
        /// The name friends will see, 1 to 32 characters.
        display_name: String,
        /// Rendezvous servers (`wss://…`, or `ws://` where allowed); empty means the configured ones.
        servers: Vec<String>,
        /// Address range; `None` chooses one that collides with no local route.
        #[cfg_attr(feature = "specta", specta(type = Option<String>))]
        range: Option<Ipv4Net>,
    },
    /// What an invite link says, without using it. Answered by [`Reply::Preview`].
    Preview {
        /// The link.
        link: String,
    },
    /// Join with an invite link and switch the party on. Answered by [`Reply::Joined`].
    Join {
        /// The link.
        link: String,
        /// The name friends will see, 1 to 32 characters.
        display_name: String,
    },
    /// Make an invite. Answered by [`Reply::Invite`].
    Invite {
        /// For which party.
        party: PartyId,
        /// For how long.
        lifetime: InviteLifetime,
        /// What it makes of the joiner; never `Owner`.
        role: Role,
    },
    /// Take an invite back. Answered by [`Reply::Done`].
    Revoke {
        /// Of which party.
        party: PartyId,
        /// Which.
        invite: InviteId,
    },
    /// Leave a party for good. Answered by [`Reply::Done`].
    Leave {
        /// Which.
        party: PartyId,
    },
    /// Remove a member, and change the party's secret so that it stays removed. Answered by [`Reply::Done`].
    Kick {
        /// From which party.
        party: PartyId,
        /// Whom.
        member: DeviceId,
    },
    /// Switch a party on. Answered by [`Reply::Done`].
    Up {
        /// Which.
        party: PartyId,
    },
    /// Switch a party off, without leaving it. Answered by [`Reply::Done`].
    Down {
        /// Which.
        party: PartyId,
    },
    /// Move the party to another address range; only its owner may. Answered by [`Reply::Done`].
    SetRange {
        /// Which party.
        party: PartyId,
        /// A private IPv4 range, prefix 16 to 28.
        #[cfg_attr(feature = "specta", specta(type = String))]
        range: Ipv4Net,
    },
    /// One round trip to a member through the tunnel. Answered by [`Reply::Pong`].
    Ping {
        /// In which party.
        party: PartyId,
        /// Whom.
        member: DeviceId,
    },
    /// Measures the paths to members now, for somebody who looks at them; otherwise idle paths are measured every 15 s. Skips
    /// members beyond the first 32 and paths that were measured within the last second. Answered by [`Reply::Done`].
    MeasurePaths {
        /// In which party.
        party: PartyId,
        /// Whose paths.
        members: Vec<DeviceId>,
    },
    /// Measure the network again; how it goes is in the snapshots' [`crate::NetworkReport`]. Answered by
    /// [`Reply::Done`].
    Netcheck {
        /// STUN servers to ask besides the parties' own (`host` or `host:port`), at most 8.
        stun: Vec<String>,
    },
    /// Set what the user may decide; kept across restarts, and applied at once. Another `port` needs a new socket, so
    /// that all paths are found anew. Answered by [`Reply::Done`], or an error that changes nothing.
    Configure {
        /// All of it. Relays without a password keep the one that is known.
        settings: Box<Settings>,
    },
    /// What was measured of a member's paths in the last hour. Answered by [`Reply::Samples`].
    Samples {
        /// In which party.
        party: PartyId,
        /// Whose.
        member: DeviceId,
    },
    /// Check everything that commonly goes wrong. Answered by [`Reply::Doctor`].
    Doctor,
    /// End the engine cleanly. Answered by [`Reply::Done`].
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
    /// A party was made.
    Created {
        /// Which.
        party: PartyId,
        /// A link to invite friends with, valid for a day.
        link: String,
    },
    /// A party was joined.
    Joined {
        /// Which.
        party: PartyId,
    },
    /// An invite link.
    Invite {
        /// As `https://<server>/join#…` where the party has a server, else `partyline://join/…`.
        link: String,
    },
    /// What an invite says.
    Preview(InvitePreview),
    /// A round trip was made.
    Pong(PingSample),
    /// Round trips, oldest first, at most 3,600.
    Samples(Vec<Sample>),
    /// What the check-up found.
    Doctor(Vec<DoctorFinding>),
    /// What was counted.
    Metrics {
        /// In the Prometheus text format.
        text: String,
    },
    /// It is done.
    Done,
}

/// What an invite says of its party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct InvitePreview {
    /// Of which party.
    pub party: PartyId,
    /// The party's name when the invite was made.
    pub name: String,
    /// What the inviter was called then.
    pub inviter: String,
    /// How many members there were then.
    pub members: u8,
    /// Past which it cannot be used; `None` for ever.
    pub expires: Option<Timestamp>,
    /// What the joiner becomes.
    pub role: Role,
    /// Rendezvous servers.
    pub servers: Vec<String>,
    /// Whether this computer is in the party already.
    pub member: bool,
}

/// One round trip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct PingSample {
    /// In milliseconds.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub rtt_ms: f32,
}

/// One line of a check-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct DoctorFinding {
    /// What was looked at.
    pub what: String,
    /// How it is.
    pub verdict: Verdict,
    /// Details, and what to do where something is wrong.
    pub note: String,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, could be better.
    Fair,
    /// Keeps something from working.
    Bad,
}
