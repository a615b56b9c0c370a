//! Members as relays for each other.
//!
//! Who has no direct path to a friend asks members that it reaches directly (`AskPassage`). One that reaches the
//! friend directly as well, and whose user lets it serve, notes the two and says so (`OfferPassage`). From then on it
//! passes on what either sends for the other (`Pass`, `Passed`): tunnel messages and checks, which are sealed between
//! the two, so that it can read and forge nothing. All of it travels inside the tunnels, so that only members of the
//! party can ask, and nobody can claim to be somebody else.
//!
//! What is passed on comes by a direct path and leaves by one, so that it never goes in circles; one message becomes
//! one of the same size; and whoever serves does so for a few pairs only, within a budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, Now, PartyId};
use partyline_paths::{Local, MemberRelay, PeerId};

use crate::{Node, control::ControlMessage, egress::Egress, packets::PACKET_ROOM};

/// Pairs served at a time.
const MOST_SERVED: usize = 16;
/// How long a pair is served after its last message.
const SERVED: Duration = Duration::from_secs(120);
/// Bytes a second passed on, and how many at once.
const RATE: f64 = 2_000_000.0;
const BURST: f64 = 512.0 * 1024.0;
/// The longest message that is passed on: a tunnel message of a full packet.
const LONGEST: usize = PACKET_ROOM;
/// How often somebody is looked for, doubling up to the longest pause.
const LOOK: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Members asked at a time, the nearest first.
const ASKED: usize = 6;
/// Messages of ours that may wait to be wrapped.
const WAITING: usize = 512;

/// The part of a device id that names a member within a party.
pub(crate) type Mark = [u8; 8];

/// Two members of a party, the lower id first.
type Pair = (PartyId, DeviceId, DeviceId);

/// What is passed on, and what others pass on for us.
#[derive(Debug)]
pub(crate) struct Passages {
    served: BTreeMap<Pair, Instant>,
    searches: BTreeMap<PeerId, Search>,
    /// Messages of ours to be wrapped for whoever passes them on.
    waiting: Vec<(MemberRelay, Vec<u8>)>,
    look_at: Instant,
    tokens: f64,
    filled: Instant,
    /// Messages that were not passed on.
    refused: u32,
}

#[derive(Debug)]
struct Search {
    next: Instant,
    pause: Duration,
    asked: BTreeSet<DeviceId>,
}

