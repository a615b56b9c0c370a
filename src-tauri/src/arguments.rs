//! The command line of the app.

use clap::Parser;
use partyline_service::{Place, Settings};

/// Partyline: a LAN for you and your friends, in a window.
///
/// Exit codes: 0 ok, 1 failure, 2 usage, 8 no display.
#[derive(Debug, Parser)]
#[command(name = "partyline-app", version)]
pub struct Arguments {
    /// An invite link to open (`partyline://join/…`).
    pub links: Vec<String>,
    /// Start without the window; the tray opens it.
    #[arg(long)]
    pub minimised: bool,
    /// Log more; twice for the reasons.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Where the service is found.
    #[command(flatten)]
    pub place: Place,
    /// Settings of an engine in this process.
    #[command(flatten)]
    pub settings: Settings,
}
