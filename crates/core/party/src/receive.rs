//! What this device hears.
//!
//! Whoever sealed a message holds the topic's key, whoever signed it is its sender, and a sequence number not seen
//! before makes it new. Charter and rekey need no more than that, since they prove themselves: by the authority's
//! signature, and by the charter's commitment to the secret. The rest counts only from members.

use partyline_model::{DeviceId, Role, Timestamp, Topic};
use partyline_wire::{
    announcement::Announcement,
    exact::Exact,
    membership::{Certificate, Charter, Confirmation, Stamp},
    sealed::{Body, CharterUpdate, MAX_SEALED, Message, Rekey, RekeyContent, decode_plaintext, subject},
};
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    Dismissal, Effect, MAX_MEMBERS, Membership, Outcome, Received, Refusal, chain,
    keys::{Epoch, Secret, is_signed_by, tag_of},
    rules::Rules,
    seal::{open, seal},
};

/// What to tell somebody who announced itself.
enum Answer {
    Nothing,
    /// The charter, and the receiver's confirmation if it lacks it.
    Charter,
    /// The secret in force.
    Rekey,
    /// That this device is behind, in the form of its own announcement.
    Ask,
}

impl Membership {
    /// Takes in a sealed message from any channel.
    ///
    /// # Errors
    /// Says why the message was dropped; nothing has changed then.
    pub fn receive(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        sealed: &[u8],
    ) -> Result<Received, Refusal> {
        let Message { sender, sequence, sent_at, body, .. } = self.unseal(topic, sealed)?.value().clone();
        if !self.state.roster.is_fresh(&sender, sequence) {
            return Err(Refusal::Replayed);
        }
        let mut out = Outcome::default();
        match body {
            Body::Announce(announcement) => {
                self.hear_announcement(now, rng, topic, (sender, sequence), *announcement, &mut out)?;
            }
            Body::Charter(update) => self.apply_charter_update(*update, &mut out)?,
            Body::Rekey(rekey) => self.hear_rekey(now, sender, &rekey, &mut out)?,
            Body::Signal(bytes) => {
                self.expect_member(now, &sender)?;
                out.push(Effect::Signal { from: sender, bytes });
            }
            Body::Leave => self.hear_goodbye(&sender, sequence, &mut out)?,
        }
        self.state.roster.note(&sender, sequence);
        if self.listed.contains(&sender) {
            self.clock.note_message(now, sender, sent_at);
        }
        self.catch_up(now, rng, &mut out);
        if out.effects.iter().any(|effect| matches!(effect, Effect::CharterChanged | Effect::Rekeyed)) {
            self.refresh(now, &mut out);
        } else {
            self.refresh_one(now, sender, &mut out);
        }
        let outcome = self.finish(out);
        Ok(Received { sender, outcome })
    }

    fn unseal(&self, topic: &Topic, sealed: &[u8]) -> Result<Exact<Message>, Refusal> {
        let epoch = self.epoch_of(topic).ok_or(Refusal::UnknownTopic)?;
        if sealed.len() > MAX_SEALED {
            return Err(Refusal::Malformed);
        }
        let plaintext = open(&epoch.seal, &topic.0, sealed).ok_or(Refusal::Unreadable)?;
        let (message, signature) = decode_plaintext(&plaintext).map_err(|_| Refusal::Malformed)?;
        let Message { sender, recipient, .. } = message.value();
        if *sender == self.me() {
            return Err(Refusal::Own);
        }
        if recipient.is_some_and(|recipient| recipient != self.me()) {
            return Err(Refusal::NotForMe);
        }
        if !is_signed_by(&sender.0, &subject(topic, &message), &signature) {
            return Err(Refusal::BadSignature);
        }
        Ok(message)
    }

    fn hear_announcement(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (sender, sequence): (DeviceId, u64),
        announcement: Announcement,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        self.check_announcement(&sender, &announcement, out)?;
        let (charter, secret) = (announcement.charter, announcement.secret);
        let knows_confirmation = announcement.confirmation.is_some();
        let listed = &self.listed;
        let admitted = self.state.roster.admit(&announcement.certificate, |device| listed.contains(device));
        let record = admitted.ok_or(Refusal::Full)?;
        let claim = (record.digest, record.host());
        let changed = record.update(announcement, sequence, now);
        out.addresses_changed |= claim != (record.digest, record.host());
        if changed && self.listed.contains(&sender) {
            out.push(Effect::MemberChanged(sender));
        }
        out.persist |= changed;
        self.confirm_if_owner(now, rng, &sender, out);

        let answer = self.answer_to(now, &sender, charter, secret, knows_confirmation);
        let body = match answer {
            Answer::Nothing => None,
            Answer::Charter => self.charter_update_for(&sender).map(|update| Body::Charter(Box::new(update))),
            Answer::Rekey => self.rekey_for(&sender, rng),
            Answer::Ask => Some(self.announce(None)),
        };
        if let Some(body) = body {
            self.send(now, rng, topic, sender, body, out);
        }
        Ok(())
    }

