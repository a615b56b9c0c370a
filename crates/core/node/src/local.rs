//! One party on this device, beside its membership: whether it is on, its device, who was heard.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{AppError, DeviceId, Handle, Now, PartyPhase, SessionNonce, Topic, TunnelPublicKey};
use partyline_party::{Membership, Standing};

use crate::{farewell::Goodbyes, io::DeviceConfig, node::CLOCK_CHECK};

/// Beacons while somebody is still being looked for, and once everybody heard is connected.
pub(crate) const BEACON_BUSY: Duration = Duration::from_secs(5);
pub(crate) const BEACON_IDLE: Duration = Duration::from_secs(30);
/// Changes of the own announcement are gathered this long, so that candidates learned together go out together.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(10);
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(3);
const JUDGE_PAUSE: Duration = Duration::from_secs(1);
/// Without a path or a server that lists it, a member not heard for this long is offline.
pub(crate) const HEARD: Duration = Duration::from_secs(75);

/// A party on this device.
pub struct LocalParty {
    /// Who belongs.
    pub membership: Membership,
    /// Whether the user wants it on.
    pub on: bool,
    /// The device as it was last asked for.
    pub device: Option<DeviceConfig>,
    /// The device's name, once it stands.
    pub interface: Option<String>,
    /// What keeps the party from working.
    pub problem: Option<AppError>,
    /// What is known of members beside their certificates.
    pub contacts: BTreeMap<DeviceId, Contact>,
    /// Of members who left lately.
    pub goodbyes: Goodbyes,
    /// Counts changes of the own announcement.
    pub revision: u64,
    announce_at: Option<Instant>,
    beacon_at: Instant,
    /// When to look which memberships have lapsed.
    judge_at: Option<Instant>,
}

/// What is known of a member in this run.
#[derive(Debug, Default)]
pub struct Contact {
    /// When it was last heard other than by a server's list.
    pub heard: Option<Instant>,
    /// Where its LAN beacon came from.
    pub lan: Option<SocketAddr>,
    /// Its newest announcement as it was sealed, to be passed on.
    pub letter: Option<(Topic, Vec<u8>)>,
    /// The run of its engine that paths and tunnel were last told of.
    pub session: Option<SessionNonce>,
    /// The address that the tunnel was last told of.
    pub address: Option<Ipv4Addr>,
    /// Its handle on a topic, as it was last asked for.
    handle: Option<(Topic, Handle)>,
    /// The key for checks with it, and what that was made of.
    probe_key: Option<((TunnelPublicKey, SessionNonce), [u8; 32])>,
}

impl LocalParty {
    pub(crate) fn new(now: Instant, membership: Membership, on: bool) -> Self {
        Self {
            membership,
            on,
            device: None,
            interface: None,
            problem: None,
            contacts: BTreeMap::new(),
            goodbyes: Goodbyes::default(),
            revision: 1,
            announce_at: None,
            beacon_at: now,
            judge_at: Some(now),
        }
    }

    /// How far the party is.
    pub(crate) fn phase(&self) -> PartyPhase {
        match (self.on, &self.interface) {
            (false, _) => PartyPhase::Down,
            (true, Some(_)) => PartyPhase::Up,
            (true, None) => PartyPhase::Connecting,
        }
    }

    /// Whether this device was put out of the party, so that it may join anew.
    pub(crate) const fn is_dismissed(&self) -> bool {
        matches!(self.membership.standing(), Standing::Dismissed(_))
    }

    /// The own announcement changed; tell soon.
    pub(crate) fn announce_soon(&mut self, now: Instant) {
        if self.on {
            self.announce_at.get_or_insert(now + ANNOUNCE_DELAY);
        }
    }

    /// A server asked for patience; tell again after a while.
    pub(crate) fn announce_later(&mut self, now: Instant) {
        self.announce_at = Some(now + ANNOUNCE_PATIENCE);
    }

    /// Whether the moment to tell has come.
    pub(crate) fn announce_due(&mut self, now: Instant) -> bool {
        let due = self.on && self.announce_at.is_some_and(|at| at <= now);
        if due {
            self.announce_at = None;
            self.revision += 1;
        }
        due
    }

    pub(crate) fn beacon_soon(&mut self, now: Instant) {
        self.beacon_at = now;
    }

    /// Whether the moment of the next beacon has come.
    pub(crate) fn beacon_due(&self, now: Instant) -> bool {
        self.on && self.beacon_at <= now
    }

    pub(crate) fn beacon_at(&mut self, at: Instant) {
        self.beacon_at = at;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let running = self.on.then_some([self.announce_at, Some(self.beacon_at)]);
        running.into_iter().flatten().flatten().chain(self.judge_at).min()
    }

