//! Members as relays for each other.
//!
//! A member without a direct path to a peer asks the members it reaches directly to relay
//! (`ControlMessage::RequestRelay`). A member that reaches the peer directly as well, and whose user lets it serve
//! others, notes the pair and offers (`ControlMessage::OfferRelay`). From then on it forwards what either sends for
//! the other (`ControlMessage::Forward`, `ControlMessage::Forwarded`): tunnel messages and connectivity checks,
//! which are sealed between the two, so that it can read and forge nothing. All of it travels inside the tunnels, so
//! only members can ask, and none can pose as another.
//!
//! What is forwarded arrives by a direct path and leaves by one, so it never goes in circles; one message becomes one
//! of the same size; and a member serves a limited number of pairs, within a budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, PartyId};
use partyline_paths::{MemberRelay, PeerId};
use partyline_timing::{Backoff, Rate, TokenBucket};
use tracing::{debug, trace};

use crate::egress::PACKET_ROOM;

/// Pairs of members served at a time.
const MAX_SERVED_PAIRS: usize = 16;
/// How long a pair is served after its last message.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes forwarded, over all pairs: 2 MB/s, and half a megabyte at once.
const FORWARD_RATE: Rate = Rate::per_second(2_000_000, 512 * 1024);
/// The longest message that is forwarded: a tunnel message with a full packet.
const MAX_MESSAGE_LEN: usize = PACKET_ROOM;
/// How often peers without a direct path are looked for.
const SEARCH_INTERVAL: Duration = Duration::from_secs(2);
/// The delay between two searches for one peer.
const SEARCH_BACKOFF: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
/// Members asked in one search, the nearest first.
pub(super) const MAX_ASKED: usize = 6;
/// Own messages that may wait to be wrapped for a relaying member.
const MAX_WAITING: usize = 512;

/// Two members of a party, the lower id first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct MemberPair {
    party: PartyId,
    low: DeviceId,
    high: DeviceId,
}

impl MemberPair {
    fn new(party: PartyId, one: DeviceId, other: DeviceId) -> Self {
        Self { party, low: one.min(other), high: one.max(other) }
    }
}

/// Counters of forwarded messages and of those that were not, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberRelayCounters {
    /// Messages forwarded for others.
    pub forwarded: u64,
    /// Not forwarded: the user does not serve other members.
    pub not_willing: u64,
    /// Not forwarded: one of the two is unknown, or not reached directly.
    pub not_direct: u64,
    /// Not forwarded: the pair did not ask, or was silent for too long.
    pub not_served: u64,
    /// Not forwarded: longer than any tunnel message.
    pub too_long: u64,
    /// Not forwarded: over the budget.
    pub over_budget: u64,
    /// Requests refused because too many pairs are served.
    pub too_many_pairs: u64,
    /// Own messages dropped because too many wait to be wrapped.
    pub queue_full: u64,
    /// Own messages dropped because the relaying member is not reached directly any more.
    pub relay_lost: u64,
}

impl MemberRelayCounters {
    /// Returns every counter with its label.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self {
            forwarded,
            not_willing,
            not_direct,
            not_served,
            too_long,
            over_budget,
            too_many_pairs,
            queue_full,
            relay_lost,
        } = *self;
        [
            ("forwarded", forwarded),
            ("not_willing", not_willing),
            ("not_direct", not_direct),
            ("not_served", not_served),
            ("too_long", too_long),
            ("over_budget", over_budget),
            ("too_many_pairs", too_many_pairs),
            ("queue_full", queue_full),
            ("relay_lost", relay_lost),
        ]
        .into_iter()
    }
}

/// The pairs that this device relays for, and the searches for members that would relay for it.
#[derive(Debug)]
pub(super) struct MemberRelays {
    /// True if the user lets this device serve other members.
    serves_members: bool,
    served: BTreeMap<MemberPair, Instant>,
    searches: BTreeMap<PeerId, Search>,
    search_at: Instant,
    /// Own messages to be wrapped for the relaying member.
    waiting: Vec<(MemberRelay, Vec<u8>)>,
    budget: TokenBucket,
    counters: MemberRelayCounters,
}

#[derive(Debug)]
struct Search {
    next: Instant,
    backoff: Backoff,
    asked: BTreeSet<DeviceId>,
}

impl MemberRelays {
    pub(super) fn new(now: Instant, serves_members: bool) -> Self {
        Self {
            serves_members,
            served: BTreeMap::new(),
            searches: BTreeMap::new(),
            search_at: now,
            waiting: Vec::new(),
            budget: TokenBucket::new(FORWARD_RATE),
            counters: MemberRelayCounters::default(),
        }
    }

