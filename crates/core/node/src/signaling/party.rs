//! One party on this device beside its membership: whether it is on, its network device, and what was learned about
//! its members since the start.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hmac::{Hmac, Mac as _};
use ipnet::{Ipv4Net, Ipv6Net};
use partyline_model::{
    AppError, Candidate, CandidateKind, DeviceId, ErrorCode, Handle, IncomingPolicy, JoinWait, Now, PartyId,
    PartyPhase, Role, SessionNonce, Topic, TunnelPublicKey,
};
use partyline_party::{Dismissal, Membership, Standing, TopicAccess};
use partyline_paths::PeerParams;
use partyline_tunnel::PeerConfig;
use partyline_wire::{announcement::MAX_AVOIDED, invite::Invite, probe::Tag};
use rand_chacha::ChaCha20Rng;
use sha2::Sha256;
use tracing::{debug, info, trace, warn};

use super::{
    event::{Event, PeerInfo},
    range::Networks,
    recent_leaves::RecentLeaves,
    run::Run,
    search::Search,
};
use crate::io::{DeviceConfig, DeviceInput, Output};

/// Changes of the own announcement are collected for this long, so that candidates learned together go out together.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(10);
/// How long to wait before announcing again after a server refused an announcement.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(3);
/// Bounds of the pause until lapsed memberships are looked for. Their dates are the wall clock's, which may jump, so
/// they are looked at again after ten minutes at the latest.
const MIN_REVIEW_PAUSE: Duration = Duration::from_secs(1);
const MAX_REVIEW_PAUSE: Duration = Duration::from_secs(600);
/// Time without a message after which a member is offline, if it has no path and no server lists it.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(75);
/// Prefix length of a party's IPv6 network.
const PREFIX_V6: u8 = 64;

/// A party on this device.
pub(crate) struct LocalParty {
    pub(super) membership: Membership,
    pub(super) recent_leaves: RecentLeaves,
    on: bool,
    /// The network device as it was last asked for.
    device: Option<DeviceConfig>,
    /// The network device's name, once it exists.
    interface: Option<String>,
    /// Why the network device could not be made.
    interface_error: Option<AppError>,
    /// A network of this computer that overlaps the party's range.
    range_clash: Option<Ipv4Net>,
    /// True if the owner is asked for another range, as long as this one clashes.
    range_requested: bool,
    incoming: IncomingPolicy,
    search: Search,
    run: Run,
    contacts: BTreeMap<DeviceId, Contact>,
    /// This device's handle on a topic, as it was last derived.
    own_handle: Option<(Topic, Handle)>,
    /// Counts changes of the own announcement.
    revision: u64,
    announce_at: Option<Instant>,
    review_at: Option<Instant>,
}

/// What was learned about a member since the start.
#[derive(Debug, Default)]
struct Contact {
    /// When a message from it arrived other than by way of a server.
    last_received: Option<Instant>,
    /// The source address of its LAN beacon.
    neighbor: Option<SocketAddr>,
    /// Its newest announcement, sealed, to be passed on.
    last_announcement: Option<(Topic, Vec<u8>)>,
    /// The session nonce that paths and tunnel were last told.
    session: Option<SessionNonce>,
    /// The virtual address that the tunnel was last told.
    address: Option<Ipv4Addr>,
    /// Its handle on a topic, as it was last derived.
    handle: Option<(Topic, Handle)>,
    /// The key for connectivity checks with it, and what that was derived from.
    probe_key: Option<((TunnelPublicKey, SessionNonce), [u8; 32])>,
}

impl LocalParty {
    /// Returns a party that is off.
    pub(super) fn new(now: Instant, membership: Membership) -> Self {
        Self {
            membership,
            recent_leaves: RecentLeaves::default(),
            on: false,
            device: None,
            interface: None,
            interface_error: None,
            range_clash: None,
            range_requested: false,
            incoming: IncomingPolicy::default(),
            search: Search::default(),
            run: Run::default(),
            contacts: BTreeMap::new(),
            own_handle: None,
            revision: 1,
            announce_at: None,
            review_at: Some(now),
        }
    }

