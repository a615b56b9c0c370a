//! A client's side: connects, and offers the engine's two ends as if it ran here.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use interprocess::local_socket::tokio::Stream;
use partyline_model::{AppError, ErrorCode, Reply, Snapshot};
use partyline_wire::ipc::{ClientFrame, FrameError, Hello, ServerFrame, VERSION};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    Call, Endpoint, SOFTWARE,
    stream::{FrameReader, StreamError, write},
};

/// How long the service may take to say hello and show its state.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits between attempts to connect again: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The two ends of the service's engine. The connection closes when both are dropped; when the service ends, the
/// snapshots close and calls are answered with [`ErrorCode::ServiceUnreachable`].
#[derive(Debug)]
pub struct Connection {
    /// Takes commands.
    pub calls: mpsc::Sender<Call>,
    /// Shows the state.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What the service calls itself.
    pub software: String,
}

/// Connects to the service and waits until it has shown its state.
///
/// # Errors
/// [`ErrorCode::ServiceUnreachable`] if it does not run or does not answer, [`ErrorCode::PermissionDenied`] if it does
/// not serve this user, [`ErrorCode::VersionMismatch`] if it speaks another version.
pub async fn connect(endpoint: &Endpoint) -> Result<Connection, AppError> {
    let stream = endpoint.connect().await.map_err(|error| unreachable(endpoint, &error))?;
    let (opened, connection) = oneshot::channel();
    tokio::spawn(talk(stream, endpoint.clone(), opened));
    connection.await.unwrap_or_else(|_| Err(lost()))
}

/// Connects as soon as the service runs, however long that takes.
///
/// # Errors
/// Whatever waiting does not mend, such as a missing right.
pub async fn reconnect(endpoint: &Endpoint) -> Result<Connection, AppError> {
    let (mut wait, longest) = BACKOFF;
    loop {
        match connect(endpoint).await {
            Err(error) if error.code == ErrorCode::ServiceUnreachable => sleep(wait).await,
            other => return other,
        }
        wait = longest.min(wait * 2);
    }
}

/// Opens the conversation, reports how that went, and carries it on until one side has enough.
async fn talk(stream: Stream, endpoint: Endpoint, opened: oneshot::Sender<Result<Connection, AppError>>) {
    let mut frames = FrameReader::new(&stream);
    let opening = timeout(GREETING_TIMEOUT, open(&stream, &mut frames)).await;
    let (snapshot, software) = match opening.unwrap_or_else(|_| Err(silent(&endpoint))) {
        Ok(state) => state,
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    let (calls, inbox) = mpsc::channel(16);
    let (state, snapshots) = watch::channel(snapshot);
    if opened.send(Ok(Connection { calls, snapshots, software })).is_err() {
        return;
    }
    let pending = Pending::default();
    let end = tokio::select! {
        end = listen(&mut frames, &pending, &state) => end,
        end = ask(&stream, inbox, &pending, &state) => end,
    };
    pending.fail(&end.err().unwrap_or_else(lost));
}

async fn open(
    stream: &Stream,
    frames: &mut FrameReader<'_, ServerFrame>,
) -> Result<(Arc<Snapshot>, String), AppError> {
    // Where writing fails because the service has hung up, reading still says why.
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

/// Hands out what the service says.
async fn listen(
    frames: &mut FrameReader<'_, ServerFrame>,
    pending: &Pending,
    state: &watch::Sender<Arc<Snapshot>>,
) -> Result<(), AppError> {
    loop {
        match frames.next().await.map_err(broken)? {
            ServerFrame::Snapshot(snapshot) => {
                state.send_replace(snapshot);
            }
            ServerFrame::Response { id, result } => pending.answer(id, result),
            ServerFrame::Refused(why) => return Err(why),
            ServerFrame::Hello(_) => return Err(out_of_order()),
        }
    }
}

/// Passes calls on until nobody can make any and nobody watches.
async fn ask(
    stream: &Stream,
    mut inbox: mpsc::Receiver<Call>,
    pending: &Pending,
    state: &watch::Sender<Arc<Snapshot>>,
) -> Result<(), AppError> {
    let mut id = 0_u32;
    while let Some((command, answer)) = inbox.recv().await {
        id = id.wrapping_add(1);
        pending.expect(id, answer);
        match write(stream, &ClientFrame::Request { id, command }).await {
            Err(StreamError::Frame(FrameError::TooLong { .. })) => pending.answer(id, Err(too_long())),
            other => other.map_err(broken)?,
        }
    }
    state.closed().await;
    Ok(())
}

type Answer = oneshot::Sender<Result<Reply, AppError>>;

/// Requests that wait for their answers.
#[derive(Debug, Default)]
struct Pending(Mutex<HashMap<u32, Answer>>);

impl Pending {
    fn expect(&self, id: u32, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
    }

    /// An answer nobody waits for is dropped.
    fn answer(&self, id: u32, result: Result<Reply, AppError>) {
        if let Some(answer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            let _ = answer.send(result);
        }
    }

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
