//! Notices that nothing arrives through the router any more.
//!
//! A computer with few peers hears from one of them every few seconds, and a longer silence means that its router or line
//! has failed. So one peer is asked for a sign of life: its response, like anything else that arrives, shows that the
//! router lets packets in. If none comes, every path is checked and every relay server asked, as after a change of network.

use std::time::{Duration, Instant};

/// How long nothing may arrive before a peer is asked.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(4);

/// What is to be done about the silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before that moment.
    Wait(Instant),
    /// A peer is to be asked for a sign of life; see [`SilenceWatch::on_asked`].
    Ask,
    /// The peer that was asked has not answered; the next one is asked after [`MAX_SILENCE`].
    Alarm,
}

/// A sign of life that a peer was asked for.
#[derive(Debug, Clone, Copy)]
struct Question {
    asked_at: Instant,
    until: Instant,
}

/// The watch over what arrives through the router by one IP version.
#[derive(Debug, Default)]
pub(crate) struct SilenceWatch {
    question: Option<Question>,
}

impl SilenceWatch {
    /// Returns what to do. `received` is when the last authentic packet arrived through the router.
    pub(crate) fn step(&mut self, now: Instant, received: Option<Instant>) -> Step {
        if let Some(question) = self.question {
            let answered = received.is_some_and(|at| at > question.asked_at);
            if !answered && now < question.until {
                return Step::Wait(question.until);
            }
            self.question = None;
            if !answered {
                return Step::Alarm;
            }
        }
        let due = received.map(|at| at + MAX_SILENCE);
        due.filter(|due| now < *due).map_or(Step::Ask, Step::Wait)
    }

    /// Notes that a peer was asked that should have answered by `until`.
    pub(crate) const fn on_asked(&mut self, now: Instant, until: Instant) {
        self.question = Some(Question { asked_at: now, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const PATIENCE: Duration = Duration::from_millis(500);

    #[test]
    fn a_peer_is_asked_only_after_silence() {
        let (mut watch, begin) = (SilenceWatch::default(), start());
        let heard = begin + Duration::from_secs(3);
        assert_eq!(watch.step(begin + MAX_SILENCE, Some(heard)), Step::Wait(heard + MAX_SILENCE));
        assert_eq!(watch.step(heard + MAX_SILENCE, Some(heard)), Step::Ask);
    }

    #[test]
    fn an_answered_question_begins_a_new_silence() {
        let (mut watch, begin) = (SilenceWatch::default(), start());
        watch.on_asked(begin, begin + PATIENCE);
        assert_eq!(watch.step(begin, None), Step::Wait(begin + PATIENCE));
        let heard = begin + Duration::from_millis(30);
        assert_eq!(watch.step(begin + PATIENCE, Some(heard)), Step::Wait(heard + MAX_SILENCE));
    }

    #[test]
    fn an_unanswered_question_raises_the_alarm_once() {
        let (mut watch, begin) = (SilenceWatch::default(), start());
        watch.on_asked(begin, begin + PATIENCE);
        let late = begin + PATIENCE;
        assert_eq!(watch.step(late, Some(begin)), Step::Alarm);
        assert_eq!(watch.step(late + MAX_SILENCE, Some(begin)), Step::Ask);
    }
}
