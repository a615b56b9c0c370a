//! Whether a peer's traffic suffers, so that sprays have to wait.

use std::time::{Duration, Instant};

use crate::{
    api::Path,
    pair::Pair,
    peer::{Env, Peer},
};

/// Packets a second that make traffic a game's rather than a tunnel's own.
const BUSY: u32 = 5;
const WINDOW: Duration = Duration::from_secs(1);
/// How much longer than at best a round trip may get: this much, and half as long again.
const SLACK: Duration = Duration::from_millis(20);
/// How much more of the checks than at best may get lost.
const LOSS: f32 = 0.09;

/// What went out to a peer lately, and how good its path was at best.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    window: Option<Instant>,
    count: u32,
    before: u32,
    best: Option<(Path, Duration, f32)>,
}

impl Traffic {
    /// Packets for the peer go out.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.turn(now);
        self.count = self.count.saturating_add(1);
    }

    fn turn(&mut self, now: Instant) {
        let began = *self.window.get_or_insert(now);
        if now >= began + WINDOW {
            self.before = if now < began + WINDOW * 2 { self.count } else { 0 };
            (self.window, self.count) = (Some(now), 0);
        }
    }

    fn is_busy(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.count.max(self.before) >= BUSY
    }

    fn suffers(&mut self, pair: &Pair, now: Instant) -> bool {
        let quality = pair.estimate.view();
        let (Some(rtt), loss) = (pair.estimate.rtt(), quality.loss.unwrap_or_default()) else { return false };
        let best = match self.best {
            Some((path, best, least)) if path == pair.path => (path, best.min(rtt), least.min(loss)),
            _ => (pair.path, rtt, loss),
        };
        self.best = Some(best);
        pair.suspect(now) || rtt > best.1 * 3 / 2 + SLACK || loss > best.2 + LOSS
    }
}

impl Peer {
    /// Tells the budget of sprays how this peer's traffic fares.
    pub(crate) fn watch_traffic(&mut self, env: &mut Env<'_>) {
        let mut traffic = std::mem::take(&mut self.traffic);
        let pair = self.selected.and_then(|path| self.pair(path));
        let strained = traffic.is_busy(env.now) && pair.is_some_and(|pair| traffic.suffers(pair, env.now));
        self.traffic = traffic;
        env.budget.note(env.now, self.id, strained);
    }
}
