//! The service's side: listens, checks the users of clients, and serves a bounded number of them.

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
use tracing::{Instrument as _, debug, debug_span, warn};

use crate::{Access, Call, Endpoint, access::Client, session, stream::StreamError};

/// The most clients served at once.
pub const MAX_CLIENTS: usize = 64;

/// The most clients that are sent the reason of their refusal at once; the connections of others are just closed.
const MAX_CONCURRENT_REFUSALS: usize = 8;

/// Bounds the time for clients to read their last replies when the engine has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The delay after an error of accepting connections.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A listening local socket.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    access: Arc<Access>,
}

impl Server {
    /// Starts to listen; clients wait until [`Self::serve`] is called. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyRunning`] if another service listens, [`ErrorCode::PermissionDenied`] if this process may not
    /// listen there, else [`ErrorCode::Internal`].
    pub fn bind(endpoint: &Endpoint, access: Access) -> Result<Self, AppError> {
        let listener = endpoint.listen().map_err(|error| not_listening(endpoint, &error))?;
        debug!(%endpoint, "listening for clients");
        Ok(Self { listener, access: Arc::new(access.allow_owner(endpoint)) })
    }

    /// Serves clients until the engine ends, which is when the snapshots' sender is dropped. The socket is removed
    /// when this future ends or is dropped.
    pub async fn serve(self, calls: mpsc::Sender<Call>, snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut sessions = JoinSet::new();
        let mut refusals = JoinSet::new();
        let mut engine = snapshots.clone();
        let mut clients = 0_u64;
        loop {
            tokio::select! {
                () = ended(&mut engine) => break,
                Some(_) = sessions.join_next() => {}
                Some(_) = refusals.join_next() => {}
                accepted = self.listener.accept() => match accepted.map(|stream| self.admit(stream, sessions.len())) {
                    Ok(Ok((stream, client))) => {
                        clients += 1;
                        let session = serve_one(stream, client, calls.clone(), snapshots.clone());
                        sessions.spawn(session.instrument(debug_span!("ipc_client", id = clients)));
                    }
                    Ok(Err((stream, why))) if refusals.len() < MAX_CONCURRENT_REFUSALS => {
                        refusals.spawn(refuse_one(stream, why));
                    }
                    Ok(Err(_)) => debug!(reason = "too many refusals at once", "refused client closed"),
                    Err(error) => pause_accepting(&error).await,
                },
            }
        }
        debug!(count = sessions.len(), reason = "the engine has ended", "service socket closes");
        drop(self.listener);
        let _ = timeout(DRAIN_TIMEOUT, sessions.join_all()).await.inspect_err(|_| {
            debug!(after_ms = DRAIN_TIMEOUT.as_millis(), reason = "clients do not read", "sessions aborted");
        });
    }

    fn admit(&self, stream: Stream, clients: usize) -> Result<(Stream, Client), (Stream, AppError)> {
        let admission =
            if clients < MAX_CLIENTS { Client::identify(&self.access, &stream) } else { Err(full()) };
        match admission {
            Ok(client) => Ok((stream, client)),
            Err(why) => {
                counter!("partyline_ipc_refused_total").increment(1);
                warn!(reason = %why.message, count = clients, "client refused");
                Err((stream, why))
            }
        }
    }
}

async fn refuse_one(stream: Stream, why: AppError) {
    if let Err(error) = session::refuse(&stream, why).await {
        debug!(reason = %error, "refused client did not read the reason");
    }
}

async fn serve_one(
    stream: Stream,
    client: Client,
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) {
    counter!("partyline_ipc_clients_total").increment(1);
    debug!("client connected");
    match session::serve(&stream, client, calls, snapshots).await {
        Ok(()) | Err(StreamError::Closed) => debug!(reason = "closed", "client disconnected"),
        Err(error) => {
            counter!("partyline_ipc_broken_total").increment(1);
            debug!(reason = %error, "client disconnected");
        }
    }
}

/// Waits until the engine has ended.
async fn ended(snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {}
}

/// Waits after an error that passes by itself, such as too many open files; trying again at once would only spin.
async fn pause_accepting(error: &io::Error) {
    warn!(reason = %error, retry_ms = ACCEPT_RETRY_DELAY.as_millis(), "client not accepted");
    sleep(ACCEPT_RETRY_DELAY).await;
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
