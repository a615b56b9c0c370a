//! Finds the engine: in the service, or, where the process may and there is no service, in this process.

use partyline_engine::Controller;
use partyline_ipc::{Connection, connect, reconnect};
use partyline_model::{AppError, ErrorCode};
use partyline_platform::may_create_devices;

use crate::{Host, Place, Settings, install::is_installed};

/// What to do where the system has the service, but it does not run.
const START: &str =
    "Start it with `sudo systemctl start partyline`; `journalctl -u partyline` tells why it has ended.";

/// An engine that was found.
#[derive(Debug)]
pub struct Reached {
    /// Drives it.
    pub controller: Controller,
    /// Set where this process hosts it.
    pub host: Option<Host>,
}

impl Reached {
    /// The service's engine; or one in this process, if it has the right and there is no service.
    ///
    /// # Errors
    /// As [`Place::connect`], and as [`Host::start`].
    pub async fn find(place: &Place, settings: &Settings) -> Result<Self, AppError> {
        match place.connect().await {
            Ok(controller) => Ok(Self { controller, host: None }),
            Err(error) if error.code == ErrorCode::ServiceUnreachable && may_create_devices().is_ok() => {
                Self::host(place, settings).await
            }
            Err(error) => Err(error),
        }
    }

    /// An engine in this process.
    ///
    /// # Errors
    /// A missing right, and as [`Host::start`].
    pub async fn host(place: &Place, settings: &Settings) -> Result<Self, AppError> {
        may_create_devices()?;
        let host = Host::start(place, settings).await?;
        Ok(Self { controller: host.controller(), host: Some(host) })
    }
}

impl Place {
    /// The service's engine.
    ///
    /// # Errors
    /// As [`partyline_ipc::connect`].
    pub async fn connect(&self) -> Result<Controller, AppError> {
        self.connection().await.map(controller)
    }

    /// The same with what the service says of itself.
    pub(crate) async fn connection(&self) -> Result<Connection, AppError> {
        connect(&self.endpoint()).await.map_err(|error| match error.code {
            ErrorCode::ServiceUnreachable if is_installed() => AppError { hint: START.into(), ..error },
            _ => error,
        })
    }

    /// The service's engine, as soon as there is one.
    ///
    /// # Errors
    /// Whatever waiting does not mend, such as a missing right.
    pub async fn reconnect(&self) -> Result<Controller, AppError> {
        reconnect(&self.endpoint()).await.map(controller)
    }
}

fn controller(connection: Connection) -> Controller {
    Controller::new(connection.calls, connection.snapshots)
}
