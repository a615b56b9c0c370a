//! What this device says, and what time alone changes.

use partyline_model::{DeviceId, Timestamp, Topic};
use partyline_wire::{
    announcement::{Announcement, MAX_BEACON_CANDIDATES, MAX_CANDIDATES, MAX_PUBLIC, Presence, Reachability},
    beacon,
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
    /// `None` on unknown topics.
    pub fn announcement(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        reach: &Reachability,
    ) -> Option<Vec<u8>> {
        let presence = self.may_show_itself_on(topic).then(|| self.presence(reach, MAX_CANDIDATES));
        let body = self.announce(presence);
        self.say(now, rng, topic, None, body)
    }

    /// The same as a LAN beacon datagram, with fewer candidates.
    pub fn beacon(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        reach: &Reachability,
    ) -> Option<Vec<u8>> {
        let presence = self.may_show_itself_on(topic).then(|| self.presence(reach, MAX_BEACON_CANDIDATES));
        let body = self.announce(presence);
        let sealed = self.say(now, rng, topic, None, body)?;
        beacon::encode(topic, &sealed)
    }

    /// A signal from one path machine to another; `None` if there is no such member or the signal is too long.
    pub fn signal(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        to: &DeviceId,
        bytes: Vec<u8>,
    ) -> Option<Outgoing> {
        let known = self.listed.contains(to) && bytes.len() <= MAX_SIGNAL;
        let topic = self.epoch.topic;
        known.then(|| self.send(now, rng, &topic, *to, Body::Signal(bytes))).flatten()
    }

    /// Goodbye, on every topic. The caller forgets the state after sending it.
    pub fn leave(&mut self, now: Timestamp, rng: &mut (impl CryptoRng + RngCore)) -> Vec<Outgoing> {
        let topics: Vec<Topic> = self.epochs().map(|epoch| epoch.topic).collect();
        let goodbye = |topic| {
            let message = self.say(now, rng, &topic, None, Body::Leave)?;
            Some(Outgoing { topic, to: None, handle: None, message })
        };
        topics.into_iter().filter_map(goodbye).collect()
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
        self.forget_old_secrets(now);
        self.refresh(now, &mut out);
        out
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
    ) -> Option<Outgoing> {
        let handle = self.handle_of(topic, &to);
        let message = self.say(now, rng, topic, Some(to), body)?;
        Some(Outgoing { topic: *topic, to: Some(to), handle, message })
    }

    /// Signs and seals. `None` on unknown topics, and for what exceeds every limit.
    pub(crate) fn say(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        recipient: Option<DeviceId>,
        body: Body,
    ) -> Option<Vec<u8>> {
        let key = self.epoch_of(topic)?.seal.clone();
        // At least the clock, so that a device restored from an old copy of its state is heard again.
        self.state.sequence = self.state.sequence.saturating_add(1).max(now.0);
        self.changed |= self.state.sequence > self.stored_sequence.saturating_add(SEQUENCE_SLACK);
        let (sender, sequence) = (self.me(), self.state.sequence);
        let message = Exact::new(Message { sender, recipient, sequence, sent_at: now, body });
        let signature = sign(self.device.signing(), &subject(topic, &message));
        let plaintext = Zeroizing::new(encode_plaintext(&message, &signature));
        let sealed = seal(&key, &topic.0, &plaintext, rng);
        (sealed.len() <= MAX_SEALED).then_some(sealed)
    }

    /// Replaces the party secret; the old one is remembered for those who sleep.
    pub(crate) fn rotate(&mut self, now: Timestamp, epoch: Epoch) {
        let until = now.plus(OLD_SECRET_LIFE);
        let secret = std::mem::replace(&mut self.state.secret, epoch.secret.clone());
        self.old.insert(0, std::mem::replace(&mut self.epoch, epoch));
        self.state.old_secrets.insert(0, OldSecret { secret, until });
        self.forget_old_secrets(now);
        self.changed = true;
    }

    /// Keeps the newest few for a month, and those that open invites made here lead to for as long as these.
    fn forget_old_secrets(&mut self, now: Timestamp) {
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
        self.changed |= self.old.len() != before;
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
            (self.changed, self.claims_changed) = (true, true);
            out.effects.push(effect);
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
            Standing::Confirmed => out.effects.extend([Effect::Confirmed, Effect::Announce]),
            Standing::Dismissed(why) => out.effects.push(Effect::Dismissed(why)),
            Standing::Unconfirmed { .. } => {}
        }
        self.standing = standing;
        self.changed = true;
    }

    /// Claims a host number, or another one if this one is another's.
    fn refresh_address(&mut self, out: &mut Outcome) {
        if !self.claims_changed {
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
            self.changed = true;
            out.effects.extend([Effect::AddressChanged, Effect::Announce]);
        }
    }
}
