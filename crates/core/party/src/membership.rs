//! One party as one device sees it: making it, joining it, taking it up again.

use std::{collections::BTreeSet, fmt};

use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use partyline_model::{DeviceId, Handle, InviteId, PartyId, Role, SessionNonce, Timestamp, Topic};
use partyline_wire::{
    invite::Invite,
    membership::{Claims, Expiry, Grant, Issuer, Terms, check_range, check_servers},
    name::{check_display_name, check_party_name},
};
use rand_core::{CryptoRng, RngCore};

use crate::{
    Effect, JoinError, Outcome, PartyError, Standing, chain,
    clock::ClockWatch,
    keys::{DeviceKey, Epoch, Secret, tunnel_public},
    roster::Roster,
    rules::check_end,
    state::{MembershipState, Revocations},
};

/// What the creator of a party decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewParty {
    /// The party's name.
    pub name: String,
    /// The name friends will see.
    pub display_name: String,
    /// Rendezvous servers; may be empty.
    pub servers: Vec<String>,
    /// Private address range, prefix 16 to 28.
    pub range: Ipv4Net,
}

/// A topic to visit, and as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicAccess {
    /// Which.
    pub topic: Topic,
    /// This device's handle there.
    pub handle: Handle,
    /// Whether it is the current one (else one visited to tell those who slept through a change).
    pub current: bool,
}

/// How far sequence numbers, which are milliseconds of the clock, may run ahead of the stored one.
pub(crate) const SEQUENCE_SLACK: u64 = 600_000;

