//! The list of servers, and which one to contact next.
//!
//! Servers are contacted one after the other: the next one as soon as one has responded, or after a moment of silence, so
//! that the first response comes soon and the order of the NAT's allocations is known. A server with several names or
//! addresses is contacted once: its other address must be left alone until filtering is tested.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tracing::debug;

use crate::{
    address::Family,
    api::{ServerReport, StunCredentials, StunServer},
    context::ContactProgress,
};

const MAX_SERVERS: usize = 16;
/// Servers of one family that are contacted, if they respond.
const MAX_CONTACTS: usize = 4;
/// Redirections of one server that are followed.
const MAX_REDIRECTIONS: usize = 3;
/// The pause before the next server is contacted while one has not responded.
const CONTACT_INTERVAL: Duration = Duration::from_millis(200);
/// How long a server that does not respond holds up the measurement with the others.
const CONTACT_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Contacted,
    Responded,
    TimedOut,
}

#[derive(Debug)]
struct Server {
    report: ServerReport,
    state: State,
    credentials: Option<StunCredentials>,
    /// Its addresses before it redirected the client.
    former: Vec<SocketAddr>,
    contacted_at: Option<Instant>,
}

/// All servers, best first.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    list: Vec<Server>,
    /// When the next server of each family is due.
    due: [Option<Instant>; 2],
    /// Without an IPv6 address of its own, this computer reaches no IPv6 server.
    pub(crate) v4_only: bool,
    /// The number of servers of each family to contact.
    pub(crate) limit: usize,
}

