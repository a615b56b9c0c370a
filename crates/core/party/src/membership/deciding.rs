//! What the user decides.

use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use partyline_model::{DeviceId, InviteId, InviteLifetime, KickScope, Role, Timestamp};
use partyline_wire::{
    invite::Invite,
    membership::{Charter, Expiry, MAX_CO_OWNERS, Stamp, Terms, check_range},
};
use rand_core::{CryptoRng, RngCore};
use tracing::debug;

use super::Membership;
use crate::{
    admin::Admin,
    chain,
    epoch::Epoch,
    error::PartyError,
    invites::IssuedInvite,
    keys::Secret,
    outcome::{Effect, Outcome},
    revocations::Revocations,
};

impl Membership {
    /// Changes the display name. The outcome is empty if it is the same.
    ///
    /// # Errors
    /// If the name breaks the rules for names.
    pub fn set_display_name(&mut self, name: &str) -> Result<Outcome, PartyError> {
        let mut out = Outcome::default();
        if self.identity.set_display_name(name)? {
            out.persist = true;
            out.push(Effect::Announce);
        }
        Ok(out)
    }

    /// Sets the networks that another range of the party should avoid; while there are any, this device's announcements
    /// ask the owner for one. Returns true if they have changed and are to be announced.
    pub fn set_avoided_networks(&mut self, networks: Vec<Ipv4Net>) -> bool {
        let changed = self.avoided_networks != networks;
        self.avoided_networks = networks;
        changed
    }

    /// Sets whether a copy of this device's keys was met lately. Returns true if that has changed and is to be announced.
    pub const fn set_copied(&mut self, copied: bool) -> bool {
        let changed = self.copied != copied;
        self.copied = copied;
        changed
    }

    /// Makes an invite. A co-owner can only invite members.
    ///
    /// # Errors
    /// If this device may not invite, has too many open invites, or lacks the secret in force.
    pub fn create_invite(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        lifetime: InviteLifetime,
        role: Role,
    ) -> Result<(Invite, Outcome), PartyError> {
        let (issuer, signer) = self.admin.issuer(self.outbound.device(), self.role(), role)?;
        let epoch = self.secrets.current().filter(|_| self.has_secret_in_force());
        let (Some(epoch), Some(stamp)) = (epoch, self.charter.stamp()) else {
            return Err(PartyError::NotCaughtUp);
        };
        self.invites.ensure_room(now)?;
        let seed = Secret::generate(rng);
        let id = InviteId(SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes());
        let not_after = lifetime.duration().map_or(Expiry::NEVER, |span| Expiry::at(now.plus(span)));
        let grant = chain::grant(&signer, self.identity.party(), issuer, id, not_after, role);
        self.invites.add(IssuedInvite { id, not_after, role, commitment: *epoch.commitment() });
        let invite = Invite {
            party: self.id(),
            name: self.name().to_owned(),
            inviter: self.display_name().to_owned(),
            members: u8::try_from(1 + self.devices().count()).unwrap_or(u8::MAX),
            lobby: *epoch.public_lobby().key(),
            floor: Stamp { digest: [0; 8], ..stamp },
            servers: self.servers().to_vec(),
            seed: *seed.expose(),
            not_after,
            role,
            issuer,
            signature: grant.signature,
        };
        Ok((invite, Outcome { persist: true, ..Outcome::default() }))
    }

    /// Revokes an invite, and replaces the party secret, which somebody whom nobody here knows may have got by it. Members
    /// that joined by it stay if the owner's device has confirmed them.
    ///
    /// # Errors
    /// If this device may not revoke invites, or the charter is full.
    pub fn revoke_invite(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        invite: InviteId,
    ) -> Result<Outcome, PartyError> {
        self.revoke(now, rng, &Revocations { devices: Vec::new(), invites: vec![invite] }, false)
    }

    /// Removes a member: its device, the invite it joined by, and the party secret it knows; and what else the scope names.
    ///
    /// # Errors
    /// If this device may not remove the member or end all links, there is no such member, or the charter is full.
    pub fn remove_member(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: DeviceId,
        scope: KickScope,
    ) -> Result<Outcome, PartyError> {
        if device == self.me() {
            return Err(PartyError::Protected);
        }
        if scope.all_links && !self.admin.is_owner() {
            return Err(PartyError::NotOwner);
        }
        let record = self.roster.record(&device).ok_or(PartyError::UnknownMember)?;
        let invite = record.certificate().claims().grant.invite;
        let mut devices = vec![device];
        if scope.same_link {
            devices.extend(self.companions(&invite).filter(|other| *other != device));
        }
        self.revoke(now, rng, &Revocations { devices, invites: vec![invite] }, scope.all_links)
    }

    /// Returns the other devices that joined by an invite, members or not, except those that this one cannot remove.
    pub(super) fn companions(&self, invite: &InviteId) -> impl Iterator<Item = DeviceId> {
        let rules = self.charter.rules();
        let may_remove = move |device: &DeviceId| self.admin.is_owner() || !rules.is_co_owner(device);
        let joined_by = |device: &DeviceId| {
            self.roster.record(device).map(|record| record.certificate().claims().grant.invite)
        };
        let devices = self.roster.known_devices().copied();
        devices.filter(move |device| joined_by(device) == Some(*invite)).filter(may_remove)
    }

