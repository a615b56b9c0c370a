//! The session of one client.
//!
//! A session is one loop over three events: a request arrives, a response is ready, the state has changed. It writes one
//! frame at a time, so a client that does not read holds one frame and nothing else.

use std::{sync::Arc, time::Duration};

use interprocess::local_socket::tokio::Stream;
use metrics::counter;
use partyline_model::{AppError, ClientCommand, ErrorCode, Reply, Snapshot};
use partyline_wire::ipc::{ClientFrame, FrameError, Hello, ServerFrame, VERSION};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, trace, warn};

use crate::{
    Call, Right, SOFTWARE,
    access::Client,
    stream::{FrameReader, StreamError, write},
};

/// The most requests of one client that are processed at once; more are read when one of them is answered.
pub const MAX_PENDING_REQUESTS: usize = 32;

/// The least time between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);

/// The time until it is looked again whether a client may see snapshots that has lost the right to.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds the time until a client has sent its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a client until it disconnects or the engine ends.
///
/// # Errors
/// If the connection breaks, or the client sends something else than the protocol allows.
pub async fn serve(
    stream: &Stream,
    client: Client,
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), StreamError> {
    let mut frames = FrameReader::new(stream);
    let result = match exchange_hellos(stream, &mut frames).await {
        Ok(true) => Session::new(stream, client, calls, snapshots).run(frames).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(StreamError::Frame(error)) = &result {
        let _ = write(stream, &ServerFrame::Refused(not_understood(error))).await;
    }
    result
}

/// Sends a client the reason why it is not served. Reads its hello first, because a socket that is closed with unread
/// data discards what was written to it.
///
/// # Errors
/// If the connection breaks.
pub async fn refuse(stream: &Stream, why: AppError) -> Result<(), StreamError> {
    if exchange_hellos(stream, &mut FrameReader::new(stream)).await? {
        write(stream, &ServerFrame::Refused(why)).await?;
    }
    Ok(())
}

/// Exchanges hellos. Returns false if the versions differ, which the client detects as well.
async fn exchange_hellos(
    stream: &Stream,
    frames: &mut FrameReader<'_, ClientFrame>,
) -> Result<bool, StreamError> {
    let first = timeout(HELLO_TIMEOUT, frames.next()).await.map_err(|_| StreamError::Closed)??;
    write(stream, &ServerFrame::Hello(Hello::from_software(SOFTWARE))).await?;
    let ClientFrame::Hello(hello) = first else {
        return Err(FrameError::Malformed("the first frame must be a hello".into()).into());
    };
    debug!(software = ?hello.software, version = hello.version, "client sent its hello");
    if hello.version != VERSION {
        debug!(
            version = hello.version,
            expected = VERSION,
            reason = "version mismatch",
            "client is not served"
        );
    }
    Ok(hello.version == VERSION)
}

struct Session<'a> {
    stream: &'a Stream,
    client: Client,
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    subscribed: bool,
    pending: JoinSet<ServerFrame>,
}

