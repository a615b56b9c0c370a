//! What the user interface sees besides the engine's own types: who carries the parties, and events.

use partyline_model::{AppError, PartyId, Snapshot};
use serde::{Deserialize, Serialize};
use specta::Type;
use tauri_specta::Event;

/// Who carries the parties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Backing {
    /// Where the engine runs.
    pub kind: BackingKind,
    /// Why there is none, and what to do about it; none where it is still being looked for. `service_unreachable` is
    /// mended by `start_service`, other problems may be gone when it is tried.
    pub problem: Option<AppError>,
}

/// Where the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum BackingKind {
    /// In this process, which has the right to make network devices.
    Embedded,
    /// In the service.
    Service,
    /// Nowhere.
    None,
}

/// A place in the user interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(tag = "page", rename_all = "snake_case")]
pub enum Route {
    /// What is shown first.
    Home,
    /// A party.
    Party {
        /// Which.
        party: PartyId,
    },
}

/// The engine's state has changed; at most ten a second, and none while the window is hidden.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct SnapshotChanged(pub Snapshot);

/// Somebody else carries the parties now, or nobody.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct BackingChanged(pub Backing);

/// An invite link was opened while the app ran. It is kept until `take_link` takes it.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct LinkArrived(pub String);

/// The tray asks for a place.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct Navigate(pub Route);