impl Passages {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            served: BTreeMap::new(),
            searches: BTreeMap::new(),
            waiting: Vec::new(),
            look_at: now,
            tokens: BURST,
            filled: now,
            refused: 0,
        }
    }

    pub(crate) const fn deadline(&self) -> Instant {
        self.look_at
    }

    /// On another network, whoever could not help before may do so now.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        self.searches.clear();
        self.look_at = now + LOOK;
    }

    /// Keeps a message of ours until it is wrapped.
    pub(crate) fn push(&mut self, passage: MemberRelay, message: Vec<u8>) {
        if self.waiting.len() < WAITING {
            self.waiting.push((passage, message));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Agrees to serve two members, unless there are too many already.
    fn serve(&mut self, now: Instant, pair: Pair) -> bool {
        self.served.retain(|_, last| now.saturating_duration_since(*last) < SERVED);
        let room = self.served.len() < MOST_SERVED || self.served.contains_key(&pair);
        if room {
            self.served.insert(pair, now);
        }
        room
    }

    /// Whether a message between two may be passed on now; counts it if not.
    fn admit(&mut self, now: Instant, pair: &Pair, len: usize) -> bool {
        let gain = now.saturating_duration_since(self.filled).as_secs_f64() * RATE;
        (self.tokens, self.filled) = ((self.tokens + gain).min(BURST), now);
        let cost = f64::from(u32::try_from(len).unwrap_or(u32::MAX));
        let known = self.served.get_mut(pair).filter(|last| now.saturating_duration_since(**last) < SERVED);
        if let Some(last) = known
            && len <= LONGEST
            && self.tokens >= cost
        {
            *last = now;
            self.tokens -= cost;
            return true;
        }
        self.refused = self.refused.saturating_add(1);
        false
    }
}

impl Node {
    /// Looks for members that would pass packets on, for friends that are not reached without a server.
    pub(crate) fn seek_passages(&mut self, now: Now) {
        if self.passages.look_at > now.instant {
            return;
        }
        self.passages.look_at = now.instant + LOOK;
        let wanting: BTreeSet<PeerId> =
            self.paths.peers_wanting_member_relay(now.instant).into_iter().collect();
        self.passages.searches.retain(|peer, _| wanting.contains(peer));
        for peer in wanting {
            let Some((party, to)) = self.peers.member(peer) else { continue };
            if self.is_known_online(now, party, &to) && self.search_due(now.instant, peer) {
                self.ask_around(now, party, peer, to);
            }
        }
    }

    fn search_due(&mut self, now: Instant, peer: PeerId) -> bool {
        let fresh = || Search { next: now, pause: FIRST_PAUSE, asked: BTreeSet::new() };
        let search = self.passages.searches.entry(peer).or_insert_with(fresh);
        let due = search.next <= now;
        if due {
            search.next = now + search.pause;
            search.pause = (search.pause * 2).min(LONGEST_PAUSE);
            search.asked.clear();
        }
        due
    }

    fn ask_around(&mut self, now: Now, party: PartyId, peer: PeerId, to: DeviceId) {
        let mut near: Vec<(Duration, DeviceId)> = self
            .connected(party)
            .into_iter()
            .filter_map(|member| Some((self.paths.direct_rtt(self.peers.id(party, member)?)?, member)))
            .collect();
        near.sort_unstable();
        for (_, member) in near.into_iter().take(ASKED) {
            if let Some(search) = self.passages.searches.get_mut(&peer) {
                search.asked.insert(member);
            }
            self.send_control(now.instant, party, member, &ControlMessage::AskPassage { to });
        }
    }

    /// A member asks whether we would pass its packets on to another one.
    pub(crate) fn asked_for_passage(&mut self, now: Now, party: PartyId, from: DeviceId, to: DeviceId) {
        let reached = |device| self.peers.id(party, device).filter(|peer| self.paths.is_direct(*peer));
        let (Some(_), Some(far)) = (reached(from), reached(to)) else { return };
        let Some(rtt) = self.paths.direct_rtt(far) else { return };
        let served = self.settings.serve_friends && from != to;
        if served && self.passages.serve(now.instant, ordered(party, from, to)) {
            let rtt_ms = u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX);
            self.send_control(now.instant, party, from, &ControlMessage::OfferPassage { to, rtt_ms });
        }
    }

    /// A member would pass our packets on; believed only if it was asked.
    pub(crate) fn offered_passage(
        &mut self,
        now: Now,
        party: PartyId,
        from: DeviceId,
        to: DeviceId,
        rtt_ms: u16,
    ) {
        let (Some(through), Some(to)) = (self.peers.id(party, from), self.peers.id(party, to)) else {
            return;
        };
        let asked = |search: &mut Search| search.asked.remove(&from);
        if self.passages.searches.get_mut(&to).is_some_and(asked) {
            let rest = Duration::from_millis(rtt_ms.into());
            self.paths.offer_member_relay(now.instant, MemberRelay { through, to }, rest);
        }
    }

    /// A member wants a message passed on.
    pub(crate) fn pass_on(&mut self, now: Now, party: PartyId, from: DeviceId, to: Mark, message: Vec<u8>) {
        let Some(to) = self.marked(party, to) else { return };
        let direct = |device| self.peers.id(party, device).is_some_and(|peer| self.paths.is_direct(peer));
        let willing = self.settings.serve_friends && from != to && direct(from) && direct(to);
        if willing && self.passages.admit(now.instant, &ordered(party, from, to), message.len()) {
            let passed = ControlMessage::Passed { from: mark(&from), message };
            self.send_control(now.instant, party, to, &passed);
        }
    }

    /// By what a message came that a member passed on, if both are members and the one is reached directly.
    pub(crate) fn passed_by(&self, party: PartyId, through: DeviceId, from: Mark) -> Option<Local> {
        let from = self.marked(party, from)?;
        let through = self.peers.id(party, through).filter(|peer| self.paths.is_direct(*peer))?;
        let to = self.peers.id(party, from).filter(|to| *to != through)?;
        Some(Local::Member(MemberRelay { through, to }))
    }

    /// Wraps what waits for those that pass it on, and sends it.
    pub(crate) fn send_passed(&mut self, now: Now, egress: &mut impl Egress) {
        for (MemberRelay { through, to }, message) in std::mem::take(&mut self.passages.waiting) {
            let (Some((party, helper)), Some((_, to))) = (self.peers.member(through), self.peers.member(to))
            else {
                continue;
            };
            // Nothing is passed on twice: whoever passes it on must be reached directly.
            if self.paths.is_direct(through) {
                self.send_control(
                    now.instant,
                    party,
                    helper,
                    &ControlMessage::Pass { to: mark(&to), message },
                );
            }
        }
        self.send_outbox(now, egress);
        self.passages.waiting.clear();
    }

    fn marked(&self, party: PartyId, mark_: Mark) -> Option<DeviceId> {
        let local = self.parties.get(&party)?;
        let mut found = local.membership.devices().filter(|id| mark(id) == mark_);
        found.next().filter(|_| found.next().is_none())
    }

    /// Whether a member is worth looking for.
    fn is_known_online(&self, now: Now, party: PartyId, device: &DeviceId) -> bool {
        let Some(local) = self.parties.get(&party).filter(|local| local.on) else { return false };
        let path = self.peers.id(party, *device).and_then(|id| self.paths.view(now.instant, id));
        self.is_online(now.instant, local, device, path.as_ref(), None)
    }
}

