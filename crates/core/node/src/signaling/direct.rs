//! Direct signaling: sealed messages as datagrams on the tunnel's own socket.
//!
//! This is how members find each other without any server. An address from a link, a contact list, or a member's last
//! announcement is asked whether somebody on the topic is there ([`Attempt`]); requests of both sides open their NATs for
//! each other. Who answers is a [`Link`], to which announcements and messages go until there is a tunnel.

mod assembly;
mod attempt;
mod link;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, PartyId, Topic, is_public};
use partyline_party::Outgoing;
use partyline_timing::{Rate, TokenBucket};
use partyline_wire::{
    direct::{self, Direct as Datagram, Greeting, Nonce},
    tagged::{self, Tagged},
};
use rand_core::RngCore as _;
use tracing::{debug, trace};

use self::{attempt::Attempt, link::Link};
use super::{
    channel::{Channel, Context, Covered},
    channel_kind::ChannelKind,
    event::Event,
    party::LocalParty,
};

/// How many addresses are asked at a time.
const MAX_ATTEMPTS: usize = 64;
/// How many addresses may be linked at a time.
const MAX_LINKS: usize = 256;
/// Requests and responses that are sent.
const GREETING_RATE: Rate = Rate::per_second(64, 128);
/// How long to wait until there is room for more requests.
const PAUSE: Duration = Duration::from_millis(50);

/// The links and attempts of all parties.
#[derive(Debug)]
pub(super) struct Direct {
    attempts: BTreeMap<(PartyId, SocketAddr, Topic), Attempt>,
    links: BTreeMap<(PartyId, SocketAddr), Link>,
    budget: TokenBucket,
    /// No requests are sent before this moment, since there were too many.
    paused_until: Option<Instant>,
}

/// What a datagram meant for signaling.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing.
    Nothing,
    /// A member of the topic has answered at the address for the first time.
    Met { party: PartyId, address: SocketAddr },
    /// A tagged message is complete.
    Message { party: PartyId, bytes: Vec<u8> },
}

impl Default for Direct {
    fn default() -> Self {
        Self {
            attempts: BTreeMap::new(),
            links: BTreeMap::new(),
            budget: TokenBucket::new(GREETING_RATE),
            paused_until: None,
        }
    }
}

