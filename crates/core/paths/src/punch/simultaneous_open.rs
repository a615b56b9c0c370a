//! Probes to where the peer is predicted to appear, repeated until one is answered (RFC 5128, section 3.3).

use std::time::{Duration, Instant};

use tracing::trace;

use super::probes::SentProbes;
use crate::{context::Context, path::Path, remote::Remote};

/// When each probe is sent, in milliseconds after the first.
const SCHEDULE_MS: [u64; 7] = [0, 60, 160, 340, 640, 1040, 1500];
/// How long the last probe may take to be answered.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(600);

/// Paths that are probed at the same time as the peer probes in the other direction.
#[derive(Debug, Default)]
pub(super) struct SimultaneousOpen {
    /// In the order of sending, on which the ports of a NAT with contiguous allocation depend.
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    path: Path,
    began: Instant,
    sent: usize,
}

impl SimultaneousOpen {
    /// Adds a path; one that is there already stays as it is.
    pub(super) fn add(&mut self, now: Instant, path: Path) {
        if !self.contains(path) {
            trace!(%path, "probe target added");
            self.targets.push(Target { path, began: now, sent: 0 });
        }
    }

    pub(super) fn contains(&self, path: Path) -> bool {
        self.targets.iter().any(|target| target.path == path)
    }

    /// Sends the probes that are due. Returns when to continue, or `None` if none can be answered any more.
    pub(super) fn drive(
        &mut self,
        remote: &Remote,
        ctx: &mut Context<'_>,
        probes: &mut SentProbes,
    ) -> Option<Instant> {
        for target in &mut self.targets {
            while target.next_probe().is_some_and(|at| at <= ctx.now) {
                target.sent += 1;
                probes.send(remote, ctx, target.path);
            }
        }
        let running = self.targets.iter().filter(|target| target.timeout() > ctx.now);
        running.map(|target| target.next_probe().unwrap_or_else(|| target.timeout())).min()
    }
}

impl Target {
    fn next_probe(&self) -> Option<Instant> {
        SCHEDULE_MS.get(self.sent).map(|after| self.began + Duration::from_millis(*after))
    }

    fn timeout(&self) -> Instant {
        let last = SCHEDULE_MS.last().copied().unwrap_or_default();
        self.began + Duration::from_millis(last) + RESPONSE_TIMEOUT
    }
}
