//! Contact lists: members without a server find each other's addresses in the Mainline DHT.
//!
//! Everybody who looks for others on a topic reads the topic's list of the day, asks the addresses in it
//! ([`Direct`]), and puts its own contact there. Once members are connected, two of them go on, the
//! *publishers*, so that somebody who comes later finds one. The lobby's list is kept as long as somebody is invited.

mod listing;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_dht::{Config, Dht, Event as DhtEvent, Families, Item, LookupId};
use partyline_model::{DeviceId, Discovery, Now, PartyId, Topic};
use partyline_party::{Day, Reachability};
use partyline_wire::contact_list::{Contact, HandleTag, MAX_ADDRESSES};
use rand_core::RngCore as _;
use tracing::{debug, info, trace};

use self::listing::{Due, Haste, Listing};
use super::{
    channel::Context,
    direct::Direct,
    event::Event,
    party::LocalParty,
    reach::{public_addresses, reach_rank},
    tunnels::Tunnels,
};
use crate::io::Output;

/// How many members of a connected group go on publishing.
const PUBLISHERS: usize = 2;
/// Bounds of the pause before a list is read again that another member wrote at the same moment.
const CONFLICT_PAUSE: (u64, u64) = (400, 1200);
/// After how many reads in a row that no node answers the network is taken to block the DHT.
const MAX_UNANSWERED: u32 = 3;
/// Between look-ups of the routers while no node answers.
const ROUTER_RETRY: Duration = Duration::from_secs(30);

type Place = (PartyId, Topic, Day);

/// The client of the DHT, and the lists that this device reads or keeps.
pub(super) struct ContactLists {
    dht: Dht,
    on: bool,
    listings: BTreeMap<Place, Listing>,
    lookups: BTreeMap<LookupId, (Place, Purpose)>,
    /// Hosts and ports of nodes by which everybody gets to know the DHT.
    routers: Vec<(String, u16)>,
    routers_at: Option<Instant>,
    /// What the parties need may have changed.
    sync_at: Option<Instant>,
    /// Whether the DHT answers, once that is known.
    answering: Option<bool>,
    /// How many reads in a row no node has answered.
    unanswered: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    Write,
}

/// What a party needs of its lists at present.
struct Need {
    topics: Vec<Topic>,
    haste: Haste,
}

