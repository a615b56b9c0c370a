//! The client's side: connects, and offers the engine's two channels as if the engine ran in this process.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use interprocess::local_socket::tokio::Stream;
use partyline_model::{AppError, ErrorCode, Reply, Snapshot};
use partyline_timing::Backoff;
use partyline_wire::ipc::{ClientFrame, FrameError, Hello, ServerFrame, VERSION};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tracing::{debug, trace};

use crate::{
    Call, Endpoint, SOFTWARE,
    stream::{FrameReader, StreamError, write},
};

/// Bounds the time until the service has sent its hello and its first snapshot.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds the delay between attempts to connect again.
const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(100);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// Calls that wait to be sent.
const CALL_QUEUE: usize = 16;

/// The two channels of the service's engine. The connection closes when both are dropped. When the service ends, the
/// snapshots close and calls fail with [`ErrorCode::ServiceUnreachable`].
#[derive(Debug)]
pub struct Connection {
    /// Sends commands to the engine.
    pub calls: mpsc::Sender<Call>,
    /// Observes the engine's state.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The name and version of the service.
    pub software: String,
}

/// Connects to the service and waits for its first snapshot.
///
/// # Errors
/// [`ErrorCode::ServiceUnreachable`] if the service does not run or does not answer, [`ErrorCode::PermissionDenied`] if
/// it does not admit this user, [`ErrorCode::VersionMismatch`] if it speaks another version of the protocol.
pub async fn connect(endpoint: &Endpoint) -> Result<Connection, AppError> {
    let stream = endpoint.connect().await.map_err(|error| unreachable(endpoint, &error))?;
    let (opened, connection) = oneshot::channel();
    tokio::spawn(run(stream, endpoint.clone(), opened));
    connection.await.unwrap_or_else(|_| Err(lost()))
}

/// Connects as soon as the service runs, however long that takes.
///
/// # Errors
/// As for [`connect`], except [`ErrorCode::ServiceUnreachable`]: then it retries after 0.1 to 2 s.
pub async fn reconnect(endpoint: &Endpoint) -> Result<Connection, AppError> {
    let mut backoff = Backoff::new(MIN_RECONNECT_DELAY, MAX_RECONNECT_DELAY);
    loop {
        match connect(endpoint).await {
            Err(error) if error.code == ErrorCode::ServiceUnreachable => {
                // One client of a local socket needs no jitter.
                let delay = backoff.next_delay_at(1.0);
                debug!(reason = %error.message, retry_ms = delay.as_millis(), "not connected to the service");
                sleep(delay).await;
            }
            other => return other,
        }
    }
}

/// Performs the handshake, reports its result through `opened`, and runs the connection until one side closes it.
async fn run(stream: Stream, endpoint: Endpoint, opened: oneshot::Sender<Result<Connection, AppError>>) {
    let mut frames = FrameReader::new(&stream);
    let opening = timeout(HANDSHAKE_TIMEOUT, open(&stream, &mut frames)).await;
    let (snapshot, software) = match opening.unwrap_or_else(|_| Err(silent(&endpoint))) {
        Ok(state) => state,
        Err(error) => {
            debug!(reason = %error.message, "handshake with the service failed");
            let _ = opened.send(Err(error));
            return;
        }
    };
    let (calls, inbox) = mpsc::channel(CALL_QUEUE);
    let (state, snapshots) = watch::channel(snapshot);
    debug!(software, "connected to the service");
    if opened.send(Ok(Connection { calls, snapshots, software })).is_err() {
        return;
    }
    let pending = PendingRequests::default();
    let end = tokio::select! {
        end = receive_frames(&mut frames, &pending, &state) => end,
        end = send_requests(&stream, inbox, &pending, &state) => end,
    };
    let reason = end.as_ref().map_or_else(|error| error.message.as_str(), |()| "no longer used");
    debug!(reason, "disconnected from the service");
    pending.fail(&end.err().unwrap_or_else(lost));
}

async fn open(
    stream: &Stream,
    frames: &mut FrameReader<'_, ServerFrame>,
) -> Result<(Arc<Snapshot>, String), AppError> {
    // If writing fails because the service has closed the connection, reading still returns the reason.
    let _ = write(stream, &ClientFrame::Hello(Hello::from_software(SOFTWARE))).await;
    let software = match frames.next().await.map_err(broken)? {
        ServerFrame::Hello(hello) if hello.version == VERSION => hello.software,
        ServerFrame::Hello(hello) => return Err(other_version(&hello)),
        ServerFrame::Refused(why) => return Err(why),
        _ => return Err(out_of_order()),
    };
    let _ = write(stream, &ClientFrame::Subscribe).await;
    match frames.next().await.map_err(broken)? {
        ServerFrame::Snapshot(snapshot) => Ok((snapshot, software)),
        ServerFrame::Refused(why) => Err(why),
        _ => Err(out_of_order()),
    }
}

/// Receives snapshots and responses until the connection breaks.
async fn receive_frames(
    frames: &mut FrameReader<'_, ServerFrame>,
    pending: &PendingRequests,
    state: &watch::Sender<Arc<Snapshot>>,
) -> Result<(), AppError> {
    loop {
        match frames.next().await.map_err(broken)? {
            ServerFrame::Snapshot(snapshot) => {
                trace!(revision = snapshot.revision, "snapshot received");
                state.send_replace(snapshot);
            }
            ServerFrame::Response { id, result } => pending.answer(id, result),
            ServerFrame::Refused(why) => return Err(why),
            ServerFrame::Hello(_) => return Err(out_of_order()),
        }
    }
}

