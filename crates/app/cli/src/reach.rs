//! Finds the engine: in the service, or, where asked or allowed, in this process.

use partyline_engine::Controller;
use partyline_ipc::{connect, reconnect};
use partyline_model::{AppError, Command, ErrorCode, Reply, Snapshot};
use partyline_platform::may_create_devices;
use partyline_service::{Host, Place, interrupted};

use crate::{arguments::Hosting, commands::unexpected, output::Output};

/// An engine that was found.
pub struct Reached {
    pub controller: Controller,
    /// Set where this process hosts it.
    pub host: Option<Host>,
}

impl Reached {
    /// Has a command carried out.
    pub async fn request(&self, command: Command) -> Result<Reply, AppError> {
        self.controller.request(command).await
    }

    /// Goes on after the command's work is done: as the host until Ctrl-C, else not at all.
    pub async fn finish(self) -> Result<(), AppError> {
        match self.host {
            Some(host) => host.run_until(until_interrupted()).await,
            None => Ok(()),
        }
    }
}

/// The service's engine.
pub async fn service(place: &Place) -> Result<Controller, AppError> {
    connect(&place.endpoint()).await.map(controller)
}

/// The service's engine, as soon as there is one.
pub async fn service_again(place: &Place) -> Result<Controller, AppError> {
    reconnect(&place.endpoint()).await.map(controller)
}

/// The engine's state with everything that was done before; the watched snapshots may be a moment behind.
pub async fn state(controller: &Controller) -> Result<Box<Snapshot>, AppError> {
    match controller.request(Command::Snapshot).await? {
        Reply::Snapshot(snapshot) => Ok(snapshot),
        other => Err(unexpected(&other)),
    }
}

/// The service's engine, or one in this process: if `--foreground` says so, or if this process `stays` anyway, has the
/// right, and there is no service.
pub async fn engine(hosting: &Hosting, stays: bool, output: &Output) -> Result<Reached, AppError> {
    if hosting.foreground {
        return host(hosting).await;
    }
    match service(&hosting.place).await {
        Ok(controller) => Ok(Reached { controller, host: None }),
        Err(error)
            if stays && error.code == ErrorCode::ServiceUnreachable && may_create_devices().is_ok() =>
        {
            output.say("No service runs, so this process carries the party until Ctrl-C.");
            host(hosting).await
        }
        Err(error) => Err(error),
    }
}

/// Ends when the user asks to stop.
pub async fn until_interrupted() {
    if interrupted().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn host(hosting: &Hosting) -> Result<Reached, AppError> {
    may_create_devices()?;
    let host = Host::start(&hosting.place, &hosting.settings).await?;
    Ok(Reached { controller: host.controller(), host: Some(host) })
}

fn controller(connection: partyline_ipc::Connection) -> Controller {
    Controller::new(connection.calls, connection.snapshots)
}
