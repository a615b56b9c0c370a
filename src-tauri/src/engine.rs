//! Keeps a connection to the engine: in this process if it may make devices and no service runs, else in the service. A lost
//! connection is re-established until the app ends.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use partyline_engine::Controller;
use partyline_model::{
    AppError, ClientCommand, ErrorCode, MemberView, Quality, Reply, Snapshot, TrafficView,
};
use partyline_service::{Place, Reached, Settings};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::surface::{Backing, BackingKind};

/// The shortest time between two snapshots for the user interface.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest time between two snapshots that differ in figures only. Members are measured every two seconds, each at its
/// own moment, and the engine publishes its state every second.
const FIGURES_INTERVAL: Duration = Duration::from_millis(1500);
/// The first and the longest pause between two attempts to reach the engine.
const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How long an engine in this process may take to leave its parties and release ports.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(12);

/// A change that the app reacts to.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The engine was found in another place, or lost.
    Backing(Backing),
    /// The engine published a new state.
    Snapshot(Arc<Snapshot>),
}

/// The connection to the engine.
#[derive(Debug, Default)]
pub struct Engine {
    now: Mutex<Now>,
    retry: Notify,
    stop: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Now {
    backing: Backing,
    controller: Option<Controller>,
}

impl Default for Now {
    fn default() -> Self {
        Self { backing: Backing { kind: BackingKind::None, problem: None }, controller: None }
    }
}

impl Engine {
    /// Returns where the engine runs. With neither an engine nor a problem, it is still being looked for.
    pub fn backing(&self) -> Backing {
        self.now().backing.clone()
    }

    /// Returns the newest state, if there is an engine.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.now().controller.as_ref().map(|controller| controller.snapshots().borrow().clone())
    }

    /// Sends a command to the engine and waits for its reply.
    ///
    /// # Errors
    /// The engine's error, or the reason why there is no engine.
    pub async fn request(&self, command: impl Into<ClientCommand>) -> Result<Reply, AppError> {
        let (controller, problem) = {
            let now = self.now();
            (now.controller.clone(), now.backing.problem.clone())
        };
        match controller {
            Some(controller) => controller.request(command).await,
            None => Err(problem.unwrap_or_else(not_yet)),
        }
    }

    /// Tries to reach the engine now instead of after the current pause.
    pub fn retry(&self) {
        self.retry.notify_one();
    }

    /// Stops an engine in this process, which removes its devices and port mappings. An engine in the service keeps running.
    pub async fn stop(&self) {
        self.stop.cancel();
        if timeout(SHUTDOWN_TIMEOUT, self.ended.cancelled()).await.is_err() {
            tracing::warn!("the engine did not end in time");
        }
    }

