//! What this device says to others.

use partyline_model::{DeviceId, SessionNonce, Timestamp, Topic, TunnelPublicKey};
use partyline_wire::{
    announcement::{
        Announcement, MAX_AVOIDED, MAX_BEACON_CANDIDATES, MAX_CANDIDATES, MAX_PUBLIC, Presence, Reachability,
    },
    sealed::{Body, CharterUpdate, MAX_SIGNAL, RunMessage},
};
use rand_core::{CryptoRng, RngCore};
use tracing::{debug, info};

use super::Membership;
use crate::{
    epoch::Epoch,
    outbound::kind,
    outcome::{Outcome, Outgoing},
    rekey::{seal_rekey, seal_verdict},
    secrets::Place,
};

impl Membership {
    /// Announces this device on a topic: how it can be reached on the current one, only who it is on old ones. A joiner
    /// knocks. The outcome has one message to everybody, or none on an unknown topic and on one where nothing is said
    /// ([`TopicPurpose::Lobby`](super::TopicPurpose::Lobby)).
    pub fn announcement(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        reach: &Reachability,
    ) -> Outcome {
        self.announce(now, rng, topic, (reach, MAX_CANDIDATES))
    }

    /// Announces this device with fewer candidates, so that [`partyline_wire::beacon::encode`] makes a LAN beacon of the
    /// message.
    pub fn beacon(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        reach: &Reachability,
    ) -> Outcome {
        self.announce(now, rng, topic, (reach, MAX_BEACON_CANDIDATES))
    }

    pub(super) fn announce(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (reach, max_candidates): (&Reachability, usize),
    ) -> Outcome {
        let mut out = Outcome::default();
        let presence = self.may_show_presence_on(topic).then(|| self.presence(reach, max_candidates));
        let announcement = self.announcement_with(presence);
        let body = match self.secrets.place(topic) {
            Some(Place::Party(_)) => Some(Body::Announce(Box::new(announcement))),
            Some(Place::Waiting(lobby)) => lobby
                .knock(rng, self.identity.party(), self.identity.device(), &announcement)
                .map(Body::Knock),
            // Members say nothing in the lobby until somebody knocks.
            Some(Place::Lobby(_)) | None => None,
        };
        if let Some(body) = body {
            self.send(now, rng, topic, None, body, &mut out);
        }
        out
    }

    /// Carries a signal of the path machine to a member. The outcome has no message if there is no such member or the
    /// signal is longer than [`MAX_SIGNAL`].
    pub fn signal(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        to: &DeviceId,
        bytes: Vec<u8>,
    ) -> Outcome {
        let mut out = Outcome::default();
        if !self.roster.is_member(to) || bytes.len() > MAX_SIGNAL {
            debug!(peer = %to.short(), bytes = bytes.len(), reason = "not a member, or too long", "signal not sent");
            return out;
        }
        let topic = self.topic();
        self.send(now, rng, &topic, Some(*to), Body::Signal(bytes), &mut out);
        out
    }

    /// Asks other runs with this device's keys to show themselves. The outcome has one message, which only they can use.
    pub fn ask_runs(&mut self, now: Timestamp, rng: &mut (impl CryptoRng + RngCore)) -> Outcome {
        let topic = self.topic();
        self.say_to_runs(now, rng, topic, None)
    }

    /// Answers another run with this device's keys on the topic where it spoke, so that the two agree on which of them goes
    /// on. A copy that was made of a joiner speaks in the lobby.
    pub fn answer_run(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: Topic,
        run: SessionNonce,
    ) -> Outcome {
        self.say_to_runs(now, rng, topic, Some(run))
    }

    pub(super) fn say_to_runs(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: Topic,
        answer_to: Option<SessionNonce>,
    ) -> Outcome {
        let (mut out, me) = (Outcome::default(), self.me());
        let body = Body::Run(RunMessage { claim: self.contest.claim(), answer_to });
        self.send(now, rng, &topic, Some(me), body, &mut out);
        out
    }

    /// Notes that this run has its place in the party: a server lists it, or a member is connected with it.
    pub fn establish_run(&mut self, now: Timestamp) {
        self.contest.establish(now);
    }

    /// Returns true if this run has given way to another one with the same keys.
    #[must_use]
    pub const fn has_given_way(&self) -> bool {
        self.contest.is_lost()
    }

