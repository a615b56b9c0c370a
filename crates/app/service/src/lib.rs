//! The privileged host of the engine.
//!
//! [`Host`] runs the computer's one engine and offers it on the local socket. It accepts commands from there, but no file
//! paths and no command lines. [`ServiceCommand`] is the program around it, shared by `partyline-service` and
//! `partyline service`; it also installs the service.

mod command;
mod exit;
mod host;
mod install;
mod install_options;
mod name;
mod programs;
mod reach;
mod settings;
mod signal;

pub use command::ServiceCommand;
pub use exit::exit_code;
pub use host::Host;
pub use install::start_with_consent;
pub use install_options::InstallOptions;
pub use name::own_name;
pub use programs::name_programs;
pub use reach::Reached;
pub use settings::{Place, Settings, Switch};
pub use signal::interrupted;