    /// Sets whether the user lets this device serve other members.
    pub(super) const fn set_serves_members(&mut self, serves_members: bool) {
        self.serves_members = serves_members;
    }

    /// Returns true if the user lets this device serve other members, be it as a relay or in their network checks.
    pub(super) const fn serves_members(&self) -> bool {
        self.serves_members
    }

    /// Returns the moment to look for peers that need a relay.
    pub(super) const fn poll_timeout(&self) -> Instant {
        self.search_at
    }

    /// On another network, members that could not help before may do so now.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.searches.clear();
        self.search_at = now + SEARCH_INTERVAL;
    }

    /// Returns true once when the moment to look for peers that need a relay has come.
    pub(super) fn poll_search(&mut self, now: Instant) -> bool {
        let due = self.search_at <= now;
        if due {
            self.search_at = now + SEARCH_INTERVAL;
        }
        due
    }

    /// Ends the searches for peers that need no relay any more.
    pub(super) fn retain_searches(&mut self, wanted: &BTreeSet<PeerId>) {
        self.searches.retain(|peer, _| wanted.contains(peer));
    }

    /// Returns true if members may be asked to relay to this peer now, and plans the next time.
    pub(super) fn begin_search(&mut self, now: Instant, peer: PeerId) -> bool {
        let new = || Search { next: now, backoff: SEARCH_BACKOFF, asked: BTreeSet::new() };
        let search = self.searches.entry(peer).or_insert_with(new);
        let due = search.next <= now;
        if due {
            search.next = now + search.backoff.next_delay_at(0.0);
            search.asked.clear();
        }
        due
    }

    /// Notes that a member was asked to relay to a peer.
    pub(super) fn on_asked(&mut self, peer: PeerId, member: DeviceId) {
        if let Some(search) = self.searches.get_mut(&peer) {
            search.asked.insert(member);
        }
    }

    /// Returns true if a member's offer to relay to a peer may be used: it was asked, and this is its first answer.
    pub(super) fn admit_offer(&mut self, peer: PeerId, member: DeviceId) -> bool {
        let asked = self.searches.get_mut(&peer).is_some_and(|search| search.asked.remove(&member));
        if !asked {
            debug!(peer = %member.short(), reason = "not asked", "relay offer ignored");
        }
        asked
    }

    /// Returns true if this device agrees to relay between two members.
    pub(super) fn serve(&mut self, now: Instant, party: PartyId, from: DeviceId, to: DeviceId) -> bool {
        if !self.serves_members || from == to {
            debug!(from = %from.short(), to = %to.short(), reason = "not willing", "relay request refused");
            return false;
        }
        let pair = MemberPair::new(party, from, to);
        self.served.retain(|_, last| now.saturating_duration_since(*last) < SERVICE_TIMEOUT);
        let room = self.served.len() < MAX_SERVED_PAIRS || self.served.contains_key(&pair);
        if room {
            debug!(from = %from.short(), to = %to.short(), count = self.served.len(), "relaying for members");
            self.served.insert(pair, now);
        } else {
            self.counters.too_many_pairs += 1;
            debug!(from = %from.short(), to = %to.short(), reason = "too many pairs", "relay request refused");
        }
        room
    }

    /// Returns true if a message from one member for another may be forwarded. `direct` says whether both are reached
    /// directly.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        party: PartyId,
        (from, to): (DeviceId, DeviceId),
        direct: bool,
        len: usize,
    ) -> bool {
        let pair = MemberPair::new(party, from, to);
        let served = self.served.get_mut(&pair);
        let served = served.filter(|last| now.saturating_duration_since(**last) < SERVICE_TIMEOUT);
        let counters = &mut self.counters;
        let (reason, counter) = if !self.serves_members {
            ("not willing", &mut counters.not_willing)
        } else if !direct || from == to {
            ("not direct", &mut counters.not_direct)
        } else if let Some(last) = served {
            if len > MAX_MESSAGE_LEN {
                ("too long", &mut counters.too_long)
            } else if !self.budget.take(now, len as u64) {
                ("over budget", &mut counters.over_budget)
            } else {
                *last = now;
                counters.forwarded += 1;
                return true;
            }
        } else {
            ("not served", &mut counters.not_served)
        };
        *counter += 1;
        trace!(from = %from.short(), to = %to.short(), len, reason, "message not forwarded");
        false
    }

    /// Counts a message whose receiver is unknown.
    pub(super) const fn on_unknown_receiver(&mut self) {
        self.counters.not_direct += 1;
    }

    /// Keeps an own message until it is wrapped for the relaying member.
    pub(super) fn push(&mut self, relay: MemberRelay, message: Vec<u8>) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push((relay, message));
        } else {
            trace!(?relay, len = message.len(), reason = "too many wait", "message not sent");
            self.counters.queue_full += 1;
        }
    }

    /// Takes the own messages that wait to be wrapped.
    pub(super) fn take_waiting(&mut self) -> Vec<(MemberRelay, Vec<u8>)> {
        std::mem::take(&mut self.waiting)
    }

    /// Counts an own message whose relaying member is not reached directly any more.
    pub(super) const fn on_relay_lost(&mut self) {
        self.counters.relay_lost += 1;
    }

    /// Returns the counters.
    pub(super) const fn counters(&self) -> &MemberRelayCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: PartyId = PartyId([1; 32]);
    const ANA: DeviceId = DeviceId([200; 32]);

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn relays() -> (Instant, MemberRelays) {
        let now = Instant::now();
        (now, MemberRelays::new(now, true))
    }

    fn device(number: u8) -> DeviceId {
        DeviceId([number; 32])
    }

    fn admit(relays: &mut MemberRelays, now: Instant, to: u8, len: usize) -> bool {
        relays.admit(now, PARTY, (ANA, device(to)), true, len)
    }

    #[test]
    fn only_pairs_that_asked_are_served_and_only_so_many() {
        let (now, mut relays) = relays();
        assert!(!admit(&mut relays, now, 1, 100));
        assert!((0..16).all(|number| relays.serve(now, PARTY, ANA, device(number))));
        assert!(!relays.serve(now, PARTY, ANA, device(16)) && relays.serve(now, PARTY, device(3), ANA));
        assert!(admit(&mut relays, now, 3, 100) && !admit(&mut relays, now, 16, 100));
        let later = now + SERVICE_TIMEOUT;
        assert!(!admit(&mut relays, later, 3, 100), "silent for too long");
        assert!(relays.serve(later, PARTY, ANA, device(16)));
        let counters = relays.counters();
        assert_eq!((counters.forwarded, counters.not_served, counters.too_many_pairs), (1, 3, 1));
    }

    #[test]
    fn nothing_is_forwarded_without_the_users_leave_or_a_direct_path() {
        let (now, mut relays) = relays();
        assert!(relays.serve(now, PARTY, ANA, device(1)));
        assert!(!relays.admit(now, PARTY, (ANA, device(1)), false, 100));
        relays.set_serves_members(false);
        assert!(!admit(&mut relays, now, 1, 100) && !relays.serve(now, PARTY, ANA, device(1)));
        assert_eq!((relays.counters().not_direct, relays.counters().not_willing), (1, 1));
    }

    #[test]
    fn budget_runs_out_and_fills_again() {
        let (now, mut relays) = relays();
        assert!(relays.serve(now, PARTY, ANA, device(1)));
        assert!(!admit(&mut relays, now, 1, MAX_MESSAGE_LEN + 1));
        assert_eq!((0..1_000).filter(|_| admit(&mut relays, now, 1, 1_024)).count(), 512);
        let later = now + Duration::from_millis(100);
        assert_eq!((0..1_000).filter(|_| admit(&mut relays, later, 1, 1_000)).count(), 200);
    }

    #[test]
    fn searches_slow_down_and_offers_count_once_from_members_that_were_asked() {
        let (now, mut relays) = relays();
        let peer = PeerId(1);
        assert!(relays.begin_search(now, peer) && !relays.begin_search(now, peer));
        relays.on_asked(peer, ANA);
        assert!(!relays.admit_offer(peer, device(1)) && relays.admit_offer(peer, ANA));
        assert!(!relays.admit_offer(peer, ANA), "answered already");
        let second = now + SEARCH_BACKOFF.delay_after(1);
        let too_early = second + SEARCH_BACKOFF.delay_after(1);
        assert!(relays.begin_search(second, peer) && !relays.begin_search(too_early, peer));
        relays.network_changed(second);
        assert!(relays.begin_search(second, peer), "another network");
        relays.retain_searches(&BTreeSet::new());
        assert!(relays.searches.is_empty());
    }

    #[test]
    fn waiting_messages_are_limited() {
        let (_, mut relays) = relays();
        let relay = MemberRelay { through: PeerId(1), to: PeerId(2) };
        (0..600).for_each(|_| relays.push(relay, vec![0]));
        assert_eq!((relays.take_waiting().len(), relays.counters().queue_full), (512, 88));
        assert!(relays.take_waiting().is_empty());
    }
}
