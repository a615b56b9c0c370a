//! One WebSocket connection to one rendezvous server, shared by all parties that name the server.
//!
//! A link opens as soon as a party wants it, waits for the server's challenge, enters the topics of those parties, and
//! after a failure retries with jittered exponential backoff. Losing a link costs no established tunnel: members are
//! kept until they are silent on every channel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use partyline_model::{AppError, Handle, Now, Timestamp, Topic};
use partyline_party::Membership;
use partyline_timing::{Backoff, Jitter};
use partyline_wire::rendezvous::ClientFrame;
use rand_core::{CryptoRng, RngCore};
use tracing::{debug, trace, warn};

/// The delay before a retry. It is jittered so that the clients of a restarted server do not return in step.
const RETRY: Backoff =
    Backoff::new(Duration::from_millis(500), Duration::from_secs(30)).with_jitter(Jitter::HALF);
/// A connection that was up this long counts as stable: once it fails, the backoff starts over.
const STABLE_AFTER: Duration = Duration::from_secs(20);
/// How long a server may take to send its challenge, and to answer once its liveness is in question.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);
/// Bounds of a relay grant's lifetime as it is trusted, since the server's clock and ours may differ.
const MIN_GRANT_LIFETIME: Duration = Duration::from_secs(60);
const MAX_GRANT_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Handles of one topic that are kept, more than any party has members; what a server lists beyond is ignored.
const MAX_PRESENT: usize = 512;

/// How long another run with the same keys, which the server still lists, may take to show that it is alive. Where a
/// computer lost its power, the server lists its former run for up to a minute.
const RUN_ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// A visit to a topic under a handle that nobody else has, to find out whether another run has this device's own.
#[derive(Debug)]
struct Visit {
    own: Handle,
    own_is_listed: bool,
    /// When the other run has failed to answer; set once it is known to be listed.
    until: Option<Instant>,
}

/// A topic entered, or being entered, on the server.
#[derive(Debug, Default)]
pub(super) struct TopicEntry {
    /// Revision of the own record that was last announced here; 0 if it has to be announced again.
    announced: u64,
    entered: bool,
    /// `None` where the topic is entered under the own handle.
    visit: Option<Visit>,
    /// Handles of the other members that the server lists.
    present: BTreeSet<Handle>,
}

impl TopicEntry {
    /// Returns true once the whole roster came, which is how the server shows that it let this device in.
    pub(super) const fn is_entered(&self) -> bool {
        self.entered && self.visit.is_none()
    }

    /// Returns true while the topic is entered under another handle than the own one.
    pub(super) const fn is_visit(&self) -> bool {
        self.visit.is_some()
    }

    /// Returns true if the own record of this revision was announced here.
    pub(super) const fn has_announced(&self, revision: u64) -> bool {
        self.announced == revision
    }

    /// Returns the handles of the other members that the server lists.
    pub(super) fn present(&self) -> impl Iterator<Item = Handle> {
        self.present.iter().copied()
    }

    /// Returns true if the server lists the handle.
    pub(super) fn lists(&self, handle: &Handle) -> bool {
        self.present.contains(handle)
    }

    /// Notes that the server lists a member, up to [`MAX_PRESENT`] of them.
    fn insert(&mut self, handle: Handle) {
        if self.present.len() < MAX_PRESENT {
            self.present.insert(handle);
        }
    }
}

#[derive(Debug)]
enum State {
    Waiting { until: Instant },
    Opening,
    Open { since: Instant, challenge: Option<[u8; 32]>, answer_by: Option<Instant> },
}

/// The connection to one server.
#[derive(Debug)]
pub(super) struct ServerLink {
    /// The server's URL, as the parties name it.
    pub url: String,
    /// Topics entered, or being entered, over the present connection.
    topics: BTreeMap<Topic, TopicEntry>,
    /// Topics on which this run has, or may take, the own handle: no other run with the same keys is there.
    claimed: BTreeSet<Topic>,
    /// Why the server is of no use, for people.
    problem: Option<AppError>,
    state: State,
    retry: Backoff,
    /// True while a connection made over a lost network is being closed: the next one is opened at once.
    reopen_now: bool,
    /// When half of the relay grant's lifetime is over; `None` without a grant.
    renew_grant_at: Option<Instant>,
}

impl ServerLink {
    /// Returns a link that wants to open at once.
    pub(super) fn new(now: Instant, url: String) -> Self {
        Self {
            url,
            topics: BTreeMap::new(),
            claimed: BTreeSet::new(),
            problem: None,
            state: State::Waiting { until: now },
            retry: RETRY,
            reopen_now: false,
            renew_grant_at: None,
        }
    }

