//! partyline-service: the privileged host of the engine.

use std::process::ExitCode;

use clap::Parser;
use partyline_service::{ServiceCommand, exit_code};

/// Hosts Partyline's engine and serves the app and the command line over a local socket.
///
/// Exit codes: 0 ok, 1 failure, 2 usage, 3 service unreachable, 4 not permitted.
#[derive(Debug, Parser)]
#[command(name = "partyline-service", version)]
struct Options {
    #[command(subcommand)]
    command: ServiceCommand,
    /// Log the reasons; twice for every packet.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { command, verbose } = Options::parse();
    let _log = command.log(verbose);
    match command.execute().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("partyline-service: {error}\n  {}", error.hint);
            ExitCode::from(exit_code(error.code))
        }
    }
}
