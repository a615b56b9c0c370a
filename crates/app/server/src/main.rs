//! The program: reads its configuration, serves until it is told to stop, and says plainly what went wrong.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use partyline_server::{
    Server, StartError,
    config::{Args, Command, Config},
    platform::{Signals, Wish, raise_file_limit},
};
use partyline_telemetry::Logging;

/// Exit code for a configuration that cannot be used; as sysexits(3) has it.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let args = Args::parse().with_environment();
    let _logging = Logging::verbosity(args.verbose).start();
    let config = match Config::load(&args) {
        Ok(config) => config,
        Err(error) => return complain(&error, EX_CONFIG),
    };
    if let Some(Command::CheckConfig) = args.command {
        return describe(&config);
    }
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

async fn run(config: Config) -> Result<(), StartError> {
    let wrong = |cause| StartError::Contradiction(format!("signals cannot be handled: {cause}"));
    let mut signals = Signals::new().map_err(wrong)?;
    let server = Server::start(config)?;
    announce(&server);
    while signals.next().await == Wish::Reload {
        match server.reload() {
            Ok(()) => tracing::info!("read the certificate again"),
            Err(error) => tracing::error!("the old certificate stays in use: {error}"),
        }
    }
    tracing::info!("stopping");
    tokio::select! {
        () = server.stop() => {}
        _ = signals.next() => tracing::info!("told twice, so stopping at once"),
    }
    Ok(())
}

/// One line per address on standard output, for people and for programs that start the server.
fn announce(server: &Server) {
    let scheme = if server.is_secure() { "wss" } else { "ws" };
    let mut lines: Vec<_> =
        server.addresses().iter().map(|address| format!("listening on {scheme}://{address}")).collect();
    lines.extend(server.admin_address().map(|address| format!("figures on http://{address}/metrics")));
    lines.extend(server.relay_addresses().iter().map(|address| format!("relaying on udp://{address}")));
    // Whoever started it may have closed the pipe; that is no reason not to serve.
    let _ = writeln!(std::io::stdout().lock(), "{}", lines.join("\n"));
}

fn describe(config: &Config) -> ExitCode {
    let scheme = if config.tls.is_some() { "wss" } else { "ws" };
    let mut lines: Vec<_> =
        config.listen.iter().map(|address| format!("serves {scheme}://{address}")).collect();
    lines.extend(config.admin.map(|address| format!("figures on http://{address}/metrics")));
    if let Some(relay) = &config.relay {
        let listen = relay.config.listen.iter();
        lines.extend(listen.map(|listen| format!("relays on udp {}", listen.public(relay.config.port))));
    }
    let _ = writeln!(std::io::stdout().lock(), "{}\nThe configuration is good.", lines.join("\n"));
    ExitCode::SUCCESS
}

fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "partyline-server: {error}");
    ExitCode::from(code)
}