impl ContactLists {
    /// Returns a client that is off. The seed must be secret and fresh.
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            dht: Dht::new(seed, Config::default()),
            on: false,
            listings: BTreeMap::new(),
            lookups: BTreeMap::new(),
            routers: Vec::new(),
            routers_at: None,
            sync_at: None,
            answering: None,
            unanswered: 0,
        }
    }

    /// Switches the DHT on or off, and names the routers, each as `host:port`.
    pub(super) fn configure(&mut self, now: Instant, on: bool, routers: &[String]) {
        let parse = |router: &String| {
            let (host, port) = router.rsplit_once(':')?;
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        };
        self.routers = routers.iter().filter_map(parse).collect();
        if !on {
            self.stop();
        }
        if std::mem::replace(&mut self.on, on) != on {
            self.routers_at = Some(now);
            self.sync_soon(now);
        }
    }

    fn stop(&mut self) {
        self.lookups.keys().for_each(|lookup| self.dht.cancel(*lookup));
        self.lookups.clear();
        self.listings.clear();
    }

    /// Names nodes of the DHT that a link has named.
    pub(super) fn add_nodes(&mut self, now: Instant, nodes: impl IntoIterator<Item = SocketAddr>) {
        self.dht.add_nodes(now, nodes);
    }

    /// Takes the addresses of a host, which may be a router.
    pub(super) fn handle_resolved(&mut self, now: Instant, host: &str, port: u16, addresses: &[SocketAddr]) {
        if self.routers.iter().any(|(router, of)| router == host && *of == port) {
            debug!(host, ?addresses, "router of the DHT looked up");
            self.dht.add_nodes(now, addresses.iter().copied());
            self.expedite_all(now);
        }
    }

    /// The computer has other addresses.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.dht.network_changed(now);
        self.expedite_all(now);
    }

    /// Sets on which families this computer can send.
    pub(super) fn set_families(&mut self, now: Instant, v4: bool, v6: bool) {
        self.dht.set_families(now, Families { v4, v6 });
    }

    /// Looks soon at what the parties need, since that may have changed.
    pub(super) fn sync_soon(&mut self, now: Instant) {
        self.sync_at = Some(now);
    }

    fn expedite_all(&mut self, now: Instant) {
        self.listings.values_mut().for_each(|listing| listing.expedite(now));
    }

    /// Looks at a party's lists at once and often, since somebody is expected.
    pub(super) fn expect(&mut self, now: Instant, party: PartyId) {
        self.sync_soon(now);
        let lists = self.listings.iter_mut().filter(|((of, ..), _)| *of == party);
        lists.for_each(|(_, listing)| listing.expect(now));
    }

    /// Returns nodes that answer, the best first, for links and for the next start.
    pub(super) fn good_nodes(&self) -> Vec<SocketAddr> {
        self.dht.good_nodes()
    }

    /// Returns the addresses at which nodes see this computer's main socket.
    pub(super) fn reflexive(&self) -> Vec<SocketAddr> {
        self.dht.reflexive().into_iter().map(|seen| seen.address).collect()
    }

    /// Returns how the friends of a party without a server are found.
    pub(super) fn discovery(&self, party: PartyId) -> Discovery {
        let mut lists =
            self.listings.iter().filter(|((of, ..), _)| *of == party).map(|(_, list)| list).peekable();
        let kept = lists.peek().is_none() && self.sync_at.is_none();
        match self.answering {
            _ if !self.on => Discovery::Off,
            Some(false) => Discovery::Blocked,
            _ if kept => Discovery::Kept,
            _ if lists.any(Listing::is_stored) => Discovery::Listed,
            _ => Discovery::Searching,
        }
    }

    /// Returns the client's counters.
    pub(super) const fn counters(&self) -> &partyline_dht::Counters {
        self.dht.counters()
    }

    /// Returns the moment to call [`Self::drive`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let lists = self.listings.values().filter_map(Listing::due_at).min();
        let routers = self.routers_at.filter(|_| !self.listings.is_empty());
        let sync = self.sync_at.filter(|_| self.on);
        [self.dht.poll_timeout(), lists, routers, sync].into_iter().flatten().min()
    }

    /// Takes a datagram from a node.
    pub(super) fn handle_datagram(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
        direct: &mut Direct,
        (source, datagram): (SocketAddr, &[u8]),
    ) {
        if let Err(reason) = self.dht.handle_datagram(cx.now.instant, source, datagram) {
            trace!(%source, ?reason, "message of the DHT dropped");
        }
        self.pump(cx, parties, direct);
    }

    /// Does what is due, with the lists that these parties need, and asks the addresses that they name.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
        (tunnels, direct): (&Tunnels, &mut Direct),
    ) {
        self.dht.handle_timeout(cx.now.instant);
        self.sync_at = None;
        if self.on {
            self.sync(cx, parties, tunnels);
            self.resolve_routers(cx);
        }
        self.pump(cx, parties, direct);
    }

    /// Begins lookups that are due, and passes on what came of others.
    fn pump(&mut self, cx: &mut Context<'_>, parties: &BTreeMap<PartyId, LocalParty>, direct: &mut Direct) {
        self.begin_lookups(cx, parties);
        while let Some(event) = self.dht.poll_event() {
            self.on_event(cx, parties, direct, event);
        }
        while let Some(transmit) = self.dht.poll_transmit() {
            cx.events.push_back(Event::Datagram { to: transmit.destination, bytes: transmit.bytes });
        }
    }

    /// Makes the lists those that the parties need now.
    fn sync(&mut self, cx: &Context<'_>, parties: &BTreeMap<PartyId, LocalParty>, tunnels: &Tunnels) {
        let (now, mut wanted) = (cx.now, BTreeMap::new());
        for party in parties.values().filter(|party| party.is_on() && party.is_serverless()) {
            let Need { topics, haste } = need(cx, party, tunnels);
            for topic in topics {
                wanted.extend(Day::around(now.unix).map(|day| ((party.id(), topic, day), haste)));
            }
        }
        self.listings.retain(|place, _| wanted.contains_key(place));
        for (place, haste) in wanted {
            let listing = self.listings.entry(place).or_insert_with(|| Listing::new(now.instant));
            listing.set_haste(now.instant, haste);
        }
        let void: Vec<LookupId> = self
            .lookups
            .iter()
            .filter(|(_, (place, _))| !self.listings.contains_key(place))
            .map(|(lookup, _)| *lookup)
            .collect();
        for lookup in void {
            self.dht.cancel(lookup);
            self.lookups.remove(&lookup);
        }
    }

    /// Looks up the routers while no node answers.
    fn resolve_routers(&mut self, cx: &mut Context<'_>) {
        let due = self.routers_at.is_some_and(|at| at <= cx.now.instant);
        if !due || self.listings.is_empty() {
            return;
        }
        self.routers_at = Some(cx.now.instant + ROUTER_RETRY).filter(|_| self.answering != Some(true));
        for (host, port) in self.routers.clone() {
            cx.output(Output::Resolve { host, port });
        }
    }

    fn begin_lookups(&mut self, cx: &mut Context<'_>, parties: &BTreeMap<PartyId, LocalParty>) {
        let (now, own) = (cx.now.instant, own_addresses(cx, &self.dht));
        let places: Vec<Place> = self.listings.keys().copied().collect();
        for place in places {
            let (party, topic, day) = place;
            let Some(party) = parties.get(&party) else { continue };
            let Some(listing) = self.listings.get_mut(&place) else { continue };
            let Some(due) = listing.poll(now, &own) else { continue };
            // Deriving keys takes longer than all the rest, and mostly nothing is due.
            let Some(keys) = party.membership.contact_list_keys(&topic, day) else { continue };
            let key = keys.item_key();
            let started = match due {
                Due::Search => (self.dht.get(now, key, Vec::new()), Purpose::Read),
                Due::Poll { seen } => (self.dht.poll_item(now, key, Vec::new(), seen), Purpose::Read),
                Due::Write { seen } => {
                    let Some((tag, contact)) = own_contact(cx, party, &topic, &own) else {
                        listing.on_written(now, false, ROUTER_RETRY);
                        continue;
                    };
                    let list = listing.with_own(tag, contact, own.clone());
                    let value = keys.seal(cx.rng, &list);
                    // A number that grows from one writer to the next, though they may not have seen each other's.
                    let clock = i64::try_from(cx.now.unix.0).unwrap_or(i64::MAX);
                    let sequence = seen.map_or(clock, |seen| clock.max(seen.saturating_add(1)));
                    let item = Item::sign(keys.signing_key(), Vec::new(), sequence, value);
                    (self.dht.put(now, item, seen), Purpose::Write)
                }
            };
            trace!(topic = %topic.short(), purpose = ?started.1, "looking up contact list");
            self.lookups.insert(started.0, (place, started.1));
        }
    }

    fn on_event(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
        direct: &mut Direct,
        event: DhtEvent,
    ) {
        match event {
            DhtEvent::Item { lookup, item } => self.on_item(cx, parties, direct, lookup, &item),
            DhtEvent::Done { lookup, outcome } => {
                let Some((place, purpose)) = self.lookups.remove(&lookup) else { return };
                let Some(listing) = self.listings.get_mut(&place) else { return };
                debug!(topic = %place.1.short(), ?purpose, ?outcome, "contact list looked up");
                let (low, high) = CONFLICT_PAUSE;
                let pause = Duration::from_millis(low + u64::from(cx.rng.next_u32()) % (high - low));
                match purpose {
                    Purpose::Read => {
                        listing.on_read(cx.now.instant, outcome.answered > 0);
                        self.note_answers(cx, outcome.answered > 0);
                    }
                    Purpose::Write => {
                        let stored = outcome.stored > 0 && outcome.conflicts == 0;
                        listing.on_written(cx.now.instant, stored, pause);
                    }
                }
            }
            DhtEvent::ReflexiveChanged => {
                let addresses = self.reflexive();
                debug!(?addresses, "seen by nodes of the DHT");
                cx.events.push_back(Event::SeenByDht(addresses));
                self.expedite_all(cx.now.instant);
            }
            DhtEvent::Answering(answering) => self.set_answering(cx, answering),
        }
    }

    /// Notes whether a list could be read. The client itself sees no difference between nodes that are dead and a network
    /// that drops everything while it knows only a few.
    fn note_answers(&mut self, cx: &mut Context<'_>, answered: bool) {
        self.unanswered = if answered { 0 } else { self.unanswered.saturating_add(1) };
        if answered || self.unanswered >= MAX_UNANSWERED {
            self.set_answering(cx, answered);
        }
    }

    fn set_answering(&mut self, cx: &mut Context<'_>, answering: bool) {
        if self.answering == Some(answering) {
            return;
        }
        info!(answering, "DHT");
        if answering && self.answering.is_none() {
            // The nodes that answer are worth keeping for the next start.
            cx.output(Output::Save);
        }
        self.answering = Some(answering);
        self.routers_at = (!answering).then_some(cx.now.instant);
        cx.events.push_back(Event::Changed);
    }

    /// Takes a copy of a list, and asks the addresses in it.
    fn on_item(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
        direct: &mut Direct,
        lookup: LookupId,
        item: &Item,
    ) {
        let Some(((id, topic, day), _)) = self.lookups.get(&lookup) else { return };
        let Some((party, listing)) = parties.get(id).zip(self.listings.get_mut(&(*id, *topic, *day))) else {
            return;
        };
        let keys = party.membership.contact_list_keys(topic, *day);
        let Some(list) = keys.and_then(|keys| keys.open(&item.value)) else {
            debug!(topic = %topic.short(), reason = "not one of ours", "contact list dropped");
            return;
        };
        let (own, now) = (own_tag(party, topic), unix_seconds(cx.now));
        listing.merge(now, item.seq, list, own);
        let others = listing.contacts().filter(|(tag, _)| Some(*tag) != own);
        let found: Vec<SocketAddr> = others
            .flat_map(|(_, contact)| party.membership.contact_addresses(topic, &contact.place))
            .collect();
        trace!(topic = %topic.short(), count = found.len(), "contacts found");
        found.into_iter().for_each(|address| direct.ask(cx, *id, *topic, address));
    }
}