impl<'a> Session<'a> {
    fn new(
        stream: &'a Stream,
        client: Client,
        calls: mpsc::Sender<Call>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Self {
        Self { stream, client, calls, snapshots, subscribed: false, pending: JoinSet::new() }
    }

    async fn run(mut self, mut frames: FrameReader<'_, ClientFrame>) -> Result<(), StreamError> {
        let mut next_snapshot = Instant::now();
        loop {
            tokio::select! {
                frame = frames.next(), if self.pending.len() < MAX_PENDING_REQUESTS => match frame {
                    Ok(frame) => self.handle_frame(frame)?,
                    Err(StreamError::Closed) => return Ok(()),
                    Err(error) => return Err(error),
                },
                Some(Ok(answer)) = self.pending.join_next() => self.send(answer).await?,
                changed = changed(&mut self.snapshots, next_snapshot) => {
                    if changed.is_err() {
                        return self.send_remaining().await;
                    }
                    next_snapshot = Instant::now() + self.send_snapshot().await?;
                }
            }
        }
    }

    fn handle_frame(&mut self, frame: ClientFrame) -> Result<(), StreamError> {
        match frame {
            ClientFrame::Hello(_) => return Err(FrameError::Malformed("a second hello".into()).into()),
            ClientFrame::Subscribe => {
                debug!("client subscribed to snapshots");
                self.subscribed = true;
                self.snapshots.mark_changed();
            }
            ClientFrame::Request { id, command } => {
                trace!(id, pending = self.pending.len(), "request received");
                match self.client.check(Right::needed_for(&command)) {
                    Ok(()) => self.pending.spawn(answer(self.calls.clone(), id, command)),
                    Err(why) => self.pending.spawn(refuse_request(id, why)),
                };
            }
        }
        Ok(())
    }

    /// Sends the state to a client that wants it and may see it. Returns the time until the next one.
    async fn send_snapshot(&mut self) -> Result<Duration, StreamError> {
        if !self.subscribed {
            return Ok(SNAPSHOT_INTERVAL);
        }
        // The app of a user who is away from the computer stays connected, and goes on when the user is back.
        if self.client.check(Right::Observe).is_err() {
            self.snapshots.mark_changed();
            return Ok(RECHECK_INTERVAL);
        }
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.send(ServerFrame::Snapshot(snapshot)).await?;
        Ok(SNAPSHOT_INTERVAL)
    }

    async fn send(&self, frame: ServerFrame) -> Result<(), StreamError> {
        match write(self.stream, &frame).await {
            Err(StreamError::Frame(FrameError::TooLong { .. })) => {
                debug!(reason = "too long for a frame", "frame sent without histories");
                write(self.stream, &shortened(frame)).await
            }
            other => other,
        }
    }

    /// Sends the responses that were pending when the engine ended.
    async fn send_remaining(mut self) -> Result<(), StreamError> {
        while let Some(answer) = self.pending.join_next().await {
            if let Ok(answer) = answer {
                self.send(answer).await?;
            }
        }
        Ok(())
    }
}

/// Waits for a change of the state, and until `earliest`.
async fn changed(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    earliest: Instant,
) -> Result<(), watch::error::RecvError> {
    sleep_until(earliest).await;
    snapshots.changed().await
}

/// Answers a command that the client has no right to.
async fn refuse_request(id: u32, why: AppError) -> ServerFrame {
    counter!("partyline_ipc_commands_refused_total").increment(1);
    warn!(id, reason = %why.message, "command refused");
    ServerFrame::Response { id, result: Err(why) }
}

/// Passes a command to the engine and returns its response.
async fn answer(calls: mpsc::Sender<Call>, id: u32, command: ClientCommand) -> ServerFrame {
    let (answer, answered) = oneshot::channel();
    let result = match calls.send((command, answer)).await {
        Ok(()) => answered.await.unwrap_or_else(|_| Err(engine_ended())),
        Err(_) => Err(engine_ended()),
    };
    ServerFrame::Response { id, result }
}

/// Returns the frame without what only detail views show: the histories of hundreds of members may exceed a frame.
fn shortened(frame: ServerFrame) -> ServerFrame {
    match frame {
        ServerFrame::Snapshot(snapshot) => {
            ServerFrame::Snapshot(Arc::new(without_histories(Arc::unwrap_or_clone(snapshot))))
        }
        ServerFrame::Response { id, result: Ok(Reply::Snapshot(snapshot)) } => {
            ServerFrame::Response { id, result: Ok(Reply::Snapshot(Box::new(without_histories(*snapshot)))) }
        }
        other => other,
    }
}

fn without_histories(mut snapshot: Snapshot) -> Snapshot {
    for member in snapshot.parties.iter_mut().flat_map(|party| &mut party.members) {
        member.history.clear();
        if let Some(path) = &mut member.path {
            path.why.clear();
        }
    }
    snapshot
}

fn engine_ended() -> AppError {
    AppError::new(
        ErrorCode::ServiceUnreachable,
        "The Partyline service is stopping.",
        "Try again when it has started.",
    )
}

fn not_understood(error: &FrameError) -> AppError {
    AppError::new(
        ErrorCode::InvalidInput,
        format!("The Partyline service did not understand its client: {error}."),
        "Install the same version of both.",
    )
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "as in every test")]
mod tests {
    use std::{fs, path::Path};

