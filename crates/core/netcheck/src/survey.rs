//! One measurement of one address family's network.
//!
//! Four tests, each with its own file. Two begin side by side as soon as a server is known, each from a socket of its
//! own: *mapping* ([`crate::mapping`]), which has to talk to all of the server's addresses, and *filtering*
//! ([`crate::filtering`]), which must not, since whoever was sent to is let in. When the mappings are known, further
//! sockets show how *ports* are chosen ([`crate::ports`]), one after the other, and two of them whether the NAT turns
//! packets around ([`crate::hairpin`]). Where only one socket is there, one test follows the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Allocation, CheckTopic, Filtering, Mapping, SocketId};

use crate::{
    FilteringProbeRequest, ProbeRound,
    client::{Client, Heard, Query},
    filtering::FilteringTest,
    hairpin::HairpinTest,
    infer::{self, Observation},
    mapping::MappingTest,
    ports::PortsTest,
    stun::Change,
    trial::Reference,
};

/// Servers with a second address that are remembered.
const MOST_REFERENCES: usize = 4;

/// Why something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To meet a server, by its position.
    Contact(usize),
    /// To keep the mapping alive and see whether it is still the same.
    Refresh(usize),
    /// To compare mappings.
    Compare,
    /// To open the NAT for a server's other addresses.
    Open,
    /// To see that a mapping is still there.
    Alive,
    /// To see a fresh mapping.
    Fresh,
    /// A filtering test.
    Trial { trial: u8, round: u8, change: Change },
    /// To see whether it comes back in.
    Hairpin,
    /// To make a mapping whose lifetime is measured.
    Greet(u8),
    /// To see whether such a mapping still lives.
    Knock(u8),
}

/// Whether the mapping is still the one that was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuity {
    Same,
    /// What was measured no longer holds together.
    Changed,
}

/// What a survey starts from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    pub(crate) patience: Duration,
    /// This computer's own addresses.
    pub(crate) local: Vec<IpAddr>,
    /// The tunnel's port.
    pub(crate) local_port: Option<u16>,
    /// Whether the tunnel's socket has sent nothing before.
    pub(crate) fresh: bool,
    /// Whether the router opened a port for the tunnel's socket, which then maps like no other.
    pub(crate) mapped: bool,
    /// Whether there are members who could send a packet for us.
    pub(crate) observers: bool,
}

/// Which socket does what.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    pub(crate) mapping: SocketId,
    pub(crate) filtering: SocketId,
    /// Those that have sent nothing yet.
    pub(crate) fresh: Vec<SocketId>,
    /// The ports they are bound to, where known.
    pub(crate) ports: BTreeMap<SocketId, u16>,
}

impl Roles {
    fn new(lent: &[(SocketId, u16)]) -> Self {
        let sockets: Vec<_> = lent.iter().map(|(socket, _)| *socket).collect();
        let mapping = sockets.first().copied().unwrap_or(SocketId::MAIN);
        Self {
            mapping,
            filtering: sockets.get(1).copied().unwrap_or(mapping),
            fresh: sockets.get(2..).unwrap_or_default().to_vec(),
            ports: lent.iter().copied().collect(),
        }
    }

    /// Whether one test must wait for the other, since they share a socket.
    pub(crate) fn is_shared(&self) -> bool {
        self.mapping == self.filtering
    }
}

/// How far the servers have been met from the tunnel's socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meeting {
    /// Nobody's first answer is awaited any more.
    pub(crate) met: bool,
    /// Nobody new will be asked.
    pub(crate) asked: bool,
}

/// What a survey has found so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) mapping: Option<Mapping>,
    pub(crate) filtering: Option<Filtering>,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) hairpin: Option<bool>,
}

