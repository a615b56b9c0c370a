//! The machine that asks, measures and keeps watch.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use partyline_model::{NatProfile, SocketId};

use crate::{
    Config, Event, StunServer, Transmit,
    client::{Client, Heard},
    history::History,
    kept::Kept,
    lending::Idle,
    servers::{Family, Servers, State},
    survey::{Continuity, Meeting, Purpose, Survey, Terms},
    trial::Reference,
};

const MOST_LOCAL: usize = 32;
const MAX_PROBE_SOCKETS: usize = 8;
/// Measures the NAT, and watches the mapping of the tunnel's socket.
///
/// Where no sockets are lent, let it speak before anybody else does: a NAT that preserves ports, or that filters, is
/// best told by a socket that has sent nothing yet.
#[derive(Debug)]
pub struct Netcheck {
    pub(crate) config: Config,
    pub(crate) client: Client<Purpose>,
    history: History,
    pub(crate) servers: Servers,
    pub(crate) local: Vec<SocketAddr>,
    /// Sockets that are open and were not used by a measurement yet, with the ports they are bound to.
    pub(crate) probe_sockets: Vec<(SocketId, u16)>,
    pub(crate) router: Option<IpAddr>,
    pub(crate) kept: Kept,
    pub(crate) online: bool,
    /// Addresses where a server answers over TCP.
    pub(crate) reachable: BTreeSet<IpAddr>,
    pub(crate) needed: bool,
    /// Whether there are members who could send a packet for us.
    pub(crate) observers: bool,
    /// Over IPv4 and over IPv6.
    pub(crate) surveys: [Survey; 2],
    pub(crate) idle: Idle,
    /// Sockets that were asked for, and are awaited or in use.
    pub(crate) requested: Vec<SocketId>,
    pub(crate) surveyed: Instant,
    sent_before: u32,
    /// When the measurement ended, and how many datagrams it took.
    pub(crate) finished: Option<(Instant, u32)>,
    pub(crate) resurveys: u32,
    /// When the survey wants to go on.
    wake: Option<Instant>,
    pub(crate) refresh: Option<Instant>,
    pub(crate) profile: NatProfile,
    pub(crate) told_profile: NatProfile,
    pub(crate) told_reflexive: Vec<SocketAddr>,
    pub(crate) events: VecDeque<Event>,
}

impl Netcheck {
    /// A machine that does nothing until it has servers. `seed` makes transaction ids and jitter.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32], config: Config) -> Self {
        Self {
            config,
            client: Client::new(seed),
            history: History::default(),
            servers: Servers::default(),
            local: Vec::new(),
            probe_sockets: Vec::new(),
            router: None,
            kept: Kept::default(),
            online: false,
            reachable: BTreeSet::new(),
            needed: true,
            observers: false,
            surveys: Family::BOTH.map(|_| Survey::new(Terms::default())),
            idle: Idle::default(),
            requested: Vec::new(),
            surveyed: now,
            sent_before: 0,
            finished: None,
            resurveys: 0,
            wake: None,
            refresh: None,
            profile: NatProfile::default(),
            told_profile: NatProfile::default(),
            told_reflexive: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Replaces the list of servers, best first; at most 16 are used. Other servers than before restart the
    /// measurement.
    pub fn set_servers(&mut self, now: Instant, servers: Vec<StunServer>) {
        let servers = Servers::new(now, servers);
        // Names are looked up in another order every time, which is no reason to measure again.
        if servers.names() != self.servers.names() {
            self.servers = servers;
            self.client.forget_logins();
            self.client.add_logins(self.servers.logins());
            self.measure(now);
        }
    }

    /// Tells the tunnel socket's own addresses (each interface's address with the socket's port). A change means
    /// another network and restarts everything.
    pub fn set_local_addresses(&mut self, now: Instant, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_LOCAL);
        if addresses != self.local {
            self.history.enter(&addresses);
            self.local = addresses;
            self.restart(now);
        }
    }

    /// Forgets what is known and measures again, as after a move to another network.
    pub fn restart(&mut self, now: Instant) {
        self.resurveys = 0;
        self.profile = NatProfile::default();
        self.idle = Idle::default();
        self.kept = Kept::default();
        self.servers.forget();
        self.measure(now);
    }

    /// Measures again because somebody wants to know; what is known stays until it is contradicted.
    pub fn remeasure(&mut self, now: Instant) {
        self.resurveys = 0;
        self.measure(now);
    }

