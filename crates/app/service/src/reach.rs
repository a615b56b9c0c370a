//! Finds the engine: the service's, or one in this process where there is no service and the process has the right.

use partyline_engine::Controller;
use partyline_ipc::{Connection, connect, reconnect};
use partyline_model::{AppError, ErrorCode};
use partyline_platform::check_device_permission;

use crate::{Host, Place, Settings, install::is_installed};

/// The hint where the service is installed, but does not run.
const START_HINT: &str =
    "Start it with `sudo systemctl start partyline`; `journalctl -u partyline` tells why it has ended.";

/// An engine, in the service or in this process.
#[derive(Debug)]
pub struct Reached {
    /// Drives the engine.
    pub controller: Controller,
    /// The host, if the engine runs in this process.
    pub host: Option<Host>,
}

impl Reached {
    /// Connects to the service's engine, or hosts one in this process if there is no service and it has the right.
    ///
    /// # Errors
    /// As for [`Place::connect`] and [`Host::start`].
    pub async fn find(place: &Place, settings: &Settings) -> Result<Self, AppError> {
        match place.connect().await {
            Ok(controller) => {
                tracing::debug!(endpoint = %place.endpoint(), "using the service's engine");
                Ok(Self { controller, host: None })
            }
            Err(error)
                if error.code == ErrorCode::ServiceUnreachable && check_device_permission().is_ok() =>
            {
                tracing::info!(reason = %error, "hosting an engine in this process");
                Self::host(place, settings).await
            }
            Err(error) => Err(error),
        }
    }

    /// Hosts an engine in this process.
    ///
    /// # Errors
    /// A missing right, and as for [`Host::start`].
    pub async fn host(place: &Place, settings: &Settings) -> Result<Self, AppError> {
        check_device_permission()?;
        let host = Host::start(place, settings).await?;
        Ok(Self { controller: host.controller(), host: Some(host) })
    }
}

impl Place {
    /// Connects to the service's engine.
    ///
    /// # Errors
    /// As for [`partyline_ipc::connect`].
    pub async fn connect(&self) -> Result<Controller, AppError> {
        self.connection().await.map(controller)
    }

    /// Connects to the service, and returns what it says of itself, too.
    pub(crate) async fn connection(&self) -> Result<Connection, AppError> {
        connect(&self.endpoint()).await.map_err(|error| {
            tracing::debug!(endpoint = %self.endpoint(), reason = %error, "the service was not reached");
            match error.code {
                ErrorCode::ServiceUnreachable if is_installed() => {
                    AppError { hint: START_HINT.into(), ..error }
                }
                _ => error,
            }
        })
    }

    /// Connects to the service's engine as soon as there is one.
    ///
    /// # Errors
    /// Errors that do not pass by waiting, such as a missing right.
    pub async fn reconnect(&self) -> Result<Controller, AppError> {
        reconnect(&self.endpoint()).await.map(controller)
    }
}

fn controller(connection: Connection) -> Controller {
    Controller::new(connection.calls, connection.snapshots)
}