    /// Keeps the connection until [`Self::stop`], and passes every change to `notify`.
    pub async fn run(&self, place: &Place, settings: &Settings, mut notify: impl FnMut(Change)) {
        let _ended = self.ended.clone().drop_guard();
        let (first, longest) = RECONNECT_PAUSE;
        let mut pause = first;
        while !self.stop.is_cancelled() {
            let found = tokio::select! {
                found = Reached::find(place, settings) => found,
                () = self.stop.cancelled() => return,
            };
            let problem = match found {
                Ok(reached) => {
                    pause = first;
                    self.forward(reached, &mut notify).await.err()
                }
                Err(problem) => Some(problem),
            };
            // Without a problem the service closed the connection. If it returns at once, nothing is shown.
            if let Some(problem) = problem {
                self.set(
                    Now {
                        backing: Backing { kind: BackingKind::None, problem: Some(problem) },
                        controller: None,
                    },
                    &mut notify,
                );
            }
            tokio::select! {
                () = self.retry.notified() => pause = first,
                () = sleep(pause) => pause = longest.min(pause * 2),
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Forwards an engine's snapshots until it ends, or until [`Self::stop`].
    async fn forward(&self, reached: Reached, notify: &mut impl FnMut(Change)) -> Result<(), AppError> {
        let Reached { controller, host } = reached;
        let kind = if host.is_some() { BackingKind::Embedded } else { BackingKind::Service };
        let snapshots = controller.snapshots();
        self.set(Now { backing: Backing { kind, problem: None }, controller: Some(controller) }, notify);
        let Some(host) = host else {
            tokio::select! {
                () = follow(snapshots, notify) => {}
                () = self.stop.cancelled() => {}
            }
            return Ok(());
        };
        let hosted = host.run_until(self.stop.cancelled());
        tokio::pin!(hosted);
        tokio::select! {
            ended = &mut hosted => return ended,
            () = follow(snapshots, notify) => {}
        }
        hosted.await
    }

    fn set(&self, now: Now, notify: &mut impl FnMut(Change)) {
        let backing = now.backing.clone();
        let before = std::mem::replace(&mut *self.now(), now);
        if before.backing != backing {
            notify(Change::Backing(backing));
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forwards states that differ, until the engine ends. The engine publishes at least once a second, so a state that is held
/// back is contained in a later one.
async fn follow(mut snapshots: watch::Receiver<Arc<Snapshot>>, notify: &mut impl FnMut(Change)) {
    let mut forwarded: Option<(Instant, Arc<Snapshot>)> = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if forwarded.as_ref().is_none_or(|(at, before)| at.elapsed() >= forwarding_delay(before, &snapshot)) {
            forwarded = Some((Instant::now(), Arc::clone(&snapshot)));
            notify(Change::Snapshot(snapshot));
        }
        sleep(SNAPSHOT_INTERVAL).await;
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Returns how long after `before` the state `now` may be forwarded: events at once, figures less often, because every snapshot
/// repaints the page, and ages alone never.
fn forwarding_delay(before: &Snapshot, now: &Snapshot) -> Duration {
    let (before, now) = (timeless(before), timeless(now));
    if before == now {
        Duration::MAX
    } else if without_figures(before) == without_figures(now) {
        FIGURES_INTERVAL
    } else {
        Duration::ZERO
    }
}

/// Returns the state without its revision and ages; the user interface counts ages on by itself.
fn timeless(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = Snapshot { revision: 0, ..snapshot.clone() };
    for path in members(&mut snapshot).filter_map(|member| member.path.as_mut()) {
        path.age_s = 0;
        path.handshake_s = path.handshake_s.map(|_| 0);
    }
    snapshot
}

fn without_figures(mut snapshot: Snapshot) -> Snapshot {
    for member in members(&mut snapshot) {
        member.quality = Quality::default();
        member.traffic = TrafficView::default();
    }
    snapshot
}

fn members(snapshot: &mut Snapshot) -> impl Iterator<Item = &mut MemberView> {
    snapshot.parties.iter_mut().flat_map(|party| &mut party.members)
}

fn not_yet() -> AppError {
    AppError::new(ErrorCode::ServiceUnreachable, "Partyline is still starting.", "Try again in a moment.")
}

#[cfg(test)]
mod tests {
    use partyline_model::{PartyPhase, PathKind};

    use super::*;
    use crate::tray::tests::{member, party, snapshot};

    #[test]
    fn events_are_forwarded_at_once_figures_later_and_ages_never() {
        let state = |change: fn(&mut MemberView)| {
            let mut friend = member(1, Some(PathKind::Direct));
            change(&mut friend);
            snapshot(vec![party(PartyPhase::Up, vec![friend])])
        };
        let before = state(|_| {});
        let older = state(|friend| friend.path.iter_mut().for_each(|path| path.age_s += 1));
        let measured = state(|friend| friend.quality.rtt_ms = Some(12.5));
        let busy = state(|friend| friend.traffic.receiving = 9000.0);
        let gone = state(|friend| friend.online = !friend.online);
        assert_eq!(forwarding_delay(&before, &Snapshot { revision: 9, ..older }), Duration::MAX);
        assert_eq!([measured, busy].map(|now| forwarding_delay(&before, &now)), [FIGURES_INTERVAL; 2]);
        assert_eq!(forwarding_delay(&before, &gone), Duration::ZERO);
    }
}
