//! The words every part of Partyline shares.
//!
//! Nothing here does anything: these are the ids, measurements and views that the core, the I/O crates, the
//! programs and the user interface all speak about. Wire formats live in `partyline-wire`.

mod candidate;
mod control;
mod error;
mod id;
mod nat;
mod network;
mod path;
mod quality;
mod settings;
mod time;
mod transport;
mod view;

pub use candidate::{Candidate, CandidateKind};
pub use control::{
    ClientCommand, Command, DoctorFinding, EngineCommand, InviteLifetime, InvitePreview, PingSample, Reply,
    TestTarget, Verdict,
};
pub use error::{AppError, ErrorCode};
pub use id::{DeviceId, Handle, IdError, InviteId, PartyId, SessionNonce, Topic, TunnelPublicKey};
pub use nat::{Allocation, Badge, Filtering, Mapping, NatProfile};
pub use network::{CheckStep, CheckTopic, Confidence, NetworkReport, RouterCheck, ServerCheck, StepState};
pub use path::{Attempt, AttemptOutcome, Method, PathKind};
pub use quality::{Grade, Quality, Sample, Trend, score};
pub use settings::{Methods, RelaySetting, Settings};
pub use time::{Now, Timestamp};
pub use transport::{SocketId, StreamId};
pub use view::{
    DeviceView, InviteView, MemberView, NetworkView, PartyPhase, PartyView, PathEvent, PathView, Phase, Role,
    ServerView, Snapshot, TrafficView,
};

/// What TypeScript writes as `number`, for fields that are never NaN: of a float it would write `number | null`.
#[cfg(feature = "specta")]
pub(crate) type Number = u32;
