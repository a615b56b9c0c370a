//! The program: reads its configuration, serves until a signal ends it, and explains what went wrong.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use partyline_server::{
    Server, StartError,
    config::{Args, Command, Config},
    platform::{ProcessSignal, Signals, raise_file_limit},
};
use partyline_telemetry::{LogGuard, Logging, Metrics, OtlpSettings};

/// Exit code for a configuration that cannot be used, as in sysexits(3).
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let args = Args::parse().with_environment();
    let logging = match start_logging(&args) {
        Ok(logging) => logging,
        Err(error) => return report(&*error, EX_CONFIG),
    };
    let config = match Config::load(&args) {
        Ok(config) => config,
        Err(error) => return report(&error, EX_CONFIG),
    };
    if let Some(Command::CheckConfig) = args.command {
        return describe(&config);
    }
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error, 1),
    };
    match runtime.block_on(run(config, &logging)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error, 1),
    }
}

/// Starts logging, and the export of traces and metrics if an endpoint is given.
fn start_logging(args: &Args) -> Result<LogGuard, Box<dyn std::error::Error>> {
    let logging = Logging::verbosity(args.verbose);
    let settings = args.otlp_endpoint.as_deref().map(OtlpSettings::with_endpoint).transpose()?.flatten();
    let logging = settings.into_iter().fold(logging, Logging::export_to);
    Ok(logging.start()?)
}

async fn run(config: Config, logging: &LogGuard) -> Result<(), StartError> {
    let failed = |cause| StartError::Contradiction(format!("signals cannot be handled: {cause}"));
    let mut signals = Signals::new().map_err(failed)?;
    let _ = Metrics::install();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let server = Server::start(config)?;
    logging.export_metrics(server.metrics());
    announce(&server);
    while signals.next().await == ProcessSignal::Reload {
        match server.reload() {
            Ok(()) => tracing::info!("certificate reloaded"),
            Err(error) => {
                tracing::error!(reason = %error, "certificate not reloaded; the old one stays in use")
            }
        }
    }
    tracing::info!("stopping");
    tokio::select! {
        () = server.stop() => {}
        () = stop_signal(&mut signals) => tracing::info!(reason = "second signal", "stopping at once"),
    }
    Ok(())
}

/// Waits for a signal to stop. A SIGHUP that arrives while the server is stopping has no meaning.
async fn stop_signal(signals: &mut Signals) {
    while signals.next().await != ProcessSignal::Stop {}
}

/// Prints one line per address to standard output, for people and for programs that start the server.
fn announce(server: &Server) {
    let scheme = if server.is_secure() { "wss" } else { "ws" };
    let mut lines: Vec<_> =
        server.addresses().iter().map(|address| format!("listening on {scheme}://{address}")).collect();
    lines.extend(server.admin_address().map(|address| format!("metrics on http://{address}/metrics")));
    lines.extend(server.relay_addresses().iter().map(|address| format!("relaying on udp://{address}")));
    // The pipe may be closed, which is no reason not to serve.
    let _ = writeln!(std::io::stdout().lock(), "{}", lines.join("\n"));
}

fn describe(config: &Config) -> ExitCode {
    let scheme = if config.tls.is_some() { "wss" } else { "ws" };
    let mut lines: Vec<_> =
        config.listen.iter().map(|address| format!("serves {scheme}://{address}")).collect();
    lines.extend(config.admin.map(|address| format!("metrics on http://{address}/metrics")));
    if let Some(relay) = &config.relay {
        let listen = relay.config.listen.iter();
        lines.extend(listen.map(|listen| format!("relays on udp {}", listen.public(relay.config.port))));
    }
    let verdict =
        if config.warnings().is_empty() { "The configuration is good." } else { "The configuration works." };
    lines.extend(config.warnings().iter().map(|warning| format!("warning: {warning}")));
    let _ = writeln!(std::io::stdout().lock(), "{}\n{verdict}", lines.join("\n"));
    ExitCode::SUCCESS
}

fn report(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "partyline-server: {error}");
    ExitCode::from(code)
}