    /// Returns the party's id.
    pub(crate) fn id(&self) -> PartyId {
        self.membership.id()
    }

    /// Returns who belongs.
    pub(crate) const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns what members may reach on this computer.
    pub(crate) const fn incoming(&self) -> &IncomingPolicy {
        &self.incoming
    }

    /// Returns what members may reach on this computer, to change it.
    pub(super) const fn incoming_mut(&mut self) -> &mut IncomingPolicy {
        &mut self.incoming
    }

    /// Returns true if the user wants the party on.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.on
    }

    /// Returns true if the party is on: the user wants it, and this device has not given way to another one with its keys.
    pub(crate) const fn is_on(&self) -> bool {
        self.on && !self.run.suspended
    }

    /// Returns true if this device stands back, because another one has its keys.
    pub(crate) const fn is_suspended(&self) -> bool {
        self.run.suspended
    }

    /// Returns what is to be known of other runs with this device's keys.
    pub(super) const fn run_mut(&mut self) -> &mut Run {
        &mut self.run
    }

    /// Returns true if this run may say something in the party: it has looked for another one with its keys.
    pub(super) fn may_speak(&self, now: Instant) -> bool {
        self.run.may_speak(now)
    }

    /// Returns true while people should know that a copy of this device was met.
    pub(crate) fn has_met_copy(&self, now: Instant) -> bool {
        self.run.has_met_copy(now)
    }

    /// Returns true for a membership that began with this run, so that no other run can have it.
    pub(super) const fn is_fresh(&self) -> bool {
        self.run.fresh
    }

    /// Returns how far the party is.
    pub(crate) const fn phase(&self) -> PartyPhase {
        match (self.is_on(), &self.interface) {
            (false, _) => PartyPhase::Down,
            (true, Some(_)) => PartyPhase::Up,
            (true, None) => PartyPhase::Connecting,
        }
    }

    /// Returns the name of the network device, once it exists.
    pub(crate) fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }

    /// Returns what keeps the party from working: that this device is no longer a member, else that there is no network
    /// device, else that its addresses collide with a network of this computer.
    pub(crate) fn problem(&self) -> Option<AppError> {
        let dismissal = match self.membership.standing() {
            Standing::Dismissed(dismissal) => Some(dismissal_error(dismissal, self.membership.name())),
            Standing::Confirmed | Standing::Unconfirmed { .. } => None,
        };
        let conflict = || {
            let (range, role) = (self.membership.range()?, self.membership.role());
            Some(range_conflict(range, self.range_clash?, role, self.range_requested))
        };
        let kept_out = || refusal_error(self.membership.waits_for()?, self.membership.name());
        let copy = || self.run.suspended.then(|| duplicate_identity(self.membership.name()));
        dismissal.or_else(kept_out).or_else(copy).or_else(|| self.interface_error.clone()).or_else(conflict)
    }

    /// Returns true if an invite may bring this device in, since it was removed, or waits to be let in by another invite.
    pub(super) fn may_join_by(&self, invite: &Invite) -> bool {
        let dismissed = matches!(self.membership.standing(), Standing::Dismissed(_));
        dismissed || (self.membership.is_waiting() && !self.membership.has_joined_by(invite))
    }

    /// Returns the topic that members meet on at present; `None` once this device was removed.
    pub(super) fn current_topic(&self) -> Option<TopicAccess> {
        self.membership.topics().into_iter().find(TopicAccess::is_current)
    }

    /// Returns true if the party visits the topic, as its current one or to tell those who missed a change.
    pub(super) fn visits(&self, topic: &Topic) -> bool {
        self.membership.topics().iter().any(|access| access.topic == *topic)
    }

    /// Returns the revision of the own announcement.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns true if members find each other without a server, since the party has none.
    pub(crate) fn is_serverless(&self) -> bool {
        self.membership.servers().is_empty()
    }

    /// Looks for members at these addresses, too, which came with the invite.
    pub(super) fn know_addresses(&mut self, addresses: Vec<SocketAddr>) {
        self.search = Search::with_known(addresses);
    }

    /// Returns the addresses that came with the invite.
    pub(crate) fn known_addresses(&self) -> &[SocketAddr] {
        self.search.known()
    }

    /// Looks for members at once.
    pub(super) fn search_soon(&mut self, now: Instant) {
        if self.is_on() && self.is_serverless() {
            self.search.expedite(now);
        }
    }

    /// Returns true once when members are to be looked for.
    pub(super) fn poll_search(&mut self, now: Instant, rng: &mut ChaCha20Rng) -> bool {
        self.is_serverless() && self.search.poll(now, rng)
    }

    /// Switches the party on and announces it.
    pub(super) fn switch_on(&mut self, now: Instant) {
        self.on = true;
        self.search_soon(now);
        self.announce_soon(now);
    }

    /// Looks for another run with this device's keys before this one says anything in the party.
    pub(super) fn start_run(&mut self, now: Instant, fresh: bool) {
        self.run = Run::start(now, fresh);
    }

    /// Stands back, because another run goes on with the same keys.
    pub(super) fn suspend(&mut self, events: &mut VecDeque<Event>) {
        self.take_down(events);
        self.run.suspended = true;
    }

    /// Switches the party off.
    pub(super) const fn switch_off(&mut self) {
        self.on = false;
    }

    /// Ends the party's network device and sessions, and forgets what was learned about members.
    pub(super) fn take_down(&mut self, events: &mut VecDeque<Event>) {
        self.interface = None;
        self.interface_error = None;
        self.range_clash = None;
        self.range_requested = false;
        let members: Vec<DeviceId> = std::mem::take(&mut self.contacts).into_keys().collect();
        let party = self.id();
        for device in members {
            events.push_back(Event::PeerRemoved { party, device });
        }
        events.push_back(Event::PartyDown { party });
        if self.device.take().is_some() {
            events.push_back(Event::Output(Output::DeviceDown { party }));
        }
        events.push_back(Event::Changed);
    }

    /// Plans an announcement, because what is announced has changed.
    pub(super) fn announce_soon(&mut self, now: Instant) {
        if self.is_on() {
            trace!(delay_ms = ANNOUNCE_DELAY.as_millis(), "announcement planned");
            self.announce_at.get_or_insert(now + ANNOUNCE_DELAY);
        }
    }

    /// Plans another announcement after a server refused the last one for now. What has changed meanwhile does not wait
    /// for that.
    pub(super) fn announce_later(&mut self, now: Instant) {
        debug!(retry_ms = ANNOUNCE_RETRY.as_millis(), "announcement refused, announcing again later");
        self.announce_at.get_or_insert(now + ANNOUNCE_RETRY);
    }

    /// Returns true once when the moment to announce has come.
    pub(super) fn poll_announce(&mut self, now: Instant) -> bool {
        let due = self.is_on() && self.may_speak(now) && self.announce_at.is_some_and(|at| at <= now);
        if due {
            self.announce_at = None;
            self.revision += 1;
        }
        due
    }

    /// Returns true if the moment to look for lapsed memberships has come.
    pub(super) fn is_review_due(&self, now: Instant) -> bool {
        self.review_at.is_some_and(|at| at <= now)
    }

    /// Plans when to look for lapsed memberships, after the membership has changed.
    pub(super) fn plan_review(&mut self, now: Now) {
        let wait = self.membership.next_deadline().map(|at| at.since(now.unix));
        self.review_at = wait.map(|wait| now.instant + wait.clamp(MIN_REVIEW_PAUSE, MAX_REVIEW_PAUSE));
    }

    /// Returns the next moment at which time alone changes something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let announce = self.announce_at.filter(|_| self.is_on()).map(|at| self.run.not_before(at));
        let search = self.search.poll_timeout().filter(|_| self.is_on() && self.is_serverless());
        announce
            .into_iter()
            .chain(search)
            .chain(self.review_at)
            .chain(self.run.poll_timeout(self.is_on()))
            .min()
    }

    /// Notes that a message from a member arrived other than by way of a server.
    pub(super) fn on_received(&mut self, now: Instant, device: DeviceId) {
        self.contacts.entry(device).or_default().last_received = Some(now);
    }

    /// Returns true if a message from a member arrived lately other than by way of a server.
    pub(super) fn received_lately(&self, now: Instant, device: &DeviceId) -> bool {
        let last = self.contacts.get(device).and_then(|contact| contact.last_received);
        last.is_some_and(|at| now.saturating_duration_since(at) < ONLINE_TIMEOUT)
    }

    /// Notes the source of a member's LAN beacon; returns true if it is another address than before.
    pub(super) fn on_beacon(&mut self, device: DeviceId, source: SocketAddr) -> bool {
        let contact = self.contacts.entry(device).or_default();
        let before = contact.neighbor.replace(source);
        before.map(|known| known.ip()) != Some(source.ip())
    }

    /// Returns the address that a member's LAN beacon came from.
    pub(super) fn neighbor(&self, device: &DeviceId) -> Option<SocketAddr> {
        self.contacts.get(device)?.neighbor
    }

    /// Returns true if a member has announced a session that its contact does not have yet: it has joined, or was started
    /// again.
    pub(super) fn is_new_run(&self, device: &DeviceId) -> bool {
        let announced = self.membership.member(device).and_then(|member| member.session);
        announced.is_some() && self.contacts.get(device).and_then(|contact| contact.session) != announced
    }

    /// Caches a member's newest announcement, to be passed on.
    pub(super) fn remember_announcement(&mut self, from: DeviceId, topic: Topic, sealed: &[u8]) {
        self.contacts.entry(from).or_default().last_announcement = Some((topic, sealed.to_vec()));
    }

    /// Returns the newest announcement of each member on a topic.
    pub(super) fn announcements(&self, topic: &Topic) -> impl Iterator<Item = (DeviceId, &[u8])> {
        self.contacts.iter().filter_map(move |(from, contact)| {
            let (_, sealed) = contact.last_announcement.as_ref().filter(|(on, _)| on == topic)?;
            Some((*from, sealed.as_slice()))
        })
    }

    /// Returns a device's handle on a topic; from a cache where it is a member that is connected to, or this device.
    pub(super) fn handle_of(&self, topic: &Topic, device: &DeviceId) -> Option<Handle> {
        let is_own = *device == self.membership.me();
        let of_contact = || self.contacts.get(device).and_then(|contact| contact.handle);
        let cached = if is_own { self.own_handle } else { of_contact() };
        let cached = cached.filter(|(on, _)| on == topic).map(|(_, handle)| handle);
        cached.or_else(|| self.membership.handle_of(topic, device))
    }

    /// Makes network device and tunnel match the party's range and this device's address in it.
    pub(super) fn sync_device(
        &mut self,
        now: Instant,
        mtu: u16,
        networks: &Networks,
        events: &mut VecDeque<Event>,
    ) {
        let Some(device) = self.wanted_device(mtu) else { return };
        if self.device.as_ref() == Some(&device) {
            return;
        }
        debug!(v4 = %device.v4, v6 = %device.v6, mtu, "network device wanted");
        self.device = Some(device.clone());
        self.interface = None;
        let (party, secret) = (self.id(), self.membership.tunnel_secret());
        events.push_back(Event::PartyUp { party, secret, device: device.clone() });
        events.push_back(Event::Output(Output::DeviceUp { party, device }));
        let members: Vec<DeviceId> = self.membership.devices().collect();
        members.into_iter().for_each(|device| self.sync_member(device, events));
        self.check_range(now, networks);
    }

    fn wanted_device(&self, mtu: u16) -> Option<DeviceConfig> {
        if !self.is_on() || matches!(self.membership.standing(), Standing::Dismissed(_)) {
            return None;
        }
        let (address, range) = (self.membership.address_v4()?, self.membership.range()?);
        let v4 = Ipv4Net::new(address, range.prefix_len()).ok()?;
        let v6 = Ipv6Net::new(self.membership.address_v6(), PREFIX_V6).ok()?;
        Some(DeviceConfig { v4, v6, mtu })
    }

    /// Takes the outcome of making the network device.
    pub(super) fn handle_device(&mut self, input: DeviceInput) {
        match input {
            DeviceInput::Up(name) => {
                debug!(interface = %name, "network device is up");
                self.interface = Some(name);
                self.interface_error = None;
            }
            DeviceInput::Failed(error) => {
                debug!(reason = %error.message, "network device could not be made");
                self.interface = None;
                self.interface_error = Some(error);
            }
        }
    }

    /// Notes whether the party's range clashes with a network of this computer. A request for another range ends with
    /// the clash.
    pub(super) fn check_range(&mut self, now: Instant, networks: &Networks) {
        let Some(range) = self.membership.range().filter(|_| self.is_on()) else { return };
        let clash = networks.clash(range);
        if clash != self.range_clash {
            match clash {
                Some(network) => {
                    warn!(%range, %network, "the party's range clashes with a network of this computer")
                }
                None => debug!(%range, "the party's range clashes with no network of this computer any more"),
            }
            self.range_clash = clash;
        }
        self.range_requested &= clash.is_some();
        self.announce_avoided(now, networks);
    }

    /// Asks the owner for another range.
    ///
    /// # Errors
    /// If this is the owner's device, which can change it, or the range clashes with nothing here.
    pub(super) fn request_range(&mut self, now: Instant, networks: &Networks) -> Result<(), AppError> {
        if self.membership.role() == Role::Owner {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                "You are the owner of this party.",
                "Move it to another range with `partyline range`.",
            ));
        }
        if self.problem().is_none_or(|problem| problem.code != ErrorCode::RangeConflict) {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                "The party's addresses clash with no network of this computer.",
                "There is nothing to ask for.",
            ));
        }
        info!(clash = ?self.range_clash, "asking the owner for another range");
        self.range_requested = true;
        self.announce_avoided(now, networks);
        Ok(())
    }

    /// Returns true while the owner is asked for another range.
    pub(crate) const fn is_range_requested(&self) -> bool {
        self.range_requested
    }

    /// Announces the networks that another range should avoid, the one that clashes first, while one is asked for.
    fn announce_avoided(&mut self, now: Instant, networks: &Networks) {
        let mut avoided: Vec<Ipv4Net> = Vec::new();
        for network in self.range_clash.into_iter().chain(networks.private()) {
            if self.range_requested && avoided.len() < MAX_AVOIDED && !avoided.contains(&network) {
                avoided.push(network);
            }
        }
        if self.membership.set_avoided_networks(avoided) {
            self.announce_soon(now);
        }
    }

    /// Hands on what is known about how to reach a member now. Without a network device there is no party in the tunnel
    /// yet, and all members follow once there is.
    pub(super) fn sync_member(&mut self, device: DeviceId, events: &mut VecDeque<Event>) {
        if !self.is_on() || self.device.is_none() {
            return;
        }
        let probe_key = self.cache_keys(device);
        let Some(member) = self.membership.member(&device) else {
            return self.remove_contact(device, events);
        };
        let tunnel = PeerConfig { key: member.tunnel_key, v4: member.address_v4, v6: member.address_v6() };
        let paths = probe_key.map(|probe_key| {
            let me = self.membership.me();
            let lan = self.lan_candidate(&device, member.candidates);
            PeerParams {
                local_tag: tag(&probe_key, &me),
                remote_tag: tag(&probe_key, &device),
                probe_key,
                controlling: me < device,
                nat: member.nat.cloned().unwrap_or_default(),
                candidates: lan.into_iter().chain(member.candidates.iter().copied()).collect(),
            }
        });
        let (session, trace_id) = (member.session, self.trace_id(&device));
        let contact = self.contacts.entry(device).or_default();
        contact.address = tunnel.v4;
        let before = std::mem::replace(&mut contact.session, session);
        let restarted = before.is_some() && before != session;
        if restarted {
            debug!(peer = %device.short(), reason = "another session nonce", "member's engine was restarted");
        }
        let party = self.id();
        let info = PeerInfo { party, device, tunnel, paths, restarted, trace_id };
        events.push_back(Event::PeerChanged(Box::new(info)));
    }

    /// Hands on the members whose virtual addresses are others now. When two claim one address, the member that gives
    /// way leaves it to the other, from whom nothing new arrives.
    pub(super) fn sync_addresses(&mut self, events: &mut VecDeque<Event>) {
        let known = |device: &DeviceId| self.contacts.get(device).and_then(|contact| contact.address);
        let members = self.membership.members();
        let moved: Vec<DeviceId> = members
            .filter(|member| known(&member.device) != member.address_v4)
            .map(|member| member.device)
            .collect();
        moved.into_iter().for_each(|device| self.sync_member(device, events));
    }

    /// Forgets what was learned about a member, and everything that leads to it.
    pub(super) fn remove_contact(&mut self, device: DeviceId, events: &mut VecDeque<Event>) {
        trace!(peer = %device.short(), "contact removed");
        self.contacts.remove(&device);
        events.push_back(Event::PeerRemoved { party: self.id(), device });
        events.push_back(Event::Changed);
    }

    /// Derives the handles of this device and a member, and the member's probe key, once, which takes too long to do for
    /// every message. Returns the probe key, unless the member's session nonce is unknown.
    fn cache_keys(&mut self, device: DeviceId) -> Option<[u8; 32]> {
        let topic = self.membership.topic();
        if self.own_handle.is_none_or(|(on, _)| on != topic) {
            let own = self.membership.handle_of(&topic, &self.membership.me());
            self.own_handle = own.map(|handle| (topic, handle));
        }
        let contact = self.contacts.entry(device).or_default();
        if contact.handle.is_none_or(|(on, _)| on != topic) {
            contact.handle = self.membership.handle_of(&topic, &device).map(|handle| (topic, handle));
        }
        let member = self.membership.member(&device)?;
        let derived_from = (member.tunnel_key, member.session?);
        if contact.probe_key.is_none_or(|(of, _)| of != derived_from) {
            contact.probe_key = self.membership.probe_key(&device).map(|key| (derived_from, key));
        }
        contact.probe_key.map(|(_, key)| key)
    }

    /// Returns the address of a member's tunnel socket on the local network, if its beacon was received here.
    fn lan_candidate(&self, device: &DeviceId, candidates: &[Candidate]) -> Option<Candidate> {
        let mut address = self.neighbor(device)?;
        let host = candidates.iter().find(|candidate| {
            candidate.kind == CandidateKind::Host && same_family(candidate.address.ip(), address.ip())
        })?;
        address.set_port(host.address.port());
        Some(Candidate { kind: CandidateKind::Lan, address })
    }

    /// Names connection attempts with a member: the same on both sides and at the rendezvous server.
    fn trace_id(&self, device: &DeviceId) -> [u8; 16] {
        let topic = self.membership.topic();
        let mine = self.handle_of(&topic, &self.membership.me());
        let theirs = self.handle_of(&topic, device);
        mine.zip(theirs).map_or([0; 16], |(mine, theirs)| partyline_wire::trace_id(&topic, mine, theirs))
    }
}