/// A measurement.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) terms: Terms,
    pub(crate) roles: Roles,
    /// Servers that answered the tunnel's socket.
    pub(crate) contacts: Vec<SocketAddr>,
    /// Servers with a second address, and whether that one has been left alone so far.
    pub(crate) references: Vec<(Reference, bool)>,
    asked: BTreeMap<SocketId, BTreeSet<SocketAddr>>,
    seen: BTreeMap<SocketId, BTreeMap<SocketAddr, Observation>>,
    /// One destination saw two mappings: what was seen does not belong together.
    pub(crate) torn: bool,
    pub(crate) mapping: MappingTest,
    pub(crate) filtering: FilteringTest,
    pub(crate) ports: PortsTest,
    pub(crate) hairpin: HairpinTest,
    pub(crate) found: Found,
    pub(crate) gaps: Vec<&'static str>,
    /// What an observer is to be asked.
    pub(crate) errand: Option<FilteringProbeRequest>,
    /// What the one who lends two ports is to send.
    pub(crate) round: Option<ProbeRound>,
}

impl Survey {
    pub(crate) fn new(terms: Terms) -> Self {
        let mut roles = Roles::new(&[]);
        roles.ports.extend(terms.local_port.map(|port| (SocketId::MAIN, port)));
        Self {
            terms,
            roles,
            contacts: Vec::new(),
            references: Vec::new(),
            asked: BTreeMap::new(),
            seen: BTreeMap::new(),
            torn: false,
            mapping: MappingTest::Waiting,
            filtering: FilteringTest::default(),
            ports: PortsTest::Waiting,
            hairpin: HairpinTest::Waiting,
            found: Found::default(),
            gaps: Vec::new(),
            errand: None,
            round: None,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.mapping.is_done() && self.filtering.is_done() && self.ports.is_done() && self.hairpin.is_done()
    }

    /// Whether a server was heard, so that there is something to do.
    pub(crate) fn has_begun(&self) -> bool {
        !self.contacts.is_empty()
    }

    /// Whether this is being looked at.
    pub(crate) fn is_at(&self, topic: CheckTopic) -> bool {
        match topic {
            CheckTopic::Address => !self.has_begun(),
            CheckTopic::Mapping => self.mapping.is_under_way(),
            CheckTopic::Filtering => self.filtering.is_under_way(),
            CheckTopic::Allocation => self.ports.is_under_way(),
            CheckTopic::Hairpin => self.hairpin.is_under_way(),
            CheckTopic::Ipv6 => self.has_begun() && !self.is_done(),
            CheckTopic::Lifetime => false,
        }
    }

    /// Makes the survey from sockets of its own, if it has not come further than to meet servers.
    pub(crate) fn lend(&mut self, sockets: &[(SocketId, u16)]) {
        if matches!(self.mapping, MappingTest::Waiting) && self.filtering.is_waiting() && !sockets.is_empty()
        {
            self.roles = Roles::new(sockets);
            self.references.iter_mut().for_each(|(_, untouched)| *untouched = true);
        }
    }

    /// Notes that one of our sockets sends to somebody.
    pub(crate) fn note(&mut self, socket: SocketId, destination: SocketAddr) {
        self.asked.entry(socket).or_default().insert(destination);
    }

    /// Whether a socket has sent to somebody.
    pub(crate) fn has_asked(&self, socket: SocketId, destination: SocketAddr) -> bool {
        self.asked_by(socket).any(|asked| *asked == destination)
    }

    pub(crate) fn asked_by(&self, socket: SocketId) -> impl Iterator<Item = &SocketAddr> {
        self.asked.get(&socket).into_iter().flatten()
    }

    /// Where servers saw a socket, in the order of the questions.
    pub(crate) fn seen_of(&self, socket: SocketId) -> Vec<Observation> {
        let mut seen: Vec<_> =
            self.seen.get(&socket).into_iter().flat_map(|seen| seen.values().copied()).collect();
        seen.sort_by_key(|observation| observation.asked);
        seen
    }

    /// Notes where a server saw one of our sockets.
    pub(crate) fn observe(&mut self, heard: &Heard<Purpose>) -> Continuity {
        let Some(seen) = observation(heard) else { return Continuity::Same };
        if heard.socket == SocketId::MAIN && !self.contacts.contains(&seen.destination) {
            self.contacts.push(seen.destination);
        }
        let list = self.seen.entry(heard.socket).or_default();
        let first = *list.entry(seen.destination).or_insert(seen);
        let own = heard.socket == self.roles.mapping;
        if first.reflexive != seen.reflexive {
            list.insert(seen.destination, seen);
            self.torn |= own;
            self.found.mapping = self.found.mapping.filter(|_| !own);
            return Continuity::Changed;
        }
        self.conclude_mapping(own);
        Continuity::Same
    }

    /// A policy shows as soon as enough servers have seen the same socket; what a new observation contradicts was
    /// none. Before the survey's own socket has spoken, the tunnel's may show independence.
    fn conclude_mapping(&mut self, own: bool) {
        let seen = self.seen_of(if own { self.roles.mapping } else { SocketId::MAIN });
        let inferred = infer::mapping(&seen).filter(|_| !self.torn);
        if own && seen.len() > 1 {
            self.found.mapping = inferred;
        } else if !own
            && !self.terms.mapped
            && !self.mapping.is_done()
            && self.seen_of(self.roles.mapping).len() < 2
        {
            let independent = inferred == Some(Mapping::EndpointIndependent);
            self.found.mapping = self.found.mapping.or(inferred.filter(|_| independent));
        }
    }

    /// Notes a server with a second address. `untouched`: nothing has been sent there from this socket on this network.
    pub(crate) fn offer(&mut self, reference: Reference, untouched: bool) {
        let known = self.references.iter().any(|(known, _)| known.server == reference.server);
        if !known && self.references.len() < MOST_REFERENCES {
            self.references.push((reference, untouched || self.roles.filtering != SocketId::MAIN));
        }
    }

    /// Takes the answer to anything but a contact or refresh.
    pub(crate) fn heard(&mut self, now: Instant, heard: &Heard<Purpose>) -> Continuity {
        match heard.purpose {
            _ if heard.late => return Continuity::Same,
            Purpose::Trial { trial, round, change } => {
                let honoured = heard.honoured && heard.answer.is_some();
                self.heard_in_trial(now, trial, round, change, honoured);
                if change != Change::Nothing || !honoured {
                    return Continuity::Same;
                }
            }
            Purpose::Compare => self.mapping.settled(heard.answer.is_some()),
            Purpose::Open => self.filtering.opened(),
            Purpose::Alive => self.filtering.seen(heard.answer.is_some()),
            Purpose::Fresh => self.ports.answered(),
            Purpose::Contact(_)
            | Purpose::Refresh(_)
            | Purpose::Hairpin
            | Purpose::Greet(_)
            | Purpose::Knock(_) => {
                return Continuity::Same;
            }
        }
        self.observe(heard)
    }

    /// Takes silence.
    pub(crate) fn silent(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Compare => self.mapping.settled(false),
            Purpose::Open => self.filtering.opened(),
            Purpose::Alive => self.filtering.seen(false),
            Purpose::Fresh => self.ports.answered(),
            _ => {}
        }
    }

