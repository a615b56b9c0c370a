//! Leaving a party so that the others learn of it.
//!
//! A device that leaves is rid of the party at once, but just then its connection to the server may be down, or dead
//! without anybody knowing. So a leave stays pending, with the membership that is needed to sign it, until every server
//! of the party has shown that it has it, by answering a question that was sent after it. The server keeps the message
//! for members that are away; those whose own connection was dead learn of it from the others, who repeat it for a
//! minute to every member that comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use partyline_model::{Handle, PartyId, Topic};
use partyline_party::{Membership, Outgoing, Reachability, TopicAccess};
use partyline_wire::rendezvous::ClientFrame;
use tracing::debug;

use super::{
    channel::Context,
    link::{RESPONSE_TIMEOUT, ServerLink, TopicEntry},
};

/// How long to wait for servers that have not confirmed a leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long to wait for the answer to a question before it is asked again, since the server may have refused it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Parties that this device has left, and whose servers have not all confirmed it.
#[derive(Default)]
pub(super) struct PendingLeaves(BTreeMap<PartyId, PendingLeave>);

struct PendingLeave {
    membership: Membership,
    until: Instant,
    /// Servers that have yet to confirm, by URL.
    owed: BTreeMap<String, Progress>,
}

/// How far a leave is on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Not sent over the present connection.
    Unsent,
    /// Sent; to be followed by a question as soon as no refused message waits to be sent again.
    Sent,
    /// Followed by a question, whose answer must repeat this number.
    Asked { echo: u64, again_at: Instant },
}

impl PendingLeaves {
    /// Keeps a membership that was just left until its servers have confirmed.
    pub(super) fn start(&mut self, now: Instant, membership: Membership) {
        debug!(party = %membership.id().short(), count = membership.servers().len(), "leave pending");
        let owed = membership.servers().iter().map(|url| (url.clone(), Progress::Unsent)).collect();
        let leave = PendingLeave { membership, until: now + LEAVE_TIMEOUT, owed };
        self.0.insert(leave.membership.id(), leave);
    }

    /// Forgets a party that was joined again.
    pub(super) fn cancel(&mut self, party: PartyId) {
        if self.0.remove(&party).is_some() {
            debug!(party = %party.short(), reason = "joined again", "leave cancelled");
        }
    }

    /// Returns the servers that have to be connected.
    pub(super) fn servers(&self) -> impl Iterator<Item = &String> {
        self.0.values().flat_map(|leave| leave.owed.keys())
    }

    /// Returns the topics that must stay entered.
    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.0.values().flat_map(|leave| leave.membership.topics()).map(|access| access.topic)
    }

    /// Returns the next moment at which a pending leave is given up, or a question asked again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let questions =
            self.0.values().flat_map(|leave| leave.owed.values()).filter_map(|progress| match progress {
                Progress::Asked { again_at, .. } => Some(*again_at),
                Progress::Unsent | Progress::Sent => None,
            });
        self.0.values().map(|leave| leave.until).chain(questions).min()
    }

    /// Returns the frames that this server lacks: leave messages and a question on topics that are entered, and the
    /// request to be let in on others. No question is asked while refused messages wait to be sent to the server again
    /// (`resending`), since its answer would prove nothing.
    pub(super) fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut ServerLink,
        last_number: &mut u32,
        resending: bool,
    ) -> Vec<ClientFrame> {
        let mut frames = Vec::new();
        if !link.is_ready() {
            return frames;
        }
        for leave in self.0.values_mut() {
            let Some(progress) = leave.owed.get_mut(&link.url) else { continue };
            let membership = &mut leave.membership;
            let Some(access) = membership.topics().into_iter().find(TopicAccess::is_current) else {
                continue;
            };
            let entered = link.topic(&access.topic).map(TopicEntry::is_entered);
            if entered.is_none() {
                let nowhere = Reachability::default();
                let mut outcome = membership.announcement(cx.now.unix, cx.rng, &access.topic, &nowhere);
                let record = outcome.messages.pop().map(|message| (message.message, 0));
                frames.extend(record.and_then(|record| link.enter(membership, access.topic, record)));
            } else if entered == Some(true) {
                frames.extend(progress.advance(cx, membership, link, (last_number, resending)));
            }
        }
        frames
    }

    /// Notes that a server answered a question, and so has everything that was sent before it, except what waits to be
    /// sent again (`resending`). Returns true if a leave is complete.
    pub(super) fn on_time_reply(&mut self, now: Instant, url: &str, echo: u64, resending: bool) -> bool {
        for (party, leave) in &mut self.0 {
            let Some(progress) = leave.owed.get_mut(url) else { continue };
            if !matches!(progress, Progress::Asked { echo: asked, .. } if *asked == echo) {
                continue;
            }
            if resending {
                debug!(party = %party.short(), server = %url, reason = "refused in part", "leave not confirmed yet");
                *progress = Progress::Sent;
            } else {
                debug!(party = %party.short(), server = %url, "leave confirmed");
                leave.owed.remove(url);
            }
        }
        self.expire(now)
    }

    /// Notes that the connection with a server ended: what was sent over it may be lost.
    pub(super) fn on_disconnected(&mut self, url: &str) {
        let leaves = self.0.values_mut();
        leaves.filter_map(|leave| leave.owed.get_mut(url)).for_each(|progress| *progress = Progress::Unsent);
    }

    /// Drops leaves that are complete or have waited too long; returns true if there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|party, leave| {
            if leave.until <= now {
                debug!(party = %party.short(), count = leave.owed.len(), reason = "not confirmed in time", "leave given up");
            }
            leave.until > now && !leave.owed.is_empty()
        });
        self.0.len() < before
    }
}

