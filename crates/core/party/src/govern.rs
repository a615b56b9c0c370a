//! What owner and co-owners do: invite, revoke, remove, appoint, rename.
//!
//! The owner's device writes the next version of the terms. A co-owner writes an amendment of the terms in force:
//! all of the amendment before it, and more. The owner's device takes an amendment over into its next version as
//! soon as it hears of it. When two write at once, one of them loses by its stamp; a co-owner remembers what it
//! revoked until the owner's terms hold it, and amends again when its word got lost.

use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use partyline_model::{DeviceId, InviteId, InviteLifetime, Role, Timestamp};
use partyline_wire::{
    exact::{Document as _, Exact},
    invite::Invite,
    membership::{Amendment, Charter, Expiry, Issuer, MAX_CO_OWNERS, SignedAmendment, Terms},
    sealed::Body,
};
use rand_core::{CryptoRng, RngCore};

use crate::{
    Effect, Membership, Outcome, PartyError, chain,
    keys::{Epoch, Secret, sign},
    state::{Issued, Revocations},
};

/// Most open invites made on one device.
const MAX_INVITES: usize = 64;

impl Membership {
    /// Makes an invite. A co-owner can only invite members.
    ///
    /// # Errors
    /// When this device may not invite, or has not caught up with the party.
    pub fn create_invite(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        lifetime: InviteLifetime,
        role: Role,
    ) -> Result<(Invite, Outcome), PartyError> {
        let (issuer, signer) = match self.authority() {
            Some(authority) if role != Role::Owner => (Issuer::Authority, authority),
            None if role == Role::Member && self.role() == Role::CoOwner => {
                (Issuer::CoOwner(self.me()), self.device.signing().clone())
            }
            None if self.role() == Role::Member => return Err(PartyError::NotCoOwner),
            _ => return Err(PartyError::NotOwner),
        };
        if !self.has_secret_in_force() {
            return Err(PartyError::NotCaughtUp);
        }
        self.state.issued.retain(|issued| issued.is_open(now));
        if self.state.issued.len() >= MAX_INVITES {
            return Err(PartyError::TooManyInvites);
        }
        let seed = Secret::generate(rng);
        let id = InviteId(SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes());
        let not_after = lifetime.duration().map_or(Expiry::NEVER, |span| Expiry::at(now.plus(span)));
        let grant = chain::grant(&signer, &self.state.party, issuer, id, not_after, role);
        self.state.issued.push(Issued { id, not_after, role, commitment: self.epoch.commitment });
        let invite = Invite {
            party: self.state.party,
            name: self.name().to_owned(),
            inviter: self.display_name().to_owned(),
            members: u8::try_from(1 + self.members().count()).unwrap_or(u8::MAX),
            secret: *self.state.secret.expose(),
            servers: self.servers().to_vec(),
            seed: *seed.expose(),
            not_after,
            role,
            issuer,
            signature: grant.signature,
        };
        Ok((invite, self.finish(Outcome { persist: true, ..Outcome::default() })))
    }

    /// Open invites made here: which, until when, and what they make of the joiner.
    pub fn invites(&self, now: Timestamp) -> impl Iterator<Item = (InviteId, Option<Timestamp>, Role)> {
        let open = self.state.issued.iter().filter(move |issued| issued.is_open(now));
        open.map(|issued| (issued.id, issued.not_after.time(), issued.role))
    }

    /// Takes an invite back, and replaces the party secret that its link holds. Members it made stay if the owner's
    /// device has confirmed them.
    ///
    /// # Errors
    /// When this device may not, or the charter is full.
    pub fn revoke_invite(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        invite: InviteId,
    ) -> Result<Outcome, PartyError> {
        self.put_out(now, rng, Revocations { devices: Vec::new(), invites: vec![invite] })
    }