/// One party on one device.
pub struct Membership {
    pub(crate) device: DeviceKey,
    pub(crate) state: MembershipState,
    pub(crate) epoch: Epoch,
    /// Those of `state.old_secrets`, in their order.
    pub(crate) old: Vec<Epoch>,
    pub(crate) session: SessionNonce,
    /// Devices whose certificates count, as last reported.
    pub(crate) listed: BTreeSet<DeviceId>,
    pub(crate) standing: Standing,
    pub(crate) clock: ClockWatch,
    /// The last sequence number that the caller was asked to persist.
    pub(crate) stored_sequence: u64,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl Membership {
    /// Makes a party; this device becomes its owner.
    ///
    /// # Errors
    /// When a name, server or the range is outside its limits.
    pub fn create(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceKey,
        new: NewParty,
    ) -> Result<Self, PartyError> {
        check_party_name(&new.name)?;
        check_display_name(&new.display_name)?;
        check_servers(&new.servers)?;
        check_range(new.range)?;
        let authority = Secret::generate(rng);
        let key = SigningKey::from_bytes(authority.expose());
        let party = PartyId(key.verifying_key().to_bytes());
        let invite = SigningKey::from_bytes(Secret::generate(rng).expose());
        let id = InviteId(invite.verifying_key().to_bytes());
        let grant = chain::grant(&key, &party, Issuer::Authority, id, Expiry::NEVER, Role::Owner);
        let secret = Secret::generate(rng);
        let mut membership =
            Self::enter(now, rng, device, party, (secret, new.display_name), (grant, &invite));
        membership.state.confirmation = Some(chain::confirm(&key, &membership.state.certificate));
        membership.state.charter = Some(chain::proclaim(
            &key,
            Terms {
                party,
                version: 1,
                name: new.name,
                range: new.range,
                servers: new.servers,
                owner: device.id(),
                co_owners: Vec::new(),
                revoked_devices: Vec::new(),
                revoked_invites: Vec::new(),
                commitment: membership.epoch.commitment,
            },
        ));
        membership.state.authority = Some(authority);
        membership.settle(now);
        Ok(membership)
    }

    /// Joins the party of an invite. Whether its issuer is still a co-owner, and whether it was revoked, turns out
    /// when the charter arrives ([`crate::Effect::Dismissed`]).
    ///
    /// # Errors
    /// When the invite is forged or has ended, or the name breaks the rules.
    pub fn join(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceKey,
        invite: &Invite,
        display_name: String,
    ) -> Result<Self, JoinError> {
        check_display_name(&display_name)?;
        let key = SigningKey::from_bytes(&invite.seed);
        let grant = Grant {
            issuer: invite.issuer,
            invite: InviteId(key.verifying_key().to_bytes()),
            not_after: invite.not_after,
            role: invite.role,
            signature: invite.signature,
        };
        if !chain::is_grant_sound(&invite.party, &grant) {
            return Err(JoinError::Forged);
        }
        check_end(invite.not_after.time(), now)?;
        let secret = Secret::new(invite.secret);
        let mut membership =
            Self::enter(now, rng, device, invite.party, (secret, display_name), (grant, &key));
        membership.state.invited_name.clone_from(&invite.name);
        membership.state.invited_servers.clone_from(&invite.servers);
        membership.settle(now);
        Ok(membership)
    }

    fn enter(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceKey,
        party: PartyId,
        (secret, name): (Secret, String),
        (grant, invite): (Grant, &SigningKey),
    ) -> Self {
        let tunnel = Secret::generate(rng);
        let claims = Claims {
            party,
            device: device.id(),
            tunnel: tunnel_public(&tunnel),
            name,
            joined_at: now,
            grant,
        };
        let state = MembershipState {
            party,
            invited_name: String::new(),
            invited_servers: Vec::new(),
            authority: None,
            tunnel,
            certificate: chain::certify(claims, invite, device),
            name: None,
            confirmation: None,
            charter: None,
            secret,
            old_secrets: Vec::new(),
            issued: Vec::new(),
            wanted: Revocations::default(),
            host: None,
            sequence: 0,
            roster: Roster::default(),
        };
        Self::wake(device, state, rng)
    }

    /// Takes up a stored membership again, as a new run.
    ///
    /// # Errors
    /// When the state was stored by another device.
    pub fn restore(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceKey,
        state: MembershipState,
    ) -> Result<Self, PartyError> {
        if state.certificate.claims().device != device.id() {
            return Err(PartyError::WrongDevice);
        }
        let mut membership = Self::wake(device, state, rng);
        membership.settle(now);
        // Past everything said since the state was stored, even if the clock has been set back since.
        membership.state.sequence = membership.state.sequence.saturating_add(2 * SEQUENCE_SLACK);
        Ok(membership)
    }

    fn wake(device: &DeviceKey, state: MembershipState, rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut membership = Self {
            device: device.clone(),
            epoch: Epoch::new(&state.party, state.secret.clone()),
            old: state.old_secrets.iter().map(|old| Epoch::new(&state.party, old.secret.clone())).collect(),
            state,
            session: SessionNonce([0; 16]),
            listed: BTreeSet::new(),
            standing: Standing::Unconfirmed { until: None },
            clock: ClockWatch::default(),
            stored_sequence: 0,
        };
        membership.start_session(rng);
        membership
    }

    /// Judges everybody for the first time. The caller reads the result from [`Self::members`], and writes the state of a
    /// party that is new.
    fn settle(&mut self, now: Timestamp) {
        let mut out = Outcome { addresses_changed: true, ..Outcome::default() };
        self.refresh(now, &mut out);
        self.stored_sequence = self.state.sequence;
    }

    /// Changes the name this device's user goes by; the outcome is empty if it is the same. The certificate keeps the
    /// name it was signed with: an invite's key, and the owner's confirmation, would be needed for another one.
    ///
    /// # Errors
    /// When the name breaks the rules.
    pub fn set_display_name(&mut self, name: &str) -> Result<Outcome, PartyError> {
        check_display_name(name)?;
        let mut out = Outcome::default();
        if name != self.display_name() {
            let signed = self.state.certificate.claims().name == name;
            self.state.name = (!signed).then(|| name.to_owned());
            out.persist = true;
            out.push(Effect::Announce);
        }
        Ok(self.finish(out))
    }

    /// The caller is about to write the state, sequence number included, if the outcome asks for it.
    pub(crate) const fn finish(&mut self, out: Outcome) -> Outcome {
        if out.persist {
            self.stored_sequence = self.state.sequence;
        }
        out
    }

    /// Draws a new session nonce, which makes all probe keys new. Making, joining and restoring do it too.
    pub fn start_session(&mut self, rng: &mut (impl CryptoRng + RngCore)) {
        rng.fill_bytes(&mut self.session.0);
    }
}
