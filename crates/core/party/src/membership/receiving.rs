//! Received messages and the passing of time.

use ipnet::Ipv4Net;
use partyline_model::{DeviceId, Role, Timestamp, Topic};
use partyline_wire::{
    announcement::Announcement,
    exact::Exact,
    membership::{Certificate, Confirmation},
    sealed::{Body, CharterUpdate, Claim, Message, RunMessage, SealedBox},
};
use rand_core::{CryptoRng, RngCore};
use tracing::{debug, trace};

use super::Membership;
use crate::{
    address, chain,
    contest::Verdict,
    epoch::{Epoch, tag_of},
    error::Refusal,
    inbound::open_message,
    outbound::kind,
    outcome::{Departure, Effect, Outcome, Received, RunStanding},
    reconcile::{Comparison, Reply},
    rekey::{open_rekey, open_verdict},
    roster::Record,
    rules::{Dismissal, Rules, Standing, lapses_at},
    secrets::Place,
};

impl Membership {
    /// Handles a sealed message that was received on a topic, from any channel.
    ///
    /// # Errors
    /// Returns why the message was dropped; nothing has changed then.
    pub fn receive(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        sealed: &[u8],
    ) -> Result<Received, Refusal> {
        let opened = match self.secrets.place(topic) {
            Some(place) => open_message(place.room(), self.identity.device(), sealed),
            None => Err(Refusal::UnknownTopic),
        };
        let message: Exact<Message> = opened.map_err(|refusal| refuse(None, topic, refusal))?;
        let message = message.value();
        if message.sender == self.me() {
            return self.handle_own_key(message).map_err(|refusal| refuse(Some(message), topic, refusal));
        }
        match self.handle_message(now, rng, topic, message) {
            Ok(outcome) => {
                Ok(Received { sender: message.sender, broadcast: message.recipient.is_none(), outcome })
            }
            Err(refusal) => Err(refuse(Some(message), topic, refusal)),
        }
    }

    pub(super) fn handle_message(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        message: &Message,
    ) -> Result<Outcome, Refusal> {
        let Message { sender, sequence, .. } = *message;
        self.check_place(topic, &message.body)?;
        if !self.roster.is_fresh(&sender, sequence) {
            return Err(Refusal::Replayed);
        }
        let mut out = Outcome::default();
        match &message.body {
            Body::Announce(announcement) => {
                self.handle_announcement(now, rng, topic, (sender, sequence), announcement, &mut out)?;
            }
            // Charter and rekey prove themselves, so that any device that knows the topic may deliver them.
            Body::Charter(update) => self.handle_charter(now, update, &mut out)?,
            Body::Rekey(rekey) => self.handle_rekey(now, &sender, rekey, &mut out)?,
            Body::Verdict(verdict) => {
                let update = open_verdict(&self.identity, &sender, verdict)?;
                self.handle_charter(now, &update, &mut out)?;
            }
            Body::Knock(knock) => {
                self.handle_knock(now, rng, topic, (sender, sequence), knock, &mut out)?;
            }
            Body::Signal(bytes) => {
                self.expect_member(now, &sender)?;
                out.push(Effect::Signal { from: sender, bytes: bytes.clone() });
            }
            Body::Leave { certificate } => self.handle_leave(&sender, certificate, &mut out)?,
            Body::Run(_) => return Err(Refusal::NotForMe),
        }
        trace!(peer = %sender.short(), kind = kind(&message.body), sequence, "message accepted");
        self.roster.record_sequence(&sender, sequence);
        if self.roster.is_member(&sender) {
            self.clock.on_message(now, sender, message.sent_at);
        }
        self.catch_up(now, rng, &mut out);
        if out.effects.iter().any(|effect| matches!(effect, Effect::CharterChanged | Effect::Rekeyed)) {
            self.judge_all(now, &mut out);
        } else {
            self.judge_member(now, sender, &mut out);
            self.judge_own(now, &mut out);
        }
        Ok(out)
    }