    /// Measures the policies or not from now on, whatever [`Config::enabled`] said. What was measured is forgotten when
    /// that is switched off.
    pub fn set_enabled(&mut self, now: Instant, enabled: bool) {
        if self.config.enabled != enabled {
            self.config.enabled = enabled;
            self.close_probe_sockets();
            self.remeasure(now);
        }
    }

    /// Takes sockets that have sent nothing yet with the ports they are bound to (`None` for a socket that could not
    /// be opened), at most 8. The first makes the measurement, the others show how ports are allocated. To be called in
    /// answer to [`Event::OpenProbeSockets`], or before [`Netcheck::set_servers`] or [`Netcheck::restart`]; each
    /// measurement needs new ones.
    pub fn probe_sockets_opened(&mut self, now: Instant, opened: &[(SocketId, Option<u16>)]) {
        let bound = opened.iter().filter_map(|(id, port)| Some((*id, (*port)?)));
        self.probe_sockets = bound.take(MAX_PROBE_SOCKETS).collect();
        if !self.requested.is_empty() {
            self.lend();
            self.advance(now);
        }
    }

    /// Tells whether servers are reachable otherwise (over TCP). Without that, silence is not called blocked UDP.
    pub fn set_online(&mut self, now: Instant, online: bool) {
        if self.online != online {
            self.online = online;
            self.advance(now);
        }
    }

    /// Tells at which addresses servers answer over TCP or TLS: if those are silent over UDP, it is not because they
    /// are dead.
    pub fn set_tcp_reachable(&mut self, now: Instant, addresses: impl IntoIterator<Item = IpAddr>) {
        let reachable = addresses.into_iter().collect();
        if self.reachable != reachable {
            self.reachable = reachable;
            self.advance(now);
        }
    }

    /// Tells the router's external address as port mapping learned it; `None` while no port is mapped.
    pub fn set_router_address(&mut self, now: Instant, external: Option<IpAddr>) {
        self.router = external;
        self.note_mapped();
        self.advance(now);
    }

    /// A socket that the router treats in a way of its own shows nothing of how it treats others.
    pub(crate) fn note_mapped(&mut self) {
        let mapped = self.is_mapped();
        self.surveys.iter_mut().for_each(|survey| survey.terms.mapped = mapped);
    }

    fn is_mapped(&self) -> bool {
        self.router.is_some() || self.kept.any()
    }

    /// Whether the mapping must be kept alive (default: yes).
    pub fn set_keepalive(&mut self, now: Instant, needed: bool) {
        self.needed = needed;
        self.schedule_refresh(now);
    }