fn mark(device: &DeviceId) -> Mark {
    device.0.first_chunk().copied().unwrap_or_default()
}

fn ordered(party: PartyId, one: DeviceId, other: DeviceId) -> Pair {
    (party, one.min(other), one.max(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn passages() -> (Instant, Passages) {
        let now = Instant::now();
        (now, Passages::new(now))
    }

    fn pair(number: u8) -> Pair {
        ordered(PartyId([1; 32]), DeviceId([200; 32]), DeviceId([number; 32]))
    }

    #[test]
    fn only_pairs_that_asked_are_served_and_only_so_many() {
        let (now, mut passages) = passages();
        assert!(!passages.admit(now, &pair(1), 100));
        for number in 0..16 {
            assert!(passages.serve(now, pair(number)));
        }
        assert!(!passages.serve(now, pair(16)) && passages.serve(now, pair(3)));
        assert!(passages.admit(now, &pair(3), 100) && !passages.admit(now, &pair(16), 100));
        let later = now + SERVED;
        assert!(!passages.admit(later, &pair(3), 100), "not used for long");
        assert!(passages.serve(later, pair(16)));
        assert_eq!(passages.refused, 3);
    }

    #[test]
    fn the_budget_runs_out_and_fills_again() {
        let (now, mut passages) = passages();
        assert!(passages.serve(now, pair(1)));
        assert!(!passages.admit(now, &pair(1), LONGEST + 1));
        let sent = (0..1_000).filter(|_| passages.admit(now, &pair(1), 1_024)).count();
        assert_eq!(sent, 512);
        let later = now + Duration::from_millis(100);
        let more = (0..1_000).filter(|_| passages.admit(later, &pair(1), 1_000)).count();
        assert_eq!(more, 200);
    }
}