/// Names a member in connectivity checks, in a way that means nothing without the probe key.
fn tag(probe_key: &[u8; 32], device: &DeviceId) -> Tag {
    let mut tag = [0; 8];
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(probe_key) {
        mac.update(&device.0);
        tag.copy_from_slice(&mac.finalize().into_bytes()[..8]);
    }
    Tag(tag)
}

const fn same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

fn dismissal_error(dismissal: Dismissal, party: &str) -> AppError {
    let (code, hint) = match dismissal {
        Dismissal::Removed => (
            ErrorCode::Removed,
            "This computer stays out with the identity it has. If that was a mistake, take a new identity \
             (`partyline identity new`) and ask the owner for an invite.",
        ),
        Dismissal::InviteRevoked => (ErrorCode::InviteRevoked, "Ask the owner for a new invite."),
        Dismissal::InviteExpired => {
            (ErrorCode::InviteExpired, "Ask for a new invite, or wait until the owner's computer is online.")
        }
        Dismissal::NotACoOwner => (ErrorCode::InviteForged, "Ask the owner for an invite."),
        Dismissal::UsedUp => (ErrorCode::InviteUsedUp, "Ask for a new invite."),
        Dismissal::Unapproved => (ErrorCode::NotApproved, "Wait until the owner approves it."),
    };
    AppError::new(code, format!("This computer is no longer in {party}: {dismissal}."), hint)
}

