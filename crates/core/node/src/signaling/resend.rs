//! Frames that a rendezvous server refused because they came too fast: sent again after a growing pause, a few times.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use partyline_timing::{Backoff, Jitter};
use partyline_wire::rendezvous::ClientFrame;
use rand_core::RngCore;
use tracing::debug;

use crate::io::ServerId;

/// Frames remembered in case the server refuses them.
const MAX_REMEMBERED: usize = 256;
/// How often one frame is sent again.
const MAX_RESENDS: u32 = 5;
/// The delay before each resend of a frame.
const RESEND: Backoff =
    Backoff::new(Duration::from_secs(2), Duration::from_secs(32)).with_jitter(Jitter::HALF);

/// Counters of the resend queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResendCounters {
    /// Frames that a server refused for now.
    pub refused: u64,
    /// Frames sent again.
    pub resent: u64,
    /// Frames given up after the last resend.
    pub given_up: u64,
    /// Refusals of frames that are not remembered.
    pub unknown: u64,
}

impl ResendCounters {
    /// Returns every counter with its label.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { refused, resent, given_up, unknown } = *self;
        [("refused", refused), ("resent", resent), ("given_up", given_up), ("unknown", unknown)].into_iter()
    }
}

/// Frames sent lately, and those that wait to be sent again.
#[derive(Debug, Default)]
pub(super) struct ResendQueue {
    sent: VecDeque<QueuedFrame>,
    waiting: Vec<(Instant, QueuedFrame)>,
    counters: ResendCounters,
}

/// A frame with the number by which a refusal names it.
#[derive(Debug, Clone)]
pub(super) struct QueuedFrame {
    /// The number that the frame has for this device and the server.
    pub number: u32,
    /// The server it was sent to.
    pub server: ServerId,
    /// The frame.
    pub frame: ClientFrame,
    /// Counts the refusals of this frame.
    backoff: Backoff,
}

impl ResendQueue {
    /// Remembers a frame that was just sent.
    pub(super) fn on_sent(&mut self, server: ServerId, number: u32, frame: ClientFrame) {
        self.remember(QueuedFrame { number, server, frame, backoff: RESEND });
    }

    fn remember(&mut self, frame: QueuedFrame) {
        if self.sent.len() == MAX_REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(frame);
    }

    /// Queues a frame that the server refused for now, to be sent again after a delay that doubles with each refusal.
    pub(super) fn on_refused(&mut self, now: Instant, server: ServerId, number: u32, rng: &mut impl RngCore) {
        self.counters.refused += 1;
        let known = self.sent.iter().position(|frame| (frame.server, frame.number) == (server, number));
        let Some(mut frame) = known.and_then(|at| self.sent.remove(at)) else {
            self.counters.unknown += 1;
            debug!(
                server = server.0,
                number,
                reason = "no longer remembered",
                "refused message not sent again"
            );
            return;
        };
        let delay = frame.backoff.next_delay(rng);
        let count = frame.backoff.failures();
        if count > MAX_RESENDS {
            self.counters.given_up += 1;
            debug!(server = server.0, number, count, reason = "refused too often", "message dropped");
            return;
        }
        debug!(
            server = server.0,
            number,
            count,
            retry_ms = delay.as_millis(),
            "message refused, sending again later"
        );
        self.waiting.push((now + delay, frame));
    }

    /// Returns true if a frame waits to be sent to the server again.
    pub(super) fn is_waiting(&self, server: ServerId) -> bool {
        self.waiting.iter().any(|(_, frame)| frame.server == server)
    }

    /// Returns the moment at which the next frame is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, _)| *at).min()
    }

    /// Returns the frames that are due, and remembers them in case they are refused again.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<QueuedFrame> {
        let due: Vec<QueuedFrame> =
            self.waiting.extract_if(.., |(at, _)| *at <= now).map(|(_, frame)| frame).collect();
        self.counters.resent += due.len() as u64;
        due.iter().for_each(|frame| self.remember(frame.clone()));
        due
    }

    /// Returns the counters.
    pub(super) const fn counters(&self) -> &ResendCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    const SERVER: ServerId = ServerId(1);

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn queue() -> (Instant, ResendQueue, ChaCha20Rng) {
        (Instant::now(), ResendQueue::default(), ChaCha20Rng::seed_from_u64(1))
    }

    #[test]
    fn refused_frame_is_sent_again_with_doubling_pauses_and_then_given_up() {
        let (mut now, mut queue, mut rng) = queue();
        queue.on_sent(SERVER, 7, ClientFrame::Time { echo: 7 });
        for resends in 1..=MAX_RESENDS {
            queue.on_refused(now, SERVER, 7, &mut rng);
            let at = queue.poll_timeout().expect("another resend");
            let delay = RESEND.delay_after(resends);
            assert!((delay / 2..=delay).contains(&(at - now)));
            assert!(queue.take_due(at - Duration::from_millis(1)).is_empty());
            assert_eq!(queue.take_due(at).len(), 1);
            now = at;
        }
        queue.on_refused(now, SERVER, 7, &mut rng);
        assert_eq!(queue.poll_timeout(), None);
        assert_eq!((queue.counters.resent, queue.counters.given_up), (u64::from(MAX_RESENDS), 1));
    }

    #[test]
    fn refusal_of_another_servers_number_is_ignored() {
        let (now, mut queue, mut rng) = queue();
        queue.on_sent(SERVER, 7, ClientFrame::Time { echo: 7 });
        queue.on_refused(now, ServerId(2), 7, &mut rng);
        assert_eq!((queue.poll_timeout(), queue.counters.unknown), (None, 1));
    }

    #[test]
    fn only_the_newest_frames_are_remembered() {
        let (now, mut queue, mut rng) = queue();
        for number in 0..=MAX_REMEMBERED as u32 {
            queue.on_sent(SERVER, number, ClientFrame::Time { echo: 0 });
        }
        queue.on_refused(now, SERVER, 0, &mut rng);
        assert_eq!(queue.poll_timeout(), None, "the oldest one is forgotten");
        queue.on_refused(now, SERVER, 1, &mut rng);
        assert!(queue.poll_timeout().is_some());
    }
}
