//! The service's side: listens, checks who connects, and serves a bounded number of clients.

use std::{io, sync::Arc, time::Duration};

use interprocess::local_socket::{
    tokio::{Listener, Stream},
    traits::tokio::Listener as _,
};
use metrics::counter;
use partyline_model::{AppError, ErrorCode, Snapshot};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{Access, Call, Endpoint, session, stream::StreamError};

/// The most clients served at once.
pub const MAX_CLIENTS: usize = 64;

/// The most clients that are told at once why they are not served; others are just closed.
const MAX_REFUSALS: usize = 8;

/// How long clients may take to read their last answers when the engine has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// A local socket that is listened on.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    access: Access,
}

impl Server {
    /// Starts to listen; clients wait until [`Self::serve`] is called. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyRunning`] if another service listens, otherwise what the system says.
    pub fn bind(endpoint: &Endpoint, access: Access) -> Result<Self, AppError> {
        let listener = endpoint.listen().map_err(|error| not_listening(endpoint, &error))?;
        Ok(Self { listener, access: access.allow_owner(endpoint) })
    }

    /// Serves clients until the engine ends, which is when the snapshots' sender is dropped. The socket is removed
    /// when this future ends or is dropped.
    pub async fn serve(self, calls: mpsc::Sender<Call>, snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut sessions = JoinSet::new();
        let mut refusals = JoinSet::new();
        let mut engine = snapshots.clone();
        loop {
            tokio::select! {
                () = ended(&mut engine) => break,
                Some(_) = sessions.join_next() => {}
                Some(_) = refusals.join_next() => {}
                accepted = self.listener.accept() => match accepted.map(|stream| self.admit(stream, sessions.len())) {
                    Ok(Ok(stream)) => {
                        sessions.spawn(serve_one(stream, calls.clone(), snapshots.clone()));
                    }
                    Ok(Err((stream, why))) if refusals.len() < MAX_REFUSALS => {
                        refusals.spawn(async move { session::refuse(&stream, why).await });
                    }
                    Ok(Err(_)) => {}
                    Err(error) => rest(&error).await,
                },
            }
        }
        drop(self.listener);
        let _ = timeout(FAREWELL, sessions.join_all()).await;
    }

    fn admit(&self, stream: Stream, clients: usize) -> Result<Stream, (Stream, AppError)> {
        let verdict = if clients < MAX_CLIENTS { self.access.check(&stream) } else { Err(full()) };
        match verdict {
            Ok(()) => Ok(stream),
            Err(why) => {
                counter!("partyline_ipc_refused_total").increment(1);
                tracing::warn!(%why, "a client was refused");
                Err((stream, why))
            }
        }
    }
}

async fn serve_one(stream: Stream, calls: mpsc::Sender<Call>, snapshots: watch::Receiver<Arc<Snapshot>>) {
    counter!("partyline_ipc_clients_total").increment(1);
    match session::serve(&stream, calls, snapshots).await {
        Ok(()) | Err(StreamError::Closed) => tracing::debug!("a client left"),
        Err(error) => {
            counter!("partyline_ipc_broken_total").increment(1);
            tracing::debug!(%error, "a client was dropped");
        }
    }
}

async fn ended(snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {}
}

/// Too many open files and the like pass; trying at once would only spin.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a client");
    sleep(Duration::from_millis(100)).await;
}

fn full() -> AppError {
    AppError::new(
        ErrorCode::ServiceUnreachable,
        format!("The Partyline service already has {MAX_CLIENTS} clients."),
        "Close one of them, for example a `partyline status --watch`.",
    )
}

fn not_listening(endpoint: &Endpoint, error: &io::Error) -> AppError {
    match error.kind() {
        io::ErrorKind::AddrInUse => AppError::new(
            ErrorCode::AlreadyRunning,
            format!("Partyline already runs: something answers at {endpoint}."),
            "Use the one that runs, or stop it first.",
        ),
        io::ErrorKind::PermissionDenied => AppError::new(
            ErrorCode::PermissionDenied,
            format!("Partyline may not listen at {endpoint}."),
            "Run it as root, for example with sudo.",
        ),
        _ => AppError::new(
            ErrorCode::Internal,
            format!("Partyline cannot listen at {endpoint}: {error}."),
            "Check that the directory exists and its disk is not full.",
        ),
    }
}