/// What keeps a joiner out that only goes on asking, so that its user must do something.
fn refusal_error(waits_for: JoinWait, party: &str) -> Option<AppError> {
    let (code, reason, hint) = match waits_for {
        JoinWait::Member | JoinWait::Approval => return None,
        JoinWait::OtherInvite => (
            ErrorCode::InviteUsedUp,
            "the invite was for a number of devices, and as many have joined by it",
            "Ask for a new invite.",
        ),
        JoinWait::Reconsideration => (
            ErrorCode::NotApproved,
            "the owner declined",
            "Ask the owner, who can still let this computer in.",
        ),
    };
    Some(AppError::new(code, format!("This computer is not in {party} yet: {reason}."), hint))
}

fn duplicate_identity(party: &str) -> AppError {
    AppError::new(
        ErrorCode::DuplicateIdentity,
        format!(
            "Another computer is in {party} with the same keys; this one is a copy of it, and stands back."
        ),
        "Make this one a member of its own with `partyline identity new`, and join with an invite; or stop the other \
         one, and try again with `partyline up`.",
    )
}

fn range_conflict(range: Ipv4Net, network: Ipv4Net, role: Role, requested: bool) -> AppError {
    let hint = match (role, requested) {
        (Role::Owner, _) => "Move the party to a free range with `partyline range`, or leave that network.",
        (_, false) => "Ask the owner for another range with `partyline range --ask`, or leave that network.",
        (_, true) => {
            "The owner is asked for another range, and sees that when online; or leave that network."
        }
    };
    let message = format!(
        "The party uses the addresses {range}, and so does another network of this computer ({network})."
    );
    AppError::new(ErrorCode::RangeConflict, message, hint)
}