/// Returns which lists a party needs, and how much it matters.
fn need(cx: &Context<'_>, party: &LocalParty, tunnels: &Tunnels) -> Need {
    let connected: Vec<DeviceId> = tunnels.connected(party.id()).collect();
    let alone = connected.is_empty();
    let publisher = alone || is_publisher(cx.reach, party, &connected);
    let haste = if alone { Haste::Searching } else { Haste::Watching };
    if !publisher {
        return Need { topics: Vec::new(), haste };
    }
    let current = party.membership.topic();
    let lobby = party.membership.awaited_lobby(cx.now.unix);
    Need { topics: std::iter::once(current).chain(lobby).collect(), haste }
}

/// Returns true if this device is among the [`PUBLISHERS`] best reachable ones of those that are connected with it. The
/// others come to the same result, as far as they are connected with the same members.
fn is_publisher(reach: &Reachability, party: &LocalParty, connected: &[DeviceId]) -> bool {
    let own = (reach_rank(&reach.candidates, Some(&reach.nat)), party.membership.me());
    let others = connected.iter().filter_map(|device| {
        let member = party.membership.member(device)?;
        Some((reach_rank(member.candidates, member.nat), *device))
    });
    others.filter(|other| *other < own).count() < PUBLISHERS
}

/// Returns the addresses at which this device can be reached from the internet, as far as they are known.
fn own_addresses(cx: &Context<'_>, dht: &Dht) -> Vec<SocketAddr> {
    let mut addresses = public_addresses(&cx.reach.candidates);
    for seen in dht.reflexive() {
        if addresses.iter().all(|known| known.ip() != seen.address.ip()) {
            addresses.push(seen.address);
        }
    }
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// Returns what this device says of itself in a list.
fn own_contact(
    cx: &mut Context<'_>,
    party: &LocalParty,
    topic: &Topic,
    addresses: &[SocketAddr],
) -> Option<(HandleTag, Contact)> {
    let place = party.membership.contact_place(cx.rng, topic, addresses)?;
    let publisher = !party.membership.is_waiting();
    Some((own_tag(party, topic)?, Contact { at: unix_seconds(cx.now), publisher, place }))
}

fn own_tag(party: &LocalParty, topic: &Topic) -> Option<HandleTag> {
    party.handle_of(topic, &party.membership.me()).map(HandleTag::from)
}

fn unix_seconds(now: Now) -> u32 {
    u32::try_from(now.unix.0 / 1000).unwrap_or(u32::MAX)
}
