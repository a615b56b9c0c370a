//! Several memberships in one thread: every message is delivered to all devices that are on its topic.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use partyline_model::{
    Candidate, CandidateKind, DeviceId, InviteLifetime, InviteTerms, KickScope, Role, Timestamp, Topic,
};
use partyline_wire::{announcement::Reachability, invite::Invite};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use crate::*;

mod admission;
mod convergence;
mod governing;
mod hostile;
mod joining;
mod lobby;
mod removal;
mod state;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const START: Timestamp = Timestamp(1_790_000_000_000);

struct InFlight {
    to: usize,
    topic: Topic,
    sealed: Vec<u8>,
}

/// The addresses of the other members.
fn addresses(friend: &Membership) -> BTreeMap<DeviceId, Ipv4Addr> {
    friend.members().filter_map(|member| Some((member.device, member.address_v4?))).collect()
}

struct World {
    now: Timestamp,
    rng: ChaCha8Rng,
    friends: Vec<Membership>,
    effects: Vec<Vec<Effect>>,
    /// The addresses of the others, as a caller that looks only when an outcome says so knows them.
    addresses: Vec<BTreeMap<DeviceId, Ipv4Addr>>,
    /// True while the friend is online.
    awake: Vec<bool>,
    in_flight: Vec<InFlight>,
}

