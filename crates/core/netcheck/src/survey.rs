//! The measurement of one network over one address family, step by step (RFC 5780).
//!
//! It is made from a socket of its own where one is lent, which nobody else uses, so that neither the tunnel's packets
//! nor a port that the router opened for it can mislead; else from the tunnel's. That socket asks one server plainly.
//! If a server has a second address, filtering is tested at once, before anything is sent to that address: afterwards
//! every NAT lets its answers in. Then its other address and ports and the remaining servers are asked one by one for
//! the mapping. What says that a NAT maps differently is asked once more, since a mapping that just changed looks the
//! same; what says that a NAT is closed is believed only if the server is seen to answer from elsewhere once the NAT has
//! been opened, or, where no NAT could be opened so, if its other address is alive. Last, spare sockets show how ports
//! are allocated, and whether packets are turned around.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Allocation, CheckTopic, Filtering, Mapping};

use crate::{
    Socket,
    client::{Client, Heard, Query},
    hairpin::Hairpin,
    infer::{self, Observation, Samples},
    stun::Change,
    trial::{Reference, Trial, Verdict},
};

/// Why something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To meet a server, by its position.
    Contact(usize),
    /// To keep the mapping alive and see whether it is still the same.
    Refresh(usize),
    /// To compare mappings.
    Compare,
    /// To see a fresh mapping.
    Spare(u8),
    /// A filtering test.
    Trial { trial: u8, round: u8, change: Change },
    /// To see whether it comes back in.
    Hairpin,
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// Servers are being met from the tunnel's socket.
    Contact,
    /// The survey's own socket meets one of them.
    Meet,
    Filter(Trial),
    Map,
    Confirm,
    Prove(Trial),
    Spares(u8),
    Hairpin(Hairpin),
    Done,
}

/// The one question under way outside trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    None,
    Open,
    Answered,
    Silent,
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
    /// From which socket it is made, and that socket's port.
    pub(crate) socket: Socket,
    pub(crate) local_port: Option<u16>,
    /// Further sockets that have sent nothing yet, with their ports.
    pub(crate) spares: Vec<(Socket, u16)>,
    /// Whether the socket has sent nothing before.
    pub(crate) fresh: bool,
    /// Whether the router opened a port for the tunnel's socket, which then maps like no other.
    pub(crate) mapped: bool,
}

/// A measurement, and what it has found so far.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) terms: Terms,
    pub(crate) stage: Stage,
    pub(crate) question: Question,
    /// Servers that answered the tunnel's socket.
    contacts: Vec<SocketAddr>,
    /// Servers with a second address, and whether that one has been left alone so far.
    pub(crate) references: Vec<(Reference, bool)>,
    pub(crate) reference: Option<Reference>,
    pub(crate) trials: u8,
    /// What filtering is if the server's silence can be believed.
    pub(crate) closed: Option<Filtering>,
    pub(crate) asked: BTreeSet<SocketAddr>,
    /// One destination saw two mappings: what was seen does not belong together.
    torn: bool,
    pub(crate) observations: BTreeMap<SocketAddr, Observation>,
    /// What servers saw of the tunnel's socket, where that is another one.
    tunnel: BTreeMap<SocketAddr, Observation>,
    pub(crate) samples: Vec<Samples>,
    /// Outside addresses of the spare sockets.
    pub(crate) fresh: Vec<(Socket, SocketAddr)>,
    pub(crate) mapping: Option<Mapping>,
    pub(crate) filtering: Option<Filtering>,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) hairpin: Option<bool>,
    pub(crate) gaps: Vec<&'static str>,
}