    /// Refuses what is not said on a topic: in the lobby joiners knock, and members answer them.
    pub(super) fn check_place(&self, topic: &Topic, body: &Body) -> Result<(), Refusal> {
        let said = match (self.secrets.place(topic), body) {
            (Some(Place::Party(_)), Body::Knock(_) | Body::Verdict(_)) => false,
            (Some(Place::Party(_)), _) => true,
            (Some(Place::Lobby(_)), body) => matches!(body, Body::Knock(_) | Body::Leave { .. }),
            (Some(Place::Waiting(_)), body) => matches!(body, Body::Rekey(_) | Body::Verdict(_)),
            (None, _) => return Err(Refusal::UnknownTopic),
        };
        if said { Ok(()) } else { Err(Refusal::OutOfPlace) }
    }

    /// Handles a message of this device's own key: its own, of an earlier run, or of a copy. The presence of another run is
    /// as good as a question.
    pub(super) fn handle_own_key(&mut self, message: &Message) -> Result<Received, Refusal> {
        // What another run has said in this device's name must not make the others deaf to this one.
        self.outbound.device().numbers().pass(message.sequence);
        let said = match &message.body {
            Body::Run(said) => Some(*said),
            Body::Announce(announcement) => announcement.presence.as_ref().map(|presence| RunMessage {
                claim: Claim { run: presence.session, established: None },
                answer_to: None,
            }),
            _ => None,
        };
        let said = said.ok_or(Refusal::Own)?;
        let standing = match self.contest.judge(&said) {
            Verdict::Nothing => return Err(Refusal::Own),
            Verdict::Answer => RunStanding::Unknown,
            Verdict::Held => RunStanding::GivesWay,
            Verdict::Lost => RunStanding::GoesOn,
        };
        let run = said.claim.run;
        debug!(?run, ?standing, ?message.sent_at, "another run with the keys of this device");
        let outcome = Outcome { effects: vec![Effect::RunMet { run, standing }], ..Outcome::default() };
        Ok(Received { sender: message.sender, broadcast: false, outcome })
    }

    pub(super) fn handle_announcement(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (sender, sequence): (DeviceId, u64),
        announcement: &Announcement,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        self.check_announcement(&sender, announcement, out)?;
        let record = self.roster.admit(&announcement.certificate).ok_or(Refusal::Full)?;
        let update = record.update(announcement.clone(), sequence, now);
        out.addresses_changed |= update.claim_changed;
        out.persist |= update.changed;
        if update.changed {
            debug!(peer = %sender.short(), host = record.host(), confirmed = record.is_confirmed(), "announcement changed");
            self.notify_member_changed(sender, out);
        }
        self.confirm_if_owner(now, rng, &sender, out);
        self.answer(now, rng, topic, &sender, announcement, out);
        Ok(())
    }

    /// Lets a joiner in whose certificate counts, and shows any other why it does not. Nothing is kept of the latter, of
    /// which a link makes as many as its holder likes.
    pub(super) fn handle_knock(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (sender, sequence): (DeviceId, u64),
        knock: &SealedBox,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let Some(Place::Lobby(epoch)) = self.secrets.place(topic) else { return Err(Refusal::OutOfPlace) };
        let announcement = epoch.lobby().open_knock(self.identity.party(), &sender, knock)?;
        self.check_announcement(&sender, &announcement, out)?;
        let certificate = &announcement.certificate;
        let confirmed = announcement.confirmation.is_some()
            || self
                .roster
                .record(&sender)
                .is_some_and(|record| record.certificate() == certificate && record.is_confirmed());
        if let Err(dismissal) = self.charter.rules().judge(certificate, confirmed, now) {
            debug!(peer = %sender.short(), reason = %dismissal, "joiner not let in");
            if dismissal != Dismissal::InviteExpired {
                let body = self.verdict_body_for(&certificate.claims().tunnel, &sender, rng);
                if let Some(body) = body {
                    self.send(now, rng, topic, Some(sender), body, out);
                }
            }
            return Ok(());
        }
        self.handle_announcement(now, rng, topic, (sender, sequence), &announcement, out)
    }

