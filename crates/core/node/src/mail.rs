//! Messages that a rendezvous server refused because they came too fast: sent again after a while, a few times.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use partyline_model::Now;
use partyline_wire::rendezvous::ClientFrame;
use rand_core::RngCore;

use crate::{Node, io::ServerId};

/// Messages remembered in case they are refused.
const KEPT: usize = 256;
/// Times a message is sent again.
const MOST_TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What was sent lately, and what waits to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    sent: VecDeque<Letter>,
    again: Vec<(Instant, Letter)>,
}

#[derive(Debug, Clone)]
struct Letter {
    id: u32,
    server: ServerId,
    frame: ClientFrame,
    tries: u32,
}

impl Mail {
    /// A message goes out.
    pub(crate) fn sent(&mut self, server: ServerId, id: u32, frame: ClientFrame) {
        self.keep(Letter { id, server, frame, tries: 0 });
    }

    fn keep(&mut self, letter: Letter) {
        if self.sent.len() == KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(letter);
    }

    /// The server did not take a message; it is sent again between half and all of a doubling pause later.
    pub(crate) fn refused(&mut self, now: Instant, server: ServerId, id: u32, rng: &mut impl RngCore) {
        let known = self.sent.iter().position(|letter| (letter.server, letter.id) == (server, id));
        let Some(mut letter) = known.and_then(|at| self.sent.remove(at)) else { return };
        letter.tries += 1;
        if letter.tries <= MOST_TRIES {
            let jitter = 0.5 + f64::from(rng.next_u32()) / f64::from(u32::MAX) / 2.0;
            self.again.push((now + (FIRST_PAUSE * (1 << letter.tries)).mul_f64(jitter), letter));
        }
    }

    /// When the next one is to be sent again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.again.iter().map(|(at, _)| *at).min()
    }

    fn due(&mut self, now: Instant) -> Vec<Letter> {
        let due: Vec<Letter> =
            self.again.extract_if(.., |(at, _)| *at <= now).map(|(_, letter)| letter).collect();
        due.iter().for_each(|letter| self.keep(letter.clone()));
        due
    }
}

impl Node {
    /// Sends again what has waited long enough, where the server and the place on it are still there.
    pub(crate) fn send_again(&mut self, now: Now) {
        for Letter { server, frame, .. } in self.mail.due(now.instant) {
            let ClientFrame::Send { topic, .. } = &frame else { continue };
            if self.links.get(&server).is_some_and(|link| link.rooms.contains_key(topic)) {
                self.send_frame(server, &frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn what_is_refused_goes_out_again_a_few_times() {
        let (mut now, mut mail) = (Instant::now(), Mail::default());
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let server = ServerId(1);
        mail.sent(server, 7, ClientFrame::Time { echo: 7 });
        mail.refused(now, ServerId(2), 7, &mut rng);
        assert_eq!(mail.deadline(), None, "another server's number");
        for tries in 1..=MOST_TRIES {
            mail.refused(now, server, 7, &mut rng);
            let at = mail.deadline().expect("another try");
            let pause = FIRST_PAUSE * (1 << tries);
            assert!((pause / 2..=pause).contains(&(at - now)));
            assert!(mail.due(at - Duration::from_millis(1)).is_empty());
            assert_eq!(mail.due(at).len(), 1);
            now = at;
        }
        mail.refused(now, server, 7, &mut rng);
        assert_eq!(mail.deadline(), None);
    }
}
