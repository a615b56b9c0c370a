//! An engine with its local socket, from start to clean shutdown.

use std::{future::Future, time::Duration};

use partyline_engine::{Controller, Engine, RunningEngine};
use partyline_ipc::Server;
use partyline_model::{AppError, Command, ErrorCode};
use partyline_platform::EngineLock;
use tokio::{task::JoinHandle, time::timeout};

use crate::{Place, Settings};

/// How long the engine may take to leave servers, members and routers, and the last answers to reach their clients.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The computer's engine, offered on the local socket.
#[derive(Debug)]
pub struct Host {
    engine: RunningEngine,
    server: JoinHandle<()>,
    lock: EngineLock,
}

impl Host {
    /// Starts the engine and the local socket.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyRunning`] if this computer runs an engine already, and the errors of [`Engine::start`].
    pub async fn start(place: &Place, settings: &Settings) -> Result<Self, AppError> {
        Self::around(place, settings, Box::pin(Engine::start(settings.engine(place)))).await
    }

    /// Hosts the engine that a future starts. It is awaited last, when nothing else can fail.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn around(
        place: &Place,
        settings: &Settings,
        engine: impl Future<Output = Result<RunningEngine, AppError>>,
    ) -> Result<Self, AppError> {
        settings.directories(place).create()?;
        let lock = EngineLock::acquire(&settings.state_dir).inspect_err(|error| {
            tracing::debug!(directory = %settings.state_dir.display(), reason = %error, "engine lock not acquired");
        })?;
        let server = Server::bind(&place.endpoint(), settings.access())?;
        tracing::debug!(endpoint = %place.endpoint(), "local socket bound, starting the engine");
        let engine =
            engine.await.inspect_err(|error| tracing::error!(reason = %error, "the engine did not start"))?;
        let controller = &engine.controller;
        let server = tokio::spawn(server.serve(controller.calls(), controller.snapshots()));
        Ok(Self { engine, server, lock })
    }

    /// Returns a controller of the engine, for use within this process.
    #[must_use]
    pub fn controller(&self) -> Controller {
        self.engine.controller.clone()
    }

    /// Runs until `shutdown` completes or the engine ends, because a client stopped it or because it failed. Restores
    /// the network as it was before.
    ///
    /// # Errors
    /// The engine's error, or [`ErrorCode::Timeout`] if it did not end in time.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { engine: RunningEngine { controller, mut join }, mut server, lock } = self;
        let ended = tokio::select! {
            ended = &mut join => {
                tracing::info!(reason = "the engine has ended", "the service stops");
                ended
            }
            () = shutdown => {
                tracing::info!(reason = "asked to stop", "the service stops");
                match timeout(SHUTDOWN_TIMEOUT, stop(controller, &mut join)).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        tracing::error!(after_ms = SHUTDOWN_TIMEOUT.as_millis(), "the engine did not stop in time");
                        return Err(stuck());
                    }
                }
            }
        };
        // The last answers reach their clients before the process ends.
        if timeout(SHUTDOWN_TIMEOUT, &mut server).await.is_err() {
            tracing::debug!(
                after_ms = SHUTDOWN_TIMEOUT.as_millis(),
                "clients of the local socket did not go"
            );
        }
        server.abort();
        drop(lock);
        ended.unwrap_or_else(|_| Err(crashed()))
    }
}

type Ended = Result<Result<(), AppError>, tokio::task::JoinError>;

async fn stop(controller: Controller, join: &mut JoinHandle<Result<(), AppError>>) -> Ended {
    // An engine that has ended already cannot answer; its result is what counts.
    if let Err(error) = controller.request(Command::Stop).await {
        tracing::debug!(reason = %error, "the engine did not take the request to stop");
    }
    drop(controller);
    join.await
}

fn stuck() -> AppError {
    AppError::new(
        ErrorCode::Timeout,
        "Partyline's engine did not stop in time.",
        "Routes it left are removed when it starts again.",
    )
}

fn crashed() -> AppError {
    AppError::new(
        ErrorCode::Internal,
        "Partyline's engine crashed.",
        "Please report it with the log. Routes it left are removed when it starts again.",
    )
}