    /// Checks everything that makes an announcement worth keeping, before anything is kept.
    pub(super) fn check_announcement(
        &mut self,
        sender: &DeviceId,
        announcement: &Announcement,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let Announcement { certificate, confirmation, .. } = announcement;
        let (party, known) = (self.identity.party(), self.roster.record(sender));
        let same = known.filter(|record| record.certificate() == certificate);
        let sound = same.is_some()
            || (certificate.claims().device == *sender && chain::is_certificate_sound(party, certificate));
        if !sound {
            return Err(Refusal::BadCertificate);
        }
        if let Some(confirmation) = confirmation
            && same.and_then(|record| record.confirmation()) != Some(confirmation)
            && !chain::is_confirmed(party, certificate, confirmation)
        {
            return Err(Refusal::BadConfirmation);
        }
        // A device with a record is answered even by a full party: it may have to learn that it was removed.
        if known.is_none() && self.roster.is_full() {
            return Err(Refusal::Full);
        }
        if same.is_some() { Ok(()) } else { self.check_tunnel_key(certificate, confirmation.is_some(), out) }
    }

    /// A tunnel key belongs to the device that announced it first, unless only the other one is confirmed.
    pub(super) fn check_tunnel_key(
        &mut self,
        certificate: &Certificate,
        confirmed: bool,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let (sender, tunnel) = (&certificate.claims().device, &certificate.claims().tunnel);
        if *tunnel == self.identity.tunnel_public() {
            return Err(Refusal::TunnelKeyTaken);
        }
        let Some((other, record)) = self.roster.owner_of_tunnel_key(tunnel, sender) else { return Ok(()) };
        if record.is_confirmed() || !confirmed {
            return Err(Refusal::TunnelKeyTaken);
        }
        debug!(peer = %other.short(), by = %sender.short(), reason = %Departure::Displaced, "member gone");
        self.roster.remove(&other);
        out.addresses_changed = true;
        out.push(Effect::MemberGone(other, Departure::Displaced));
        Ok(())
    }

    /// Confirms a device on the owner's device while its invite counts, and appoints it if the invite says so.
    pub(super) fn confirm_if_owner(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceId,
        out: &mut Outcome,
    ) {
        let unconfirmed = self.roster.record(device).filter(|record| !record.is_confirmed());
        let Some(record) = unconfirmed.filter(|_| self.admin.is_owner()) else { return };
        if let Err(dismissal) = self.charter.rules().judge(record.certificate(), false, now) {
            return debug!(peer = %device.short(), reason = %dismissal, "member not confirmed, invite refused");
        }
        let Some(confirmation) = self.confirmation_for(device, record) else { return };
        let grant = &record.certificate().claims().grant;
        let appointed = grant.role == Role::CoOwner;
        debug!(peer = %device.short(), invite = %grant.invite.short(), host = confirmation.host, role = ?grant.role, "member confirmed, invite used");
        if let Some(record) = self.roster.record_mut(device) {
            record.confirm(confirmation);
        }
        (out.persist, out.addresses_changed) = (true, true);
        self.notify_member_changed(*device, out);
        if appointed && let Ok(appointment) = self.set_co_owner(now, rng, *device, true) {
            out.merge(appointment);
        }
    }

    /// Returns the confirmation that fixes a free host number for a member, on the owner's device.
    pub(super) fn confirmation_for(&self, device: &DeviceId, record: &Record) -> Option<Confirmation> {
        let terms = self.charter.rules().terms()?;
        let host = self.claims().choose_for(device, record, terms.range);
        self.admin.confirm(record.certificate(), host, terms.version)
    }

