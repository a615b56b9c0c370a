//! The list of servers, and whom to ask next.
//!
//! Servers are met one after the other: the next as soon as one has answered, or after a moment of silence, so that
//! the first answer comes soon and the order of the NAT's allocations is known. A server with several names or
//! addresses is met once: its other address must be left alone until filtering is tested.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{ServerReport, StunCredentials, StunServer};

/// Servers kept, and how many of one family are met.
const MOST_SERVERS: usize = 16;
const MOST_MET: usize = 4;
/// How often one server may send us elsewhere.
const MOST_REDIRECTIONS: usize = 3;
/// How long the next server waits for the one before.
const STAGGER: Duration = Duration::from_millis(200);
/// How long one that may be dead keeps the others' measurement waiting.
const GRACE: Duration = Duration::from_secs(1);

/// How far we are with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Unasked,
    Asked,
    Answered,
    Silent,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) report: ServerReport,
    pub(crate) state: State,
    credentials: Option<StunCredentials>,
    /// Where it was before it sent us elsewhere.
    left: Vec<SocketAddr>,
    asked: Option<Instant>,
}

/// The address family of a group of servers that are met side by side with those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// All servers, best first.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    pub(crate) list: Vec<Server>,
    due: [Option<Instant>; 2],
    /// Without an IPv6 address of its own, the computer reaches no IPv6 server.
    pub(crate) v4_only: bool,
}

impl Servers {
    pub(crate) fn new(now: Instant, servers: Vec<StunServer>) -> Self {
        let mut known = BTreeSet::new();
        let distinct = servers.into_iter().filter(|s| s.address.port() != 0 && known.insert(s.address));
        let list = distinct.take(MOST_SERVERS).map(Server::new).collect();
        Self { list, due: [Some(now); 2], v4_only: false }
    }

    /// Who they are, whatever their order.
    pub(crate) fn names(&self) -> BTreeSet<(&str, SocketAddr)> {
        self.list
            .iter()
            .map(|s| (s.report.name.as_str(), *s.left.first().unwrap_or(&s.report.address)))
            .collect()
    }

    /// Starts over with everybody.
    pub(crate) fn restart(&mut self, now: Instant) {
        for server in &mut self.list {
            server.state = State::Unasked;
        }
        self.due = [Some(now); 2];
    }

    /// Forgets what servers said, since it was said of another network.
    pub(crate) fn forget(&mut self) {
        for server in &mut self.list {
            server.report =
                ServerReport { rtt: None, reflexive: None, timed_out: false, ..server.report.clone() };
        }
    }

    /// Gives those that were silent another chance.
    pub(crate) fn retry_silent(&mut self, now: Instant) {
        let silent = self.list.iter_mut().filter(|s| s.state == State::Silent);
        silent.for_each(|server| server.state = State::Unasked);
        self.due = [Some(now); 2];
    }

    /// The next server of a family to ask, if its time has come; it counts as asked from now on.
    pub(crate) fn next(&mut self, now: Instant, family: Family, most: usize) -> Option<usize> {
        let due = &mut self.due[family as usize];
        due.filter(|due| *due <= now)?;
        *due = None;
        let next = self.candidate(family, most)?;
        self.list[next].state = State::Asked;
        self.list[next].asked = Some(now);
        self.due[family as usize] = Some(now + STAGGER);
        Some(next)
    }

    /// Notes that a server has answered or gone silent, which makes the next one due.
    pub(crate) fn settle(&mut self, now: Instant, index: usize, state: State) -> Option<&mut Server> {
        let server = self.list.get_mut(index)?;
        server.state = state;
        server.report.timed_out = state == State::Silent;
        if server.report.timed_out {
            server.report.reflexive = None;
        }
        self.due[Family::of(server.report.address) as usize] = Some(now);
        Some(server)
    }

    /// Follows a server that sends us elsewhere (RFC 8489, section 10), but never in a circle. False if it is not
    /// followed.
    pub(crate) fn redirect(&mut self, now: Instant, index: usize, to: SocketAddr) -> bool {
        let taken = self.list.iter().any(|server| server.report.address == to || server.left.contains(&to));
        let Some(server) = self.list.get_mut(index) else { return false };
        let followed = !taken && server.left.len() < MOST_REDIRECTIONS;
        if followed {
            server.left.push(std::mem::replace(&mut server.report.address, to));
            server.state = State::Unasked;
            self.due[Family::of(to) as usize] = Some(now);
        }
        followed
    }