impl Survey {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            stage: Stage::Contact,
            question: Question::None,
            contacts: Vec::new(),
            references: Vec::new(),
            reference: None,
            trials: 0,
            closed: None,
            asked: BTreeSet::new(),
            torn: false,
            observations: BTreeMap::new(),
            tunnel: BTreeMap::new(),
            samples: Vec::new(),
            fresh: Vec::new(),
            mapping: None,
            filtering: None,
            allocation: None,
            hairpin: None,
            gaps: Vec::new(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether a server was heard, so that there is something to do.
    pub(crate) fn has_begun(&self) -> bool {
        !self.contacts.is_empty()
    }

    /// What is being looked at.
    pub(crate) fn topic(&self) -> Option<CheckTopic> {
        match self.stage {
            Stage::Contact | Stage::Meet => Some(CheckTopic::Address),
            Stage::Filter(_) | Stage::Prove(_) => Some(CheckTopic::Filtering),
            Stage::Map | Stage::Confirm => Some(CheckTopic::Mapping),
            Stage::Spares(_) => Some(CheckTopic::Allocation),
            Stage::Hairpin(_) => Some(CheckTopic::Hairpin),
            Stage::Done => None,
        }
    }

    /// Makes the survey from sockets of its own, if it has not come further than to meet servers.
    pub(crate) fn lend(&mut self, sockets: &[(Socket, u16)]) {
        if let (Stage::Contact, [(socket, port), spares @ ..]) = (&self.stage, sockets) {
            self.terms.socket = *socket;
            self.terms.local_port = Some(*port);
            self.terms.spares = spares.to_vec();
            self.terms.fresh = true;
            self.asked.clear();
            self.tunnel.append(&mut self.observations);
            self.references.iter_mut().for_each(|(_, untouched)| *untouched = true);
        }
    }

    /// Notes that one of our sockets sends to somebody.
    pub(crate) fn note(&mut self, socket: Socket, destination: SocketAddr) {
        if socket == self.terms.socket {
            self.asked.insert(destination);
        }
    }

    /// Notes where a server saw one of our sockets.
    pub(crate) fn observe(&mut self, heard: &Heard<Purpose>) -> Continuity {
        let Some(seen) = observation(heard) else { return Continuity::Same };
        if !self.contacts.contains(&seen.destination) {
            self.contacts.push(seen.destination);
        }
        let own = heard.socket == self.terms.socket;
        let list = if own { &mut self.observations } else { &mut self.tunnel };
        let first = *list.entry(seen.destination).or_insert(seen);
        if first.reflexive != seen.reflexive {
            list.insert(seen.destination, seen);
            self.torn |= own;
            self.mapping = self.mapping.filter(|_| !own);
            return Continuity::Changed;
        }
        self.conclude_early(own);
        Continuity::Same
    }

    /// Independence shows as soon as two servers agree; a policy that a new observation contradicts was none.
    fn conclude_early(&mut self, own: bool) {
        let list = if own { &self.observations } else { &self.tunnel };
        let inferred = infer::mapping(&list.values().copied().collect::<Vec<_>>()).filter(|_| !self.torn);
        let independent = inferred == Some(Mapping::EndpointIndependent);
        let early = matches!(self.stage, Stage::Contact | Stage::Meet | Stage::Filter(_) | Stage::Map);
        if independent && (own || early && !self.terms.mapped) {
            self.mapping = inferred;
        } else if own && self.observations.len() > 1 && inferred != self.mapping {
            self.mapping = None;
        }
    }

    /// Notes a server with a second address. `untouched`: nothing has been sent there from this socket on this network.
    pub(crate) fn offer(&mut self, reference: Reference, untouched: bool) {
        let known = self.references.iter().any(|(known, _)| known.server == reference.server);
        if !known && self.references.len() < 4 {
            self.references.push((reference, untouched || self.terms.socket != Socket::Tunnel));
        }
    }

    /// Takes the answer to anything but a contact or refresh.
    pub(crate) fn heard(&mut self, heard: &Heard<Purpose>) -> Continuity {
        match heard.purpose {
            Purpose::Trial { trial, round, change } => {
                self.heard_in_trial(trial, round, change, heard.honoured && heard.answer.is_some());
            }
            Purpose::Compare => {
                self.question = if heard.answer.is_some() { Question::Answered } else { Question::Silent };
                return self.observe(heard);
            }
            Purpose::Spare(index) => {
                self.question = Question::Answered;
                self.sample(index, heard);
            }
            Purpose::Contact(_) | Purpose::Refresh(_) | Purpose::Hairpin => {}
        }
        Continuity::Same
    }

    /// Takes silence.
    pub(crate) fn silent(&mut self, purpose: Purpose) {
        if matches!(purpose, Purpose::Compare | Purpose::Spare(_)) {
            self.question = Question::Silent;
        }
    }

    /// A packet of ours to our own outside address came back in.
    pub(crate) fn turned_around(&mut self) {
        if let Stage::Hairpin(hairpin) = &mut self.stage {
            hairpin.arrived();
        }
    }

    /// Goes on as far as it can. `met`: no server's first answer is awaited any more.
    pub(crate) fn step(&mut self, now: Instant, met: bool, client: &mut Client<Purpose>) {
        while let Some(next) = self.next_stage(now, met, client) {
            self.stage = next;
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match &self.stage {
            Stage::Filter(trial) | Stage::Prove(trial) => trial.poll_timeout(now),
            Stage::Hairpin(hairpin) => Some(hairpin.poll_timeout()),
            _ => None,
        }
    }

    fn next_stage(&mut self, now: Instant, met: bool, client: &mut Client<Purpose>) -> Option<Stage> {
        let number = self.trials;
        match &mut self.stage {
            Stage::Contact => self.after_contact(now, met),
            Stage::Meet => self.meet(now, client),
            Stage::Filter(trial) => {
                trial.step(now, number, client);
                let verdict = trial.verdict(now)?;
                Some(self.after_filter(now, verdict))
            }
            Stage::Map => self.map(now, client),
            Stage::Confirm => self.confirm(now, client),
            Stage::Prove(trial) => {
                trial.step(now, number, client);
                let verdict = trial.verdict(now)?;
                self.believe(verdict == Verdict::Proven);
                Some(Stage::Spares(0))
            }
            Stage::Spares(next) => {
                let next = *next;
                self.ask_spare(now, next, client)
            }
            Stage::Hairpin(hairpin) => {
                let turned = hairpin.step(now, client)?;
                self.conclude_hairpin(turned);
                Some(Stage::Done)
            }
            Stage::Done => None,
        }
    }

    fn after_contact(&mut self, now: Instant, met: bool) -> Option<Stage> {
        let heard_of = met && !self.contacts.is_empty();
        if self.terms.socket != Socket::Tunnel {
            return (heard_of || !self.references.is_empty()).then_some(Stage::Meet);
        }
        let test = self.next_filter_test(now);
        if test.is_none() && heard_of {
            self.note_missing_reference();
        }
        test.or_else(|| heard_of.then_some(Stage::Map))
    }

    fn note_missing_reference(&mut self) {
        if self.references.is_empty() {
            self.gaps.push("no STUN server with two addresses: filtering cannot be tested");
        }
    }

    /// The survey's own socket asks the best server, so that the NAT knows it.
    fn meet(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<Stage> {
        let best = self.references.first().map(|(reference, _)| reference.server);
        match (self.question, best.or_else(|| self.contacts.first().copied())) {
            (Question::Open, _) => None,
            (Question::None, Some(server)) => {
                self.compare(now, server, client);
                None
            }
            _ => {
                self.question = Question::None;
                self.note_missing_reference();
                Some(self.next_filter_test(now).unwrap_or(Stage::Map))
            }
        }
    }

    /// Asks the reference's other addresses and then the other servers, one after the other so that the order of the
    /// allocations is known.
    fn map(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<Stage> {
        if self.question == Question::Open {
            return None;
        }
        let reference = self.reference.or_else(|| self.references.first().map(|(reference, _)| *reference));
        let others = reference.map(|r| [r.other_port(), r.other_address(), r.other]);
        let targets = others.into_iter().flatten().chain(self.contacts.iter().copied());
        let target = targets.into_iter().find(|target| !self.asked.contains(target));
        if let Some(target) = target {
            self.compare(now, target, client);
            return None;
        }
        self.question = Question::None;
        Some(Stage::Confirm)
    }

    /// Asks for the first mapping again if the others differed from it.
    fn confirm(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<Stage> {
        let inferred = self.inferred_mapping();
        match (self.question, self.first_seen()) {
            (Question::Open, _) => None,
            (Question::None, Some(first)) if inferred != Some(Mapping::EndpointIndependent) => {
                self.compare(now, first.destination, client);
                None
            }
            (question, _) => {
                self.mapping = inferred.filter(|_| question != Question::Silent);
                if self.mapping.is_none() {
                    self.gaps.push("mapping needs answers from two addresses and two ports");
                }
                self.question = Question::None;
                Some(self.prove(now))
            }
        }
    }

    fn compare(&mut self, now: Instant, destination: SocketAddr, client: &mut Client<Purpose>) {
        let socket = self.terms.socket;
        self.note(socket, destination);
        self.question = Question::Open;
        client.ask(now, plain(socket, destination, Purpose::Compare, self.terms.patience));
    }

    pub(crate) fn first_seen(&self) -> Option<Observation> {
        self.observations.values().min_by_key(|o| o.asked).copied()
    }

    fn inferred_mapping(&self) -> Option<Mapping> {
        let seen: Vec<_> = self.observations.values().copied().collect();
        infer::mapping(&seen).filter(|_| !self.torn)
    }
}

pub(crate) fn plain(
    socket: Socket,
    destination: SocketAddr,
    purpose: Purpose,
    patience: Duration,
) -> Query<Purpose> {
    Query { socket, destination, change: Change::Nothing, expected: destination, purpose, patience }
}

pub(crate) fn observation(heard: &Heard<Purpose>) -> Option<Observation> {
    let &Heard { destination, asked, answered, answer, .. } = heard;
    answer.map(|answer| Observation { destination, reflexive: answer.mapped, asked, answered })
}
