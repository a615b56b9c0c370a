//! What this device says, and what time alone changes.

use partyline_model::{DeviceId, Timestamp, Topic};
use partyline_wire::{
    announcement::{Announcement, MAX_BEACON_CANDIDATES, MAX_CANDIDATES, MAX_PUBLIC, Presence, Reachability},
    exact::Exact,
    membership::Charter,
    sealed::{Body, MAX_SEALED, MAX_SIGNAL, Message, encode_plaintext, subject},
};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::{
    Departure, Dismissal, Effect, Membership, Outcome, Outgoing, Standing, address,
    keys::{Epoch, sign},
    membership::SEQUENCE_SLACK,
    rules::lapses_at,
    seal::seal,
    state::{MAX_OLD_SECRETS, OLD_SECRET_LIFE, OLD_SECRETS, OldSecret},
};

impl Membership {
    /// What to announce on a topic: how this device can be reached on the current one, who it is on old ones.
    /// The outcome holds one message to everybody, or none on unknown topics.
    pub fn announcement(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        reach: &Reachability,
    ) -> Outcome {
        self.announce_within(now, rng, topic, reach, MAX_CANDIDATES)
    }

    /// The same with fewer candidates, so that [`partyline_wire::beacon::encode`] makes a LAN beacon of the message.
    pub fn beacon(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        reach: &Reachability,
    ) -> Outcome {
        self.announce_within(now, rng, topic, reach, MAX_BEACON_CANDIDATES)
    }

    fn announce_within(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        reach: &Reachability,
        limit: usize,
    ) -> Outcome {
        let presence = self.may_show_itself_on(topic).then(|| self.presence(reach, limit));
        let (body, mut out) = (self.announce(presence), Outcome::default());
        self.broadcast(now, rng, topic, body, &mut out);
        self.finish(out)
    }

    /// A signal from one path machine to another; no message if there is no such member or the signal is too long.
    pub fn signal(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        to: &DeviceId,
        bytes: Vec<u8>,
    ) -> Outcome {
        let (topic, mut out) = (self.epoch.topic, Outcome::default());
        if self.listed.contains(to) && bytes.len() <= MAX_SIGNAL {
            self.send(now, rng, &topic, *to, Body::Signal(bytes), &mut out);
        }
        self.finish(out)
    }

    /// Goodbye, on every topic. The caller forgets the state after sending it.
    pub fn leave(&mut self, now: Timestamp, rng: &mut (impl CryptoRng + RngCore)) -> Outcome {
        let topics: Vec<Topic> = self.epochs().map(|epoch| epoch.topic).collect();
        let mut out = Outcome::default();
        topics.iter().for_each(|topic| self.broadcast(now, rng, topic, Body::Leave, &mut out));
        self.finish(out)
    }