    /// Leaves the party with a message on every topic. The caller drops the stored state after sending them.
    pub fn leave(&mut self, now: Timestamp, rng: &mut (impl CryptoRng + RngCore)) -> Outcome {
        info!(party = %self.id().short(), "leaving the party");
        let said = |place: &Place<'_>| !matches!(place, Place::Lobby(_));
        let topics: Vec<Topic> =
            self.secrets.places().filter(said).map(|place| *place.room().topic()).collect();
        let mut out = Outcome::default();
        let certificate = self.identity.certificate().digest();
        topics
            .iter()
            .for_each(|topic| self.send(now, rng, topic, None, Body::Leave { certificate }, &mut out));
        out
    }

    /// Presence is shown on the current topic only, and not there once the charter has moved on to a secret that removed
    /// members do not know. Joiners show it to the members.
    pub(super) fn may_show_presence_on(&self, topic: &Topic) -> bool {
        let shown = match self.secrets.current_place() {
            Place::Waiting(_) => true,
            Place::Party(_) | Place::Lobby(_) => {
                self.charter.in_force().is_none() || self.has_secret_in_force()
            }
        };
        shown && *topic == self.topic()
    }

    pub(super) fn presence(&self, reach: &Reachability, max_candidates: usize) -> Presence {
        let mut reach = reach.clone();
        reach.candidates.truncate(max_candidates);
        reach.nat.public.truncate(MAX_PUBLIC);
        let name = self.identity.announced_name().cloned();
        let (session, host, copied) = (self.session(), self.claim.host, self.copied);
        let mut avoided_networks = self.avoided_networks.clone();
        // A beacon has to fit into one datagram; the network that clashes is said nevertheless.
        avoided_networks.truncate(if max_candidates < MAX_CANDIDATES { 1 } else { MAX_AVOIDED });
        Presence { session, host, name, reach, avoided_networks, copied }
    }

    /// Shows who this device is, and which charter and secret it has.
    pub(super) fn announcement_with(&self, presence: Option<Presence>) -> Announcement {
        Announcement {
            certificate: self.identity.certificate().clone(),
            confirmation: self.identity.confirmation().copied(),
            charter: self.charter.stamp(),
            secret: self.secrets.current().map_or([0; 8], Epoch::tag),
            presence,
        }
    }

    pub(super) fn bare_announcement(&self) -> Body {
        Body::Announce(Box::new(self.announcement_with(None)))
    }

    /// Returns the charter for one device, with its confirmation if this device has it.
    pub(super) fn charter_update_for(&self, device: &DeviceId) -> Option<CharterUpdate> {
        let confirmation = self.roster.record(device).and_then(|record| record.confirmation().copied());
        Some(CharterUpdate { charter: self.charter.in_force()?.clone(), confirmation })
    }

    pub(super) fn charter_body_for(&self, device: &DeviceId) -> Option<Body> {
        self.charter_update_for(device).map(|update| Body::Charter(Box::new(update)))
    }

    pub(super) fn rekey_body_for(
        &self,
        device: &DeviceId,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Option<Body> {
        let tunnel = self.roster.record(device)?.tunnel_key();
        let update = self.charter_update_for(device)?;
        let (secret, me) = (self.secrets.current()?.secret(), self.identity.device());
        seal_rekey((self.identity.party(), me), rng, (device, tunnel), secret, update)
    }

    pub(super) fn verdict_body_for(
        &self,
        tunnel: &TunnelPublicKey,
        device: &DeviceId,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Option<Body> {
        // A confirmation of an earlier certificate would not fit the present one.
        let update = CharterUpdate { charter: self.charter.in_force()?.clone(), confirmation: None };
        seal_verdict((self.identity.party(), self.identity.device()), rng, (device, tunnel), &update)
    }

    /// Seals a message on a topic, for one member or for everybody.
    pub(super) fn send(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        to: Option<DeviceId>,
        body: Body,
        out: &mut Outcome,
    ) {
        let Some(room) = self.secrets.place(topic).map(Place::room) else {
            return debug!(topic = %topic.short(), kind = kind(&body), reason = "unknown topic", "message not sent");
        };
        let handle = to.map(|to| room.handle_of(&to));
        let message = self.outbound.seal(now, rng, room, to, body);
        out.persist |= self.outbound.is_reservation_due();
        out.messages.extend(message.map(|message| Outgoing { topic: *topic, to, handle, message }));
    }
}