    /// Removes a member: its device, the invite it came by, and the party secret it knows.
    ///
    /// # Errors
    /// When this device may not, there is no such member, or the charter is full.
    pub fn remove_member(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: DeviceId,
    ) -> Result<Outcome, PartyError> {
        let record = self.state.roster.get(&device);
        if device == self.me() {
            return Err(PartyError::Protected);
        }
        let invite = record.ok_or(PartyError::UnknownMember)?.certificate.claims().grant.invite;
        self.put_out(now, rng, Revocations { devices: vec![device], invites: vec![invite] })
    }

    /// Names a member co-owner, or takes that back.
    ///
    /// # Errors
    /// When this is not the owner's device, there is no such member, or there are too many.
    pub fn set_co_owner(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: DeviceId,
        co_owner: bool,
    ) -> Result<Outcome, PartyError> {
        if co_owner && self.state.roster.get(&device).is_none() {
            return Err(PartyError::UnknownMember);
        }
        self.legislate(now, rng, false, |terms| {
            terms.co_owners.retain(|other| *other != device);
            if co_owner && terms.co_owners.len() < MAX_CO_OWNERS {
                terms.co_owners.push(device);
            }
        })
    }

    /// Renames the party.
    ///
    /// # Errors
    /// When this is not the owner's device or the name breaks the rules.
    pub fn rename(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        name: String,
    ) -> Result<Outcome, PartyError> {
        self.legislate(now, rng, false, |terms| terms.name = name)
    }

    /// Moves the party to another address range.
    ///
    /// # Errors
    /// When this is not the owner's device or the range is outside its limits.
    pub fn set_range(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        range: Ipv4Net,
    ) -> Result<Outcome, PartyError> {
        self.legislate(now, rng, false, |terms| terms.range = range)
    }

    /// Moves the party to other rendezvous servers.
    ///
    /// # Errors
    /// When this is not the owner's device or the list is outside its limits.
    pub fn set_servers(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        servers: Vec<String>,
    ) -> Result<Outcome, PartyError> {
        self.legislate(now, rng, false, |terms| terms.servers = servers)
    }

    pub(crate) fn authority(&self) -> Option<SigningKey> {
        self.state.authority.as_ref().map(|seed| SigningKey::from_bytes(seed.expose()))
    }

    fn put_out(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        revoked: Revocations,
    ) -> Result<Outcome, PartyError> {
        self.state.issued.retain(|issued| !revoked.invites.contains(&issued.id));
        if self.state.authority.is_some() {
            return self.legislate(now, rng, true, |terms| {
                terms.co_owners.retain(|device| !revoked.devices.contains(device));
                add(&mut terms.revoked_devices, &revoked.devices);
                add(&mut terms.revoked_invites, &revoked.invites);
            });
        }
        let outcome = self.amend(now, rng, &revoked)?;
        add(&mut self.state.wanted.devices, &revoked.devices);
        add(&mut self.state.wanted.invites, &revoked.invites);
        Ok(outcome)
    }

    /// Writes the next version of the terms; whatever amendment there was becomes part of it.
    fn legislate(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        renew_secret: bool,
        change: impl FnOnce(&mut Terms),
    ) -> Result<Outcome, PartyError> {
        let authority = self.authority().ok_or(PartyError::NotOwner)?;
        let mut terms = self.rules().terms().ok_or(PartyError::NotOwner)?.clone();
        terms.revoked_devices = self.rules().revoked_devices().copied().collect();
        terms.revoked_invites = self.rules().revoked_invites().copied().collect();
        change(&mut terms);
        // Without the secret in force, only a new one can be handed on.
        let renewed = (renew_secret || !self.has_secret_in_force()).then(|| self.new_epoch(rng));
        terms.commitment = renewed.as_ref().unwrap_or(&self.epoch).commitment;
        terms.version = terms.version.saturating_add(1);
        terms.check().map_err(too_much)?;
        Ok(self.enact(now, rng, chain::proclaim(&authority, terms), renewed))
    }

