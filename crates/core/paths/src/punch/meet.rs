//! Packets to where the other side will be seen, repeated until one is answered.

use std::time::{Duration, Instant};

use crate::{
    api::Path,
    peer::{Env, Peer},
};

use super::round::Probes;

/// When the packets are repeated, counted from the first.
const PASSES: [u64; 7] = [0, 60, 160, 340, 640, 1040, 1500];
/// How long the last ones may take to be answered.
const PATIENCE: Duration = Duration::from_millis(600);

#[derive(Debug, Default)]
pub(crate) struct Meet {
    /// Ways and when each began, in the order of sending, on which a counting NAT's ports depend.
    ways: Vec<Way>,
}

#[derive(Debug)]
struct Way {
    path: Path,
    began: Instant,
    passes: usize,
}

impl Meet {
    /// Adds a way; one that is there already stays as it is.
    pub(crate) fn add(&mut self, now: Instant, path: Path) {
        if self.ways.iter().all(|way| way.path != path) {
            self.ways.push(Way { path, began: now, passes: 0 });
        }
    }

    pub(crate) fn is_target(&self, path: Path) -> bool {
        self.ways.iter().any(|way| way.path == path)
    }

    /// Sends what is due; says when to go on, or `None` when all was in vain.
    pub(crate) fn drive(
        &mut self,
        peer: &mut Peer,
        env: &mut Env<'_>,
        probes: &mut Probes,
    ) -> Option<Instant> {
        for way in &mut self.ways {
            while way.due().is_some_and(|at| at <= env.now) {
                way.passes += 1;
                probes.send(peer, env, way.path);
            }
        }
        let running = self.ways.iter().filter(|way| way.over() > env.now);
        running.map(|way| way.due().unwrap_or_else(|| way.over())).min()
    }
}

impl Way {
    fn due(&self) -> Option<Instant> {
        PASSES.get(self.passes).map(|after| self.began + Duration::from_millis(*after))
    }

    fn over(&self) -> Instant {
        let last = PASSES.last().copied().unwrap_or_default();
        self.began + Duration::from_millis(last) + PATIENCE
    }
}
