//! Gossip: sealed messages through the tunnels to connected members.
//!
//! That is how a party without a server, or with one that is down, still learns about newcomers and moves. Two members
//! whose tunnel comes up exchange the newest announcements they have of everybody, and an announcement that is new to
//! a member goes on to a few others that share no rendezvous server with its sender.

use std::collections::{BTreeMap, BTreeSet};

use partyline_model::{DeviceId, PartyId, Topic};
use partyline_party::Outgoing;
use rand_core::RngCore as _;
use tracing::{debug, trace};

use super::{
    channel::{Channel, Context, Covered},
    channel_kind::ChannelKind,
    event::Event,
    party::LocalParty,
};
use crate::control::ControlMessage;

/// To how many members an announcement is passed on that is new to this device. Everybody doing so reaches everybody,
/// and the cost grows with the number of members and not with its square.
const GOSSIP_FANOUT: usize = 8;
/// To how many of those that an earlier channel seems to tell the news of a new run is passed on nevertheless. A server
/// does not notice for minutes that a router has lost the connection to a member, and without that news the member could
/// not open a check of the new run.
const SECOND_OPINIONS: usize = 2;

/// What an announcement tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// That a member has joined, or was started again.
    Run,
    /// How a member that is known already can be reached.
    Reachability,
}

/// The members with whom a WireGuard session is up, as connectivity reports them ([`Self::on_session_up`],
/// [`Self::on_session_down`]).
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    connected: BTreeMap<PartyId, BTreeSet<DeviceId>>,
}

impl Tunnels {
    /// Notes that the session with a member came up.
    pub(super) fn on_session_up(&mut self, party: PartyId, member: DeviceId) {
        self.connected.entry(party).or_default().insert(member);
    }

    /// Notes that the session with a member is gone.
    pub(super) fn on_session_down(&mut self, party: PartyId, member: DeviceId) {
        if let Some(members) = self.connected.get_mut(&party) {
            members.remove(&member);
            trace!(party = %party.short(), peer = %member.short(), left = members.len(), "no gossip by this tunnel any more");
        }
    }

    /// Returns the members with whom a session is up, in order of their ids.
    pub(super) fn connected(&self, party: PartyId) -> impl Iterator<Item = DeviceId> + '_ {
        self.connected.get(&party).into_iter().flatten().copied()
    }

    /// Returns true if a session with the member is up.
    pub(super) fn is_connected(&self, party: PartyId, member: &DeviceId) -> bool {
        self.connected.get(&party).is_some_and(|members| members.contains(member))
    }

    /// Passes a member's announcement on to some of those that no earlier channel tells, and that of a new run to a few of
    /// the others.
    pub(super) fn gossip(
        &self,
        cx: &mut Context<'_>,
        party: &LocalParty,
        (announcement, from, news): (&Outgoing, DeviceId, News),
        through: Option<DeviceId>,
        covered: Covered<'_>,
    ) {
        let connected =
            self.connected(party.id()).filter(|member| *member != from && Some(*member) != through);
        let (told, others): (Vec<DeviceId>, Vec<DeviceId>) =
            connected.partition(|member| covered(party, &announcement.topic, &[from, *member]));
        let mut chosen = choose(cx, others, GOSSIP_FANOUT);
        if news == News::Run {
            chosen.extend(choose(cx, told, SECOND_OPINIONS));
        }
        if !chosen.is_empty() {
            debug!(peer = %from.short(), ?news, count = chosen.len(), "announcement passed on");
        }
        chosen.into_iter().for_each(|member| self.transmit(cx, party.id(), member, announcement));
    }

    /// Tells a member whose tunnel came up what this device knows: itself, and the newest announcement of everybody
    /// else, except what an earlier channel tells it.
    pub(super) fn introduce(
        &self,
        cx: &mut Context<'_>,
        party: &mut LocalParty,
        to: DeviceId,
        covered: Covered<'_>,
    ) {
        let Some(access) = party.current_topic() else { return };
        let topic = access.topic;
        if !covered(party, &topic, &[to]) {
            self.announce_to(cx, party, to, &topic);
        }
        let known: Vec<(DeviceId, Vec<u8>)> = party
            .announcements(&topic)
            .filter(|(from, _)| *from != to)
            .map(|(from, sealed)| (from, sealed.to_vec()))
            .collect();
        debug!(peer = %to.short(), known = known.len(), "exchanging announcements");
        for (from, message) in known {
            if !covered(party, &topic, &[from, to]) {
                let outgoing = Outgoing { topic, to: None, handle: None, message };
                self.transmit(cx, party.id(), to, &outgoing);
            }
        }
    }

    fn announce_to(&self, cx: &mut Context<'_>, party: &mut LocalParty, to: DeviceId, topic: &Topic) {
        let outcome = party.membership.announcement(cx.now.unix, cx.rng, topic, cx.reach);
        if let Some(message) = cx.take_message(outcome) {
            self.transmit(cx, party.id(), to, &message);
        }
    }

    fn transmit(&self, cx: &mut Context<'_>, party: PartyId, to: DeviceId, message: &Outgoing) {
        let Outgoing { topic, message: sealed, .. } = message.clone();
        trace!(channel = "tunnel", peer = %to.short(), len = sealed.len(), "sending");
        cx.sent(ChannelKind::Tunnel, 1);
        let message = ControlMessage::Sealed { topic, sealed };
        cx.events.push_back(Event::Control { party, to, message });
    }
}

/// Chooses at most `count` members at random.
fn choose(cx: &mut Context<'_>, mut members: Vec<DeviceId>, count: usize) -> Vec<DeviceId> {
    let mut chosen = Vec::new();
    while chosen.len() < count && !members.is_empty() {
        let index = cx.rng.next_u32() as usize % members.len();
        chosen.push(members.swap_remove(index));
    }
    chosen
}

impl Channel for Tunnels {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Tunnel
    }

    /// A tunnel reaches the member at its end; what another one announces does not come by it unless somebody gossips.
    fn reaches(&self, party: &LocalParty, _: &Topic, members: &[DeviceId]) -> bool {
        matches!(members, [member] if self.is_connected(party.id(), member))
    }

    fn send(&mut self, cx: &mut Context<'_>, party: &LocalParty, message: &Outgoing, _: Covered<'_>) {
        let connected = self.connected(party.id());
        let to: Vec<DeviceId> =
            connected.filter(|member| message.to.is_none_or(|to| to == *member)).collect();
        to.into_iter().for_each(|member| self.transmit(cx, party.id(), member, message));
    }

    fn announce(&mut self, cx: &mut Context<'_>, party: &mut LocalParty, covered: Covered<'_>) {
        let Some(access) = party.current_topic() else { return };
        for member in self.connected(party.id()).collect::<Vec<_>>() {
            if !covered(party, &access.topic, &[member]) {
                self.announce_to(cx, party, member, &access.topic);
            }
        }
    }
}
