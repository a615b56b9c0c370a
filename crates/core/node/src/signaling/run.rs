//! When this run may speak in a party, and what it knows of other runs with the same keys.

use std::time::{Duration, Instant};

/// How long another run on the local network has to answer before this one says anything there.
const QUIET_TIME: Duration = Duration::from_millis(250);
/// Between the questions on the local network during that time.
const QUESTION_INTERVAL: Duration = Duration::from_millis(100);
/// How long after that this run counts as established, though neither a server nor a member has shown that it knows it.
const ALONE_TIME: Duration = Duration::from_secs(5);
/// The shortest time between two answers to other runs.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);
/// How long people are told of a copy after it was met.
const COPY_SHOWN_FOR: Duration = Duration::from_secs(3600);

/// This run in one party. The decision itself is [`partyline_party`]'s.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// True if the membership began with this run.
    pub fresh: bool,
    /// True if this run has given way.
    pub suspended: bool,
    speaks_at: Option<Instant>,
    asks_at: Option<Instant>,
    established_at: Option<Instant>,
    answered_at: Option<Instant>,
    copy_met_at: Option<Instant>,
}

impl Run {
    /// Returns a run that begins now.
    pub(super) fn start(now: Instant, fresh: bool) -> Self {
        let speaks_at = if fresh { now } else { now + QUIET_TIME };
        Self {
            fresh,
            speaks_at: Some(speaks_at),
            asks_at: (!fresh).then_some(now),
            established_at: Some(speaks_at + ALONE_TIME),
            ..Self::default()
        }
    }

    pub(super) fn may_speak(&self, now: Instant) -> bool {
        !self.suspended && self.speaks_at.is_none_or(|at| at <= now)
    }

    /// Returns the moment at which something planned for `at` may be said.
    pub(super) fn not_before(&self, at: Instant) -> Instant {
        self.speaks_at.map_or(at, |speaks| at.max(speaks))
    }

    /// Returns true when another question on the local network is due.
    pub(super) fn poll_question(&mut self, now: Instant) -> bool {
        let due = self.asks_at.take_if(|at| *at <= now).is_some();
        if due {
            self.asks_at = Some(now + QUESTION_INTERVAL).filter(|at| !self.may_speak(*at));
        }
        due
    }

    /// Returns true once when this run counts as established for having been there for a while.
    pub(super) fn poll_established(&mut self, now: Instant) -> bool {
        self.established_at.take_if(|at| *at <= now).is_some()
    }

    /// Returns true unless another run was answered just now.
    pub(super) fn poll_answer(&mut self, now: Instant) -> bool {
        let due = self.answered_at.is_none_or(|at| now.saturating_duration_since(at) >= ANSWER_INTERVAL);
        if due {
            self.answered_at = Some(now);
        }
        due
    }

    /// Notes that a copy is alive and gives way.
    pub(super) const fn on_copy_met(&mut self, now: Instant) {
        self.copy_met_at = Some(now);
    }

    /// Returns true while people should know of a copy.
    pub(super) fn has_met_copy(&self, now: Instant) -> bool {
        self.copy_met_at.is_some_and(|at| now.saturating_duration_since(at) < COPY_SHOWN_FOR)
    }

    pub(super) fn poll_timeout(&self, on: bool) -> Option<Instant> {
        let copy = self.copy_met_at.map(|at| at + COPY_SHOWN_FOR);
        [self.asks_at, self.established_at, copy].into_iter().flatten().min().filter(|_| on)
    }

    /// Returns true once when people need to be told of a copy no longer.
    pub(super) fn poll_copy_forgotten(&mut self, now: Instant) -> bool {
        self.copy_met_at.take_if(|at| *at + COPY_SHOWN_FOR <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn run_asks_before_it_speaks_unless_its_membership_is_new() {
        let now = Instant::now();
        let mut run = Run::start(now, false);
        assert!(!run.may_speak(now) && run.poll_question(now) && !run.poll_question(now));
        assert!(run.poll_question(now + QUESTION_INTERVAL));
        assert!(run.may_speak(now + QUIET_TIME) && !run.poll_established(now + QUIET_TIME));
        assert!(run.poll_established(now + QUIET_TIME + ALONE_TIME));
        assert!(run.poll_question(now + 2 * QUESTION_INTERVAL), "the last one");
        assert_eq!(run.poll_timeout(true), None);
        let mut fresh = Run::start(now, true);
        assert!(fresh.may_speak(now) && !fresh.poll_question(now));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn copy_is_shown_for_an_hour() {
        let (now, mut run) = (Instant::now(), Run::default());
        assert!(!run.has_met_copy(now));
        run.on_copy_met(now);
        assert!(run.has_met_copy(now) && !run.poll_copy_forgotten(now));
        assert!(run.poll_copy_forgotten(now + COPY_SHOWN_FOR) && !run.has_met_copy(now));
    }
}