    /// Confirms those again whose host numbers are outside of another range.
    pub(super) fn fix_hosts_in(&mut self, range: Ipv4Net) {
        let Some(version) = self.charter.rules().terms().map(|terms| terms.version.saturating_add(1)) else {
            return;
        };
        let outside = |confirmation: &Confirmation| address::v4(range, confirmation.host).is_none();
        if self.identity.confirmation().is_some_and(outside) {
            let taken = self.claims().taken(&self.me());
            let host = address::choose(&self.me(), range, &taken).unwrap_or(0);
            let confirmation = self.admin.confirm(self.identity.certificate(), host, version);
            confirmation.map(|confirmation| self.identity.confirm(confirmation));
            self.claim.host = Some(host);
        }
        for device in self.devices().collect::<Vec<_>>() {
            let Some(record) = self.roster.record(&device) else { continue };
            if record.confirmation().is_some_and(outside) {
                let host = self.claims().choose_for(&device, record, range);
                let confirmation = self.admin.confirm(record.certificate(), host, version);
                if let (Some(record), Some(confirmation)) = (self.roster.record_mut(&device), confirmation) {
                    record.confirm(confirmation);
                }
            }
        }
    }

    /// A device that is judged to be a member later has an effect of its own then.
    pub(super) fn notify_member_changed(&self, device: DeviceId, out: &mut Outcome) {
        if self.roster.is_member(&device) {
            out.push(Effect::MemberChanged(device));
        }
    }

    /// Sends what an announcement shows its sender to lack, or asks for what this device lacks.
    pub(super) fn answer(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        to: &DeviceId,
        announcement: &Announcement,
        out: &mut Outcome,
    ) {
        let Some(comparison) = self.compare(now, to, announcement) else { return };
        let in_lobby = matches!(self.secrets.place(topic), Some(Place::Lobby(_)));
        let (body, reason) = match comparison.reply() {
            Reply::Nothing => return,
            Reply::Rekey(reason) => (self.rekey_body_for(to, rng), reason),
            // What is said in the lobby is sealed for the joiner alone.
            Reply::Charter(_) | Reply::Announcement(_) if in_lobby => return,
            Reply::Charter(reason) => (self.charter_body_for(to), reason),
            Reply::Announcement(reason) => (Some(self.bare_announcement()), reason),
        };
        if let Some(body) = body {
            debug!(peer = %to.short(), answer = kind(&body), reason, "announcement answered");
            self.send(now, rng, topic, Some(*to), body, out);
        }
    }

    pub(super) fn compare(
        &self,
        now: Timestamp,
        device: &DeviceId,
        announcement: &Announcement,
    ) -> Option<Comparison> {
        let record = self.roster.record(device)?;
        let rules = self.charter.rules();
        Some(Comparison {
            own: self.charter.stamp(),
            theirs: announcement.charter,
            judged: rules.judge(record.certificate(), record.is_confirmed(), now),
            has_secret: self.has_secret_in_force(),
            they_have_secret: rules.commitment().is_some_and(|it| tag_of(it) == announcement.secret),
            lacks_confirmation: record.is_confirmed() && announcement.confirmation.is_none(),
        })
    }

    /// Takes a charter that came without a party secret. An amendment that commits to another secret has to bring that
    /// along, except to a device that is no member under it: a secret that nobody is given would silence the party.
    pub(super) fn handle_charter(
        &mut self,
        now: Timestamp,
        update: &CharterUpdate,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let rules = Rules::of(Some(&update.charter));
        let known = rules.commitment() == self.secrets.current().map(Epoch::commitment);
        let confirmed = update.confirmation.is_some() || self.identity.confirmation().is_some();
        let member = rules.judge(self.identity.certificate(), confirmed, now).is_ok();
        if update.charter.amendment.is_some() && !known && member {
            self.charter.check(self.identity.party(), &update.charter)?;
            return Err(Refusal::SecretMissing);
        }
        self.apply_charter_update(update, out)
    }

    /// Puts a received charter in force, and keeps the confirmation that came with it.
    pub(super) fn apply_charter_update(
        &mut self,
        update: &CharterUpdate,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        self.charter.check(self.identity.party(), &update.charter)?;
        self.identity.check_confirmation(update.confirmation.as_ref())?;
        if let Some(confirmation) = update.confirmation
            && self.identity.confirm(confirmation)
        {
            debug!(party = %self.id().short(), host = confirmation.host, "own certificate confirmed by the owner");
            (out.persist, out.addresses_changed) = (true, true);
        }
        if self.charter.adopt(update.charter.clone()) {
            self.follow_lobbies();
            out.persist = true;
            out.addresses_changed = true;
            out.extend([Effect::CharterChanged, Effect::Announce]);
        }
        Ok(())
    }

