//! A member with two ports as the judge of filtering, where no server can answer from elsewhere.
//!
//! It sends from both ports of its one address to two of our sockets at a time: to one, *opened*, that has sent to its
//! first port only, and to the other, *untouched*, that has sent to nobody but a server. What comes in tells the
//! filter: from the second port to the opened socket, it asks for addresses at most; if not, for ports too.
//!
//! What does not come in means something only if all else is excluded. That packets are lost: the first port's come to
//! the opened socket in the same rounds, ten more than were lost ([`crate::trial`]). That our mapping is gone: a server
//! sees it before and after. That the member's own NAT sends the packets from elsewhere, or not at all: at last the NAT
//! is opened for exactly what was missed, and then it has to come, from exactly where it was announced, ten times more
//! often than it does not. Whatever does not fit leaves filtering unknown. Only a NAT whose mappings are the same for
//! everybody is judged: with others, the member would have to send to where only a server is let in.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Filtering, Mapping, SocketId};

use crate::{
    Netcheck, PortPair, ProbeRound,
    client::Client,
    observer::is_far,
    servers::Family,
    stun::Id,
    survey::{Purpose, Survey},
};

const PACE: Duration = Duration::from_millis(30);
/// Packets to have beyond those that were lost.
const LEAD: i32 = 10;
const MOST_ROUNDS: usize = 50;
/// How long a round's packets may take, until some have shown it.
const FIRST_SETTLE: Duration = Duration::from_millis(1200);
/// How much longer than twice what others took.
const SPARE_TIME: Duration = Duration::from_millis(150);

/// What came of one round.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    /// From the first port to the opened socket.
    control: bool,
    /// From the second port to the opened socket.
    second: bool,
    /// From the first port to the untouched socket.
    stranger: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A server is to see both mappings: so many answers are awaited.
    Seeing {
        open: u8,
        then: After,
    },
    Measuring,
    /// What was missed has to come now.
    Proving(Filtering),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Measuring,
    Proving(Filtering),
}

/// One of our sockets, as a server sees it.
#[derive(Debug, Clone, Copy)]
struct End {
    socket: SocketId,
    seen: SocketAddr,
    by: SocketAddr,
}

/// The test.
#[derive(Debug)]
pub(crate) struct PairTest {
    pair: PortPair,
    opened: End,
    untouched: End,
    phase: Phase,
    token: Id,
    rounds: Vec<Sent>,
    next: Instant,
    slowest: Option<Duration>,
    /// Something came that fits no filter.
    odd: bool,
}

impl PairTest {
    /// A server's answer about a mapping, or its silence.
    pub(crate) fn seen(&mut self, answered: bool) {
        self.odd |= !answered;
        if let Phase::Seeing { open, .. } = &mut self.phase {
            *open = open.saturating_sub(1);
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let settling = self.rounds.iter().map(|round| round.at + self.settle()).find(|at| *at > now);
        let sending =
            (!matches!(self.phase, Phase::Seeing { .. }) && self.wants_round(now)).then_some(self.next);
        [settling, sending].into_iter().flatten().min()
    }

    /// Takes a packet with a round's token; false if it is none.
    fn arrived(&mut self, now: Instant, socket: SocketId, source: SocketAddr, token: Id) -> bool {
        let number = token[11] ^ self.token[11];
        if token[..11] != self.token[..11] || usize::from(number) >= self.rounds.len() {
            return false;
        }
        let round = &mut self.rounds[usize::from(number)];
        self.slowest = self.slowest.max(Some(now.saturating_duration_since(round.at)));
        let untouched = socket == self.untouched.socket && source.ip() == self.pair.first.ip();
        match self.phase {
            _ if socket == self.opened.socket && source == self.pair.first => round.control = true,
            _ if socket == self.opened.socket && source == self.pair.second => round.second = true,
            Phase::Proving(_) if untouched => round.stranger |= source == self.pair.first,
            // Who was not sent to is let in after all, which nobody noticed before.
            _ if untouched => self.odd = true,
            _ => {}
        }
        true
    }

    /// How many more packets of a kind came than were lost, of the rounds that are over; `hoped`: if those under way
    /// turn out well.
    fn lead(&self, now: Instant, hoped: bool, kind: impl Fn(&Sent) -> bool) -> i32 {
        let count = |round: &Sent| match (round.at + self.settle() <= now, kind(round)) {
            (_, true) => 1,
            (true, false) => -1,
            (false, false) => i32::from(hoped),
        };
        self.rounds.iter().map(count).sum()
    }

    /// What has to come in this phase.
    fn wanted(&self) -> fn(&Sent) -> bool {
        match self.phase {
            Phase::Proving(Filtering::AddressDependent) => |round| round.stranger,
            Phase::Proving(_) => |round| round.second,
            Phase::Measuring | Phase::Seeing { .. } => |round| round.control,
        }
    }

    fn wants_round(&self, now: Instant) -> bool {
        self.rounds.len() < MOST_ROUNDS && self.lead(now, true, self.wanted()) < LEAD
    }

    fn is_over(&self, now: Instant) -> bool {
        !self.wants_round(now) && self.rounds.iter().all(|round| round.at + self.settle() <= now)
    }

    fn settle(&self) -> Duration {
        self.slowest.map_or(FIRST_SETTLE, |slowest| (slowest * 2 + SPARE_TIME).min(FIRST_SETTLE))
    }

    fn number(&self) -> Id {
        let mut token = self.token;
        token[11] ^= self.rounds.len() as u8;
        token
    }

    fn begin(&mut self, phase: Phase, token: Id) {
        (self.phase, self.token, self.slowest) = (phase, token, None);
        self.rounds.clear();
    }
}

/// What a step came to.
pub(crate) enum Step {
    Waits,
    Moved,
    /// It is over; whether with a verdict.
    Over(Option<Filtering>),
}

impl Netcheck {
    /// Takes the two ports that a member lends, in answer to [`crate::Event::RequestFilteringProbe`]. Useless ones are passed
    /// over.
    pub fn set_port_pair(&mut self, now: Instant, pair: PortPair) {
        let survey = &mut self.surveys[Family::V4 as usize];
        if survey.is_fit(pair) {
            survey.filtering.pair = Some(pair);
            self.advance(now);
        }
    }
}

impl Survey {
    /// Whether a member's ports can tell anything: two of one address, which is far from ours and no server's.
    fn is_fit(&self, PortPair { first, second }: PortPair) -> bool {
        let Some(seen) = self.seen_of(self.roles.filtering).first().map(|seen| seen.reflexive) else {
            return false;
        };
        let strange = !self.contacts.iter().any(|server| server.ip() == first.ip());
        let two = first.ip() == second.ip() && first.port() != second.port();
        two && strange && first.is_ipv4() && is_far(first, seen)
    }