    /// Adds to the amendment of the terms in force.
    fn amend(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        revoked: &Revocations,
    ) -> Result<Outcome, PartyError> {
        let (me, mut charter) = (self.me(), self.state.charter.clone().ok_or(PartyError::NotCoOwner)?);
        if self.role() != Role::CoOwner {
            return Err(PartyError::NotCoOwner);
        }
        let epoch = self.new_epoch(rng);
        let before = charter.amendment.as_ref().map(|signed| signed.amendment.value());
        let mut amendment = Amendment {
            terms: charter.terms_digest(),
            number: before.map_or(0, |before| before.number).saturating_add(1),
            author: me,
            revoked_devices: before.map_or_else(Vec::new, |before| before.revoked_devices.clone()),
            revoked_invites: before.map_or_else(Vec::new, |before| before.revoked_invites.clone()),
            commitment: epoch.commitment,
        };
        add(&mut amendment.revoked_devices, &revoked.devices);
        add(&mut amendment.revoked_invites, &revoked.invites);
        amendment.check().map_err(too_much)?;
        let amendment = Exact::new(amendment);
        let signature = sign(self.device.signing(), &amendment.subject());
        charter.amendment = Some(SignedAmendment { amendment, signature });
        if !chain::is_charter_sound(&self.state.party, &charter) {
            return Err(PartyError::Protected);
        }
        Ok(self.enact(now, rng, charter, Some(epoch)))
    }

    fn new_epoch(&self, rng: &mut (impl CryptoRng + RngCore)) -> Epoch {
        Epoch::new(&self.state.party, Secret::generate(rng))
    }

    /// Puts a charter of one's own in force and tells everybody, on the topic where they still are.
    fn enact(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        charter: Charter,
        renewed: Option<Epoch>,
    ) -> Outcome {
        let mut out = Outcome {
            effects: vec![Effect::CharterChanged, Effect::Announce],
            persist: true,
            addresses_changed: true,
            ..Outcome::default()
        };
        let (topic, audience) = (self.epoch.topic, self.listed.clone());
        self.state.charter = Some(charter);
        if let Some(epoch) = renewed {
            self.rotate(now, epoch, &mut out);
            out.push(Effect::Rekeyed);
        }
        self.refresh(now, &mut out);
        for device in audience {
            let stays = self.listed.contains(&device);
            let charter = || self.charter_update_for(&device).map(|update| Body::Charter(Box::new(update)));
            let body =
                if stays && topic != self.epoch.topic { self.rekey_for(&device, rng) } else { charter() };
            if let Some(body) = body {
                self.send(now, rng, &topic, device, body, &mut out);
            }
        }
        self.finish(out)
    }

    /// After hearing of a charter: the owner takes an amendment over, a co-owner repeats what got lost.
    pub(crate) fn catch_up(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        out: &mut Outcome,
    ) {
        let Some(charter) = &self.state.charter else { return };
        let done = if self.state.authority.is_some() {
            let amended = charter.amendment.is_some() && self.has_secret_in_force();
            amended.then(|| self.legislate(now, rng, false, |_| {}))
        } else {
            let terms = charter.terms.value();
            self.state.wanted.devices.retain(|device| !terms.revoked_devices.contains(device));
            self.state.wanted.invites.retain(|invite| !terms.revoked_invites.contains(invite));
            let (rules, wanted) = (self.rules(), &self.state.wanted);
            let lost = wanted.devices.iter().any(|device| !rules.is_removed(device))
                || wanted.invites.iter().any(|invite| !rules.is_revoked(invite));
            let wanted = wanted.clone();
            lost.then(|| self.amend(now, rng, &wanted))
        };
        if let Some(Ok(done)) = done {
            out.merge(done);
        }
    }
}

/// Adds what is not there yet.
fn add<T: PartialEq + Copy>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(*item);
        }
    }
}

fn too_much(error: partyline_wire::exact::Malformed) -> PartyError {
    match error {
        partyline_wire::exact::Malformed::TooMany { .. } => PartyError::Full,
        other => PartyError::Invalid(other),
    }
}
