//! The session of one client.
//!
//! A session is one loop over three events: a request arrives, a response is ready, the state has changed. It writes one
//! frame at a time, so a client that does not read holds one frame and nothing else.

use std::{sync::Arc, time::Duration};

use interprocess::local_socket::tokio::Stream;
use partyline_model::{AppError, ClientCommand, ErrorCode, Reply, Snapshot};
use partyline_wire::ipc::{ClientFrame, FrameError, Hello, ServerFrame, VERSION};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, trace};

use crate::{
    Call, SOFTWARE,
    stream::{FrameReader, StreamError, write},
};

/// The most requests of one client that are processed at once; more are read when one of them is answered.
pub const MAX_PENDING_REQUESTS: usize = 32;

/// The least time between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);

/// Bounds the time until a client has sent its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a client until it disconnects or the engine ends.
///
/// # Errors
/// If the connection breaks, or the client sends something else than the protocol allows.
pub async fn serve(
    stream: &Stream,
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), StreamError> {
    let mut frames = FrameReader::new(stream);
    let result = match exchange_hellos(stream, &mut frames).await {
        Ok(true) => Session::new(stream, calls, snapshots).run(frames).await,
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
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    subscribed: bool,
    pending: JoinSet<ServerFrame>,
}

impl<'a> Session<'a> {
    fn new(stream: &'a Stream, calls: mpsc::Sender<Call>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { stream, calls, snapshots, subscribed: false, pending: JoinSet::new() }
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
                    if self.subscribed {
                        self.send_snapshot().await?;
                    }
                    next_snapshot = Instant::now() + SNAPSHOT_INTERVAL;
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
                self.pending.spawn(answer(self.calls.clone(), id, command));
            }
        }
        Ok(())
    }

    async fn send_snapshot(&mut self) -> Result<(), StreamError> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.send(ServerFrame::Snapshot(snapshot)).await
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