#[cfg(test)]
mod tests {
    use partyline_model::{InviteTerms, Timestamp};
    use partyline_party::{DeviceKey, NewParty, Reachability};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    const UNIX: Timestamp = Timestamp(1_790_000_000_000);

    struct Pair {
        now: Instant,
        rng: ChaCha8Rng,
        local: LocalParty,
        friend: Membership,
    }

    impl Pair {
        #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
        fn new() -> Self {
            let (now, mut rng) = (Instant::now(), ChaCha8Rng::seed_from_u64(1));
            let party = NewParty {
                name: "Keys".to_owned(),
                display_name: "Ana".to_owned(),
                servers: Vec::new(),
                range: "10.77.0.0/24".parse().expect("a range"),
            };
            let (host, guest) = (DeviceKey::generate(&mut rng), DeviceKey::generate(&mut rng));
            let membership = Membership::create(UNIX, &mut rng, &host, party).expect("a party");
            let mut local = LocalParty::new(now, membership);
            let invite = local.membership.create_invite(UNIX, &mut rng, InviteTerms::FRIENDS);
            let (invite, _) = invite.expect("an invite");
            let friend = Membership::join(UNIX, &mut rng, &guest, &invite, "Ben".to_owned());
            Self { now, rng, local, friend: friend.expect("a member") }
        }