    /// What to say at which address: where servers are, and where they say that they are too.
    pub(crate) fn logins(&self) -> impl Iterator<Item = (IpAddr, &StunCredentials)> {
        self.list.iter().flat_map(|server| {
            let addresses = [Some(server.report.address), server.report.other_address].into_iter().flatten();
            server.credentials.iter().flat_map(move |login| addresses.clone().map(move |at| (at.ip(), login)))
        })
    }

    /// Whether nobody of a family is left to ask, or worth waiting for since others have answered.
    pub(crate) fn is_met(&self, now: Instant, family: Family, most: usize) -> bool {
        let answered = self.answering(family).is_some();
        let awaited = |s: &Server| {
            s.state == State::Asked && !(answered && s.asked.is_some_and(|at| at + GRACE <= now))
        };
        self.candidate(family, most).is_none() && !self.of(family).any(|(_, s)| awaited(s))
    }

    /// Whether nobody new of a family will be asked.
    pub(crate) fn is_asked(&self, family: Family, most: usize) -> bool {
        self.candidate(family, most).is_none()
    }

    /// Whether a family's servers have had their chance, though not all of their patience is over.
    pub(crate) fn is_spent(&self, now: Instant, family: Family, most: usize) -> bool {
        let awaited = |s: &Server| s.state == State::Asked && s.asked.is_some_and(|at| at + 2 * GRACE > now);
        self.candidate(family, most).is_none() && !self.of(family).any(|(_, s)| awaited(s))
    }

    /// When somebody who was asked is no longer waited for.
    pub(crate) fn grace(&self, now: Instant) -> Option<Instant> {
        let asked = self.list.iter().filter(|s| s.state == State::Asked).filter_map(|s| s.asked);
        asked.flat_map(|at| [at + GRACE, at + 2 * GRACE]).filter(|at| *at > now).min()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.into_iter().flatten().min()
    }

    /// The best server of a family that answered.
    pub(crate) fn answering(&self, family: Family) -> Option<(usize, &Server)> {
        self.of(family).find(|(_, server)| server.state == State::Answered)
    }

    pub(crate) fn any_answers(&self) -> bool {
        self.list.iter().any(|server| server.state == State::Answered)
    }

    /// Whether everybody was asked in vain. Being asked once more does not make a server less silent.
    pub(crate) fn all_silent(&self, most: usize) -> bool {
        let tried = |s: &Server| s.report.timed_out || s.state == State::Unasked;
        let left =
            |family| self.candidate(family, most).is_some_and(|index| !self.list[index].report.timed_out);
        let silent = self.list.iter().any(|server| server.report.timed_out);
        silent && self.list.iter().all(tried) && !Family::BOTH.into_iter().any(left)
    }

    /// The addresses of those that were asked in vain.
    pub(crate) fn silent(&self) -> BTreeSet<IpAddr> {
        self.list.iter().filter(|s| s.report.timed_out).map(|s| s.report.address.ip()).collect()
    }

    fn of(&self, family: Family) -> impl Iterator<Item = (usize, &Server)> {
        self.list.iter().enumerate().filter(move |(_, s)| Family::of(s.report.address) == family)
    }

    fn candidate(&self, family: Family, most: usize) -> Option<usize> {
        let met = |s: &Server| matches!(s.state, State::Asked | State::Answered);
        let others: BTreeSet<IpAddr> =
            self.of(family).filter_map(|(_, s)| s.report.other_address.map(|o| o.ip())).collect();
        let answered = self.of(family).filter(|(_, s)| s.state == State::Answered).count();
        let same_machine = |name: &str| self.of(family).any(|(_, s)| met(s) && s.report.name == name);
        let wanted = |s: &Server| {
            s.state == State::Unasked
                && !others.contains(&s.report.address.ip())
                && !same_machine(&s.report.name)
        };
        if answered >= most.min(MOST_MET) || (self.v4_only && family == Family::V6) {
            return None;
        }
        self.of(family).find(|(_, server)| wanted(server)).map(|(index, _)| index)
    }
}

impl Server {
    fn new(server: StunServer) -> Self {
        let StunServer { name, address, credentials } = server;
        let report =
            ServerReport { name, address, rtt: None, reflexive: None, other_address: None, timed_out: false };
        Self { report, state: State::Unasked, credentials, left: Vec::new(), asked: None }
    }
}
