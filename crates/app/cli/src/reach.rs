//! Finds the engine, in the service or in this process.

use partyline_engine::Controller;
use partyline_model::{AppError, Command, Reply, Snapshot};
use partyline_service::{Reached, interrupted};

use crate::{arguments::Hosting, output::Output, reply::unexpected};

/// Keeps hosting the engine until Ctrl-C if this process does; otherwise returns at once.
pub async fn finish(reached: Reached) -> Result<(), AppError> {
    match reached.host {
        Some(host) => host.run_until(until_interrupted()).await,
        None => Ok(()),
    }
}

/// Requests the current state. The watched snapshots may be a moment behind.
pub async fn state(controller: &Controller) -> Result<Box<Snapshot>, AppError> {
    match controller.request(Command::Snapshot).await? {
        Reply::Snapshot(snapshot) => Ok(snapshot),
        other => Err(unexpected(&other)),
    }
}

/// Returns the service's engine, or one in this process: with `--foreground`, or if this process `stays` running anyway,
/// may make network devices, and no service runs.
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
        output.say("No service is running, so this process carries the party until Ctrl-C.");
    }
    Ok(reached)
}

/// Returns when the user interrupts the program.
pub async fn until_interrupted() {
    if interrupted().await.is_err() {
        std::future::pending::<()>().await;
    }
}