        fn hear_friend(&mut self) {
            let topic = self.friend.topic();
            let mut outcome = self.friend.announcement(UNIX, &mut self.rng, &topic, &Reachability::default());
            let sealed = outcome.messages.pop().expect("an announcement").message;
            let received = self.local.membership.receive(UNIX, &mut self.rng, &topic, &sealed);
            assert_eq!(received.expect("accepted").sender, self.friend.me());
        }
    }

    #[test]
    fn keys_are_derived_again_when_a_member_was_restarted() {
        let mut pair = Pair::new();
        let (topic, friend) = (pair.friend.topic(), pair.friend.me());
        let mut keys = Vec::new();
        for _ in 0..2 {
            pair.hear_friend();
            keys.push(pair.local.cache_keys(friend).expect("a key"));
            assert_eq!(keys.last(), pair.local.membership.probe_key(&friend).as_ref());
            for device in [friend, pair.local.membership.me()] {
                let derived = pair.local.membership.handle_of(&topic, &device);
                assert_eq!(pair.local.handle_of(&topic, &device), derived);
            }
            pair.friend.start_session(&mut pair.rng);
        }
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn member_is_handed_on_once_there_is_a_device_and_marked_when_it_was_restarted() {
        let mut pair = Pair::new();
        let mut events = VecDeque::new();
        pair.hear_friend();
        pair.local.sync_member(pair.friend.me(), &mut events);
        assert!(events.is_empty(), "no device yet");
        pair.local.switch_on(pair.now);
        pair.local.sync_device(pair.now, 1400, &Networks::default(), &mut events);
        let restarts = |events: &mut VecDeque<Event>| -> Vec<bool> {
            let infos = events.drain(..).filter_map(|event| match event {
                Event::PeerChanged(info) => Some(info.restarted),
                _ => None,
            });
            infos.collect()
        };
        assert_eq!(restarts(&mut events), [false]);
        pair.friend.start_session(&mut pair.rng);
        pair.hear_friend();
        pair.local.sync_member(pair.friend.me(), &mut events);
        assert_eq!(restarts(&mut events), [true]);
    }

    #[test]
    fn party_that_goes_down_takes_everything_it_made_with_it() {
        let mut pair = Pair::new();
        let mut events = VecDeque::new();
        pair.hear_friend();
        pair.local.switch_on(pair.now);
        pair.local.sync_device(pair.now, 1400, &Networks::default(), &mut events);
        pair.local.handle_device(DeviceInput::Up("party0".to_owned()));
        assert_eq!(pair.local.phase(), PartyPhase::Up);
        events.clear();
        pair.local.switch_off();
        pair.local.take_down(&mut events);
        let removed = events
            .iter()
            .any(|event| matches!(event, Event::PeerRemoved { device, .. } if *device == pair.friend.me()));
        let down = events.iter().any(|event| matches!(event, Event::Output(Output::DeviceDown { .. })));
        assert!(removed && down && pair.local.phase() == PartyPhase::Down);
    }

    #[test]
    fn range_that_this_computer_is_in_is_a_problem_until_the_network_is_left() {
        let mut pair = Pair::new();
        pair.local.switch_on(pair.now);
        let networks = |text: &str| Networks::new(&[text.parse().expect("a network")], &[]);
        pair.local.check_range(pair.now, &networks("10.77.0.0/16"));
        assert_eq!(pair.local.problem().map(|problem| problem.code), Some(ErrorCode::RangeConflict));
        pair.local.check_range(pair.now, &networks("192.168.1.0/24"));
        assert_eq!(pair.local.problem(), None);
    }

    #[test]
    fn member_counts_as_online_for_a_while_after_its_last_message() {
        let mut pair = Pair::new();
        let friend = pair.friend.me();
        assert!(!pair.local.received_lately(pair.now, &friend));
        pair.local.on_received(pair.now, friend);
        assert!(pair.local.received_lately(pair.now + ONLINE_TIMEOUT - ANNOUNCE_DELAY, &friend));
        assert!(!pair.local.received_lately(pair.now + ONLINE_TIMEOUT, &friend));
    }
}