    /// Everything that makes an announcement worth keeping, before anything is kept.
    fn check_announcement(
        &mut self,
        sender: &DeviceId,
        announcement: &Announcement,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let Announcement { certificate, confirmation, .. } = announcement;
        let known = self.state.roster.get(sender);
        let same = known.is_some_and(|record| record.certificate == *certificate);
        let party = &self.state.party;
        if !same
            && (certificate.claims().device != *sender || !chain::is_certificate_sound(party, certificate))
        {
            return Err(Refusal::BadCertificate);
        }
        let known_confirmation = known.filter(|_| same).and_then(|record| record.confirmation);
        if let Some(confirmation) = confirmation
            && known_confirmation != Some(*confirmation)
            && !chain::is_confirmed(party, certificate, confirmation)
        {
            return Err(Refusal::BadConfirmation);
        }
        if known.is_none() && self.listed.len() + 1 >= MAX_MEMBERS {
            return Err(Refusal::Full);
        }
        if same { Ok(()) } else { self.check_tunnel_key(sender, certificate, confirmation.is_some(), out) }
    }

    /// A tunnel key belongs to whoever showed it first, unless only the other one is confirmed.
    fn check_tunnel_key(
        &mut self,
        sender: &DeviceId,
        certificate: &Certificate,
        confirmed: bool,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let tunnel = certificate.claims().tunnel;
        if tunnel == self.tunnel_public() {
            return Err(Refusal::TunnelKeyTaken);
        }
        let other = self.counted().find(|(device, record)| *device != sender && *record.tunnel() == tunnel);
        match other.map(|(device, record)| (*device, record.is_confirmed())) {
            Some((_, true)) => Err(Refusal::TunnelKeyTaken),
            Some((_, false)) if !confirmed => Err(Refusal::TunnelKeyTaken),
            Some((device, false)) => {
                self.state.roster.remove(&device);
                self.listed.remove(&device);
                out.addresses_changed = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The owner's device confirms whom it meets while the invite counts.
    fn confirm_if_owner(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceId,
        out: &mut Outcome,
    ) {
        let (Some(authority), rules) = (self.authority(), Rules(self.state.charter.as_ref())) else { return };
        let Some(record) = self.state.roster.get_mut(device) else { return };
        if record.is_confirmed() || rules.judge(&record.certificate, false, now).is_err() {
            return;
        }
        record.confirmation = Some(chain::confirm(&authority, &record.certificate));
        let appointed = record.certificate.claims().grant.role == Role::CoOwner;
        out.persist = true;
        if self.listed.contains(device) {
            out.push(Effect::MemberChanged(*device));
        }
        if appointed && let Ok(done) = self.set_co_owner(now, rng, *device, true) {
            out.merge(done);
        }
    }

    fn answer_to(
        &self,
        now: Timestamp,
        device: &DeviceId,
        theirs: Option<Stamp>,
        secret: [u8; 8],
        knows_confirmation: bool,
    ) -> Answer {
        let Some(record) = self.state.roster.get(device) else { return Answer::Nothing };
        let mine = self.state.charter.as_ref().map(Charter::stamp);
        let judged = self.rules().judge(&record.certificate, record.is_confirmed(), now);
        if theirs > mine {
            return Answer::Ask;
        }
        if let Err(why) = judged {
            // Those who were put out are told once they show that they do not know.
            let tell = theirs < mine && why != Dismissal::InviteExpired;
            return if tell { Answer::Charter } else { Answer::Nothing };
        }
        let in_force = self.has_secret_in_force();
        let they_have_it = self.rules().commitment().is_some_and(|commitment| tag_of(commitment) == secret);
        match (in_force, they_have_it) {
            (true, false) => Answer::Rekey,
            // Asking somebody who is behind would make it ask back, for ever.
            _ if theirs < mine => Answer::Charter,
            (false, true) => Answer::Ask,
            _ if mine.is_some() && record.is_confirmed() && !knows_confirmation => Answer::Charter,
            _ => Answer::Nothing,
        }
    }

    /// The charter for one receiver, with its confirmation where this device has it.
    pub(crate) fn charter_update_for(&self, device: &DeviceId) -> Option<CharterUpdate> {
        let confirmation = self.state.roster.get(device).and_then(|record| record.confirmation);
        Some(CharterUpdate { charter: self.state.charter.clone()?, confirmation })
    }

    /// The secret in force for one member.
    pub(crate) fn rekey_for(&self, device: &DeviceId, rng: &mut (impl CryptoRng + RngCore)) -> Option<Body> {
        let pair = self.pair(device, self.state.roster.get(device)?.tunnel())?;
        let mut content =
            RekeyContent { secret: *self.state.secret.expose(), update: self.charter_update_for(device)? };
        let plaintext = Zeroizing::new(content.encode());
        content.secret.zeroize();
        let sealed =
            seal(&pair.rekey_key(&self.state.party), &rekey_context(&self.me(), device), &plaintext, rng);
        Some(Body::Rekey(Box::new(Rekey { certificate: self.state.certificate.clone(), sealed })))
    }

    fn apply_charter_update(&mut self, update: CharterUpdate, out: &mut Outcome) -> Result<(), Refusal> {
        self.check_charter(&update.charter)?;
        self.check_own_confirmation(update.confirmation.as_ref())?;
        self.adopt(update, out);
        Ok(())
    }

    fn hear_rekey(
        &mut self,
        now: Timestamp,
        sender: DeviceId,
        rekey: &Rekey,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let claims = rekey.certificate.claims();
        let party = self.state.party;
        if claims.device != sender || !chain::is_certificate_sound(&party, &rekey.certificate) {
            return Err(Refusal::BadCertificate);
        }
        let pair = self.pair(&sender, &claims.tunnel).ok_or(Refusal::BadCertificate)?;
        let context = rekey_context(&sender, &self.me());
        let plaintext = open(&pair.rekey_key(&party), &context, &rekey.sealed).ok_or(Refusal::Unreadable)?;
        let plaintext = Zeroizing::new(plaintext);
        let mut content = RekeyContent::decode(&plaintext).map_err(|_| Refusal::Malformed)?;
        let epoch = Epoch::new(&party, Secret::new(content.secret));
        content.secret.zeroize();
        self.check_charter(&content.update.charter)?;
        self.check_own_confirmation(content.update.confirmation.as_ref())?;
        if Rules(Some(&content.update.charter)).commitment() != Some(&epoch.commitment) {
            return Err(Refusal::WrongSecret);
        }
        self.adopt(content.update, out);
        if epoch.commitment != self.epoch.commitment {
            self.rotate(now, epoch, out);
            [Effect::Rekeyed, Effect::Announce].into_iter().for_each(|effect| out.push(effect));
        }
        Ok(())
    }

    fn hear_goodbye(&mut self, sender: &DeviceId, sequence: u64, out: &mut Outcome) -> Result<(), Refusal> {
        let record = self.state.roster.get_mut(sender).ok_or(Refusal::UnknownSender)?;
        record.leave(sequence);
        out.persist = true;
        Ok(())
    }

    fn expect_member(&self, now: Timestamp, sender: &DeviceId) -> Result<(), Refusal> {
        let record = self.state.roster.get(sender).ok_or(Refusal::UnknownSender)?;
        let judged = self.rules().judge(&record.certificate, record.is_confirmed(), now);
        judged.map_err(Refusal::NotAMember)?;
        if record.has_left() { Err(Refusal::UnknownSender) } else { Ok(()) }
    }

    /// Refuses charters that are not sound, or older than the one in force.
    fn check_charter(&self, charter: &Charter) -> Result<(), Refusal> {
        if self.state.charter.as_ref() == Some(charter) {
            return Ok(());
        }
        if !chain::is_charter_sound(&self.state.party, charter) {
            return Err(Refusal::BadCharter);
        }
        let mine = self.state.charter.as_ref().map(Charter::stamp);
        if Some(charter.stamp()) > mine { Ok(()) } else { Err(Refusal::OldCharter) }
    }

    fn check_own_confirmation(&self, confirmation: Option<&Confirmation>) -> Result<(), Refusal> {
        let sound =
            |confirmation| chain::is_confirmed(&self.state.party, &self.state.certificate, confirmation);
        if confirmation.is_none_or(sound) { Ok(()) } else { Err(Refusal::BadConfirmation) }
    }

    fn adopt(&mut self, update: CharterUpdate, out: &mut Outcome) {
        self.state.confirmation = update.confirmation.or(self.state.confirmation);
        if self.state.charter.as_ref() != Some(&update.charter) {
            self.state.charter = Some(update.charter);
            out.addresses_changed = true;
            [Effect::CharterChanged, Effect::Announce].into_iter().for_each(|effect| out.push(effect));
        }
        out.persist = true;
    }
}

/// Binds a sealed secret to who sent it to whom.
fn rekey_context(from: &DeviceId, to: &DeviceId) -> Vec<u8> {
    [from.0, to.0].concat()
}