    /// Goes on as far as it can.
    pub(crate) fn step(&mut self, now: Instant, meeting: Meeting, client: &mut Client<Purpose>) {
        if !self.has_begun() {
            return;
        }
        loop {
            let mut moved = self.step_filtering(now, meeting, client);
            moved |= self.step_mapping(now, meeting, client);
            moved |= self.step_ports(now, meeting, client);
            moved |= self.step_hairpin(now, client);
            if !moved {
                return;
            }
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        [self.filtering.poll_timeout(now), self.hairpin.poll_timeout()].into_iter().flatten().min()
    }

    /// Asks a plain question from one of the survey's sockets.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        (socket, destination): (SocketId, SocketAddr),
        purpose: Purpose,
        client: &mut Client<Purpose>,
    ) {
        self.note(socket, destination);
        let (change, patience) = (Change::Nothing, self.terms.patience);
        client.ask(now, Query { socket, destination, change, expected: destination, purpose, patience });
    }

    /// The server to compare with: the one whose filtering is tested, else any with a second address.
    pub(crate) fn reference(&self) -> Option<Reference> {
        self.filtering.reference.or_else(|| self.references.first().map(|(reference, _)| *reference))
    }
}

fn observation(heard: &Heard<Purpose>) -> Option<Observation> {
    let &Heard { destination, asked, answered, answer, .. } = heard;
    answer.map(|answer| Observation { destination, reflexive: answer.mapped, asked, answered })
}