impl Progress {
    /// Returns the frames that are due on a server where the topic is entered, and notes that they are sent.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        membership: &mut Membership,
        link: &mut ServerLink,
        (last_number, resending): (&mut u32, bool),
    ) -> Vec<ClientFrame> {
        let (party, now) = (membership.id().short(), cx.now.instant);
        let mut frames = Vec::new();
        if *self == Self::Unsent {
            for message in membership.leave(cx.now.unix, cx.rng).messages {
                let Some(entry) = link.topic(&message.topic) else { continue };
                frames.extend(leave_frames(membership, entry, &message, last_number));
            }
            debug!(%party, server = %link.url, count = frames.len(), "leave sent");
            *self = Self::Sent;
        }
        let unanswered = matches!(self, Self::Asked { again_at, .. } if *again_at <= now);
        if (*self == Self::Sent || unanswered) && !resending {
            *last_number = last_number.wrapping_add(1);
            let echo = u64::from(*last_number);
            *self = Self::Asked { echo, again_at: now + ANSWER_TIMEOUT };
            frames.push(ClientFrame::Time { echo });
            link.require_liveness(now, RESPONSE_TIMEOUT);
            debug!(%party, server = %link.url, unanswered, "waiting for confirmation of the leave");
        }
        frames
    }
}

/// Addresses a leave message to every member, and to everybody else who is listed.
fn leave_frames(
    membership: &Membership,
    entry: &TopicEntry,
    leave: &Outgoing,
    last_number: &mut u32,
) -> Vec<ClientFrame> {
    let topic = leave.topic;
    let members = membership.devices().filter_map(|device| membership.handle_of(&topic, &device));
    let all: BTreeSet<Handle> = members.chain(entry.present()).collect();
    let frame = |to| {
        *last_number = last_number.wrapping_add(1);
        ClientFrame::Send { topic, to, id: *last_number, kept: true, message: leave.message.clone() }
    };
    all.into_iter().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use partyline_model::{Now, Timestamp};
    use partyline_party::{DeviceKey, NewParty};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::signaling::counters::SignalingCounters;

    const URL: &str = "wss://server.example";
    const UNIX: Timestamp = Timestamp(1_790_000_000_000);

    fn membership(rng: &mut ChaCha20Rng) -> Membership {
        let party = NewParty {
            name: "Leaving".to_owned(),
            display_name: "Ana".to_owned(),
            servers: vec![URL.to_owned()],
            range: "10.77.0.0/24".parse().expect("a range"),
        };
        let device = DeviceKey::generate(rng);
        Membership::create(UNIX, rng, &device, party).expect("a party")
    }

    fn echo(frames: &[ClientFrame]) -> Option<u64> {
        frames.iter().find_map(|frame| match frame {
            ClientFrame::Time { echo } => Some(*echo),
            _ => None,
        })
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn leave_is_pending_until_the_server_answers_a_later_question() {
        let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
        let (mut leaves, mut link) = (PendingLeaves::default(), ServerLink::new(now, URL.to_owned()));
        leaves.start(now, membership(&mut rng));
        let (mut events, mut counters, reach) =
            (VecDeque::new(), SignalingCounters::default(), Reachability::default());
        let mut number = 0;
        let mut poll = |leaves: &mut PendingLeaves, link: &mut ServerLink, resending: bool| {
            let mut cx = Context {
                now: Now { instant: now, unix: UNIX },
                rng: &mut rng,
                reach: &reach,
                events: &mut events,
                counters: &mut counters,
            };
            leaves.poll_frames(&mut cx, link, &mut number, resending)
        };
        assert!(poll(&mut leaves, &mut link, false).is_empty(), "not connected");
        link.on_opened(now);
        link.on_welcome([1; 32]);
        let frames = poll(&mut leaves, &mut link, false);
        let [ClientFrame::Enter { topic, .. }] = frames.as_slice() else { panic!("{frames:?}") };
        assert!(poll(&mut leaves, &mut link, false).is_empty(), "not let in yet");
        link.on_roster(now, topic, [Handle([9; 16])].into_iter(), false);
        let frames = poll(&mut leaves, &mut link, false);
        let asked = echo(&frames).expect("a question");
        assert_eq!(frames.len(), 2, "one message for the handle that is listed");
        assert!(poll(&mut leaves, &mut link, false).is_empty(), "sent once");
        assert!(!leaves.on_time_reply(now, URL, asked + 1, false));
        assert!(!leaves.on_time_reply(now, "wss://x", asked, false));
        assert!(!leaves.on_time_reply(now, URL, asked, true), "the message was refused");
        assert!(poll(&mut leaves, &mut link, true).is_empty(), "it waits to be sent again");
        let asked = echo(&poll(&mut leaves, &mut link, false)).expect("another question");
        leaves.on_disconnected(URL);
        let frames = poll(&mut leaves, &mut link, false);
        assert_eq!(frames.len(), 2, "sent again over another connection");
        assert!(!leaves.on_time_reply(now, URL, asked, false), "the answer to an earlier question");
        assert!(leaves.on_time_reply(now, URL, echo(&frames).expect("a question"), false));
        assert_eq!(leaves.poll_timeout(), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn leave_is_given_up_after_ten_minutes() {
        let (now, mut leaves) = (Instant::now(), PendingLeaves::default());
        leaves.start(now, membership(&mut ChaCha20Rng::seed_from_u64(1)));
        assert!(!leaves.expire(now + LEAVE_TIMEOUT - Duration::from_secs(1)));
        assert_eq!(leaves.poll_timeout(), Some(now + LEAVE_TIMEOUT));
        assert!(leaves.expire(now + LEAVE_TIMEOUT));
        assert_eq!(leaves.servers().count(), 0);
    }
}