    /// Returns true once the server has sent its challenge, so that topics can be entered.
    pub(super) fn is_ready(&self) -> bool {
        self.challenge().is_some()
    }

    /// Returns true while the connection is being made.
    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening)
    }

    /// Returns the server's challenge, which the proof of every topic signs.
    pub(super) fn challenge(&self) -> Option<[u8; 32]> {
        match self.state {
            State::Open { challenge, .. } => challenge,
            State::Waiting { .. } | State::Opening => None,
        }
    }

    /// Returns why the server is of no use, for people.
    pub(super) const fn problem(&self) -> Option<&AppError> {
        self.problem.as_ref()
    }

    /// Shows a problem until the server sends its next challenge.
    pub(super) fn set_problem(&mut self, problem: AppError) {
        warn!(server = %self.url, reason = %problem.message, "server cannot be used");
        self.problem = Some(problem);
    }

    /// Returns the moment to call [`Self::poll_open`] and [`Self::poll_silent`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let link = match self.state {
            State::Waiting { until } => Some(until),
            State::Open { answer_by, .. } => answer_by,
            State::Opening => None,
        };
        let visits = self.topics.values().filter_map(|entry| entry.visit.as_ref()?.until);
        visits.chain(link).min()
    }

    /// Returns true once when the moment to open the connection has come, and marks the link as opening.
    pub(super) fn poll_open(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Waiting { until } if until <= now);
        if due {
            debug!(server = %self.url, failures = self.retry.failures(), "server link opening");
            self.state = State::Opening;
        }
        due
    }

    /// Returns true once when the server has failed to answer; the caller closes the connection.
    pub(super) fn poll_silent(&mut self, now: Instant) -> bool {
        let State::Open { answer_by, .. } = &mut self.state else { return false };
        let silent = answer_by.take_if(|at| *at <= now).is_some();
        if silent {
            let timeout_s = RESPONSE_TIMEOUT.as_secs();
            debug!(server = %self.url, reason = "no answer", timeout_s, "server link closing");
        }
        silent
    }

    /// Drops the remaining pause before a retry, because the network or the server's address changed.
    pub(super) fn retry_now(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            debug!(server = %self.url, reason = "network or address changed", "server link retries now");
            *until = now;
            self.retry.reset();
        }
    }

    /// Notes that the network under the connection is gone, or the server at another address. Returns true if there is a
    /// connection to close; it is opened again as soon as its end is reported.
    pub(super) fn abandon(&mut self) -> bool {
        self.reopen_now = matches!(self.state, State::Open { .. } | State::Opening);
        if self.reopen_now {
            debug!(server = %self.url, reason = "made to an address that is not right any more", "server link closing");
        }
        self.reopen_now
    }

    /// Requires the server to send anything within this time. Returns true if the connection is open, so that a question
    /// can be sent.
    pub(super) fn require_liveness(&mut self, now: Instant, within: Duration) -> bool {
        let State::Open { answer_by, .. } = &mut self.state else { return false };
        let by = now + within;
        *answer_by = Some(answer_by.map_or(by, |earlier| earlier.min(by)));
        true
    }

    /// Notes that the server sent something, which proves that the connection works.
    pub(super) fn on_received(&mut self) {
        if let State::Open { answer_by, .. } = &mut self.state {
            *answer_by = None;
        }
    }

    /// Notes that the WebSocket is open; the server's challenge is still to come.
    pub(super) fn on_opened(&mut self, now: Instant) {
        debug!(server = %self.url, "server link open, waiting for the challenge");
        self.state = State::Open { since: now, challenge: None, answer_by: Some(now + RESPONSE_TIMEOUT) };
    }

    /// Takes the server's challenge.
    pub(super) fn on_welcome(&mut self, challenge: [u8; 32]) {
        if let State::Open { challenge: slot, .. } = &mut self.state {
            debug!(server = %self.url, "server link ready");
            *slot = Some(challenge);
        }
        self.problem = None;
    }

    /// Notes that the connection ended or could not be made, and plans the next attempt.
    pub(super) fn on_closed(&mut self, now: Instant, problem: Option<AppError>, rng: &mut impl RngCore) {
        let stable = matches!(
            self.state,
            State::Open { since, challenge: Some(_), .. } if now >= since + STABLE_AFTER
        );
        if stable {
            self.retry.reset();
        }
        self.topics.clear();
        self.problem = problem.or(self.problem.take());
        let delay = self.retry.next_delay(rng);
        let pause = if std::mem::take(&mut self.reopen_now) { Duration::ZERO } else { delay };
        let reason = self.problem.as_ref().map_or("closed", |problem| problem.message.as_str());
        debug!(server = %self.url, reason, retry_ms = pause.as_millis(), "server link down");
        self.state = State::Waiting { until: now + pause };
    }

    // Topics.

    /// Returns a topic's entry, if it is entered or being entered.
    pub(super) fn topic(&self, topic: &Topic) -> Option<&TopicEntry> {
        self.topics.get(topic)
    }

    /// Starts to enter a topic with the own record of this revision. Returns the frame that asks to be let in; `None` if
    /// the server is not connected or the membership may not enter the topic.
    pub(super) fn enter(
        &mut self,
        membership: &Membership,
        topic: Topic,
        (record, revision): (Vec<u8>, u64),
    ) -> Option<ClientFrame> {
        let proof = membership.prove_entry(&topic, &self.challenge()?)?;
        debug!(server = %self.url, topic = %topic.short(), revision, "entering topic");
        self.topics.insert(topic, TopicEntry { announced: revision, ..TopicEntry::default() });
        Some(ClientFrame::Enter { topic, proof, record })
    }

    /// Starts to visit a topic under another handle, with a question to other runs with the same keys. Returns the frame
    /// that asks to be let in, like [`Self::enter`].
    pub(super) fn visit(
        &mut self,
        rng: &mut (impl CryptoRng + RngCore),
        membership: &Membership,
        topic: Topic,
        question: Vec<u8>,
    ) -> Option<ClientFrame> {
        let own = membership.handle_of(&topic, &membership.me())?;
        let proof = membership.prove_visit(rng, &topic, &self.challenge()?)?;
        debug!(server = %self.url, topic = %topic.short(), "visiting topic");
        let visit = Visit { own, own_is_listed: false, until: None };
        self.topics.insert(topic, TopicEntry { visit: Some(visit), ..TopicEntry::default() });
        Some(ClientFrame::Enter { topic, proof, record: question })
    }

    /// Returns the own handle on a topic that is only visited, to find out whether another run has it.
    pub(super) fn sought_handle(&self, topic: &Topic) -> Option<Handle> {
        self.topics.get(topic)?.visit.as_ref().map(|visit| visit.own)
    }

    /// Returns true if no other run with the same keys has the own handle on a topic.
    pub(super) fn has_claimed(&self, topic: &Topic) -> bool {
        self.claimed.contains(topic)
    }

    /// Lets the own handle be taken on a topic without looking for another run.
    pub(super) fn claim(&mut self, topic: Topic) {
        self.claimed.insert(topic);
        if self.topics.get(&topic).is_some_and(TopicEntry::is_visit) {
            self.topics.remove(&topic);
        }
    }

    /// Notes that another run took the own handle on a topic. It is looked for before the topic is entered again.
    pub(super) fn on_replaced(&mut self, topic: &Topic) {
        debug!(server = %self.url, topic = %topic.short(), "another run took this device's place");
        self.claimed.remove(topic);
        self.topics.remove(topic);
    }

    /// Forgets that a topic was entered, and whose place it is, since another run begins: it has to enter again, so that the
    /// server lists everybody to it.
    pub(super) fn forget_topic(&mut self, topic: &Topic) {
        self.claimed.remove(topic);
        self.topics.remove(topic);
    }

    /// Ends visits on which nobody has answered; returns true if there were any, whose topics can be entered now.
    pub(super) fn poll_visits(&mut self, now: Instant) -> bool {
        let silent = |entry: &TopicEntry| {
            entry.visit.as_ref().is_some_and(|visit| visit.until.is_some_and(|until| until <= now))
        };
        let over: Vec<Topic> =
            self.topics.iter().filter(|(_, entry)| silent(entry)).map(|(topic, _)| *topic).collect();
        for topic in &over {
            debug!(server = %self.url, topic = %topic.short(), reason = "no other run answers", "place taken");
            self.claim(*topic);
        }
        !over.is_empty()
    }

    /// Notes that the own record of this revision is announced on a topic. Returns false if the topic has to be entered
    /// first.
    pub(super) fn announce(&mut self, topic: &Topic, revision: u64) -> bool {
        let entry = self.topics.get_mut(topic);
        entry.map(|entry| entry.announced = revision).is_some()
    }

    /// Forgets the topics that nobody visits any more; returns them.
    pub(super) fn exit_unwanted(&mut self, wanted: &[Topic]) -> Vec<Topic> {
        let unwanted: Vec<Topic> =
            self.topics.keys().filter(|topic| !wanted.contains(topic)).copied().collect();
        for topic in &unwanted {
            debug!(server = %self.url, topic = %topic.short(), reason = "no party visits it", "leaving topic");
            self.topics.remove(topic);
        }
        unwanted
    }

    /// Takes a part of a topic's roster; `more` says that another one follows. Returns true if this device is let in
    /// on its first topic over this connection; `None` if the topic was not asked for.
    pub(super) fn on_roster(
        &mut self,
        now: Instant,
        topic: &Topic,
        handles: impl Iterator<Item = Handle>,
        more: bool,
    ) -> Option<bool> {
        let first = self.topics.values().all(|entry| !entry.entered);
        let entry = self.topics.get_mut(topic)?;
        for handle in handles {
            entry.insert(handle);
            if let Some(visit) = entry.visit.as_mut().filter(|visit| visit.own == handle) {
                visit.own_is_listed = true;
            }
        }
        if let Some(visit) = entry.visit.as_mut().filter(|_| !more) {
            entry.entered = true;
            if visit.own_is_listed {
                debug!(server = %self.url, topic = %topic.short(), "another run has this device's place, or had it");
                visit.until = Some(now + RUN_ANSWER_TIMEOUT);
            } else {
                self.claim(*topic);
            }
            return Some(false);
        }
        entry.entered |= !more;
        if !more {
            debug!(server = %self.url, topic = %topic.short(), count = entry.present.len(), "topic entered");
        }
        Some(first && !more)
    }

    /// Notes that a member is present on a topic; `None` if the topic was not asked for.
    pub(super) fn on_present(&mut self, topic: &Topic, handle: Handle) -> Option<()> {
        self.topics.get_mut(topic).map(|entry| entry.insert(handle))
    }

    /// Notes that a member is no longer present on a topic.
    pub(super) fn on_gone(&mut self, topic: &Topic, handle: &Handle) {
        if let Some(entry) = self.topics.get_mut(topic) {
            trace!(server = %self.url, topic = %topic.short(), "member no longer listed");
            entry.present.remove(handle);
        }
    }

    /// Notes that the server refused an announcement for now. It is to be made again, after entering again if this
    /// device was not let in.
    pub(super) fn on_announcement_refused(&mut self, topic: &Topic, outside: bool) {
        let Some(entry) = self.topics.get_mut(topic) else { return };
        entry.announced = 0;
        if outside || !entry.entered || entry.is_visit() {
            self.topics.remove(topic);
        }
    }

    /// Notes a grant of relay credentials, to be renewed when half of its lifetime is over.
    pub(super) fn on_relay_grant(&mut self, now: Now, expires: Timestamp) {
        let lifetime = expires.since(now.unix).clamp(MIN_GRANT_LIFETIME, MAX_GRANT_LIFETIME);
        self.renew_grant_at = Some(now.instant + lifetime / 2);
    }

    /// Returns a topic on which to ask for relay credentials, if there is no fresh grant and a topic was entered.
    pub(super) fn grant_due(&self, now: Instant) -> Option<Topic> {
        let stale = self.renew_grant_at.is_none_or(|at| at <= now);
        let mut entered = self.topics.iter().filter(|(_, entry)| entry.is_entered());
        entered.next().filter(|_| stale).map(|(topic, _)| *topic)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn opened() -> (Instant, ServerLink) {
        let now = Instant::now();
        let mut link = ServerLink::new(now, "wss://server".into());
        assert!(link.poll_open(now) && !link.poll_open(now));
        link.on_opened(now);
        (now, link)
    }

    #[test]
    fn server_that_sends_no_challenge_is_closed_once() {
        let (now, mut link) = opened();
        assert_eq!(link.poll_timeout(), Some(now + RESPONSE_TIMEOUT));
        assert!(!link.poll_silent(now + RESPONSE_TIMEOUT - SECOND));
        assert!(link.poll_silent(now + RESPONSE_TIMEOUT) && !link.poll_silent(now + RESPONSE_TIMEOUT));
    }

    #[test]
    fn any_frame_proves_liveness() {
        let (now, mut link) = opened();
        link.on_received();
        link.on_welcome([1; 32]);
        assert!(link.is_ready() && link.poll_timeout().is_none());
        assert!(link.require_liveness(now, RESPONSE_TIMEOUT));
        link.on_received();
        assert!(!link.poll_silent(now + 2 * RESPONSE_TIMEOUT));
    }

    #[test]
    fn retries_slow_down_until_a_connection_was_stable() {
        let (mut now, mut link) = opened();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for failures in 1..10 {
            link.on_closed(now, None, &mut rng);
            let delay = RETRY.delay_after(failures);
            let at = link.poll_timeout().expect("a retry");
            assert!((delay / 2..=delay).contains(&(at - now)), "{failures}");
            now = at;
            assert!(link.poll_open(now));
            link.on_opened(now);
        }
        link.on_welcome([1; 32]);
        now += STABLE_AFTER;
        link.on_closed(now, None, &mut rng);
        assert!(link.poll_timeout().expect("a retry") - now <= RETRY.delay_after(1));
    }

    #[test]
    fn topic_is_entered_with_the_last_part_of_its_roster_and_lists_so_many() {
        let (now, mut link) = opened();
        let topic = Topic([1; 32]);
        let handles = |range: std::ops::Range<u16>| {
            range.map(|n| {
                let mut handle = Handle([0; 16]);
                handle.0[..2].copy_from_slice(&n.to_be_bytes());
                handle
            })
        };
        assert_eq!(link.on_roster(now, &topic, handles(0..1), false), None, "not asked for");
        link.topics.insert(topic, TopicEntry::default());
        assert_eq!(link.on_roster(now, &topic, handles(0..500), true), Some(false));
        assert!(!link.topic(&topic).unwrap().is_entered());
        assert_eq!(link.on_roster(now, &topic, handles(500..600), false), Some(true));
        assert_eq!(link.topic(&topic).unwrap().present().count(), MAX_PRESENT);
        link.on_gone(&topic, &handles(0..1).next().unwrap());
        assert_eq!(link.topic(&topic).unwrap().present().count(), MAX_PRESENT - 1);
        link.on_announcement_refused(&topic, false);
        assert!(link.topic(&topic).unwrap().has_announced(0), "to be announced again");
        link.on_announcement_refused(&topic, true);
        assert!(link.topic(&topic).is_none(), "to be entered again");
    }

    #[test]
    fn own_place_is_taken_at_once_where_it_is_free_and_else_when_nobody_answers() {
        let (now, mut link) = opened();
        let (topic, own, other) = (Topic([1; 32]), Handle([2; 16]), Handle([3; 16]));
        let visit = || TopicEntry {
            visit: Some(Visit { own, own_is_listed: false, until: None }),
            ..TopicEntry::default()
        };
        link.topics.insert(topic, visit());
        assert_eq!(link.on_roster(now, &topic, [other].into_iter(), true), Some(false));
        assert!(!link.has_claimed(&topic), "the roster goes on");
        assert_eq!(link.on_roster(now, &topic, std::iter::empty(), false), Some(false));
        assert!(link.has_claimed(&topic) && link.topic(&topic).is_none(), "free");

        link.on_replaced(&topic);
        link.topics.insert(topic, visit());
        link.on_roster(now, &topic, [own].into_iter(), false);
        assert!(!link.has_claimed(&topic) && !link.topic(&topic).unwrap().is_entered());
        assert_eq!(link.poll_timeout(), Some(now + RUN_ANSWER_TIMEOUT));
        assert!(!link.poll_visits(now + RUN_ANSWER_TIMEOUT / 2));
        assert!(link.poll_visits(now + RUN_ANSWER_TIMEOUT) && link.has_claimed(&topic));
        link.on_closed(now, None, &mut ChaCha20Rng::seed_from_u64(1));
        assert!(link.has_claimed(&topic), "another connection of the same run");
    }

    #[test]
    fn connection_of_a_lost_network_is_reopened_at_once() {
        let (now, mut link) = opened();
        assert!(link.abandon());
        link.on_closed(now, None, &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(link.poll_timeout(), Some(now));
        assert!(!link.abandon(), "nothing is open");
    }

    #[test]
    fn grant_is_renewed_at_half_of_its_lifetime_and_needs_an_entered_topic() {
        let (instant, mut link) = opened();
        let now = Now { instant, unix: Timestamp(0) };
        let topic = Topic([1; 32]);
        link.topics.insert(topic, TopicEntry::default());
        assert_eq!(link.grant_due(instant), None);
        assert_eq!(
            link.on_roster(instant, &topic, std::iter::empty(), true),
            Some(false),
            "the roster is not complete"
        );
        assert_eq!(link.on_roster(instant, &topic, std::iter::empty(), false), Some(true));
        assert_eq!(link.grant_due(instant), Some(topic));
        link.on_relay_grant(now, Timestamp(200_000));
        assert_eq!(link.grant_due(instant + 99 * SECOND), None);
        assert_eq!(link.grant_due(instant + 100 * SECOND), Some(topic));
        link.on_relay_grant(now, Timestamp(0));
        assert_eq!(link.grant_due(instant + 29 * SECOND), None, "an expired grant is trusted for a minute");
    }
}