    /// Takes a datagram. True if it was an answer to us, or pretended to be one: then nobody else wants it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        if self.client.echoed(socket, bytes) == Some(Purpose::Hairpin) {
            self.surveys[Family::of(source) as usize].turned_around();
            self.advance(now);
            return true;
        }
        if let Some(Purpose::Knock(index)) = self.client.forwarded(socket, source, bytes) {
            self.idle.arrived(socket, index);
            self.advance(now);
            return true;
        }
        if self.observed(now, socket, source, bytes) {
            self.advance(now);
            return true;
        }
        let Some(outcome) = self.client.handle(now, socket, source, bytes) else { return false };
        if let Some(heard) = outcome {
            self.heard(now, &heard);
            self.advance(now);
        }
        true
    }

    /// To be called when the moment of [`Netcheck::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (destination, purpose) in self.client.handle_timeout(now) {
            match purpose {
                Purpose::Contact(index) | Purpose::Refresh(index) => {
                    self.servers.settle(now, index, State::Silent);
                    self.events.push_back(Event::ServerTimedOut(destination));
                }
                Purpose::Greet(index) => self.idle.unseen(index),
                other => self.survey(destination).silent(other),
            }
        }
        if self.refresh.is_some_and(|at| at <= now) {
            self.refresh(now);
        }
        self.advance(now);
    }

    /// The moment of the next [`Netcheck::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.wake, self.client.poll_timeout(), self.servers.poll_timeout(), self.refresh]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.client.poll_transmit()?;
        if transmit.socket == SocketId::MAIN {
            self.history.note(transmit.destination);
        }
        Some(transmit)
    }

    /// The next thing learned or wanted.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Starts a measurement; what is known stays until it is contradicted.
    pub(crate) fn measure(&mut self, now: Instant) {
        self.client.clear();
        self.servers.restart(now);
        self.servers.v4_only = !self.local.is_empty() && self.local.iter().all(SocketAddr::is_ipv4);
        let local_port = self.local.first().map(SocketAddr::port).filter(|port| *port != 0);
        let fresh = self.history.is_fresh();
        let terms = Terms {
            patience: self.config.response_timeout,
            local: self.local.iter().map(SocketAddr::ip).collect(),
            local_port,
            fresh,
            mapped: self.is_mapped(),
            observers: self.observers,
        };
        self.surveys = Family::BOTH.map(|_| Survey::new(terms.clone()));
        self.idle.stop();
        (self.surveyed, self.sent_before, self.finished) = (now, self.client.sent, None);
        self.borrow();
        self.schedule_refresh(now);
        self.advance(now);
    }

    pub(crate) fn survey(&mut self, peer: SocketAddr) -> &mut Survey {
        &mut self.surveys[Family::of(peer) as usize]
    }

    fn heard(&mut self, now: Instant, heard: &Heard<Purpose>) {
        let continuity = match heard.purpose {
            Purpose::Contact(index) | Purpose::Refresh(index) => self.heard_server(now, index, heard),
            Purpose::Greet(_) | Purpose::Knock(_) => self.idle.heard(now, heard),
            _ => self.survey(heard.destination).heard(now, heard),
        };
        if continuity == Continuity::Changed {
            self.kept.changed(heard.destination, heard.answer.map(|answer| answer.mapped));
            self.resurvey(now);
        }
    }

    fn heard_server(&mut self, now: Instant, index: usize, heard: &Heard<Purpose>) -> Continuity {
        if heard.elsewhere.is_some_and(|to| self.servers.redirect(now, index, to)) {
            self.client.add_logins(self.servers.logins());
            return Continuity::Same;
        }
        let state = if heard.answer.is_some() { State::Answered } else { State::Silent };
        let Some(server) = self.servers.settle(now, index, state) else { return Continuity::Same };
        let Some(answer) = heard.answer else { return Continuity::Same };
        server.report.reflexive = Some(answer.mapped);
        server.report.other_address = answer.other;
        server.report.rtt = heard.rtt.or(server.report.rtt);
        self.client.add_logins(self.servers.logins());
        let survey = &mut self.surveys[Family::of(heard.destination) as usize];
        if self.finished.is_some() && !survey.has_begun() {
            // The measurement ended without this family; its sockets are gone.
            return Continuity::Changed;
        }
        if let Some(other) = answer.other.filter(|_| !survey.is_done()) {
            let rtt = heard.answered.saturating_duration_since(heard.asked);
            let reference = Reference { server: heard.destination, other, rtt: heard.rtt.unwrap_or(rtt) };
            survey.offer(reference, self.history.untouched(&reference));
        }
        survey.observe(heard)
    }

    /// Does whatever can be done now and tells what changed.
    pub(crate) fn advance(&mut self, now: Instant) {
        let most = self.most();
        for family in Family::BOTH {
            while let Some(index) = self.servers.next(now, family, most) {
                self.ask_server(now, index, Purpose::Contact(index));
            }
        }
        if self.config.enabled {
            for (family, survey) in Family::BOTH.into_iter().zip(&mut self.surveys) {
                let met = self.servers.is_met(now, family, most);
                let asked = self.servers.is_asked(family, most);
                survey.step(now, Meeting { met, asked }, &mut self.client);
            }
            let errands = self.surveys.iter_mut().filter_map(|survey| survey.errand.take());
            self.events.extend(errands.map(Event::RequestFilteringProbe));
            let rounds = self.surveys.iter_mut().filter_map(|survey| survey.round.take());
            self.events.extend(rounds.map(Event::RequestProbeRound));
            self.finish(now);
            self.measure_idle(now);
            self.wake = self.next_step(now);
        }
        self.update_profile();
        self.tell();
    }

    /// How many servers of a family are asked.
    pub(crate) const fn most(&self) -> usize {
        if self.config.enabled { usize::MAX } else { 1 }
    }

    fn next_step(&self, now: Instant) -> Option<Instant> {
        let waiting = self.finished.is_none();
        let grace = self.servers.grace(now).filter(|_| waiting);
        let surveys = self.surveys.iter().filter_map(|survey| survey.poll_timeout(now));
        surveys.chain(grace).chain(self.idle.poll_timeout()).min()
    }

    /// Datagrams sent for the present measurement.
    pub(crate) const fn packets(&self) -> u32 {
        self.client.sent - self.sent_before
    }
}
