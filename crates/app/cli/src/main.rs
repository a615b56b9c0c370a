//! partyline: parties from a terminal.
//!
//! [`arguments`] says what can be asked; [`reach`] finds the engine, in the service or in this process; [`select`] finds
//! the party and member that were meant; [`commands`] does it; the rest is what it looks like.

mod arguments;
mod commands;
mod config;
mod invites;
mod joiners;
mod live;
mod member;
mod names;
mod netcheck;
mod output;
mod ping;
mod ports;
mod progress;
mod reach;
mod reply;
mod select;
mod status;
mod table;
mod text;

use std::process::ExitCode;

use clap::Parser as _;
use partyline_telemetry::Logging;

use crate::{
    arguments::{Arguments, Verb},
    output::Output,
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    partyline_platform::hide_arguments(arguments.secrets());
    let _log = match &arguments.verb {
        Verb::Service { command } => command.log(arguments.verbose),
        _ => Logging::verbosity(arguments.verbose).start().ok(),
    };
    let output = Output::detect(arguments.json);
    match commands::run(arguments, &output).await {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            ExitCode::from(partyline_service::exit_code(error.code))
        }
    }
}