    /// The next moment at which time alone changes something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let unconfirmed = self.state.roster.iter().filter(|(_, record)| !record.is_confirmed());
        let unconfirmed = unconfirmed.filter(|(device, _)| self.listed.contains(device));
        let lapses = unconfirmed.filter_map(|(_, record)| lapses_at(&record.certificate));
        let own =
            matches!(self.standing, Standing::Unconfirmed { .. }).then(|| lapses_at(&self.state.certificate));
        let old = self.state.old_secrets.iter().map(|old| old.until);
        lapses.chain(own.flatten()).chain(old).min().map(|time| Timestamp(time.0.saturating_add(1)))
    }

    /// Lets lapse what has lapsed.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Outcome {
        let mut out = Outcome::default();
        self.forget_old_secrets(now, &mut out);
        self.refresh(now, &mut out);
        self.finish(out)
    }

    /// Whether to show how this device can be reached: on the current topic, unless the charter has moved on to a
    /// secret that somebody who was removed does not know.
    fn may_show_itself_on(&self, topic: &Topic) -> bool {
        *topic == self.epoch.topic && (self.state.charter.is_none() || self.has_secret_in_force())
    }

    fn presence(&self, reach: &Reachability, limit: usize) -> Presence {
        let mut reach = reach.clone();
        reach.candidates.truncate(limit);
        reach.nat.public.truncate(MAX_PUBLIC);
        Presence { session: self.session, host: self.state.host, name: self.state.name.clone(), reach }
    }

    /// Who this device is, and what it knows.
    pub(crate) fn announce(&self, presence: Option<Presence>) -> Body {
        Body::Announce(Box::new(Announcement {
            certificate: self.state.certificate.clone(),
            confirmation: self.state.confirmation,
            charter: self.state.charter.as_ref().map(Charter::stamp),
            secret: self.epoch.tag(),
            presence,
        }))
    }

    /// A message to one member.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        to: DeviceId,
        body: Body,
        out: &mut Outcome,
    ) {
        let handle = self.handle_of(topic, &to);
        if let Some(message) = self.say(now, rng, topic, Some(to), body, out) {
            out.messages.push(Outgoing { topic: *topic, to: Some(to), handle, message });
        }
    }

    /// A message to everybody on a topic.
    fn broadcast(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        body: Body,
        out: &mut Outcome,
    ) {
        if let Some(message) = self.say(now, rng, topic, None, body, out) {
            out.messages.push(Outgoing { topic: *topic, to: None, handle: None, message });
        }
    }

    /// Signs and seals. `None` on unknown topics, and for what exceeds every limit.
    pub(crate) fn say(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        recipient: Option<DeviceId>,
        body: Body,
        out: &mut Outcome,
    ) -> Option<Vec<u8>> {
        let key = self.epoch_of(topic)?.seal.clone();
        // At least the clock, so that a device restored from an old copy of its state is heard again.
        self.state.sequence = self.state.sequence.saturating_add(1).max(now.0);
        out.persist |= self.state.sequence > self.stored_sequence.saturating_add(SEQUENCE_SLACK);
        let (sender, sequence) = (self.me(), self.state.sequence);
        let message = Exact::new(Message { sender, recipient, sequence, sent_at: now, body });
        let signature = sign(self.device.signing(), &subject(topic, &message));
        let plaintext = Zeroizing::new(encode_plaintext(&message, &signature));
        let sealed = seal(&key, &topic.0, &plaintext, rng);
        (sealed.len() <= MAX_SEALED).then_some(sealed)
    }

    /// Replaces the party secret; the old one is remembered for those who sleep.
    pub(crate) fn rotate(&mut self, now: Timestamp, epoch: Epoch, out: &mut Outcome) {
        let until = now.plus(OLD_SECRET_LIFE);
        let secret = std::mem::replace(&mut self.state.secret, epoch.secret.clone());
        self.old.insert(0, std::mem::replace(&mut self.epoch, epoch));
        self.state.old_secrets.insert(0, OldSecret { secret, until });
        self.forget_old_secrets(now, out);
        out.persist = true;
    }

    /// Keeps the newest few for a month, and those that open invites made here lead to for as long as these.
    fn forget_old_secrets(&mut self, now: Timestamp, out: &mut Outcome) {
        self.state.issued.retain(|issued| issued.is_open(now));
        let before = self.old.len();
        let mut keep = Vec::new();
        for (index, (old, epoch)) in self.state.old_secrets.iter().zip(&self.old).enumerate() {
            let invited = self.state.issued.iter().any(|issued| issued.commitment == epoch.commitment);
            keep.push(index < MAX_OLD_SECRETS && (invited || (index < OLD_SECRETS && now <= old.until)));
        }
        let kept = |index: &mut usize| {
            *index += 1;
            keep.get(*index - 1).copied().unwrap_or(false)
        };
        let (mut first, mut second) = (0, 0);
        self.state.old_secrets.retain(|_| kept(&mut first));
        self.old.retain(|_| kept(&mut second));
        out.persist |= self.old.len() != before;
    }

    /// Judges everybody anew and says what changed: after another charter, and when time has passed.
    pub(crate) fn refresh(&mut self, now: Timestamp, out: &mut Outcome) {
        let everybody: Vec<DeviceId> = self.state.roster.iter().map(|(device, _)| *device).collect();
        everybody.into_iter().for_each(|device| self.refresh_member(now, device, out));
        self.refresh_own(now, out);
    }

    /// The same where nothing but one member's record may have changed.
    pub(crate) fn refresh_one(&mut self, now: Timestamp, device: DeviceId, out: &mut Outcome) {
        self.refresh_member(now, device, out);
        self.refresh_own(now, out);
    }

    fn refresh_own(&mut self, now: Timestamp, out: &mut Outcome) {
        self.refresh_standing(now, out);
        self.refresh_address(out);
    }

    fn refresh_member(&mut self, now: Timestamp, device: DeviceId, out: &mut Outcome) {
        let Some(record) = self.state.roster.get(&device) else { return };
        let departure = match self.rules().judge(&record.certificate, record.is_confirmed(), now) {
            Err(why) => Some(Departure::Dismissed(why)),
            Ok(()) => record.has_left().then_some(Departure::Left),
        };
        let (moved, effect) = match departure {
            None => (self.listed.insert(device), Effect::MemberChanged(device)),
            Some(departure) => (self.listed.remove(&device), Effect::MemberGone(device, departure)),
        };
        if moved {
            (out.persist, out.addresses_changed) = (true, true);
            out.push(effect);
        }
    }

    fn refresh_standing(&mut self, now: Timestamp, out: &mut Outcome) {
        let (certificate, confirmed) = (&self.state.certificate, self.state.confirmation.is_some());
        let standing = match self.rules().judge(certificate, confirmed, now) {
            // Before the charter is known, nobody is known to be a co-owner.
            Err(Dismissal::NotACoOwner) if self.state.charter.is_none() => self.standing,
            Err(why) => Standing::Dismissed(why),
            Ok(()) if confirmed => Standing::Confirmed,
            Ok(()) => Standing::Unconfirmed { until: certificate.claims().grant.not_after.time() },
        };
        if standing == self.standing {
            return;
        }
        match standing {
            Standing::Confirmed => {
                [Effect::Confirmed, Effect::Announce].into_iter().for_each(|effect| out.push(effect))
            }
            Standing::Dismissed(why) => out.push(Effect::Dismissed(why)),
            Standing::Unconfirmed { .. } => {}
        }
        self.standing = standing;
        out.persist = true;
    }

    /// Claims a host number, or another one if this one is another's.
    fn refresh_address(&mut self, out: &mut Outcome) {
        if !out.addresses_changed {
            return;
        }
        let Some(range) = self.range() else { return };
        if self.state.host.is_some_and(|host| address::v4(range, host).is_some() && self.is_mine(host)) {
            return;
        }
        let taken = self.counted().filter_map(|(_, record)| record.host()).collect();
        let host = address::choose(&self.me(), range, &taken);
        if host != self.state.host {
            self.state.host = host;
            (out.persist, out.addresses_changed) = (true, true);
            [Effect::AddressChanged, Effect::Announce].into_iter().for_each(|effect| out.push(effect));
        }
    }
}