impl World {
    /// A party of its owner alone.
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let device = DeviceKey::generate(&mut rng);
        let owner = Membership::create(START, &mut rng, &device, new_party()).unwrap();
        let mut world = Self {
            now: START,
            rng,
            friends: Vec::new(),
            effects: Vec::new(),
            addresses: Vec::new(),
            awake: Vec::new(),
            in_flight: Vec::new(),
        };
        world.add(owner);
        world
    }

    /// A party whose owner is the first friend and whose members have all announced themselves.
    fn of(members: usize) -> Self {
        let mut world = Self::new(members as u64);
        let invite = world.invite(0, InviteLifetime::Week, Role::Member);
        (1..members).for_each(|_| _ = world.join(&invite));
        world.announce_all();
        world
    }

    fn add(&mut self, friend: Membership) -> usize {
        self.friends.push(friend);
        self.effects.push(Vec::new());
        self.addresses.push(BTreeMap::new());
        self.awake.push(true);
        self.friends.len() - 1
    }

    fn invite(&mut self, by: usize, lifetime: InviteLifetime, role: Role) -> Invite {
        self.invite_with(by, InviteTerms { lifetime, uses: None, role })
    }

    fn invite_with(&mut self, by: usize, terms: InviteTerms) -> Invite {
        self.friends[by].create_invite(self.now, &mut self.rng, terms).unwrap().0
    }

    fn join(&mut self, invite: &Invite) -> usize {
        let device = DeviceKey::generate(&mut self.rng);
        self.join_as(&device, invite)
    }

    fn join_as(&mut self, device: &DeviceKey, invite: &Invite) -> usize {
        let name = format!("Friend {}", self.friends.len());
        let friend = Membership::join(self.now, &mut self.rng, device, invite, name).unwrap();
        self.add(friend)
    }

    fn id(&self, index: usize) -> DeviceId {
        self.friends[index].me()
    }

    fn index(&self, device: &DeviceId) -> Option<usize> {
        self.friends.iter().position(|friend| friend.me() == *device)
    }

    fn advance(&mut self, span: Duration) {
        self.now = self.now.plus(span);
        for index in 0..self.friends.len() {
            let outcome = self.friends[index].handle_timeout(self.now);
            self.apply(index, outcome);
        }
    }

    fn visits(&self, index: usize, topic: &Topic) -> bool {
        self.awake[index] && self.friends[index].topics().iter().any(|access| access.topic == *topic)
    }

    /// Sends a message to every friend that it is meant for and that is on its topic.
    fn send(&mut self, from: usize, topic: Topic, to: Option<DeviceId>, sealed: &[u8]) {
        for index in 0..self.friends.len() {
            let meant = to.is_none_or(|to| self.id(index) == to);
            if index != from && meant && self.visits(index, &topic) {
                self.in_flight.push(InFlight { to: index, topic, sealed: sealed.to_vec() });
            }
        }
    }

    fn announce(&mut self, index: usize) {
        if !self.awake[index] {
            return;
        }
        for access in self.friends[index].topics() {
            let reach = reach(2);
            let outcome = self.friends[index].announcement(self.now, &mut self.rng, &access.topic, &reach);
            assert_eq!(outcome.messages.len(), usize::from(access.purpose != TopicPurpose::Lobby));
            self.apply(index, outcome);
        }
    }

    fn apply(&mut self, index: usize, outcome: Outcome) {
        let announce = outcome.effects.contains(&Effect::Announce);
        self.effects[index].extend(outcome.effects);
        if outcome.addresses_changed {
            self.addresses[index] = addresses(&self.friends[index]);
        }
        for outgoing in outcome.messages {
            assert_eq!(
                outgoing.handle,
                outgoing.to.and_then(|to| self.friends[index].handle_of(&outgoing.topic, &to))
            );
            self.send(index, outgoing.topic, outgoing.to, &outgoing.message);
        }
        if announce {
            self.announce(index);
        }
    }

    fn deliver(&mut self, message: &InFlight) -> Result<(), Refusal> {
        let InFlight { to, topic, sealed } = message;
        let received = self.friends[*to].receive(self.now, &mut self.rng, topic, sealed)?;
        self.apply(*to, received.outcome);
        Ok(())
    }

    /// Delivers messages and the answers to them until there are none.
    fn run_until_quiet(&mut self) {
        for _ in 0..20_000 {
            if self.in_flight.is_empty() {
                return;
            }
            let message = self.in_flight.remove(0);
            let _ = self.deliver(&message);
        }
        panic!("the members never stop answering each other");
    }

    /// All friends announce themselves twice, the second time with what they learned from the first.
    fn announce_all(&mut self) {
        for _ in 0..2 {
            (0..self.friends.len()).for_each(|index| self.announce(index));
            self.run_until_quiet();
        }
    }

    /// A full announcement on the current topic.
    fn announcement(&mut self, index: usize) -> (Topic, Vec<u8>) {
        let topic = self.friends[index].topics()[0].topic;
        (topic, self.announcement_on(index, self.now, &topic, 2))
    }

    /// An announcement on any topic, made at a time of its own.
    fn announcement_on(&mut self, index: usize, at: Timestamp, topic: &Topic, candidates: u8) -> Vec<u8> {
        let outcome = self.friends[index].announcement(at, &mut self.rng, topic, &reach(candidates));
        only(outcome).message
    }

    /// A signal from one friend to another.
    fn signal(&mut self, from: usize, to: usize, bytes: Vec<u8>) -> Outgoing {
        let to = self.id(to);
        only(self.friends[from].signal(self.now, &mut self.rng, &to, bytes))
    }

    fn knows(&self, index: usize, other: usize) -> bool {
        self.friends[index].member(&self.id(other)).is_some()
    }

    /// Delivers one message to one friend, whatever topic it is on.
    fn deliver_to(&mut self, to: usize, topic: Topic, sealed: &[u8]) -> Result<(), Refusal> {
        self.deliver(&InFlight { to, topic, sealed: sealed.to_vec() })
    }

    fn dismissed(&self, index: usize) -> Option<Dismissal> {
        match self.friends[index].standing() {
            Standing::Dismissed(why) => Some(why),
            _ => None,
        }
    }
}

/// The only message of an outcome.
fn only(outcome: Outcome) -> Outgoing {
    let [message] = <[Outgoing; 1]>::try_from(outcome.messages).unwrap();
    message
}

fn new_party() -> NewParty {
    NewParty {
        name: "Friday games".into(),
        display_name: "Owner".into(),
        servers: vec!["wss://play.example.org".into()],
        range: "10.77.3.0/24".parse().unwrap(),
    }
}

fn reach(candidates: u8) -> Reachability {
    let candidate = |n| Candidate { kind: CandidateKind::Host, address: ([10, 0, 0, n], 20_000).into() };
    Reachability { candidates: (1..=candidates).map(candidate).collect(), ..Reachability::default() }
}
