//! One identity, one place: what this device does when another run has its keys.
//!
//! A copied disk, state directory or backup makes two computers the same member. Which of them goes on is decided between
//! the two, without a third: each run has a random nonce, and a run that meets the keys of its own in a message of another
//! run asks "are you alive?". An answer names the nonce of the run that asked, so that nothing that an earlier run of the
//! same computer left behind (a record at a server, a late datagram) can be an answer: only a process that runs at the
//! same time can give one.
//!
//! Of two runs that are both alive, one that is established in the party wins over one that is not, the one established
//! first wins over the other, and of two that have just started the one with the lower nonce. Both compare the same pair of
//! [`Claim`]s, so they come to the same conclusion.

use partyline_model::{SessionNonce, Timestamp};
use partyline_wire::sealed::{Claim, RunMessage};

/// This run's claim to the device's keys in one party.
#[derive(Debug)]
pub(crate) struct Contest {
    claim: Claim,
    /// The run that this one gave way to.
    lost_to: Option<SessionNonce>,
}

/// What a message of another run with the same keys asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is this run's own message, or says nothing new.
    Nothing,
    /// It may be of a run that is alive: tell it that this one is.
    Answer,
    /// The other run is alive, and has to give way. It learns that from the answer.
    Held,
    /// The other run is alive, and this one gives way.
    Lost,
}

impl Contest {
    pub(crate) const fn new(run: SessionNonce) -> Self {
        Self { claim: Claim { run, established: None }, lost_to: None }
    }

    pub(crate) const fn claim(&self) -> Claim {
        self.claim
    }

    /// Notes that others know this run: a server or a member has received it.
    pub(crate) fn establish(&mut self, now: Timestamp) {
        self.claim.established.get_or_insert(now);
    }

    /// Returns true once this run gave way to another one.
    pub(crate) const fn is_lost(&self) -> bool {
        self.lost_to.is_some()
    }

    /// Judges a message of this device's keys. An announcement counts as a question.
    pub(crate) fn judge(&mut self, message: &RunMessage) -> Verdict {
        let RunMessage { claim, answer_to } = message;
        if claim.run == self.claim.run || self.is_lost() {
            return Verdict::Nothing;
        }
        if *answer_to != Some(self.claim.run) {
            // The other run may have started long ago. It is answered, and answers if it is alive.
            return Verdict::Answer;
        }
        if outranks(*claim, self.claim) {
            self.lost_to = Some(claim.run);
            return Verdict::Lost;
        }
        Verdict::Held
    }
}

/// Returns true if the first of two runs that are both alive goes on.
fn outranks(one: Claim, other: Claim) -> bool {
    let rank = |claim: Claim| (claim.established.map_or(u64::MAX, |at| at.0), claim.run.0);
    rank(one) < rank(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u8) -> Contest {
        Contest::new(SessionNonce([n; 16]))
    }

    fn established(n: u8, at: u64) -> Contest {
        let mut contest = run(n);
        contest.establish(Timestamp(at));
        contest
    }

    fn answers(of: &Contest, to: &Contest) -> RunMessage {
        RunMessage { claim: of.claim(), answer_to: Some(to.claim().run) }
    }

    /// Lets two runs answer each other; returns which of them have given way.
    fn meet(mut one: Contest, mut other: Contest) -> (bool, bool) {
        let (first, second) = (answers(&one, &other), answers(&other, &one));
        other.judge(&first);
        one.judge(&second);
        (one.is_lost(), other.is_lost())
    }

    #[test]
    fn established_run_wins_over_one_that_starts_and_over_a_later_one() {
        assert_eq!(meet(established(9, 100), run(1)), (false, true));
        assert_eq!(meet(established(9, 100), established(1, 101)), (false, true));
        assert_eq!(meet(established(1, 101), established(9, 100)), (true, false));
    }

    #[test]
    fn exactly_one_of_two_that_start_at_once_gives_way() {
        assert_eq!(meet(run(1), run(2)), (false, true));
        assert_eq!(meet(run(2), run(1)), (true, false));
        assert_eq!(meet(established(1, 100), established(2, 100)), (false, true));
    }

    #[test]
    fn only_an_answer_to_this_run_ends_it() {
        let mut here = run(2);
        let other = established(1, 1).claim();
        for answer_to in [None, Some(SessionNonce([7; 16]))] {
            assert_eq!(here.judge(&RunMessage { claim: other, answer_to }), Verdict::Answer);
        }
        assert!(!here.is_lost(), "the run that was before it may have said that");
        let answer_to = Some(here.claim().run);
        assert_eq!(here.judge(&RunMessage { claim: here.claim(), answer_to }), Verdict::Nothing, "itself");
        assert_eq!(here.judge(&RunMessage { claim: other, answer_to }), Verdict::Lost);
        assert_eq!(
            here.judge(&RunMessage { claim: other, answer_to: None }),
            Verdict::Nothing,
            "silent then"
        );
    }

    #[test]
    fn first_establishment_counts() {
        let mut here = established(1, 100);
        here.establish(Timestamp(200));
        assert_eq!(here.claim().established, Some(Timestamp(100)));
    }
}
