//! The privileged host of the engine.
//!
//! [`Host`] runs one engine per computer and offers it on the local socket; it takes commands from there and nothing
//! else: no file paths, no command lines. [`ServiceCommand`] is the program around it, shared by `partyline-service`
//! and `partyline service`, which also makes the system start it.

mod command;
mod exit;
mod host;
mod install;
mod name;
mod reach;
mod settings;
mod signal;

pub use command::{InstallOptions, ServiceCommand};
pub use exit::exit_code;
pub use host::Host;
pub use install::start_with_consent;
pub use name::own_name;
pub use reach::Reached;
pub use settings::{Place, Settings, Switch};
pub use signal::interrupted;
