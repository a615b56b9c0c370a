//! Asks the engine that the service or this process has.

use partyline_engine::Controller;
use partyline_model::{AppError, Command, Reply, Snapshot};
use partyline_service::{Reached, interrupted};

use crate::{arguments::Hosting, commands::unexpected, output::Output};

/// Goes on after a command's work is done: as the host until Ctrl-C, else not at all.
pub async fn finish(reached: Reached) -> Result<(), AppError> {
    match reached.host {
        Some(host) => host.run_until(until_interrupted()).await,
        None => Ok(()),
    }
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
    let Hosting { foreground, place, settings } = hosting;
    if *foreground {
        return Reached::host(place, settings).await;
    }
    if !stays {
        return Ok(Reached { controller: place.connect().await?, host: None });
    }
    let reached = Reached::find(place, settings).await?;
    if reached.host.is_some() {
        output.say("No service runs, so this process carries the party until Ctrl-C.");
    }
    Ok(reached)
}

/// Ends when the user asks to stop.
pub async fn until_interrupted() {
    if interrupted().await.is_err() {
        std::future::pending::<()>().await;
    }
}