impl Direct {
    /// Asks an address whether somebody on the topic is there, unless that is known or being asked. Addresses that are not
    /// public are not asked: they would be of another network.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>, party: PartyId, topic: Topic, address: SocketAddr) {
        let now = cx.now.instant;
        let known = self.links.get(&(party, address)).is_some_and(|link| link.is_fresh(now, &topic));
        let room = self.attempts.len() < MAX_ATTEMPTS && address.port() != 0;
        if known || !room || !is_public(address.ip()) || self.attempts.contains_key(&(party, address, topic))
        {
            return;
        }
        debug!(party = %party.short(), topic = %topic.short(), %address, "asking whether somebody is there");
        let mut nonce = Nonce([0; 8]);
        cx.rng.fill_bytes(&mut nonce.0);
        self.attempts.insert((party, address, topic), Attempt::start(now, nonce));
    }

    /// Forgets everything about a party.
    pub(super) fn forget(&mut self, party: PartyId) {
        self.attempts.retain(|(of, ..), _| *of != party);
        self.links.retain(|(of, _), _| *of != party);
    }

    /// Forgets all links: on another network the others see this device at another address.
    pub(super) fn forget_all(&mut self) {
        self.attempts.clear();
        self.links.clear();
    }

    /// Returns true if a member is linked.
    pub(super) fn is_linked(&self, party: PartyId, member: &DeviceId) -> bool {
        self.links_of(party).any(|(_, link)| link.device.as_ref() == Some(member))
    }

    fn links_of(&self, party: PartyId) -> impl Iterator<Item = (SocketAddr, &Link)> {
        let all = (party, SocketAddr::from(([0, 0, 0, 0], 0)))..;
        self.links
            .range(all)
            .take_while(move |((of, _), _)| *of == party)
            .map(|((_, address), link)| (*address, link))
    }

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let attempts = self.attempts.values().map(Attempt::next_at).min();
        let attempts = attempts.map(|at| self.paused_until.map_or(at, |until| at.max(until)));
        attempts.into_iter().chain(self.links.values().map(Link::next_at)).min()
    }

    /// Sends the requests that are due, ends what is over, and returns to whom this device has to announce itself again.
    pub(super) fn handle_timeout(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
    ) -> Vec<(PartyId, SocketAddr)> {
        let now = cx.now.instant;
        self.links.retain(|(_, address), link| {
            let over = link.is_over(now);
            if over {
                debug!(%address, reason = "nothing received", "link ended");
            }
            !over
        });
        self.attempts.retain(|_, attempt| !attempt.is_over(now));
        self.send_requests(cx, parties);
        let due = self.links.iter_mut().filter_map(|(at, link)| link.poll_repeat(now).then_some(*at));
        due.collect()
    }

    fn send_requests(&mut self, cx: &mut Context<'_>, parties: &BTreeMap<PartyId, LocalParty>) {
        let now = cx.now.instant;
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        let (mut void, mut due) = (Vec::new(), Vec::new());
        for ((party, address, topic), attempt) in &mut self.attempts {
            match parties.get(party).and_then(|party| direct_key(party, topic)) {
                None => void.push((*party, *address, *topic)),
                Some(_) if self.budget.available(now) == 0 => self.paused_until = Some(now + PAUSE),
                Some(key) if attempt.poll_request(now) && self.budget.take(now, 1) => {
                    due.push((*address, direct::request(&key, attempt.nonce)));
                }
                Some(_) => {}
            }
        }
        void.into_iter().for_each(|attempt| _ = self.attempts.remove(&attempt));
        due.into_iter().for_each(|(to, bytes)| cx.events.push_back(Event::Datagram { to, bytes }));
    }

    /// Takes a datagram of direct signaling.
    pub(super) fn handle_datagram(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Arrival {
        match Datagram::decode(datagram) {
            Some(Datagram::Request(request)) => self.on_request(cx, parties, source, &request),
            Some(Datagram::Response(response)) => self.on_response(cx, parties, source, &response),
            Some(Datagram::Part(part)) => {
                let linked = self.links.iter_mut().filter(|((_, address), _)| *address == source);
                let arrived = linked
                    .filter_map(|((party, _), link)| Some((*party, link.on_part(cx.now.instant, &part)?)));
                arrived.last().map_or(Arrival::Nothing, |(party, bytes)| Arrival::Message { party, bytes })
            }
            None => {
                trace!(%source, len = datagram.len(), reason = "malformed", "datagram dropped");
                Arrival::Nothing
            }
        }
    }

    /// Answers a request of somebody on one of the topics, and asks back.
    fn on_request(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
        source: SocketAddr,
        request: &Greeting,
    ) -> Arrival {
        let now = cx.now.instant;
        let on = parties.values().filter(|party| party.is_on());
        let mut known = on.flat_map(|party| {
            party.membership.direct_keys().map(move |(topic, key)| (party.id(), topic, *key))
        });
        let Some((party, topic, key)) = known.find(|(.., key)| request.is_under(key)) else {
            trace!(%source, reason = "of no party here", "request dropped");
            return Arrival::Nothing;
        };
        let room = self.links.len() < MAX_LINKS || self.links.contains_key(&(party, source));
        if !room || !self.budget.take(now, 1) {
            debug!(%source, reason = "too many", "request dropped");
            return Arrival::Nothing;
        }
        self.links.entry((party, source)).or_insert_with(|| Link::new(now)).on_request(now, request.nonce);
        cx.events.push_back(Event::Datagram { to: source, bytes: direct::response(&key, request.nonce) });
        self.ask(cx, party, topic, source);
        Arrival::Nothing
    }

    fn on_response(
        &mut self,
        cx: &mut Context<'_>,
        parties: &BTreeMap<PartyId, LocalParty>,
        source: SocketAddr,
        response: &Greeting,
    ) -> Arrival {
        let asked = self
            .attempts
            .iter()
            .find(|((_, address, _), attempt)| *address == source && attempt.nonce == response.nonce);
        let Some((&(party, address, topic), _)) = asked else {
            trace!(%source, reason = "not asked", "response dropped");
            return Arrival::Nothing;
        };
        let key = parties.get(&party).and_then(|party| direct_key(party, &topic));
        if !key.is_some_and(|key| response.is_under(&key)) {
            debug!(%source, reason = "not genuine", "response dropped");
            return Arrival::Nothing;
        }
        self.attempts.remove(&(party, address, topic));
        let now = cx.now.instant;
        let link = self.links.entry((party, address)).or_insert_with(|| Link::new(now));
        let news = link.on_response(now, topic, response.nonce);
        for tagged in link.take_waiting() {
            if let Some(under) = link.next_message() {
                transmit_tagged(cx, address, under, &tagged);
            }
        }
        if news {
            debug!(party = %party.short(), topic = %topic.short(), %address, "somebody answered");
            Arrival::Met { party, address }
        } else {
            Arrival::Nothing
        }
    }

    /// Notes who has spoken from an address, and on which topic; returns true if that is news.
    pub(super) fn on_message(
        &mut self,
        (party, address): (PartyId, SocketAddr),
        device: DeviceId,
        topic: Topic,
    ) -> bool {
        self.links.get_mut(&(party, address)).is_some_and(|link| link.on_message(device, topic))
    }

    /// Returns true if the other side, which is known, has said something again: it seems not to have received what this device said. That
    /// is answered a few times, and not at once.
    pub(super) fn poll_answer(&mut self, now: Instant, (party, address): (PartyId, SocketAddr)) -> bool {
        self.links.get_mut(&(party, address)).is_some_and(|link| link.poll_answer(now))
    }

    /// Notes that the other side of a link knows a topic, since it has handed over its secret.
    pub(super) fn share(&mut self, (party, address): (PartyId, SocketAddr), topic: Topic) {
        if let Some(link) = self.links.get_mut(&(party, address)) {
            link.share(topic);
        }
    }

    /// Announces this device at an address, on the topics that both know.
    pub(super) fn announce_to(&mut self, cx: &mut Context<'_>, party: &mut LocalParty, address: SocketAddr) {
        if !party.may_speak(cx.now.instant) {
            return;
        }
        let Some(link) = self.links.get_mut(&(party.id(), address)) else { return };
        let topics: Vec<Topic> = link.topics().copied().collect();
        for topic in topics {
            let outcome = party.membership.announcement(cx.now.unix, cx.rng, &topic, cx.reach);
            if let Some(message) = cx.take_message(outcome) {
                link.on_announced(cx.now.instant, &topic);
                transmit(cx, (address, link), &message);
            }
        }
    }
}

