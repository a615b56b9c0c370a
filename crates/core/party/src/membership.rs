//! One party as one device sees it: wires the parts and hands every input to those it concerns.
//!
//! What it does is told apart by who asks for it: [`receiving`] messages, [`judging`] again what they change, [`saying`]
//! something to others, [`deciding`] as the user does, [`asking`] for what is known.

mod asking;
mod deciding;
mod judging;
mod receiving;
mod saying;

use std::{collections::BTreeSet, fmt};

use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use partyline_model::{Handle, InviteId, PartyId, Role, SessionNonce, Timestamp, Topic};
use partyline_wire::{
    invite::Invite,
    membership::{Expiry, Grant, Issuer, Terms, check_range, check_servers},
    name::{check_display_name, check_party_name},
};
use rand_core::{CryptoRng, RngCore};
use tracing::{debug, info};

use crate::{
    address,
    admin::Admin,
    chain,
    charter::CharterState,
    claim::OwnClaim,
    clock::ClockMonitor,
    contest::Contest,
    epoch::Epoch,
    error::{JoinError, PartyError},
    identity::Identity,
    invites::Invites,
    joining::accept_invite,
    keys::{DeviceKey, Secret},
    outbound::Outbound,
    outcome::Outcome,
    roster::Roster,
    rules::Standing,
    secrets::PartySecrets,
    state::MembershipState,
};

/// What the creator of a party decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewParty {
    /// The party's name.
    pub name: String,
    /// The name of the creator, as other members see it.
    pub display_name: String,
    /// URLs of rendezvous servers; may be empty.
    pub servers: Vec<String>,
    /// Private address range (RFC 1918) with a prefix of 16 to 28 bits.
    pub range: Ipv4Net,
}

/// A topic to enter, and under which handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicAccess {
    /// The topic.
    pub topic: Topic,
    /// This device's handle there.
    pub handle: Handle,
    /// What this device does there.
    pub purpose: TopicPurpose,
}

/// What a device does on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicPurpose {
    /// Meets the other members, or waits to be let in.
    Current,
    /// Informs members that were offline during a rekey.
    Former,
    /// Lets joiners in, and says nothing until one knocks.
    Lobby,
}

impl TopicAccess {
    /// Returns true for the topic in use.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.purpose == TopicPurpose::Current
    }
}

/// One party on one device.
///
/// Every input returns an [`Outcome`], which the caller must act on. A membership that was created or joined must be
/// persisted at once; one that was restored is persisted already.
pub struct Membership {
    identity: Identity,
    charter: CharterState,
    admin: Admin,
    invites: Invites,
    secrets: PartySecrets,
    roster: Roster,
    claim: OwnClaim,
    standing: Standing,
    outbound: Outbound,
    /// This run: its nonce, and its claim to the device's place.
    contest: Contest,
    /// Networks of this computer that another range should avoid, while one is asked for.
    avoided_networks: Vec<Ipv4Net>,
    /// True if a copy of this device's keys was met lately.
    copied: bool,
    clock: ClockMonitor,
}

