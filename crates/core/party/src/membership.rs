//! One party as one device sees it: wires the parts and hands every input to those it concerns.

use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use partyline_model::{
    DeviceId, Handle, InviteId, InviteTerms, JoinWait, KickScope, PartyId, Role, SessionNonce, Timestamp,
    Topic, TunnelPublicKey,
};
use partyline_wire::{
    announcement::{
        Announcement, MAX_AVOIDED, MAX_BEACON_CANDIDATES, MAX_CANDIDATES, MAX_PUBLIC, Presence, Reachability,
    },
    contact_list::Place,
    exact::Exact,
    invite::Invite,
    membership::{
        Certificate, Charter, Confirmation, Expiry, Grant, Issuer, MAX_CO_OWNERS, Stamp, Terms, check_range,
        check_servers,
    },
    name::{check_display_name, check_party_name},
    rendezvous::EntryProof,
    sealed::{Body, CharterUpdate, Claim, JoinRejection, MAX_SIGNAL, Message, RunMessage, SealedBox},
    tagged::Tagged,
};
use rand_core::{CryptoRng, RngCore};
use tracing::{debug, info, trace};
use x25519_dalek::StaticSecret;

use crate::{
    address,
    admin::Admin,
    chain,
    charter::CharterState,
    claim::{Claims, OwnClaim},
    clock::{ClockMonitor, ClockSkew},
    contact_list::{ContactListKeys, Day},
    contest::{Contest, Verdict},
    epoch::{Epoch, tag_of},
    error::{JoinError, PartyError, Refusal},
    identity::Identity,
    inbound::open_message,
    invites::{Invites, IssuedInvite, OpenInvite},
    join_requests::{JoinRequest, JoinRequests, PendingJoin},
    joining::accept_invite,
    keys::{DeviceKey, Secret},
    member::Member,
    outbound::{Outbound, kind},
    outcome::{Effect, Outcome, Outgoing, Received, RunStanding},
    reconcile::{Comparison, Reply},
    rekey::{open_join_rejection, open_rekey, seal_join_rejection, seal_rekey},
    revocations::Revocations,
    roster::{Record, Roster},
    rules::{Admission, Dismissal, Rules, Standing, lapses_at},
    secrets::{KnownTopic, PartySecrets},
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

/// A topic to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicAccess {
    /// The topic.
    pub topic: Topic,
    /// What this device does there.
    pub purpose: TopicPurpose,
}