impl Channel for Direct {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Direct
    }

    fn reaches(&self, party: &LocalParty, _: &Topic, members: &[DeviceId]) -> bool {
        matches!(members, [member] if self.is_linked(party.id(), member))
    }

    /// To the member's address where it is known, else to everybody on the topic who is linked, since a message does not
    /// show for whom it is. A member within reach of another channel needs no datagram.
    fn send(&mut self, cx: &mut Context<'_>, party: &LocalParty, message: &Outgoing, covered: Covered<'_>) {
        let id = party.id();
        if !party.is_on() || message.to.is_some_and(|to| covered(party, &message.topic, &[to])) {
            return;
        }
        let linked = message.to.is_some_and(|to| self.is_linked(id, &to));
        for ((_, address), link) in self.links.iter_mut().filter(|((party, _), _)| *party == id) {
            let meant = if linked { link.device == message.to } else { link.knows(&message.topic) };
            if meant {
                transmit(cx, (*address, link), message);
            }
        }
    }

    fn announce(&mut self, cx: &mut Context<'_>, party: &mut LocalParty, covered: Covered<'_>) {
        let topic = party.membership.topic();
        let addresses: Vec<SocketAddr> = self
            .links_of(party.id())
            .filter(|(_, link)| link.knows(&topic))
            .filter(|(_, link)| !link.device.is_some_and(|device| covered(party, &topic, &[device])))
            .map(|(address, _)| address)
            .collect();
        addresses.into_iter().for_each(|address| self.announce_to(cx, party, address));
    }
}

/// Sends a message, at once if the other side has answered, else once it has: its first message may overtake its answer.
fn transmit(cx: &mut Context<'_>, (address, link): (SocketAddr, &mut Link), message: &Outgoing) {
    let tagged = tagged::encode(&message.topic, &message.message);
    match link.next_message() {
        Some(under) => transmit_tagged(cx, address, under, &tagged),
        None => {
            trace!(channel = "direct", %address, reason = "it has not answered yet", "message waits");
            link.hold(tagged);
        }
    }
}

fn transmit_tagged(cx: &mut Context<'_>, address: SocketAddr, (nonce, number): (Nonce, u32), tagged: &[u8]) {
    trace!(channel = "direct", %address, len = tagged.len(), "sending");
    cx.sent(ChannelKind::Direct, 1);
    for bytes in direct::parts(nonce, number, tagged) {
        cx.events.push_back(Event::Datagram { to: address, bytes });
    }
}

fn direct_key(party: &LocalParty, topic: &Topic) -> Option<[u8; 32]> {
    let mut keys = party.membership.direct_keys();
    keys.find(|(known, _)| known == topic).map(|(_, key)| *key)
}

/// Returns the topic and the sealed message in a tagged message.
pub(super) fn open_tagged<'a>(party: &LocalParty, bytes: &'a [u8]) -> Option<(Topic, &'a [u8])> {
    let tagged = Tagged::decode(bytes)?;
    Some((party.membership.topic_of(&tagged)?, tagged.sealed()))
}
