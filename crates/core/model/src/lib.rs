//! The types that every part of Partyline shares: ids, candidates, the NAT profile, path kinds, settings, commands and
//! the snapshot that clients see.
//!
//! These types have no behavior beyond conversions and limits. Byte formats live in `partyline-wire`.
//!
//! ```
//! use partyline_model::{Badge, Filtering, Mapping, NatProfile};
//!
//! let nat = NatProfile {
//!     mapping: Some(Mapping::EndpointIndependent),
//!     filtering: Some(Filtering::AddressAndPortDependent),
//!     ..NatProfile::default()
//! };
//! assert_eq!(nat.badge(false), Some(Badge::PortRestricted));
//! assert_eq!(NatProfile::default().badge(false), None, "nothing is guessed");
//! ```

mod address;
mod candidate;
mod card;
mod control;
mod error;
mod id;
mod incoming;
mod nat;
mod network;
mod path;
mod quality;
mod service_port;
mod settings;
mod system_services;
mod time;
mod transport;
mod view;

pub use address::{AddressScope, HOST_PREFIX_LEN, host_network, is_public, is_shared, network_of};
pub use candidate::{Candidate, CandidateKind};
pub use card::{CardKind, RouteTarget};
pub use control::{
    ClientCommand, Command, DoctorFinding, EngineCommand, InviteLifetime, InvitePreview, InviteTerms,
    KickScope, PingSample, Reply, TestTarget, Verdict,
};
pub use error::{AppError, ErrorCode};
pub use id::{DeviceId, Handle, HandleKey, IdError, InviteId, PartyId, SessionNonce, Topic, TunnelPublicKey};
pub use incoming::{IncomingLevel, IncomingPolicy, OfferedPort, PortAccess, PortRule};
pub use nat::{Allocation, Badge, Filtering, Mapping, NatProfile, SharedNat};
pub use network::{CheckStep, CheckTopic, Confidence, NetworkReport, RouterCheck, ServerCheck, StepState};
pub use path::{Attempt, AttemptOutcome, Method, PathKind};
pub use quality::{Grade, Quality, Sample, Trend, score};
pub use service_port::{PortProtocol, ServicePort, ServicePortError};
pub use settings::{Methods, RelaySetting, Settings};
pub use time::{Now, Timestamp};
pub use transport::{SocketId, StreamId};
pub use view::{
    DeviceView, Discovery, FormerPartyView, InviteView, JoinRequestView, JoinWait, MemberNotices, MemberView,
    NetworkView, PartyPhase, PartyView, PathEvent, PathView, Phase, Role, ServerView, Snapshot, TrafficView,
};

/// Makes specta write `number` for fields that are never NaN. For a float it would write `number | null`.
#[cfg(feature = "specta")]
pub(crate) type Number = u32;