impl fmt::Debug for Membership {
    /// Leaves the secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("party", &self.id())
            .field("device", &self.me())
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

/// Creating, joining and restoring.
impl Membership {
    /// Creates a party; this device becomes its owner's.
    ///
    /// # Errors
    /// If a name, a server or the range is outside its limits.
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
        let commitment = *Epoch::new(&party, secret.clone()).commitment();
        let secrets = PartySecrets::new(&party, secret);
        let name = new.display_name;
        let mut identity = Identity::new(now, rng, party, device, name, (grant, &invite));
        let host = address::choose(&device.id(), new.range, &BTreeSet::new()).unwrap_or(0);
        identity.confirm(chain::confirm(&key, identity.certificate(), host, 1));
        let mut charter = CharterState::default();
        charter.adopt(chain::proclaim(
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
                lobbies_since: None,
                commitment,
            },
        ));
        info!(party = %party.short(), "party created");
        let admin = Admin::owner(authority);
        Ok(Self::start(now, rng, (identity, charter, admin, secrets), Outbound::new(device.clone())))
    }

    /// Joins the party of an invite: knocks in its lobby until a member hands the party secret over. Whether the issuer is
    /// still a co-owner, and whether the invite was revoked, is known when the charter arrives
    /// ([`Effect::Dismissed`](crate::Effect::Dismissed)).
    ///
    /// # Errors
    /// If the invite is forged or has ended, or the name breaks the rules for names.
    pub fn join(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceKey,
        invite: &Invite,
        display_name: String,
    ) -> Result<Self, JoinError> {
        check_display_name(&display_name)?;
        let (grant, key): (Grant, SigningKey) = accept_invite(now, invite)?;
        let secrets = PartySecrets::waiting(&invite.party, invite.lobby);
        let identity = Identity::new(now, rng, invite.party, device, display_name, (grant, &key));
        let charter = CharterState::invited(invite.name.clone(), invite.servers.clone(), invite.floor);
        info!(party = %invite.party.short(), "party joined");
        let parts = (identity, charter, Admin::default(), secrets);
        Ok(Self::start(now, rng, parts, Outbound::new(device.clone())))
    }

    fn start(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        (identity, charter, admin, secrets): (Identity, CharterState, Admin, PartySecrets),
        outbound: Outbound,
    ) -> Self {
        let mut membership = Self {
            claim: identity.claim(None),
            identity,
            charter,
            admin,
            invites: Invites::default(),
            secrets,
            roster: Roster::default(),
            standing: Standing::Unconfirmed { until: None },
            outbound,
            contest: Contest::new(SessionNonce([0; 16])),
            avoided_networks: Vec::new(),
            copied: false,
            clock: ClockMonitor::default(),
        };
        membership.start_session(rng);
        membership.judge_for_the_first_time(now);
        membership
    }

    /// Restores a stored membership, as a new run.
    ///
    /// # Errors
    /// [`PartyError::WrongDevice`] if another device stored the state.
    pub fn restore(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceKey,
        state: MembershipState,
    ) -> Result<Self, PartyError> {
        if *state.identity.device() != device.id() {
            return Err(PartyError::WrongDevice);
        }
        let mut membership = Self {
            claim: state.identity.claim(state.host),
            secrets: PartySecrets::restore(state.identity.party(), state.secrets),
            identity: state.identity,
            charter: state.charter,
            admin: state.admin,
            invites: state.invites,
            roster: state.roster,
            standing: Standing::Unconfirmed { until: None },
            outbound: Outbound::new(device.clone()),
            contest: Contest::new(SessionNonce([0; 16])),
            avoided_networks: Vec::new(),
            copied: false,
            clock: ClockMonitor::default(),
        };
        membership.follow_lobbies();
        membership.start_session(rng);
        membership.judge_for_the_first_time(now);
        debug!(party = %membership.id().short(), members = membership.devices().count(), "membership restored");
        Ok(membership)
    }

    /// The caller reads the result from [`Self::members`].
    fn judge_for_the_first_time(&mut self, now: Timestamp) {
        let mut out = Outcome { addresses_changed: true, ..Outcome::default() };
        self.judge_all(now, &mut out);
    }

    /// Returns what to persist when [`Outcome::persist`] asks for it.
    #[must_use]
    pub fn state(&self) -> MembershipState {
        MembershipState {
            identity: self.identity.clone(),
            charter: self.charter.clone(),
            admin: self.admin.clone(),
            invites: self.invites.clone(),
            secrets: self.secrets.to_stored(),
            host: self.claim.host,
            roster: self.roster.clone(),
        }
    }

    /// Begins a run that takes the place of another with the same keys, which has used numbers that this one does not know.
    pub fn take_over(&mut self, now: Timestamp, rng: &mut (impl CryptoRng + RngCore)) {
        self.outbound.device().numbers().pass_other_run(now);
        self.start_session(rng);
    }

    /// Draws a new session nonce, which changes the probe keys with all members. A membership starts with one.
    pub fn start_session(&mut self, rng: &mut (impl CryptoRng + RngCore)) {
        let mut run = SessionNonce([0; 16]);
        rng.fill_bytes(&mut run.0);
        self.contest = Contest::new(run);
        debug!(party = %self.id().short(), "session started, probe keys changed");
    }
}

#[cfg(test)]
mod tests;
