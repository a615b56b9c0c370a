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
use partyline_party::{Membership, Outgoing, Reachability};
use partyline_wire::rendezvous::ClientFrame;
use tracing::debug;

use super::{
    channel::Context,
    link::{Room, ServerLink, enter_frame},
};

/// How long to wait for servers that have not confirmed a leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(600);

/// Parties that were left, and whose servers have not all confirmed it.
#[derive(Default)]
pub(super) struct PendingLeaves(BTreeMap<PartyId, PendingLeave>);

struct PendingLeave {
    membership: Membership,
    until: Instant,
    /// Servers that have yet to confirm, and the question that each was asked last.
    owed: BTreeMap<String, Option<u64>>,
}

impl PendingLeaves {
    /// Keeps a membership that was just left until its servers have confirmed.
    pub(super) fn start(&mut self, now: Instant, membership: Membership) {
        let owed = membership.servers().iter().map(|url| (url.clone(), None)).collect();
        let leave = PendingLeave { membership, until: now + LEAVE_TIMEOUT, owed };
        self.0.insert(leave.membership.id(), leave);
    }

    /// Forgets a party that was joined again.
    pub(super) fn cancel(&mut self, party: PartyId) {
        self.0.remove(&party);
    }

    /// Returns the servers that have to be connected.
    pub(super) fn servers(&self) -> impl Iterator<Item = &String> {
        self.0.values().flat_map(|leave| leave.owed.keys())
    }

    /// Returns the topics that must stay entered.
    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.0.values().flat_map(|leave| leave.membership.topics()).map(|access| access.topic)
    }

    /// Returns the moment at which a pending leave is given up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.values().map(|leave| leave.until).min()
    }

    /// Returns the frames that this server lacks: leave messages and a question on topics that are entered, and the
    /// request to be let in on others.
    pub(super) fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut ServerLink,
        numbers: &mut u32,
    ) -> Vec<ClientFrame> {
        let Some(challenge) = link.challenge() else { return Vec::new() };
        let mut frames = Vec::new();
        for leave in self.0.values_mut() {
            let Some(asked) = leave.owed.get_mut(&link.url) else { continue };
            let membership = &mut leave.membership;
            let Some(access) = membership.topics().into_iter().find(|access| access.current) else {
                continue;
            };
            let Some(room) = link.rooms.get(&access.topic) else {
                link.rooms.insert(access.topic, Room::default());
                let nowhere = Reachability::default();
                let mut outcome = membership.announcement(cx.now.unix, cx.rng, &access.topic, &nowhere);
                let record = outcome.messages.pop().map(|message| message.message);
                frames.extend(record.and_then(|record| enter_frame(membership, &challenge, &access, record)));
                continue;
            };
            if room.entered {
                for message in membership.leave(cx.now.unix, cx.rng).messages {
                    let Some(room) = link.rooms.get(&message.topic) else { continue };
                    frames.extend(leave_frames(membership, room, &message, numbers));
                }
                *numbers = numbers.wrapping_add(1);
                let echo = u64::from(*numbers);
                *asked = Some(echo);
                frames.push(ClientFrame::Time { echo });
                link.require_liveness(cx.now.instant);
                debug!(party = %membership.id().short(), server = %link.url, "leave sent, waiting for confirmation");
            }
        }
        frames
    }

    /// Notes that a server answered a question, and so has everything that was sent before it. Returns true if a leave
    /// is complete.
    pub(super) fn on_time_reply(&mut self, now: Instant, url: &str, echo: u64) -> bool {
        for (party, leave) in &mut self.0 {
            if leave.owed.get(url) == Some(&Some(echo)) {
                debug!(party = %party.short(), server = %url, "leave confirmed");
                leave.owed.remove(url);
            }
        }
        self.expire(now)
    }

    /// Drops leaves that are complete or have waited too long; returns true if there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|party, leave| {
            if leave.until <= now {
                debug!(party = %party.short(), count = leave.owed.len(), reason = "servers unreachable for 10 min", "leave given up");
            }
            leave.until > now && !leave.owed.is_empty()
        });
        self.0.len() < before
    }
}

/// Addresses a leave message to every member, and to everybody else who is listed.
fn leave_frames(
    membership: &Membership,
    room: &Room,
    leave: &Outgoing,
    numbers: &mut u32,
) -> Vec<ClientFrame> {
    let topic = leave.topic;
    let members = membership.devices().filter_map(|device| membership.handle_of(&topic, &device));
    let all: BTreeSet<Handle> = members.chain(room.present.iter().copied()).collect();
    let frame = |to| {
        *numbers = numbers.wrapping_add(1);
        ClientFrame::Send { topic, to, id: *numbers, message: leave.message.clone() }
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
        let mut poll = |leaves: &mut PendingLeaves, link: &mut ServerLink| {
            let mut cx = Context {
                now: Now { instant: now, unix: UNIX },
                rng: &mut rng,
                reach: &reach,
                events: &mut events,
                counters: &mut counters,
            };
            leaves.poll_frames(&mut cx, link, &mut 0)
        };
        assert!(poll(&mut leaves, &mut link).is_empty(), "not connected");
        link.on_opened(now);
        link.on_welcome([1; 32]);
        let frames = poll(&mut leaves, &mut link);
        assert!(matches!(frames.as_slice(), [ClientFrame::Enter { .. }]));
        link.rooms.values_mut().for_each(|room| room.entered = true);
        let asked = echo(&poll(&mut leaves, &mut link)).expect("a question");
        assert!(!leaves.on_time_reply(now, URL, asked + 1) && !leaves.on_time_reply(now, "wss://x", asked));
        assert!(leaves.on_time_reply(now, URL, asked));
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