    /// Whether the test may still begin: the others have to end first, since they must not be disturbed.
    pub(crate) fn awaits_pair(&self) -> bool {
        let others = self.mapping.is_done() && self.ports.is_done() && self.hairpin.is_done();
        self.filtering.pair.is_some() && !others
    }

    /// The test with the ports that a member lends, if all is there for it.
    pub(crate) fn pair_test(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<PairTest> {
        let ready = self.mapping.is_done() && self.ports.is_done() && self.hairpin.is_done();
        let independent = self.found.mapping == Some(Mapping::EndpointIndependent);
        let pair = self.filtering.pair.filter(|_| ready && independent && !self.torn)?;
        let touched = |socket: &SocketId| self.asked_by(*socket).any(|asked| asked.ip() == pair.first.ip());
        let end = |socket: SocketId| {
            let first = self.seen_of(socket).first().copied().filter(|_| !touched(&socket))?;
            Some(End { socket, seen: first.reflexive, by: first.destination })
        };
        let (opened, untouched) =
            (end(self.roles.filtering)?, self.roles.fresh.iter().copied().find_map(end)?);
        let phase = Phase::Seeing { open: 2, then: After::Measuring };
        let test = PairTest {
            pair,
            opened,
            untouched,
            phase,
            token: client.token(),
            rounds: Vec::new(),
            next: now,
            slowest: None,
            odd: false,
        };
        self.see(now, &test, client);
        Some(test)
    }

    fn see(&mut self, now: Instant, test: &PairTest, client: &mut Client<Purpose>) {
        for End { socket, by, .. } in [test.opened, test.untouched] {
            self.ask(now, (socket, by), Purpose::Alive, client);
        }
    }

    pub(crate) fn step_pair(
        &mut self,
        now: Instant,
        test: &mut PairTest,
        client: &mut Client<Purpose>,
    ) -> Step {
        if test.odd || self.found.mapping != Some(Mapping::EndpointIndependent) {
            return Step::Over(None);
        }
        match test.phase {
            Phase::Seeing { open: 0, then } => {
                let phase = match then {
                    After::Measuring => Phase::Measuring,
                    After::Proving(filtering) => Phase::Proving(filtering),
                };
                test.begin(phase, client.token());
                test.next = now;
                Step::Moved
            }
            Phase::Seeing { .. } => Step::Waits,
            Phase::Measuring | Phase::Proving(_) if test.is_over(now) => self.after_rounds(now, test, client),
            Phase::Measuring | Phase::Proving(_) => {
                if test.wants_round(now) && test.next <= now {
                    self.send_round(now, test, client);
                }
                Step::Waits
            }
        }
    }

    /// Opens the NAT for what may come, and lets the member send.
    fn send_round(&mut self, now: Instant, test: &mut PairTest, client: &mut Client<Purpose>) {
        let (opened, untouched, PortPair { first, second }) =
            (test.opened.socket, test.untouched.socket, test.pair);
        let missed = match test.phase {
            Phase::Proving(Filtering::AddressDependent) => Some((untouched, first)),
            Phase::Proving(_) => Some((opened, second)),
            Phase::Measuring | Phase::Seeing { .. } => None,
        };
        for (socket, to) in [Some((opened, first)), missed].into_iter().flatten() {
            self.note(socket, to);
            client.indicate(socket, to);
        }
        self.round = Some(ProbeRound { to: [test.opened.seen, test.untouched.seen], token: test.number() });
        test.rounds.push(Sent { at: now, control: false, second: false, stranger: false });
        test.next = now + PACE;
    }

    fn after_rounds(&mut self, now: Instant, test: &mut PairTest, client: &mut Client<Purpose>) -> Step {
        if test.lead(now, false, test.wanted()) < LEAD {
            return Step::Over(None);
        }
        if let Phase::Proving(filtering) = test.phase {
            return Step::Over(Some(filtering));
        }
        let filtering = if test.rounds.iter().any(|round| round.second) {
            Filtering::AddressDependent
        } else {
            Filtering::AddressAndPortDependent
        };
        test.begin(Phase::Seeing { open: 2, then: After::Proving(filtering) }, client.token());
        self.see(now, test, client);
        Step::Moved
    }

    /// Takes a packet that a member may have sent from the ports it lends.
    pub(crate) fn arrived(&mut self, now: Instant, socket: SocketId, source: SocketAddr, token: Id) -> bool {
        self.filtering.pair_test().is_some_and(|test| test.arrived(now, socket, source, token))
    }
}