impl Servers {
    pub(crate) fn new(now: Instant, servers: Vec<StunServer>, limit: usize) -> Self {
        let mut known = BTreeSet::new();
        let distinct = servers.into_iter().filter(|s| s.address.port() != 0 && known.insert(s.address));
        let list = distinct.take(MAX_SERVERS).map(Server::new).collect();
        Self { list, due: [Some(now); 2], v4_only: false, limit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the servers' names and configured addresses, whatever their order.
    pub(crate) fn identities(&self) -> BTreeSet<(&str, SocketAddr)> {
        let configured = |s: &Server| *s.former.first().unwrap_or(&s.report.address);
        self.list.iter().map(|s| (s.report.name.as_str(), configured(s))).collect()
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = &ServerReport> {
        self.list.iter().map(|server| &server.report)
    }

    pub(crate) fn address(&self, index: usize) -> Option<SocketAddr> {
        self.list.get(index).map(|server| server.report.address)
    }

    /// Contacts all servers again.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.list.iter_mut().for_each(|server| server.state = State::Idle);
        self.due = [Some(now); 2];
    }

    /// Forgets what servers responded on another network.
    pub(crate) fn forget_responses(&mut self) {
        for Server { report, .. } in &mut self.list {
            (report.rtt, report.reflexive, report.timed_out) = (None, None, false);
        }
    }

    /// Contacts the servers that timed out once more.
    pub(crate) fn retry_timed_out(&mut self, now: Instant) {
        for server in self.list.iter_mut().filter(|s| s.state == State::TimedOut) {
            debug!(server = %server.report.address, reason = "no server responds", "server is contacted again");
            server.state = State::Idle;
        }
        self.due = [Some(now); 2];
    }

    /// Returns the next server of a family to contact, if it is due; it counts as contacted from now on.
    pub(crate) fn next(&mut self, now: Instant, family: Family) -> Option<usize> {
        let due = &mut self.due[family as usize];
        due.filter(|due| *due <= now)?;
        *due = None;
        let next = self.candidate(family)?;
        let server = &mut self.list[next];
        (server.state, server.contacted_at) = (State::Contacted, Some(now));
        debug!(server = %server.report.address, name = %server.report.name, "server is contacted");
        self.due[family as usize] = Some(now + CONTACT_INTERVAL);
        Some(next)
    }

    /// Notes the outcome of a request, which makes the next server due.
    pub(crate) fn on_outcome(
        &mut self,
        now: Instant,
        index: usize,
        responded: bool,
    ) -> Option<&mut ServerReport> {
        let server = self.list.get_mut(index)?;
        let state = if responded { State::Responded } else { State::TimedOut };
        if server.state != state {
            debug!(server = %server.report.address, ?state, "server state changed");
        }
        server.state = state;
        server.report.timed_out = !responded;
        if !responded {
            server.report.reflexive = None;
        }
        self.due[Family::of(server.report.address) as usize] = Some(now);
        Some(&mut server.report)
    }

    /// Follows a redirection (RFC 8489, section 10), but never in a circle. Returns false if it is not followed.
    pub(crate) fn redirect(&mut self, now: Instant, index: usize, to: SocketAddr) -> bool {
        let taken = self.list.iter().any(|server| server.report.address == to || server.former.contains(&to));
        let Some(server) = self.list.get_mut(index) else { return false };
        let followed = !taken && server.former.len() < MAX_REDIRECTIONS;
        debug!(server = %server.report.address, %to, followed, count = server.former.len(), "server redirects");
        if followed {
            server.former.push(std::mem::replace(&mut server.report.address, to));
            server.state = State::Idle;
            self.due[Family::of(to) as usize] = Some(now);
        }
        followed
    }

    /// Returns the credentials with the addresses they are for: the servers' own, and their alternate ones.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = (IpAddr, &StunCredentials)> {
        self.list.iter().flat_map(|server| {
            let addresses = [Some(server.report.address), server.report.other_address].into_iter().flatten();
            let credentials = server.credentials.iter();
            credentials.flat_map(move |credentials| addresses.clone().map(move |at| (at.ip(), credentials)))
        })
    }

    /// Returns how far the servers of a family have been contacted. One that does not respond is awaited only for a
    /// moment if others do.
    pub(crate) fn progress(&self, now: Instant, family: Family) -> ContactProgress {
        let all_contacted = self.candidate(family).is_none();
        let grace = self.responding(family).map_or(Duration::MAX, |_| CONTACT_GRACE);
        ContactProgress { all_contacted, settled: all_contacted && !self.awaits(now, family, grace) }
    }

    /// Returns true if the servers of a family have had their chance, though their timeouts may not be over.
    pub(crate) fn is_exhausted(&self, now: Instant, family: Family) -> bool {
        self.candidate(family).is_none() && !self.awaits(now, family, 2 * CONTACT_GRACE)
    }

    /// Returns when the next server that was contacted is no longer awaited.
    pub(crate) fn grace_ends_at(&self, now: Instant) -> Option<Instant> {
        let contacted =
            self.list.iter().filter(|s| s.state == State::Contacted).filter_map(|s| s.contacted_at);
        contacted.flat_map(|at| [at + CONTACT_GRACE, at + 2 * CONTACT_GRACE]).filter(|at| *at > now).min()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.into_iter().flatten().min()
    }

    /// Returns the best server of a family that responds.
    pub(crate) fn responding(&self, family: Family) -> Option<(usize, &ServerReport)> {
        let mut list = self.of(family);
        list.find(|(_, s)| s.state == State::Responded).map(|(index, server)| (index, &server.report))
    }

    /// Returns the best server of each family that responds.
    pub(crate) fn all_responding(&self) -> impl Iterator<Item = (usize, &ServerReport)> {
        Family::BOTH.into_iter().filter_map(|family| self.responding(family))
    }

    pub(crate) fn any_responds(&self) -> bool {
        self.list.iter().any(|server| server.state == State::Responded)
    }

    /// Returns true if every server timed out. Being contacted once more does not make a server respond.
    pub(crate) fn all_timed_out(&self) -> bool {
        let tried = |s: &Server| s.report.timed_out || s.state == State::Idle;
        let left = |family| self.candidate(family).is_some_and(|index| !self.list[index].report.timed_out);
        let any = self.list.iter().any(|server| server.report.timed_out);
        any && self.list.iter().all(tried) && !Family::BOTH.into_iter().any(left)
    }

    /// Returns the addresses of the servers that timed out.
    pub(crate) fn timed_out(&self) -> BTreeSet<IpAddr> {
        self.reports().filter(|report| report.timed_out).map(|report| report.address.ip()).collect()
    }

    fn of(&self, family: Family) -> impl Iterator<Item = (usize, &Server)> {
        self.list.iter().enumerate().filter(move |(_, s)| Family::of(s.report.address) == family)
    }

    fn awaits(&self, now: Instant, family: Family, grace: Duration) -> bool {
        let within = |at: Instant| now.saturating_duration_since(at) < grace;
        self.of(family).any(|(_, s)| s.state == State::Contacted && s.contacted_at.is_some_and(within))
    }

    fn candidate(&self, family: Family) -> Option<usize> {
        let contacted = |s: &Server| matches!(s.state, State::Contacted | State::Responded);
        let others: BTreeSet<IpAddr> =
            self.of(family).filter_map(|(_, s)| s.report.other_address.map(|other| other.ip())).collect();
        let responded = self.of(family).filter(|(_, s)| s.state == State::Responded).count();
        let same_machine = |name: &str| self.of(family).any(|(_, s)| contacted(s) && s.report.name == name);
        let wanted = |s: &Server| {
            s.state == State::Idle
                && !others.contains(&s.report.address.ip())
                && !same_machine(&s.report.name)
        };
        if responded >= self.limit.min(MAX_CONTACTS) || (self.v4_only && family == Family::V6) {
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
        Self { report, state: State::Idle, credentials, former: Vec::new(), contacted_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nat::start;

    const V4: Family = Family::V4;

    fn servers(list: &[(&str, [u8; 4])]) -> Servers {
        let server = |(name, ip): &(&str, [u8; 4])| StunServer::new(*name, (*ip, 3478).into());
        Servers::new(start(), list.iter().map(server).collect(), usize::MAX)
    }

    fn after(ms: u64) -> Instant {
        start() + Duration::from_millis(ms)
    }

    #[test]
    fn next_server_is_contacted_after_a_response_or_a_pause() {
        let mut servers = servers(&[("a", [11, 0, 1, 1]), ("b", [11, 0, 2, 1]), ("c", [11, 0, 3, 1])]);
        assert_eq!(servers.next(start(), V4), Some(0));
        assert_eq!(servers.next(after(199), V4), None);
        assert_eq!(servers.next(after(200), V4), Some(1));
        assert!(servers.on_outcome(after(210), 1, true).is_some());
        assert_eq!(servers.next(after(210), V4), Some(2));
        assert_eq!(servers.next(after(500), V4), None);
        assert!(servers.progress(after(500), V4).all_contacted);
    }

    #[test]
    fn machine_with_several_names_or_addresses_is_contacted_once() {
        let mut servers = servers(&[("a", [11, 0, 1, 1]), ("a", [11, 0, 1, 9]), ("b", [11, 0, 1, 2])]);
        assert_eq!(servers.next(start(), V4), Some(0));
        let report = servers.on_outcome(after(40), 0, true).expect("a server");
        report.other_address = Some(([11, 0, 1, 2], 3479).into());
        assert_eq!(servers.next(after(40), V4), None);
        assert_eq!(servers.progress(after(40), V4), ContactProgress { settled: true, all_contacted: true });
    }

    #[test]
    fn server_that_does_not_respond_is_awaited_for_a_moment_if_others_do() {
        let mut servers = servers(&[("a", [11, 0, 1, 1]), ("b", [11, 0, 2, 1])]);
        servers.next(start(), V4);
        servers.next(after(200), V4);
        servers.on_outcome(after(240), 1, true);
        servers.next(after(240), V4);
        assert!(!servers.progress(after(999), V4).settled && servers.progress(after(1000), V4).settled);
        assert_eq!(servers.grace_ends_at(after(240)), Some(after(1000)));
    }

    #[test]
    fn redirections_are_followed_at_most_three_times_and_never_in_a_circle() {
        let mut servers = servers(&[("a", [11, 0, 1, 1])]);
        let to = |last: u8| (([11, 0, 1, last]), 3478).into();
        assert!(!servers.redirect(start(), 0, to(1)), "itself");
        assert!(servers.redirect(start(), 0, to(2)) && servers.redirect(start(), 0, to(3)));
        assert!(!servers.redirect(start(), 0, to(1)), "a circle");
        assert!(servers.redirect(start(), 0, to(4)) && !servers.redirect(start(), 0, to(5)));
        assert_eq!((servers.address(0), servers.identities()), (Some(to(4)), [("a", to(1))].into()));
    }

    #[test]
    fn all_have_timed_out_only_if_none_is_left_to_contact() {
        let mut servers = servers(&[("a", [11, 0, 1, 1]), ("b", [11, 0, 2, 1])]);
        servers.next(start(), V4);
        servers.on_outcome(after(2500), 0, false);
        assert!(!servers.all_timed_out());
        servers.next(after(2500), V4);
        servers.on_outcome(after(5000), 1, false);
        assert!(servers.all_timed_out() && servers.timed_out().len() == 2);
        servers.retry_timed_out(after(6000));
        assert!(servers.all_timed_out(), "contacting them again changes nothing yet");
    }
}
