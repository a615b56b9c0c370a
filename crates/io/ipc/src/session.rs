//! One client of the service.
//!
//! A session is one loop over three things: a request arrives, an answer is ready, the state has changed. It writes
//! one frame at a time, so whoever does not read holds one frame and nothing else.

use std::{sync::Arc, time::Duration};

use interprocess::local_socket::tokio::Stream;
use partyline_model::{AppError, ClientCommand, ErrorCode, Reply, Snapshot};
use partyline_wire::ipc::{ClientFrame, FrameError, Hello, ServerFrame, VERSION};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    Call, SOFTWARE,
    stream::{FrameReader, StreamError, write},
};

/// The most requests of one client that are worked on at once; more are read when one of them is answered.
pub const MAX_PENDING_REQUESTS: usize = 32;

/// At most ten snapshots a second.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);

/// How long a client may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a client until it leaves, misbehaves, or the engine ends.
pub async fn serve(
    stream: &Stream,
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), StreamError> {
    let mut frames = FrameReader::new(stream);
    let result = match greet(stream, &mut frames).await {
        Ok(true) => Session::new(stream, calls, snapshots).run(frames).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(StreamError::Frame(error)) = &result {
        let _ = write(stream, &ServerFrame::Refused(not_understood(error))).await;
    }
    result
}

/// Tells a client that it is not served. Its hello is read first, because a socket that is closed with something
/// unread loses what was written to it.
pub async fn refuse(stream: &Stream, why: AppError) -> Result<(), StreamError> {
    if greet(stream, &mut FrameReader::new(stream)).await? {
        write(stream, &ServerFrame::Refused(why)).await?;
    }
    Ok(())
}

/// Exchanges hellos. `false` if the versions differ, which the client sees too.
async fn greet(stream: &Stream, frames: &mut FrameReader<'_, ClientFrame>) -> Result<bool, StreamError> {
    let first = timeout(HELLO_TIMEOUT, frames.next()).await.map_err(|_| StreamError::Closed)??;
    write(stream, &ServerFrame::Hello(Hello::from_software(SOFTWARE))).await?;
    let ClientFrame::Hello(hello) = first else {
        return Err(FrameError::Malformed("the first frame must be a hello".into()).into());
    };
    tracing::debug!(software = ?hello.software, version = hello.version, "a client says hello");
    Ok(hello.version == VERSION)
}

struct Session<'a> {
    stream: &'a Stream,
    calls: mpsc::Sender<Call>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    subscribed: bool,
    unanswered: JoinSet<ServerFrame>,
}

impl<'a> Session<'a> {
    fn new(stream: &'a Stream, calls: mpsc::Sender<Call>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { stream, calls, snapshots, subscribed: false, unanswered: JoinSet::new() }
    }

    async fn run(mut self, mut frames: FrameReader<'_, ClientFrame>) -> Result<(), StreamError> {
        let mut next_snapshot = Instant::now();
        loop {
            tokio::select! {
                frame = frames.next(), if self.unanswered.len() < MAX_PENDING_REQUESTS => match frame {
                    Ok(frame) => self.handle(frame)?,
                    Err(StreamError::Closed) => return Ok(()),
                    Err(error) => return Err(error),
                },
                Some(Ok(answer)) = self.unanswered.join_next() => self.say(answer).await?,
                changed = changed(&mut self.snapshots, next_snapshot) => {
                    if changed.is_err() {
                        return self.say_the_rest().await;
                    }
                    if self.subscribed {
                        self.show().await?;
                    }
                    next_snapshot = Instant::now() + SNAPSHOT_INTERVAL;
                }
            }
        }
    }

    fn handle(&mut self, frame: ClientFrame) -> Result<(), StreamError> {
        match frame {
            ClientFrame::Hello(_) => return Err(FrameError::Malformed("a second hello".into()).into()),
            ClientFrame::Subscribe => {
                self.subscribed = true;
                self.snapshots.mark_changed();
            }
            ClientFrame::Request { id, command } => {
                self.unanswered.spawn(answer(self.calls.clone(), id, command));
            }
        }
        Ok(())
    }

    async fn show(&mut self) -> Result<(), StreamError> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.say(ServerFrame::Snapshot(snapshot)).await
    }

    async fn say(&self, frame: ServerFrame) -> Result<(), StreamError> {
        match write(self.stream, &frame).await {
            Err(StreamError::Frame(FrameError::TooLong { .. })) => {
                write(self.stream, &shortened(frame)).await
            }
            other => other,
        }
    }

    /// The engine has ended; what it answered before still reaches the client.
    async fn say_the_rest(mut self) -> Result<(), StreamError> {
        while let Some(answer) = self.unanswered.join_next().await {
            if let Ok(answer) = answer {
                self.say(answer).await?;
            }
        }
        Ok(())
    }
}

async fn changed(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    earliest: Instant,
) -> Result<(), watch::error::RecvError> {
    sleep_until(earliest).await;
    snapshots.changed().await
}

async fn answer(calls: mpsc::Sender<Call>, id: u32, command: ClientCommand) -> ServerFrame {
    let (answer, answered) = oneshot::channel();
    let result = match calls.send((command, answer)).await {
        Ok(()) => answered.await.unwrap_or_else(|_| Err(engine_ended())),
        Err(_) => Err(engine_ended()),
    };
    ServerFrame::Response { id, result }
}

/// The same without what only details show: the histories of hundreds of members are longer than a frame may be.
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
