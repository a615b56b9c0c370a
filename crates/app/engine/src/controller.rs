//! The handle that drives an engine.
//!
//! An engine takes calls from a channel and shows its state in a watched snapshot. A client of the local socket
//! offers the same two ends, so one [`Controller`] serves both, and its users do not depend on whether the engine
//! runs in this process or in the service.

use std::sync::Arc;

use partyline_model::{AppError, ClientCommand, ErrorCode, Reply, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};

/// A command, and the channel for its reply.
pub type Call = (ClientCommand, oneshot::Sender<Result<Reply, AppError>>);

/// Drives an engine, whether it runs in this process or in the service. Clones drive the same engine.
#[derive(Debug, Clone)]
pub struct Controller {
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Controller {
    /// Makes a controller of the engine that takes these calls and publishes these snapshots.
    #[must_use]
    pub const fn new(calls: mpsc::Sender<Call>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { calls, snapshots }
    }

    /// Has a command carried out and returns its reply. Calls may overlap; each gets its own reply.
    ///
    /// # Errors
    /// The engine's error, or [`ErrorCode::ServiceUnreachable`] if it ended before it answered.
    pub async fn request(&self, command: impl Into<ClientCommand>) -> Result<Reply, AppError> {
        let (answer, answered) = oneshot::channel();
        self.calls.send((command.into(), answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Watches the engine's state: the present snapshot at once, then every change. It closes when the engine ends.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Returns the queue of calls, for a server that forwards those of its own clients.
    #[must_use]
    pub fn calls(&self) -> mpsc::Sender<Call> {
        self.calls.clone()
    }
}

fn stopped() -> AppError {
    AppError::new(
        ErrorCode::ServiceUnreachable,
        "Partyline's engine has stopped.",
        "Start it again, for example with `partyline service run`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use partyline_model::{Command, DeviceId, DeviceView, NetworkView, Phase};

    fn snapshot() -> Arc<Snapshot> {
        Arc::new(Snapshot {
            revision: 1,
            phase: Phase::Ready,
            device: DeviceView { id: DeviceId([7; 32]), version: "0".into() },
            parties: Vec::new(),
            former_parties: Vec::new(),
            network: NetworkView::default(),
            settings: partyline_model::Settings::default(),
        })
    }

    #[tokio::test]
    async fn each_call_gets_its_own_answer() {
        let (calls, mut inbox) = mpsc::channel::<Call>(4);
        let (_state, watched) = watch::channel(snapshot());
        let controller = Controller::new(calls, watched);
        let engine = tokio::spawn(async move {
            let (first, first_answer) = inbox.recv().await.expect("a call");
            let (_, second_answer) = inbox.recv().await.expect("a call");
            second_answer.send(Ok(Reply::Done)).expect("a caller");
            first_answer.send(Ok(Reply::Doctor(Vec::new()))).expect("a caller");
            first
        });
        let (doctor, done) =
            tokio::join!(controller.request(Command::Doctor), controller.request(Command::Stop));
        assert_eq!(doctor, Ok(Reply::Doctor(Vec::new())));
        assert_eq!(done, Ok(Reply::Done));
        assert_eq!(engine.await.expect("an engine"), Command::Doctor);
    }

    #[tokio::test]
    async fn requests_to_an_engine_that_has_ended_fail_at_once() {
        let (calls, inbox) = mpsc::channel::<Call>(4);
        let (_state, watched) = watch::channel(snapshot());
        drop(inbox);
        let error = Controller::new(calls, watched).request(Command::Doctor).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ServiceUnreachable);
    }
}