    pub(super) fn handle_rekey(
        &mut self,
        now: Timestamp,
        sender: &DeviceId,
        rekey: &SealedBox,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let (epoch, update) = open_rekey(&self.identity, sender, rekey)?;
        self.apply_charter_update(&update, out)?;
        if self.secrets.current().map(Epoch::commitment) != Some(epoch.commitment()) {
            debug!(peer = %sender.short(), reason = "received from a member", "rekey");
            self.rotate(now, epoch, out);
            out.extend([Effect::Rekeyed, Effect::Announce]);
        }
        Ok(())
    }

    /// A leave ends the membership whose certificate it names, and no other of the same device.
    pub(super) fn handle_leave(
        &mut self,
        sender: &DeviceId,
        certificate: &[u8; 32],
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let record = self.roster.record_mut(sender).ok_or(Refusal::UnknownSender)?;
        if record.digest() != certificate {
            return Err(Refusal::OldMembership);
        }
        record.on_leave();
        debug!(peer = %sender.short(), "member leaves");
        out.persist = true;
        Ok(())
    }

    pub(super) fn expect_member(&self, now: Timestamp, sender: &DeviceId) -> Result<(), Refusal> {
        let record = self.roster.record(sender).ok_or(Refusal::UnknownSender)?;
        let judged = self.charter.rules().judge(record.certificate(), record.is_confirmed(), now);
        judged.map_err(Refusal::NotAMember)?;
        if record.has_left() { Err(Refusal::UnknownSender) } else { Ok(()) }
    }

    /// Takes an amendment over, as the owner; repeats an amendment that was lost, as a co-owner.
    pub(super) fn catch_up(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        out: &mut Outcome,
    ) {
        let Some(charter) = self.charter.in_force() else { return };
        if self.admin.is_owner() {
            if charter.amendment.is_some() && self.has_secret_in_force() {
                debug!(reason = "a co-owner amended the charter", "charter rewritten");
                if let Ok(done) = self.legislate(now, rng, |_| {}) {
                    out.merge(done);
                }
            }
            return;
        }
        self.admin.forget_enacted(charter.terms.value());
        if let Some(lost) = self.admin.lost(self.charter.rules()) {
            debug!(reason = "the charter in force lacks it", "amendment repeated");
            if let Ok(done) = self.amend(now, rng, &lost) {
                out.merge(done);
            }
        }
    }

    /// Handles the passing of time: memberships and old secrets may have lapsed.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Outcome {
        let mut out = Outcome::default();
        self.expire_secrets(now, &mut out);
        self.judge_all(now, &mut out);
        out
    }

    /// Returns the next moment at which time alone changes something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let unconfirmed = matches!(self.standing, Standing::Unconfirmed { .. });
        let own = unconfirmed.then(|| lapses_at(self.identity.certificate())).flatten();
        let old = self.secrets.next_expiry(|commitment| self.invites.open_until(commitment));
        let last = [self.roster.next_lapse(), own, old].into_iter().flatten().min();
        last.map(|time| Timestamp(time.0.saturating_add(1)))
    }

    /// Handles the time of a rendezvous server, which shows whether this computer's clock is wrong.
    pub fn on_server_time(&mut self, now: Timestamp, theirs: Timestamp) {
        self.clock.on_server_time(now, theirs);
    }
}

/// Logs a refusal.
fn refuse(message: Option<&Message>, topic: &Topic, refusal: Refusal) -> Refusal {
    let kind = message.map(|message| kind(&message.body));
    let peer = || message.map(|message| message.sender.short());
    if refusal.is_normal() {
        trace!(peer = peer(), kind, topic = %topic.short(), reason = refusal.label(), "message dropped");
    } else {
        debug!(peer = peer(), kind, topic = %topic.short(), reason = refusal.label(), detail = %refusal, "message dropped");
    }
    refusal
}