    /// The membership changed: looks when time alone will change it next. Dates are the wall clock's, which may jump;
    /// so they are looked at again after a while, and not more often than once a second.
    pub(crate) fn plan(&mut self, now: Now) {
        let wait = self.membership.next_deadline().map(|at| at.since(now.unix));
        self.judge_at = wait.map(|wait| now.instant + wait.clamp(JUDGE_PAUSE, CLOCK_CHECK));
    }

    /// Whether the moment to look which memberships have lapsed has come.
    pub(crate) fn judgement_due(&self, now: Instant) -> bool {
        self.judge_at.is_some_and(|at| at <= now)
    }

    /// A member's handle on a topic; quick to say for whom [`Self::keep_keys`] was called.
    pub(crate) fn handle_of(&self, topic: &Topic, device: &DeviceId) -> Option<Handle> {
        let kept = self.contacts.get(device).and_then(|contact| contact.handle);
        let kept = kept.filter(|(on, _)| on == topic).map(|(_, handle)| handle);
        kept.or_else(|| self.membership.handle_of(topic, device))
    }

    /// Derives what members are called by and checked with, which takes too long to do for every message. Returns the
    /// key for checks with this one.
    pub(crate) fn keep_keys(&mut self, device: DeviceId) -> Option<[u8; 32]> {
        let topic = self.membership.topic();
        let contact = self.contacts.entry(device).or_default();
        if contact.handle.is_none_or(|(on, _)| on != topic) {
            contact.handle = self.membership.handle_of(&topic, &device).map(|handle| (topic, handle));
        }
        let member = self.membership.member(&device)?;
        let made_of = (member.tunnel_key, member.session?);
        if contact.probe_key.is_none_or(|(of, _)| of != made_of) {
            contact.probe_key = self.membership.probe_key(&device).map(|key| (made_of, key));
        }
        contact.probe_key.map(|(_, key)| key)
    }

    /// Notes that a member was heard.
    pub(crate) fn hear(&mut self, now: Instant, device: DeviceId) -> &mut Contact {
        let contact = self.contacts.entry(device).or_default();
        contact.heard = Some(now);
        contact
    }

    /// Whether a member was heard lately, other than by a server's list.
    pub(crate) fn heard_lately(&self, now: Instant, device: &DeviceId) -> bool {
        let heard = self.contacts.get(device).and_then(|contact| contact.heard);
        heard.is_some_and(|at| now.saturating_duration_since(at) < HEARD)
    }

    /// Where a member's tunnel socket is on this LAN, if its beacon was heard here.
    pub(crate) fn lan_address(
        &self,
        device: &DeviceId,
        candidates: &[partyline_model::Candidate],
    ) -> Option<SocketAddr> {
        let mut address = self.contacts.get(device)?.lan?;
        let host = candidates.iter().find(|candidate| {
            candidate.kind == partyline_model::CandidateKind::Host
                && same_family(candidate.address.ip(), address.ip())
        })?;
        address.set_port(host.address.port());
        Some(address)
    }
}

fn same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use partyline_model::{InviteLifetime, Role, Timestamp};
    use partyline_party::{DeviceKey, NewParty, Reachability};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn keys_are_derived_anew_when_a_member_was_restarted() {
        let (now, mut rng) = (Timestamp(1_790_000_000_000), ChaCha8Rng::seed_from_u64(1));
        let party = NewParty {
            name: "Keys".to_owned(),
            display_name: "Ana".to_owned(),
            servers: Vec::new(),
            range: "10.77.0.0/24".parse().expect("a range"),
        };
        let (host, guest) = (DeviceKey::generate(&mut rng), DeviceKey::generate(&mut rng));
        let membership = Membership::create(now, &mut rng, &host, party).expect("a party");
        let mut local = LocalParty::new(Instant::now(), membership, true);
        let invite = local.membership.create_invite(now, &mut rng, InviteLifetime::Week, Role::Member);
        let (invite, _) = invite.expect("an invite");
        let mut friend =
            Membership::join(now, &mut rng, &guest, &invite, "Ben".to_owned()).expect("a member");
        let mut keys = Vec::new();
        for _ in 0..2 {
            let topic = friend.topic();
            let sealed = friend.announcement(now, &mut rng, &topic, &Reachability::default());
            let received = local.membership.receive(now, &mut rng, &topic, &sealed.messages[0].message);
            assert_eq!(received.expect("accepted").sender, friend.me());
            keys.push(local.keep_keys(friend.me()).expect("a key"));
            assert_eq!(keys.last(), local.membership.probe_key(&friend.me()).as_ref());
            assert_eq!(
                local.handle_of(&topic, &friend.me()),
                local.membership.handle_of(&topic, &friend.me())
            );
            friend.start_session(&mut rng);
        }
        assert_ne!(keys[0], keys[1]);
    }
}