/// What a device does on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicPurpose {
    /// Meets the other members, or waits for admission.
    Current,
    /// Informs members that were offline during a rekey.
    Former,
    /// Admits joiners, and sends nothing until a join request arrives.
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
    /// Who waits for the owner's approval, on the owner's device.
    requests: JoinRequests,
    /// Why this device is not let in, until it is.
    waits_for: JoinWait,
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
        let grant = chain::grant(&key, &party, Issuer::Authority, id, (Expiry::NEVER, None), Role::Owner);
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
                approval: false,
                commitment,
            },
        ));
        info!(party = %party.short(), "party created");
        let admin = Admin::owner(authority);
        Ok(Self::start(now, rng, (identity, charter, admin, secrets), Outbound::new(device.clone())))
    }

    /// Joins the party of an invite: sends join requests in its lobby until a member hands the party secret over. Whether the
    /// issuer is still a co-owner, and whether the invite was revoked, is known when the charter arrives
    /// ([`Effect::Dismissed`]).
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
        let (invites, roster) = (Invites::default(), Roster::default());
        let secrets = secrets.to_stored();
        let state = MembershipState { identity, charter, admin, invites, secrets, host: None, roster };
        Self::resume(now, rng, outbound, state)
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
        let membership = Self::resume(now, rng, Outbound::new(device.clone()), state);
        debug!(party = %membership.id().short(), members = membership.devices().count(), "membership restored");
        Ok(membership)
    }

    /// Begins a run with what is known of the membership.
    fn resume(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        outbound: Outbound,
        state: MembershipState,
    ) -> Self {
        let mut membership = Self {
            claim: state.identity.claim(state.host),
            secrets: PartySecrets::restore(state.identity.party(), state.secrets),
            identity: state.identity,
            charter: state.charter,
            admin: state.admin,
            invites: state.invites,
            roster: state.roster,
            requests: JoinRequests::default(),
            waits_for: JoinWait::Member,
            standing: Standing::Unconfirmed { until: None },
            outbound,
            contest: Contest::new(SessionNonce([0; 16])),
            avoided_networks: Vec::new(),
            copied: false,
            clock: ClockMonitor::default(),
        };
        membership.roster.set_own_invite(membership.invite());
        membership.start_session(rng);
        membership.judge_for_the_first_time(now);
        membership
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

/// Received messages and time.
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
        let opened = match self.secrets.known_topic(topic) {
            Some(known) => open_message(known.keys(), self.identity.device(), sealed),
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

    fn handle_message(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        message: &Message,
    ) -> Result<Outcome, Refusal> {
        let Message { sender, sequence, .. } = *message;
        self.check_topic(topic, &message.body)?;
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
            Body::JoinRejection(rejection) => {
                let rejection = open_join_rejection(&self.identity, &sender, rejection)?;
                self.handle_join_rejection(now, &rejection, &mut out)?;
            }
            Body::JoinRequest(request) => {
                self.handle_join_request(now, rng, topic, (sender, sequence), request, &mut out)?;
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

    /// Refuses what is not sent on a topic: in the lobby joiners send join requests, and members answer them.
    fn check_topic(&self, topic: &Topic, body: &Body) -> Result<(), Refusal> {
        let said = match (self.secrets.known_topic(topic), body) {
            (Some(KnownTopic::Party(_)), Body::JoinRequest(_) | Body::JoinRejection(_)) => false,
            (Some(KnownTopic::Party(_)), _) => true,
            (Some(KnownTopic::Lobby(_)), body) => matches!(body, Body::JoinRequest(_) | Body::Leave { .. }),
            (Some(KnownTopic::Waiting(_)), body) => matches!(body, Body::Rekey(_) | Body::JoinRejection(_)),
            (None, _) => return Err(Refusal::UnknownTopic),
        };
        if said { Ok(()) } else { Err(Refusal::WrongTopic) }
    }

    /// Handles a message of this device's own key: its own, of an earlier run, or of a copy. The presence of another run is
    /// as good as a question.
    fn handle_own_key(&mut self, message: &Message) -> Result<Received, Refusal> {
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

    fn handle_announcement(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (sender, sequence): (DeviceId, u64),
        announcement: &Announcement,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        self.check_announcement(&sender, announcement)?;
        let record = self.roster.admit(&announcement.certificate).ok_or(Refusal::Full)?;
        let update = record.update(announcement.clone(), sequence, now);
        out.addresses_changed |= update.claim_changed;
        out.persist |= update.changed;
        if update.changed {
            debug!(peer = %sender.short(), host = record.host(), confirmed = record.is_confirmed(), "announcement changed");
            self.notify_member_changed(sender, out);
        }
        if self.admin.is_owner() {
            self.admit(now, rng, topic, (sender, sequence), announcement, out);
        }
        self.answer(now, rng, topic, &sender, announcement, out);
        Ok(())
    }

    /// Admits a joiner whose certificate counts, and rejects the others. No record is kept of those, since the holder of a
    /// link can make any number of them.
    fn handle_join_request(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (sender, sequence): (DeviceId, u64),
        request: &SealedBox,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let Some(KnownTopic::Lobby(epoch)) = self.secrets.known_topic(topic) else {
            return Err(Refusal::WrongTopic);
        };
        let announcement = epoch.lobby().open_join_request(self.identity.party(), &sender, request)?;
        self.check_announcement(&sender, &announcement)?;
        let admission = match announcement.confirmation {
            Some(_) => Admission::Confirmed,
            None => self.roster.admission(&announcement.certificate),
        };
        let Err(dismissal) = self.charter.rules().judge(&announcement.certificate, admission, now) else {
            return self.handle_announcement(now, rng, topic, (sender, sequence), &announcement, out);
        };
        debug!(peer = %sender.short(), reason = %dismissal, "join request rejected");
        if dismissal == Dismissal::Unapproved && self.admin.is_owner() {
            self.ask_owner(now, topic, (sender, sequence), &announcement, out);
        }
        if let Some(rejection) = self.rejection_for(&sender, dismissal) {
            let tunnel = announcement.certificate.claims().tunnel;
            self.reject(now, rng, topic, (&sender, &tunnel), &rejection, out);
        }
        Ok(())
    }

    /// Keeps a join request for the owner to decide.
    fn ask_owner(
        &mut self,
        now: Timestamp,
        topic: &Topic,
        (device, sequence): (DeviceId, u64),
        announcement: &Announcement,
        out: &mut Outcome,
    ) {
        let (announcement, topic) = (announcement.clone(), *topic);
        let request = JoinRequest { announcement, sequence, topic, received: now, declined: false };
        if self.requests.add(device, request) {
            out.push(Effect::JoinRequestsChanged);
        }
    }

    /// Returns what a joiner is told of its dismissal; `None` where its own clock says it.
    fn rejection_for(&self, device: &DeviceId, dismissal: Dismissal) -> Option<JoinRejection> {
        match dismissal {
            Dismissal::InviteExpired => None,
            Dismissal::UsedUp => Some(JoinRejection::UsedUp),
            Dismissal::Unapproved if self.requests.get(device).is_some_and(|request| request.declined) => {
                Some(JoinRejection::Declined)
            }
            Dismissal::Unapproved => Some(JoinRejection::AwaitsApproval),
            Dismissal::Removed | Dismissal::InviteRevoked | Dismissal::NotACoOwner => {
                // A confirmation of an earlier certificate would not fit the present one.
                let update = CharterUpdate { charter: self.charter.in_force()?.clone(), confirmation: None };
                Some(JoinRejection::Charter(Box::new(update)))
            }
        }
    }

    /// Handles the reason why this device is not let in. Only the charter is proof of it; with the others a former member
    /// could keep joiners away, so that this device goes on asking.
    fn handle_join_rejection(
        &mut self,
        now: Timestamp,
        rejection: &JoinRejection,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let waits_for = match rejection {
            JoinRejection::Charter(update) => return self.handle_charter(now, update, out),
            JoinRejection::AwaitsApproval => JoinWait::Approval,
            JoinRejection::UsedUp => JoinWait::OtherInvite,
            JoinRejection::Declined => JoinWait::Reconsideration,
        };
        // Members that do not know of the owner's decision say that it is still to be made.
        if waits_for > self.waits_for {
            debug!(?waits_for, "not let in yet");
            self.waits_for = waits_for;
            out.push(Effect::JoinRequestsChanged);
        }
        Ok(())
    }

    /// Checks everything that makes an announcement worth keeping, before anything is kept.
    fn check_announcement(&mut self, sender: &DeviceId, announcement: &Announcement) -> Result<(), Refusal> {
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
        if same.is_some() { Ok(()) } else { self.check_tunnel_key(certificate) }
    }

    /// Two devices with one tunnel key, both of somebody who has it, would be one WireGuard peer.
    fn check_tunnel_key(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let (sender, tunnel) = (&certificate.claims().device, &certificate.claims().tunnel);
        let taken = *tunnel == self.identity.tunnel_public() || self.roster.has_tunnel_key(tunnel, sender);
        if taken { Err(Refusal::TunnelKeyTaken) } else { Ok(()) }
    }

    /// Decides on the owner's device about one that announced itself: confirms it while its invite counts.
    fn admit(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (device, sequence): (DeviceId, u64),
        announcement: &Announcement,
        out: &mut Outcome,
    ) {
        let Some(record) = self.roster.record(&device).filter(|record| !record.is_confirmed()) else {
            return;
        };
        let admission = self.roster.admission(record.certificate());
        let Err(dismissal) = self.charter.rules().judge(record.certificate(), admission, now) else {
            return self.confirm(now, rng, &device, out);
        };
        debug!(peer = %device.short(), reason = %dismissal, "member not confirmed, invite refused");
        let has_secret = self.secrets.current().is_some_and(|epoch| epoch.tag() == announcement.secret);
        match dismissal {
            Dismissal::Unapproved => self.ask_owner(now, topic, (device, sequence), announcement, out),
            // Two members have let in one device too many at the same time. Those confirmed do not need the invite.
            Dismissal::UsedUp if has_secret => {
                let invite = *record.invite();
                if let Ok(revoked) = self.revoke_invite(now, rng, invite) {
                    out.merge(revoked);
                }
            }
            _ => {}
        }
    }

    /// Confirms a device with a record, and appoints it if its invite says so.
    fn confirm(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: &DeviceId,
        out: &mut Outcome,
    ) {
        let Some(record) = self.roster.record(device) else { return };
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
    fn confirmation_for(&self, device: &DeviceId, record: &Record) -> Option<Confirmation> {
        let terms = self.charter.rules().terms()?;
        let host = self.claims().choose_for(device, record, terms.range);
        self.admin.confirm(record.certificate(), host, terms.version)
    }

    /// Confirms those again whose host numbers are outside of another range.
    fn fix_hosts_in(&mut self, range: Ipv4Net) {
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
    fn notify_member_changed(&self, device: DeviceId, out: &mut Outcome) {
        if self.roster.is_member(&device) {
            out.push(Effect::MemberChanged(device));
        }
    }

    /// Sends what an announcement shows its sender to lack, or asks for what this device lacks.
    fn answer(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        to: &DeviceId,
        announcement: &Announcement,
        out: &mut Outcome,
    ) {
        let Some(comparison) = self.compare(now, to, announcement) else { return };
        let in_lobby = matches!(self.secrets.known_topic(topic), Some(KnownTopic::Lobby(_)));
        let (body, reason) = match comparison.reply() {
            Reply::Nothing => return,
            Reply::Rekey(reason) => (self.rekey_body_for(to, rng), reason),
            // Everything that a member sends in the lobby is sealed for one joiner.
            Reply::Charter(_) | Reply::Announcement(_) if in_lobby => return,
            Reply::Charter(reason) => (self.charter_body_for(to), reason),
            Reply::Announcement(reason) => (Some(self.bare_announcement()), reason),
        };
        if let Some(body) = body {
            debug!(peer = %to.short(), answer = kind(&body), reason, "announcement answered");
            self.send(now, rng, topic, Some(*to), body, out);
        }
    }

    fn compare(&self, now: Timestamp, device: &DeviceId, announcement: &Announcement) -> Option<Comparison> {
        let record = self.roster.record(device)?;
        let rules = self.charter.rules();
        Some(Comparison {
            own: self.charter.stamp(),
            theirs: announcement.charter,
            judged: rules.judge(record.certificate(), self.roster.admission(record.certificate()), now),
            has_secret: self.has_secret_in_force(),
            they_have_secret: rules.commitment().is_some_and(|it| tag_of(it) == announcement.secret),
            lacks_confirmation: record.is_confirmed() && announcement.confirmation.is_none(),
        })
    }

    /// Handles a charter that came without a party secret. An amendment that commits to another secret is accepted only
    /// together with it, except by a device that is no member under it: a secret that no member receives would silence the
    /// party.
    fn handle_charter(
        &mut self,
        now: Timestamp,
        update: &CharterUpdate,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let rules = Rules::of(Some(&update.charter));
        let known = rules.commitment() == self.secrets.current().map(Epoch::commitment);
        let admission = update.confirmation.map_or_else(|| self.own_admission(), |_| Admission::Confirmed);
        let member = rules.judge(self.identity.certificate(), admission, now).is_ok();
        if update.charter.amendment.is_some() && !known && member {
            self.charter.check(self.identity.party(), &update.charter)?;
            return Err(Refusal::SecretMissing);
        }
        self.apply_charter_update(update, out)
    }

    /// Puts a received charter in force, and keeps the confirmation that came with it.
    fn apply_charter_update(&mut self, update: &CharterUpdate, out: &mut Outcome) -> Result<(), Refusal> {
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

    fn handle_rekey(
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
    fn handle_leave(
        &mut self,
        sender: &DeviceId,
        certificate: &[u8; 32],
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        let asked = self.requests.get(sender).map(|request| request.announcement.certificate.digest());
        if asked.as_ref() == Some(certificate) {
            self.requests.remove(sender);
            out.push(Effect::JoinRequestsChanged);
            return Ok(());
        }
        let record = self.roster.record_mut(sender).ok_or(Refusal::UnknownSender)?;
        if record.digest() != certificate {
            return Err(Refusal::OldMembership);
        }
        record.on_leave();
        debug!(peer = %sender.short(), "member leaves");
        out.persist = true;
        Ok(())
    }

    fn expect_member(&self, now: Timestamp, sender: &DeviceId) -> Result<(), Refusal> {
        let record = self.roster.record(sender).ok_or(Refusal::UnknownSender)?;
        let admission = self.roster.admission(record.certificate());
        let judged = self.charter.rules().judge(record.certificate(), admission, now);
        judged.map_err(Refusal::NotAMember)?;
        if record.has_left() { Err(Refusal::UnknownSender) } else { Ok(()) }
    }

    /// Takes an amendment over, as the owner; repeats an amendment that was lost, as a co-owner.
    fn catch_up(&mut self, now: Timestamp, rng: &mut (impl CryptoRng + RngCore), out: &mut Outcome) {
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

/// What is judged again after another charter, and when time has passed.
impl Membership {
    fn judge_all(&mut self, now: Timestamp, out: &mut Outcome) {
        let devices: Vec<DeviceId> = self.roster.known_devices().copied().collect();
        devices.into_iter().for_each(|device| self.judge_member(now, device, out));
        self.judge_own(now, out);
    }

    fn judge_member(&mut self, now: Timestamp, device: DeviceId, out: &mut Outcome) {
        if let Some(effect) = self.roster.judge(device, self.charter.rules(), now) {
            (out.persist, out.addresses_changed) = (true, true);
            out.push(effect);
        }
    }

    fn judge_own(&mut self, now: Timestamp, out: &mut Outcome) {
        self.update_standing(now, out);
        self.update_claim(out);
    }

    fn update_standing(&mut self, now: Timestamp, out: &mut Outcome) {
        let standing = self.identity.standing(self.charter.rules(), self.own_admission(), now);
        if standing == self.standing {
            return;
        }
        debug!(before = ?self.standing, after = ?standing, "own membership changed");
        match standing {
            Standing::Confirmed => out.extend([Effect::Confirmed, Effect::Announce]),
            Standing::Dismissed(dismissal) => out.push(Effect::Dismissed(dismissal)),
            Standing::Unconfirmed { .. } => {}
        }
        self.standing = standing;
        out.persist = true;
    }

    /// Returns what is known of this device's certificate besides its contents.
    fn own_admission(&self) -> Admission {
        self.identity.admission(self.roster.confirmed_uses(&self.invite()))
    }

    /// Claims a host number, or another one if this one is held by another member.
    fn update_claim(&mut self, out: &mut Outcome) {
        let Some(range) = self.charter.range().filter(|_| out.addresses_changed) else { return };
        let host = self.claims().choose_own(range);
        if host != self.claim.host {
            self.claim.host = host;
            out.persist = true;
            out.extend([Effect::AddressChanged, Effect::Announce]);
        }
    }

    /// Closes the lobbies that the charter in force closes, and the own invites that lead there.
    fn follow_lobbies(&mut self) {
        let Some(tag) = self.charter.rules().terms().and_then(|terms| terms.lobbies_since) else { return };
        self.secrets.close_lobbies_before(tag);
        let Self { invites, secrets, .. } = self;
        invites.close_unless(|commitment| secrets.is_lobby_open(commitment));
    }

    fn rotate(&mut self, now: Timestamp, epoch: Epoch, out: &mut Outcome) {
        self.secrets.rotate(now, epoch);
        self.expire_secrets(now, out);
        out.persist = true;
    }

    fn expire_secrets(&mut self, now: Timestamp, out: &mut Outcome) {
        self.invites.expire(now);
        out.persist |= self.secrets.expire(now, |commitment| self.invites.open_until(commitment)) > 0;
    }
}

/// What this device sends.
impl Membership {
    /// Announces this device on a topic: how it can be reached on the current one, only who it is on old ones. A joiner
    /// sends a join request. The outcome has one message to everybody, or none on an unknown topic and on one where members
    /// only answer ([`TopicPurpose::Lobby`]).
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

    fn announce(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        (reach, max_candidates): (&Reachability, usize),
    ) -> Outcome {
        let mut out = Outcome::default();
        let presence = self.may_show_presence_on(topic).then(|| self.presence(reach, max_candidates));
        let announcement = self.announcement_with(presence);
        let body = match self.secrets.known_topic(topic) {
            Some(KnownTopic::Party(_)) => Some(Body::Announce(Box::new(announcement))),
            Some(KnownTopic::Waiting(lobby)) => lobby
                .seal_join_request(rng, self.identity.party(), self.identity.device(), &announcement)
                .map(Body::JoinRequest),
            // Members send nothing in the lobby until a join request arrives.
            Some(KnownTopic::Lobby(_)) | None => None,
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

    fn say_to_runs(
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
        let said = |known: &KnownTopic<'_>| !matches!(known, KnownTopic::Lobby(_));
        let topics: Vec<Topic> =
            self.secrets.known_topics().filter(said).map(|known| *known.keys().topic()).collect();
        let mut out = Outcome::default();
        let certificate = self.identity.certificate().digest();
        topics
            .iter()
            .for_each(|topic| self.send(now, rng, topic, None, Body::Leave { certificate }, &mut out));
        out
    }

    /// Presence is shown on the current topic only, and not there once the charter has moved on to a secret that removed
    /// members do not know. Joiners show it to the members.
    fn may_show_presence_on(&self, topic: &Topic) -> bool {
        let shown = match self.secrets.current_topic() {
            KnownTopic::Waiting(_) => true,
            KnownTopic::Party(_) | KnownTopic::Lobby(_) => {
                self.charter.in_force().is_none() || self.has_secret_in_force()
            }
        };
        shown && *topic == self.topic()
    }

    fn presence(&self, reach: &Reachability, max_candidates: usize) -> Presence {
        let mut reach = reach.clone();
        reach.candidates.truncate(max_candidates);
        reach.nat.public.truncate(MAX_PUBLIC);
        let name = self.identity.announced_name().cloned();
        let (session, host, copied) = (self.session(), self.claim.host, self.copied);
        let mut avoided_networks = self.avoided_networks.clone();
        // A beacon has to fit into one datagram; the network that clashes is said nevertheless.
        avoided_networks.truncate(if max_candidates < MAX_CANDIDATES { 1 } else { MAX_AVOIDED });
        let inviting_until = self.inviting_until();
        Presence { session, host, name, reach, avoided_networks, copied, inviting_until }
    }

    /// Shows who this device is, and which charter and secret it has.
    fn announcement_with(&self, presence: Option<Presence>) -> Announcement {
        Announcement {
            certificate: self.identity.certificate().clone(),
            confirmation: self.identity.confirmation().copied(),
            charter: self.charter.stamp(),
            secret: self.secrets.current().map_or([0; 8], Epoch::tag),
            presence,
        }
    }

    fn bare_announcement(&self) -> Body {
        Body::Announce(Box::new(self.announcement_with(None)))
    }

    /// Returns the charter for one device, with its confirmation if this device has it.
    fn charter_update_for(&self, device: &DeviceId) -> Option<CharterUpdate> {
        let confirmation = self.roster.record(device).and_then(|record| record.confirmation().copied());
        Some(CharterUpdate { charter: self.charter.in_force()?.clone(), confirmation })
    }

    fn charter_body_for(&self, device: &DeviceId) -> Option<Body> {
        self.charter_update_for(device).map(|update| Body::Charter(Box::new(update)))
    }

    fn rekey_body_for(&self, device: &DeviceId, rng: &mut (impl CryptoRng + RngCore)) -> Option<Body> {
        let tunnel = self.roster.record(device)?.tunnel_key();
        let update = self.charter_update_for(device)?;
        let (secret, me) = (self.secrets.current()?.secret(), self.identity.device());
        seal_rekey((self.identity.party(), me), rng, (device, tunnel), secret, update)
    }

    /// Tells a joiner why it is not let in.
    fn reject(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        joiner: (&DeviceId, &TunnelPublicKey),
        rejection: &JoinRejection,
        out: &mut Outcome,
    ) {
        let context = (self.identity.party(), self.identity.device());
        if let Some(body) = seal_join_rejection(context, rng, joiner, rejection) {
            self.send(now, rng, topic, Some(*joiner.0), body, out);
        }
    }

    /// Seals a message on a topic, for one member or for everybody.
    fn send(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        to: Option<DeviceId>,
        body: Body,
        out: &mut Outcome,
    ) {
        let Some(keys) = self.secrets.known_topic(topic).map(KnownTopic::keys) else {
            return debug!(topic = %topic.short(), kind = kind(&body), reason = "unknown topic", "message not sent");
        };
        let handle = to.and_then(|to| keys.handle_of(&to));
        let message = self.outbound.seal(now, rng, keys, to, body);
        out.persist |= self.outbound.is_reservation_due();
        out.messages.extend(message.map(|message| Outgoing { topic: *topic, to, handle, message }));
    }
}

/// What the user decides.
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
        terms: InviteTerms,
    ) -> Result<(Invite, Outcome), PartyError> {
        let InviteTerms { lifetime, uses, role } = terms;
        let (issuer, signer) = self.admin.issuer(self.outbound.device(), self.role(), role)?;
        let epoch = self.secrets.current().filter(|_| self.has_secret_in_force());
        let (Some(epoch), Some(stamp)) = (epoch, self.charter.stamp()) else {
            return Err(PartyError::NotCaughtUp);
        };
        self.invites.ensure_room(now)?;
        let seed = Secret::generate(rng);
        let id = InviteId(SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes());
        let not_after = lifetime.duration().map_or(Expiry::NEVER, |span| Expiry::at(now.plus(span)));
        let grant = chain::grant(&signer, self.identity.party(), issuer, id, (not_after, uses), role);
        self.invites.add(IssuedInvite { id, not_after, uses, role, commitment: *epoch.commitment() });
        let invite = Invite {
            party: self.id(),
            name: self.name().to_owned(),
            inviter: self.display_name().to_owned(),
            members: u8::try_from(1 + self.devices().count()).unwrap_or(u8::MAX),
            lobby: *epoch.public_lobby().key(),
            floor: Stamp { digest: [0; 8], ..stamp },
            servers: self.servers().to_vec(),
            addresses: Vec::new(),
            nodes: Vec::new(),
            seed: *seed.expose(),
            not_after,
            uses,
            role,
            issuer,
            signature: grant.signature,
        };
        // The others keep the lobby's contact list, too, as long as somebody is invited.
        let effects = vec![Effect::Announce];
        Ok((invite, Outcome { effects, persist: true, ..Outcome::default() }))
    }

    /// Revokes an invite, and replaces the party secret, since a device that is not known here may have received it by the
    /// invite. Members that joined by it stay if the owner's device has confirmed them.
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
    fn companions(&self, invite: &InviteId) -> impl Iterator<Item = DeviceId> {
        let rules = self.charter.rules();
        let may_remove = move |device: &DeviceId| self.admin.is_owner() || !rules.is_co_owner(device);
        let joined_by = |device: &DeviceId| {
            self.roster.record(device).map(|record| record.certificate().claims().grant.invite)
        };
        let devices = self.roster.known_devices().copied();
        devices.filter(move |device| joined_by(device) == Some(*invite)).filter(may_remove)
    }

    /// Sets whether the owner approves every joiner before it is let in. Who has waited for approval is let in once it is no
    /// longer needed and it asks again.
    ///
    /// # Errors
    /// If this is not the owner's device.
    pub fn set_approval(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        approval: bool,
    ) -> Result<Outcome, PartyError> {
        if self.admin.is_owner() && self.is_approval_needed() == approval {
            return Ok(Outcome::default());
        }
        let mut out = self.legislate(now, rng, |terms| terms.approval = approval)?;
        if self.requests.clear() {
            out.push(Effect::JoinRequestsChanged);
        }
        Ok(out)
    }

    /// Lets a device in that asks for the owner's approval, by a confirmation, which it gets now or when it asks again.
    ///
    /// # Errors
    /// If this is not the owner's device, no such device asks, or the party is full.
    pub fn approve(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: DeviceId,
    ) -> Result<Outcome, PartyError> {
        if !self.admin.is_owner() {
            return Err(PartyError::NotOwner);
        }
        let request = self.requests.remove(&device).ok_or(PartyError::UnknownJoiner)?;
        let JoinRequest { announcement, sequence, topic, .. } = request;
        let mut out = Outcome { persist: true, ..Outcome::default() };
        self.check_announcement(&device, &announcement).map_err(|_| PartyError::PartyFull)?;
        let record = self.roster.admit(&announcement.certificate).ok_or(PartyError::PartyFull)?;
        record.update(announcement.clone(), sequence, now);
        self.confirm(now, rng, &device, &mut out);
        self.answer(now, rng, &topic, &device, &announcement, &mut out);
        self.judge_member(now, device, &mut out);
        self.judge_own(now, &mut out);
        out.push(Effect::JoinRequestsChanged);
        Ok(out)
    }

    /// Declines a device that asks for the owner's approval, and tells it so. It can still be approved.
    ///
    /// # Errors
    /// If this is not the owner's device, or no such device asks.
    pub fn decline(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        device: DeviceId,
    ) -> Result<Outcome, PartyError> {
        if !self.admin.is_owner() {
            return Err(PartyError::NotOwner);
        }
        let request = self.requests.decline(&device).ok_or(PartyError::UnknownJoiner)?;
        let (topic, tunnel) = (request.topic, request.announcement.certificate.claims().tunnel);
        let mut out = Outcome { effects: vec![Effect::JoinRequestsChanged], ..Outcome::default() };
        self.reject(now, rng, &topic, (&device, &tunnel), &JoinRejection::Declined, &mut out);
        Ok(out)
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
    fn revoke(
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
        let asked = self.requests.revoke(revoked).then_some(Effect::JoinRequestsChanged);
        let mut out = self.enact(now, rng, charter, Some(epoch));
        out.extend(asked);
        Ok(out)
    }

    /// Adds revocations to the amendment of the terms in force, and replaces the party secret.
    fn amend(
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
    fn legislate(
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

    fn new_epoch(&self, rng: &mut (impl CryptoRng + RngCore)) -> Epoch {
        Epoch::new(self.identity.party(), Secret::generate(rng))
    }

    /// Puts a charter of this device in force and sends it to all members, on the topic where they still are.
    fn enact(
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

/// What can be asked.
impl Membership {
    /// Returns the party.
    #[must_use]
    pub fn id(&self) -> PartyId {
        *self.identity.party()
    }

    /// Returns this device.
    #[must_use]
    pub fn me(&self) -> DeviceId {
        *self.identity.device()
    }

    /// Returns the party's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.charter.name()
    }

    /// Returns when this device joined, by its own clock.
    #[must_use]
    pub fn joined_at(&self) -> Timestamp {
        self.identity.certificate().claims().joined_at
    }

    /// Returns the invite that this device joined by; the owner's device has one of its own.
    #[must_use]
    pub fn invite(&self) -> InviteId {
        self.identity.certificate().claims().grant.invite
    }

    /// Returns true if this device joined by this invite.
    #[must_use]
    pub fn has_joined_by(&self, invite: &Invite) -> bool {
        self.invite().0 == SigningKey::from_bytes(&invite.seed).verifying_key().to_bytes()
    }

    /// Returns the name of this device's user.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.identity.display_name()
    }

    /// Returns this device's role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.charter.rules().role_of(self.identity.certificate())
    }

    /// Returns the state of this device's membership.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Returns the URLs of the party's rendezvous servers.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        self.charter.servers()
    }

    /// Returns the party's address range, once the charter is known.
    #[must_use]
    pub fn range(&self) -> Option<Ipv4Net> {
        self.charter.range()
    }

    /// Returns this device's WireGuard key in this party.
    #[must_use]
    pub fn tunnel_secret(&self) -> StaticSecret {
        StaticSecret::from(*self.identity.tunnel_secret().expose())
    }

    /// Returns the public half of [`Self::tunnel_secret`].
    #[must_use]
    pub fn tunnel_public(&self) -> TunnelPublicKey {
        self.identity.tunnel_public()
    }

    /// Returns the nonce of this run.
    #[must_use]
    pub const fn session(&self) -> SessionNonce {
        self.contest.claim().run
    }

    /// Returns this device's address in the party's range, once it claims one.
    #[must_use]
    pub fn address_v4(&self) -> Option<Ipv4Addr> {
        address::v4(self.range()?, self.claim.host?)
    }

    /// Returns this device's IPv6 address.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        address::v6(self.identity.party(), self.identity.device())
    }

    /// Returns the current topic.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        *self.secrets.current_topic().keys().topic()
    }

    /// Returns true for a joiner that no member has admitted yet.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.secrets.current().is_none()
    }

    /// Returns the topics on which to meet other members, the current one first; none once this device was removed.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicAccess> {
        if matches!(self.standing, Standing::Dismissed(Dismissal::Removed | Dismissal::InviteRevoked)) {
            return Vec::new();
        }
        let access = |(index, known): (usize, KnownTopic<'_>)| TopicAccess {
            topic: *known.keys().topic(),
            purpose: match known {
                _ if index == 0 => TopicPurpose::Current,
                KnownTopic::Party(_) | KnownTopic::Waiting(_) => TopicPurpose::Former,
                KnownTopic::Lobby(_) => TopicPurpose::Lobby,
            },
        };
        self.secrets.known_topics().enumerate().map(access).collect()
    }

    /// Proves to the server that sent a challenge that this device may enter a topic under its handle. `None` on unknown
    /// topics.
    #[must_use]
    pub fn prove_entry(&self, topic: &Topic, challenge: &[u8; 32]) -> Option<EntryProof> {
        let known = self.secrets.known_topic(topic)?;
        Some(known.keys().prove_entry(challenge, self.outbound.device()))
    }

    /// Proves that the holder of the topic's keys may enter under a handle that nobody else has, and that tells nothing of
    /// this device. `None` on unknown topics.
    pub fn prove_visit(
        &self,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        challenge: &[u8; 32],
    ) -> Option<EntryProof> {
        let known = self.secrets.known_topic(topic)?;
        Some(known.keys().prove_entry(challenge, &DeviceKey::generate(rng)))
    }

    /// Returns a device's handle on a topic; `None` on unknown topics. It takes about as long as verifying a signature.
    #[must_use]
    pub fn handle_of(&self, topic: &Topic, device: &DeviceId) -> Option<Handle> {
        self.secrets.known_topic(topic)?.keys().handle_of(device)
    }

    /// Returns the topics with their keys of direct signaling ([`partyline_wire::direct`]).
    pub fn direct_keys(&self) -> impl Iterator<Item = (Topic, &[u8; 32])> {
        let keys = self.secrets.known_topics().map(KnownTopic::keys);
        keys.map(|keys| (*keys.topic(), keys.direct_key().expose()))
    }

    /// Returns the lobby's topic while somebody is invited, by this device or a member that says so.
    #[must_use]
    pub fn awaited_lobby(&self, now: Timestamp) -> Option<Topic> {
        let epoch = self.secrets.current()?;
        let until = self.roster.members().filter_map(|(_, record)| record.presence()?.inviting_until);
        let awaited = self
            .inviting_until()
            .into_iter()
            .chain(until)
            .any(|until| until.time().is_none_or(|end| now <= end));
        awaited.then(|| *epoch.public_lobby().keys().topic())
    }

    /// Returns the end of the last invite of this device to the lobby of the current secret.
    fn inviting_until(&self) -> Option<Expiry> {
        let end = self.invites.open_until(self.secrets.current()?.commitment())?;
        Some(if end == Timestamp(u64::MAX) { Expiry::NEVER } else { Expiry::at(end) })
    }

    /// Returns the keys of a topic's contact list on a day; `None` on unknown topics.
    #[must_use]
    pub fn contact_list_keys(&self, topic: &Topic, day: Day) -> Option<ContactListKeys> {
        Some(self.secrets.known_topic(topic)?.keys().contact_list(self.identity.party(), day))
    }

    /// Returns where this device can be reached, as it says so in the contact list of a topic: a joiner to the members
    /// alone. `None` on unknown topics.
    pub fn contact_place(
        &self,
        rng: &mut (impl CryptoRng + RngCore),
        topic: &Topic,
        addresses: &[SocketAddr],
    ) -> Option<Place> {
        match self.secrets.known_topic(topic)? {
            KnownTopic::Waiting(lobby) => {
                lobby.seal_addresses(rng, self.identity.party(), addresses).map(Place::Sealed)
            }
            KnownTopic::Party(_) | KnownTopic::Lobby(_) => Some(Place::Open(addresses.to_vec())),
        }
    }

    /// Returns the addresses of a contact that was found in the list of a topic; none if they are not for this device.
    #[must_use]
    pub fn contact_addresses(&self, topic: &Topic, place: &Place) -> Vec<SocketAddr> {
        match (place, self.secrets.known_topic(topic)) {
            (Place::Open(addresses), _) => addresses.clone(),
            (Place::Sealed(sealed), Some(KnownTopic::Lobby(epoch))) => {
                epoch.lobby().open_addresses(self.identity.party(), sealed).unwrap_or_default()
            }
            (Place::Sealed(_), _) => Vec::new(),
        }
    }

    /// Returns the topic that a message belongs to by its tag, if this device knows it.
    #[must_use]
    pub fn topic_of(&self, message: &Tagged<'_>) -> Option<Topic> {
        self.secrets.known_topics().map(|known| *known.keys().topic()).find(|topic| message.is_on(topic))
    }

    /// Returns the other members in order of their ids.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let (holders, rules, range) = (self.claims().holders(), self.charter.rules(), self.range());
        self.roster.members().map(move |(device, record)| {
            let holds = |host: &u16| holders.get(host).is_some_and(|(.., holder)| holder == device);
            Member::new(self.id(), (*device, record), rules, range, record.host().filter(holds))
        })
    }

    /// Returns the devices of the other members in order of their ids.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.roster.devices()
    }

    /// Returns one other member.
    #[must_use]
    pub fn member(&self, device: &DeviceId) -> Option<Member<'_>> {
        let record = self.roster.member(device)?;
        let held = self.claims().held_by(device, record);
        Some(Member::new(self.id(), (*device, record), self.charter.rules(), self.range(), held))
    }

    /// Returns the key for connectivity checks with a member in the present run of both sides.
    #[must_use]
    pub fn probe_key(&self, peer: &DeviceId) -> Option<[u8; 32]> {
        let record = self.roster.member(peer)?;
        let (mine, theirs) = (&self.session(), &record.presence()?.session);
        let (low, high) = if self.me() < *peer { (mine, theirs) } else { (theirs, mine) };
        let pair = self.identity.pair_secret(peer, record.tunnel_key())?;
        Some(*pair.probe_key(self.identity.party(), low, high).expose())
    }

    /// Returns the invites made on this device that can still be used.
    pub fn invites(&self, now: Timestamp) -> impl Iterator<Item = OpenInvite> {
        let open = self.invites.open(now).map(|issued| {
            let IssuedInvite { id, not_after, uses, role, .. } = *issued;
            OpenInvite { id, ends: not_after.time(), used: self.roster.uses(&id), uses, role }
        });
        open.filter(|invite| invite.uses.is_none_or(|uses| invite.used < usize::from(uses.get())))
    }

    /// Returns true if the owner approves every joiner before it is let in.
    #[must_use]
    pub fn is_approval_needed(&self) -> bool {
        self.charter.rules().terms().is_some_and(|terms| terms.approval)
    }

    /// Returns the devices that ask the owner to be let in, on the owner's device.
    pub fn join_requests(&self) -> impl Iterator<Item = PendingJoin<'_>> {
        self.requests.iter()
    }

    /// Returns what this device waits for, until a member has let it in.
    #[must_use]
    pub fn waits_for(&self) -> Option<JoinWait> {
        self.is_waiting().then_some(self.waits_for)
    }

    /// Returns the difference if this computer's clock seems wrong, in which case open invites may seem ended.
    #[must_use]
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        self.clock.skew()
    }

    /// Returns true if this device has the party secret that the charter commits to.
    fn has_secret_in_force(&self) -> bool {
        self.secrets
            .current()
            .is_some_and(|epoch| self.charter.rules().commitment() == Some(epoch.commitment()))
    }

    fn claims(&self) -> Claims<'_> {
        let own = OwnClaim { confirmation: self.identity.confirmation().copied(), ..self.claim };
        Claims { own, roster: &self.roster }
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

#[cfg(test)]
mod tests;
