//! The subcommands of `partyline-service` and `partyline service`.

use clap::Subcommand;
use partyline_engine::Controller;
use partyline_model::{AppError, Command};
use partyline_telemetry::{LogGuard, Logging, OtlpSettings};

use crate::{Host, InstallOptions, Place, Settings, install, signal::interrupted};

/// The level of [`Logging::verbosity`] without `-v`: a service logs what it does.
const BASE_VERBOSITY: u8 = 1;

/// Runs the service, or makes the system run it.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Run the service here until Ctrl-C or SIGTERM.
    Run {
        /// Where clients find the service.
        #[command(flatten)]
        place: Place,
        /// How the engine is run.
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Make the system start the service, now and at every start of the computer.
    Install(InstallOptions),
    /// Stop the service and remove it from the system. Parties and keys stay.
    Uninstall,
    /// Stop the running service. Where the system starts it, it starts again with the computer.
    Stop {
        /// Where the service is expected.
        #[command(flatten)]
        place: Place,
    },
    /// Show whether the service runs.
    Status {
        /// Where the service is expected.
        #[command(flatten)]
        place: Place,
    },
}

impl ServiceCommand {
    /// Starts logging at the info level, or by one level more for each `-v`; `run` logs into files, too, where it can, and
    /// exports over OTLP where a collector is configured. What keeps it from logging is written to standard error.
    #[must_use = "the last lines are lost without it"]
    pub fn log(&self, verbosity: u8) -> Option<LogGuard> {
        let terminal = Logging::verbosity(BASE_VERBOSITY.saturating_add(verbosity));
        let Self::Run { place, settings } = self else { return started(terminal) };
        let endpoint = settings.otlp_endpoint.as_deref().map(OtlpSettings::with_endpoint);
        let (terminal, problem) = match endpoint {
            Some(Ok(Some(otlp))) => (terminal.export_to(otlp), None),
            Some(Err(error)) => (terminal, Some(error)),
            Some(Ok(None)) | None => (terminal, None),
        };
        let guard = match terminal.clone().also_into(&settings.directories(place).log, "service").start() {
            Ok(guard) => Some(guard),
            Err(error) => {
                let guard = started(terminal);
                tracing::warn!(%error, "cannot log into files; logging to the terminal only");
                guard
            }
        };
        if let Some(error) = problem {
            tracing::warn!(%error, "OTLP export is off");
        }
        guard
    }

    /// Executes the subcommand.
    ///
    /// # Errors
    /// What went wrong and what to do about it.
    pub async fn execute(self) -> Result<(), AppError> {
        match self {
            Self::Run { place, settings } => run(&place, &settings).await,
            Self::Install(options) => install::install(&options),
            Self::Uninstall => install::uninstall(),
            Self::Stop { place } => stop(&place).await,
            Self::Status { place } => status(&place).await,
        }
    }
}

fn started(logging: Logging) -> Option<LogGuard> {
    logging.start().inspect_err(|error| eprintln!("Nothing is logged: {error}.")).ok()
}

async fn run(place: &Place, settings: &Settings) -> Result<(), AppError> {
    let host = Host::start(place, settings).await?;
    tracing::info!(endpoint = %place.endpoint(), "the service is ready");
    supervisor::ready();
    host.run_until(async {
        if let Err(error) = interrupted().await {
            tracing::error!(%error, "cannot wait for signals");
        }
        supervisor::stopping();
    })
    .await
}

/// Stops the service and returns when it has cleaned up, or at least closed its socket.
async fn stop(place: &Place) -> Result<(), AppError> {
    let connection = place.connection().await?;
    let mut snapshots = connection.snapshots;
    Controller::new(connection.calls, snapshots.clone()).request(Command::Stop).await?;
    tracing::debug!(reason = "it was asked to stop", "waiting for the service to end");
    while snapshots.changed().await.is_ok() {}
    println!("stopped");
    Ok(())
}

async fn status(place: &Place) -> Result<(), AppError> {
    let connection = place.connection().await?;
    tracing::debug!(software = connection.software, "the service answered");
    let snapshot = connection.snapshots.borrow();
    let parties = snapshot.parties.len();
    println!(
        "running: {}, {parties} {}",
        connection.software,
        if parties == 1 { "party" } else { "parties" }
    );
    Ok(())
}

#[cfg(target_os = "linux")]
mod supervisor {
    //! Notifies systemd of the service's state (sd_notify).

    use sd_notify::NotifyState;

    pub fn ready() {
        notify(NotifyState::Ready);
    }

    pub fn stopping() {
        notify(NotifyState::Stopping);
    }

    fn notify(state: NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::debug!(%error, "systemd could not be notified");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod supervisor {
    //! Other systems expect no notification.

    pub const fn ready() {}

    pub const fn stopping() {}
}