    /// Makes a member a co-owner, or a plain member again.
    ///
    /// # Errors
    /// If this is not the owner's device or there is no such member.
    pub fn set_co_owner(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: DeviceId,
        co_owner: bool,
    ) -> Result<Outcome, PartyError> {
        if co_owner && self.roster.record(&device).is_none() {
            return Err(PartyError::UnknownMember);
        }
        self.legislate(now, rng, |terms| {
            terms.co_owners.retain(|other| *other != device);
            if co_owner && terms.co_owners.len() < MAX_CO_OWNERS {
                terms.co_owners.push(device);
            }
        })
    }

    /// Renames the party.
    ///
    /// # Errors
    /// If this is not the owner's device or the name breaks the rules for names.
    pub fn rename(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        name: String,
    ) -> Result<Outcome, PartyError> {
        self.legislate(now, rng, |terms| terms.name = name)
    }

    /// Moves the party to another address range.
    ///
    /// # Errors
    /// If this is not the owner's device or the range is outside its limits.
    pub fn set_range(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        range: Ipv4Net,
    ) -> Result<Outcome, PartyError> {
        check_range(range)?;
        if self.admin.is_owner() {
            self.fix_hosts_in(range);
        }
        self.legislate(now, rng, |terms| terms.range = range)
    }

    /// Revokes devices and invites, by new terms on the owner's device and by an amendment on a co-owner's. New terms can
    /// close all lobbies so far.
    pub(super) fn revoke(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        revoked: &Revocations,
        closes_lobbies: bool,
    ) -> Result<Outcome, PartyError> {
        if !self.admin.is_owner() && self.charter.rules().revokes(revoked) {
            return Ok(Outcome::default());
        }
        if !self.admin.is_owner() {
            let outcome = self.amend(now, rng, revoked)?;
            self.admin.remember(revoked);
            return Ok(outcome);
        }
        let epoch = self.new_epoch(rng);
        let tag = epoch.tag();
        let change = |terms: &mut Terms| {
            revoked.apply_to(terms);
            terms.lobbies_since = if closes_lobbies { Some(tag) } else { terms.lobbies_since };
        };
        let charter = self.admin.next_charter(self.charter.rules(), *epoch.commitment(), change)?;
        self.invites.revoke(&revoked.invites);
        Ok(self.enact(now, rng, charter, Some(epoch)))
    }

    /// Adds revocations to the amendment of the terms in force, and replaces the party secret.
    pub(super) fn amend(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        revoked: &Revocations,
    ) -> Result<Outcome, PartyError> {
        let epoch = self.new_epoch(rng);
        let charter = Admin::amended_charter(
            self.identity.party(),
            self.charter.rules(),
            self.outbound.device(),
            revoked,
            *epoch.commitment(),
        )?;
        self.invites.revoke(&revoked.invites);
        Ok(self.enact(now, rng, charter, Some(epoch)))
    }

    /// Writes the next version of the terms. Without the secret in force, which nobody could be given, it is replaced.
    pub(super) fn legislate(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        change: impl FnOnce(&mut Terms),
    ) -> Result<Outcome, PartyError> {
        let renewed = (!self.has_secret_in_force()).then(|| self.new_epoch(rng));
        let epoch = renewed.as_ref().or(self.secrets.current()).ok_or(PartyError::NotCaughtUp)?;
        let commitment = *epoch.commitment();
        let charter = self.admin.next_charter(self.charter.rules(), commitment, change)?;
        Ok(self.enact(now, rng, charter, renewed))
    }

    pub(super) fn new_epoch(&self, rng: &mut (impl CryptoRng + RngCore)) -> Epoch {
        Epoch::new(self.identity.party(), Secret::generate(rng))
    }

    /// Puts a charter of this device in force and sends it to all members, on the topic where they still are.
    pub(super) fn enact(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        charter: Charter,
        renewed: Option<Epoch>,
    ) -> Outcome {
        let (topic, audience) = (self.topic(), self.devices().collect::<Vec<_>>());
        let effects = vec![Effect::CharterChanged, Effect::Announce];
        let mut out = Outcome { effects, persist: true, addresses_changed: true, ..Outcome::default() };
        self.charter.adopt(charter);
        if let Some(epoch) = renewed {
            debug!(reason = "the charter of this device revokes rights", count = audience.len(), "rekey");
            self.rotate(now, epoch, &mut out);
            out.push(Effect::Rekeyed);
        }
        self.follow_lobbies();
        self.judge_all(now, &mut out);
        for device in audience {
            let rekeyed = topic != self.topic() && self.roster.is_member(&device);
            let body =
                if rekeyed { self.rekey_body_for(&device, rng) } else { self.charter_body_for(&device) };
            if let Some(body) = body {
                self.send(now, rng, &topic, Some(device), body, &mut out);
            }
        }
        out
    }
}
