//! Keeps the way to the engine: in this process where it has the right and no service runs, else in the service, again
//! and again until the app ends.

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

/// Snapshots are passed on at most this often.
const PACE: Duration = Duration::from_millis(100);
/// Snapshots that bring nothing but other figures, at most this often: friends are measured every two seconds, each in
/// their own, and the engine shows its state every second.
const FIGURES_PACE: Duration = Duration::from_millis(1500);
/// Waits before the engine is looked for again: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How long an engine in this process may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(12);

/// What has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Who carries the parties.
    Backing(Backing),
    /// Their state.
    Snapshot(Arc<Snapshot>),
}

/// The way to the engine.
#[derive(Debug, Default)]
pub struct Engine {
    now: Mutex<Now>,
    again: Notify,
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
    /// Who carries the parties. Neither an engine nor a problem: it is still being looked for.
    pub fn backing(&self) -> Backing {
        self.now().backing.clone()
    }

    /// The newest state, if there is an engine.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.now().controller.as_ref().map(|controller| controller.snapshots().borrow().clone())
    }

    /// Has a command carried out.
    ///
    /// # Errors
    /// What the engine says, or why there is none.
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

    /// Looks for the engine at once instead of after the next pause.
    pub fn retry(&self) {
        self.again.notify_one();
    }

    /// Takes leave: an engine in this process ends and leaves the network as it was; one in the service goes on.
    pub async fn stop(&self) {
        self.stop.cancel();
        if timeout(GOODBYE, self.ended.cancelled()).await.is_err() {
            tracing::warn!("the engine did not end in time");
        }
    }

    /// Keeps the way open until [`Self::stop`], and tells what changes.
    pub async fn run(&self, place: &Place, settings: &Settings, mut tell: impl FnMut(Change)) {
        let _ended = self.ended.clone().drop_guard();
        let (first, longest) = BACKOFF;
        let mut pause = first;
        while !self.stop.is_cancelled() {
            let found = tokio::select! {
                found = Reached::find(place, settings) => found,
                () = self.stop.cancelled() => return,
            };
            let problem = match found {
                Ok(reached) => {
                    pause = first;
                    self.carry(reached, &mut tell).await.err()
                }
                Err(problem) => Some(problem),
            };
            // Without a problem the service has hung up; if it comes back at once, nobody need hear of it.
            if let Some(problem) = problem {
                self.set(
                    Now {
                        backing: Backing { kind: BackingKind::None, problem: Some(problem) },
                        controller: None,
                    },
                    &mut tell,
                );
            }
            tokio::select! {
                () = self.again.notified() => pause = first,
                () = sleep(pause) => pause = longest.min(pause * 2),
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Passes on what an engine shows until it ends, or until we stop.
    async fn carry(&self, reached: Reached, tell: &mut impl FnMut(Change)) -> Result<(), AppError> {
        let Reached { controller, host } = reached;
        let kind = if host.is_some() { BackingKind::Embedded } else { BackingKind::Service };
        let snapshots = controller.snapshots();
        self.set(Now { backing: Backing { kind, problem: None }, controller: Some(controller) }, tell);
        let Some(host) = host else {
            tokio::select! {
                () = follow(snapshots, tell) => {}
                () = self.stop.cancelled() => {}
            }
            return Ok(());
        };
        let hosted = host.run_until(self.stop.cancelled());
        tokio::pin!(hosted);
        tokio::select! {
            ended = &mut hosted => return ended,
            () = follow(snapshots, tell) => {}
        }
        hosted.await
    }

    fn set(&self, now: Now, tell: &mut impl FnMut(Change)) {
        let backing = now.backing.clone();
        let before = std::mem::replace(&mut *self.now(), now);
        if before.backing != backing {
            tell(Change::Backing(backing));
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of the states that are news, until the engine ends. The engine shows its state once a second at least, so what has
/// to wait is told with a later one.
async fn follow(mut snapshots: watch::Receiver<Arc<Snapshot>>, tell: &mut impl FnMut(Change)) {
    let mut told: Option<(Instant, Arc<Snapshot>)> = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if told.as_ref().is_none_or(|(at, before)| at.elapsed() >= patience(before, &snapshot)) {
            told = Some((Instant::now(), Arc::clone(&snapshot)));
            tell(Change::Snapshot(snapshot));
        }
        sleep(PACE).await;
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// How long after another state one may be told. What has happened counts at once, figures less often, since each telling
/// has the page painted, and the mere passing of time never.
fn patience(before: &Snapshot, now: &Snapshot) -> Duration {
    let (before, now) = (timeless(before), timeless(now));
    if before == now {
        Duration::MAX
    } else if without_figures(before) == without_figures(now) {
        FIGURES_PACE
    } else {
        Duration::ZERO
    }
}

/// A state without its number, and without ages, which whoever shows them counts on.
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
    fn events_are_told_at_once_figures_later_and_time_never() {
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
        assert_eq!(patience(&before, &Snapshot { revision: 9, ..older }), Duration::MAX);
        assert_eq!([measured, busy].map(|now| patience(&before, &now)), [FIGURES_PACE; 2]);
        assert_eq!(patience(&before, &gone), Duration::ZERO);
    }
}
