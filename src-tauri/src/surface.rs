//! Types of the user interface besides the engine's own: where the engine runs, and events.

use partyline_model::{AppError, PartyId, Snapshot};
use serde::{Deserialize, Serialize};
use specta::Type;
use tauri_specta::Event;

/// Where the engine runs, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Backing {
    /// Where the engine runs.
    pub kind: BackingKind,
    /// Why there is no engine, and what to do; `None` while it is being looked for. `start_service` solves
    /// `service_unreachable`.
    pub problem: Option<AppError>,
}

/// Where the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum BackingKind {
    /// In this process, which may make network devices.
    Embedded,
    /// In the service.
    Service,
    /// Nowhere.
    None,
}

/// A page of the user interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(tag = "page", rename_all = "snake_case")]
pub enum Route {
    /// The start page.
    Home,
    /// A party.
    Party {
        /// The party shown.
        party: PartyId,
    },
}

/// The engine's state changed. At most ten per second, and none while the window is hidden.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct SnapshotChanged(pub Snapshot);

/// The engine runs in another place now, or was lost.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct BackingChanged(pub Backing);

/// An invite link was opened. It stays available until `take_link` is called.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct LinkArrived(pub String);

/// The tray asks for a page.
#[derive(Debug, Clone, Serialize, Deserialize, Type, Event)]
pub struct Navigate(pub Route);
