//! What is known of one address that direct signaling goes to.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, Topic};
use partyline_timing::Backoff;
use partyline_wire::direct::{Nonce, Part};

use super::assembly::Assembly;

/// How many nonces of the other side are remembered: of the topics that both have in common, and of former requests.
const MAX_NONCES: usize = 8;
/// How long a link lasts without a sign of the other side.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer counts as a sign that the other side is still there.
const FRESH: Duration = Duration::from_secs(15);
/// When an announcement to somebody from whom nothing was received is repeated, since a datagram may be lost.
const REPEAT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(8));

/// How often somebody is answered that says again what is known, and the least time between such answers.
const MAX_ANSWERS: u32 = 8;
const ANSWER_INTERVAL: Duration = Duration::from_millis(300);

/// How many messages wait until the other side answers.
const MAX_WAITING: usize = 4;

/// How often this device announces itself to somebody who says nothing.
const MAX_REPEATS: u32 = 8;

/// One address, and who is there.
#[derive(Debug)]
pub(super) struct Link {
    /// The nonce of this device's newest request that was answered, by the topic that the answer proved.
    answered: BTreeMap<Topic, (Nonce, Instant)>,
    /// Topics that the other side has shown to know in some other way.
    shared: Vec<Topic>,
    /// Topics on which the other side has said something.
    spoken: Vec<Topic>,
    /// Nonces of the other side's requests that this device has answered, newest first.
    nonces: VecDeque<Nonce>,
    /// The member that has spoken last from there.
    pub device: Option<DeviceId>,
    received_at: Instant,
    assembly: Assembly,
    /// Tagged messages for the time when the other side has answered.
    waiting: VecDeque<Vec<u8>>,
    next_message: u32,
    repeats: u32,
    repeat_at: Option<Instant>,
    announced_at: Option<Instant>,
    answers: u32,
}

impl Link {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            answered: BTreeMap::new(),
            shared: Vec::new(),
            spoken: Vec::new(),
            nonces: VecDeque::new(),
            device: None,
            received_at: now,
            assembly: Assembly::default(),
            waiting: VecDeque::new(),
            next_message: 0,
            repeats: 0,
            repeat_at: None,
            announced_at: None,
            answers: 0,
        }
    }

    /// Notes a request of the other side that was answered.
    pub(super) fn on_request(&mut self, now: Instant, nonce: Nonce) {
        self.received_at = now;
        if !self.nonces.contains(&nonce) {
            self.nonces.truncate(MAX_NONCES - 1);
            self.nonces.push_front(nonce);
        }
    }

    /// Notes that the other side has answered; returns true if it had not shown before that it is on the topic.
    pub(super) fn on_response(&mut self, now: Instant, topic: Topic, nonce: Nonce) -> bool {
        self.received_at = now;
        self.answered.insert(topic, (nonce, now)).is_none()
    }

    /// Takes a part of a message, which must name a request that this device has answered; returns the message that it
    /// completes.
    pub(super) fn on_part(&mut self, now: Instant, part: &Part<'_>) -> Option<Vec<u8>> {
        if !self.nonces.contains(&part.nonce) {
            return None;
        }
        self.received_at = now;
        self.assembly.add(part)
    }

    /// Notes who has spoken on a topic; returns true if that is news.
    pub(super) fn on_message(&mut self, device: DeviceId, topic: Topic) -> bool {
        let other = self.device.replace(device) != Some(device);
        let new = !self.spoken.contains(&topic);
        if new {
            self.spoken.push(topic);
        }
        self.share(topic);
        new || other
    }

    /// Notes that the other side knows a topic; returns true if that is news.
    pub(super) fn share(&mut self, topic: Topic) -> bool {
        let new = !self.knows(&topic);
        if new {
            self.shared.push(topic);
            self.repeats = 0;
        }
        new
    }

    /// Returns true if the other side has shown that it knows a topic.
    pub(super) fn knows(&self, topic: &Topic) -> bool {
        self.answered.contains_key(topic) || self.shared.contains(topic)
    }

    /// Returns true if there is no need to ask whether somebody on the topic is there.
    pub(super) fn is_fresh(&self, now: Instant, topic: &Topic) -> bool {
        self.answered.get(topic).is_some_and(|(_, at)| now.saturating_duration_since(*at) < FRESH)
    }

    /// Returns what messages to the other side are sent under: the newest nonce that it has answered, and the number of the
    /// message. `None` while it has answered none.
    pub(super) fn next_message(&mut self) -> Option<(Nonce, u32)> {
        let (nonce, _) = self.answered.values().max_by_key(|(_, at)| *at)?;
        self.next_message = self.next_message.wrapping_add(1);
        Some((*nonce, self.next_message))
    }

    /// Keeps a message until the other side answers. The oldest makes room for it.
    pub(super) fn hold(&mut self, tagged: Vec<u8>) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(tagged);
    }

    /// Returns the messages that have waited for an answer.
    pub(super) fn take_waiting(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.waiting)
    }

    /// Notes that this device has announced itself, and plans to do so again unless the other side speaks on the topic
    /// meanwhile.
    pub(super) fn on_announced(&mut self, now: Instant, topic: &Topic) {
        self.announced_at = Some(now);
        if !self.spoken.contains(topic) && self.repeats < MAX_REPEATS {
            self.repeats += 1;
            self.repeat_at = Some(now + REPEAT.delay_after(self.repeats));
        }
    }

    /// Returns true if the other side may have missed the last announcement, and it is time for another one.
    pub(super) fn poll_answer(&mut self, now: Instant) -> bool {
        let early = self.announced_at.is_some_and(|at| now.saturating_duration_since(at) < ANSWER_INTERVAL);
        let due = !early && self.answers < MAX_ANSWERS;
        self.answers += u32::from(due);
        due
    }

    /// Returns true once when this device is to announce itself again.
    pub(super) fn poll_repeat(&mut self, now: Instant) -> bool {
        let due = self.repeat_at.take_if(|at| *at <= now).is_some();
        due && self.topics().any(|topic| !self.spoken.contains(topic))
    }

    /// Returns true once nothing was received from the other side for too long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.received_at) >= TIMEOUT
    }

    /// Returns the moment of the next repetition, or of the end.
    pub(super) fn next_at(&self) -> Instant {
        let end = self.received_at + TIMEOUT;
        self.repeat_at.map_or(end, |at| at.min(end))
    }

    /// Returns the topics that the other side has shown to know.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.answered.keys().chain(&self.shared)
    }
}

#[cfg(test)]
mod tests {
    use partyline_wire::direct::{Direct, parts};

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn parts_count_only_under_a_nonce_that_was_answered() {
        let (now, answered) = (Instant::now(), Nonce([1; 8]));
        let mut link = Link::new(now);
        link.on_request(now, answered);
        let part = |nonce| parts(nonce, 1, b"tagged").remove(0);
        for (nonce, message) in [(Nonce([2; 8]), None), (answered, Some(b"tagged".to_vec()))] {
            let datagram = part(nonce);
            let Some(Direct::Part(part)) = Direct::decode(&datagram) else { panic!("a part") };
            assert_eq!(link.on_part(now, &part), message);
        }
    }
}