/// Sends calls until their channel is closed and the snapshots are no longer observed.
async fn send_requests(
    stream: &Stream,
    mut inbox: mpsc::Receiver<Call>,
    pending: &PendingRequests,
    state: &watch::Sender<Arc<Snapshot>>,
) -> Result<(), AppError> {
    let mut id = 0_u32;
    while let Some((command, answer)) = inbox.recv().await {
        id = id.wrapping_add(1);
        pending.expect(id, answer);
        trace!(id, "request sent");
        match write(stream, &ClientFrame::Request { id, command }).await {
            Err(StreamError::Frame(FrameError::TooLong { .. })) => {
                debug!(id, reason = "too long for a frame", "request dropped");
                pending.answer(id, Err(too_long()));
            }
            other => other.map_err(broken)?,
        }
    }
    state.closed().await;
    Ok(())
}

type Answer = oneshot::Sender<Result<Reply, AppError>>;

/// Requests that wait for their responses.
#[derive(Debug, Default)]
struct PendingRequests(Mutex<HashMap<u32, Answer>>);

impl PendingRequests {
    fn expect(&self, id: u32, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
    }

    /// Completes a request. A response without a request is dropped.
    fn answer(&self, id: u32, result: Result<Reply, AppError>) {
        if let Some(answer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            // The caller may have given up.
            let _ = answer.send(result);
        } else {
            debug!(id, reason = "no such request", "response dropped");
        }
    }

    /// Fails all requests, since the connection has ended.
    fn fail(self, error: &AppError) {
        for answer in self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

const START: &str =
    "Start it with `sudo partyline service install` (stays) or `sudo partyline service run` (until Ctrl-C).";

fn unreachable(endpoint: &Endpoint, error: &io::Error) -> AppError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AppError::new(ErrorCode::ServiceUnreachable, "The Partyline service is not running.", START)
        }
        io::ErrorKind::PermissionDenied => AppError::new(
            ErrorCode::PermissionDenied,
            format!("This user may not open {endpoint}."),
            "Run the command with sudo, or install the service again: `sudo partyline service install`.",
        ),
        _ => AppError::new(
            ErrorCode::ServiceUnreachable,
            format!("The Partyline service cannot be reached at {endpoint}: {error}."),
            START,
        ),
    }
}

fn silent(endpoint: &Endpoint) -> AppError {
    AppError::new(
        ErrorCode::ServiceUnreachable,
        format!("Something listens at {endpoint}, but does not answer as the Partyline service would."),
        "Restart the service: `sudo systemctl restart partyline`.",
    )
}

fn broken(error: StreamError) -> AppError {
    match error {
        StreamError::Closed | StreamError::Io(_) => lost(),
        StreamError::Frame(error) => AppError::new(
            ErrorCode::VersionMismatch,
            format!("The Partyline service sent something this program does not understand: {error}."),
            "Install the same version of both.",
        ),
    }
}

fn lost() -> AppError {
    AppError::new(
        ErrorCode::ServiceUnreachable,
        "The connection to the Partyline service was lost.",
        "See whether it still runs with `partyline service status`.",
    )
}

fn other_version(hello: &Hello) -> AppError {
    AppError::new(
        ErrorCode::VersionMismatch,
        format!(
            "The service is {:?} (protocol {}), this program is {SOFTWARE:?} (protocol {VERSION}).",
            hello.software, hello.version
        ),
        "Install the same version of both, then restart the service.",
    )
}

fn out_of_order() -> AppError {
    AppError::new(
        ErrorCode::VersionMismatch,
        "The Partyline service spoke out of order.",
        "Install the same version of both.",
    )
}

fn too_long() -> AppError {
    AppError::new(ErrorCode::InvalidInput, "The command is too long.", "Check the link or the names in it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn response_completes_its_own_request_and_the_end_fails_the_others() {
        let pending = PendingRequests::default();
        let ((first, first_reply), (second, second_reply)) = (oneshot::channel(), oneshot::channel());
        pending.expect(1, first);
        pending.expect(2, second);
        pending.answer(2, Ok(Reply::Done));
        pending.answer(3, Ok(Reply::Done));
        assert_eq!(second_reply.await.unwrap(), Ok(Reply::Done));
        pending.fail(&lost());
        assert_eq!(first_reply.await.unwrap().unwrap_err().code, ErrorCode::ServiceUnreachable);
    }

    #[test]
    fn missing_right_is_told_apart_from_a_service_that_does_not_run() {
        let endpoint = Endpoint::in_dir(std::path::Path::new("/nowhere"));
        for (kind, code) in [
            (io::ErrorKind::NotFound, ErrorCode::ServiceUnreachable),
            (io::ErrorKind::ConnectionRefused, ErrorCode::ServiceUnreachable),
            (io::ErrorKind::PermissionDenied, ErrorCode::PermissionDenied),
        ] {
            assert_eq!(unreachable(&endpoint, &kind.into()).code, code, "{kind}");
        }
    }
}