    use interprocess::local_socket::traits::tokio::Listener as _;
    use partyline_model::{Command, DeviceId, DeviceView, NetworkView, PartyId, Phase};
    use tempfile::TempDir;

    use super::*;
    use crate::{Access, Connection, Endpoint, connect};

    const USER: u32 = 1000;

    fn snapshot(revision: u32) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            revision,
            phase: Phase::Ready,
            device: DeviceView { id: DeviceId([1; 32]), version: "0".into() },
            parties: Vec::new(),
            former_parties: Vec::new(),
            network: NetworkView::default(),
            settings: partyline_model::Settings::default(),
        })
    }

    /// A session of a user, with an engine that carries out everything.
    struct Served {
        connection: Connection,
        state: watch::Sender<Arc<Snapshot>>,
        carried_out: mpsc::UnboundedReceiver<ClientCommand>,
        _directory: TempDir,
    }

    impl Served {
        async fn with(access: Access) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let endpoint = Endpoint::in_dir(directory.path());
            let listener = endpoint.listen().unwrap();
            let (calls, mut inbox) = mpsc::channel::<Call>(8);
            let (state, snapshots) = watch::channel(snapshot(1));
            let client = Client::of_user(&Arc::new(access), USER);
            tokio::spawn(
                async move { serve(&listener.accept().await.unwrap(), client, calls, snapshots).await },
            );
            let (log, carried_out) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Some((command, answer)) = inbox.recv().await {
                    log.send(command).unwrap();
                    answer.send(Ok(Reply::Done)).unwrap();
                }
            });
            Self { connection: connect(&endpoint).await.unwrap(), state, carried_out, _directory: directory }
        }

        async fn ask(&self, command: Command) -> Result<Reply, ErrorCode> {
            let (answer, answered) = oneshot::channel();
            self.connection.calls.send((command.into(), answer)).await.unwrap();
            answered.await.unwrap().map_err(|error| error.code)
        }
    }

    fn leave() -> Command {
        Command::Leave { party: PartyId([1; 32]) }
    }

    fn set_active_user(seats: &Path, uid: u32) {
        fs::write(seats.join("seat0"), format!("ACTIVE_UID={uid}\n")).unwrap();
    }

    #[tokio::test]
    async fn observer_reads_the_state_and_changes_no_party() {
        let mut served = Served::with(Access::default().allow_observer(USER)).await;
        assert_eq!(served.ask(leave()).await, Err(ErrorCode::PermissionDenied));
        assert_eq!(served.ask(Command::Stop).await, Err(ErrorCode::PermissionDenied));
        assert_eq!(served.ask(Command::Doctor).await, Ok(Reply::Done));
        assert_eq!(served.carried_out.recv().await, Some(Command::Doctor.into()));
        assert!(served.carried_out.try_recv().is_err(), "the engine never saw the others");
    }

    #[tokio::test]
    async fn user_who_left_the_computer_cannot_use_a_connection_from_before() {
        let seats = tempfile::tempdir().unwrap();
        set_active_user(seats.path(), USER);
        let mut served = Served::with(Access::default().with_seats(seats.path())).await;
        assert_eq!(served.ask(leave()).await, Ok(Reply::Done));
        set_active_user(seats.path(), USER + 1);
        served.state.send_replace(snapshot(2));
        assert_eq!(served.ask(leave()).await, Err(ErrorCode::PermissionDenied));
        assert_eq!(served.ask(Command::Snapshot).await, Err(ErrorCode::PermissionDenied));
        assert_eq!(served.connection.snapshots.borrow().revision, 1);
        set_active_user(seats.path(), USER);
        assert_eq!(served.ask(leave()).await, Ok(Reply::Done));
        let shown = served.connection.snapshots.wait_for(|snapshot| snapshot.revision == 2).await;
        assert!(shown.is_ok());
    }
}
