//! The filtering test by a member with two ports, where no server can respond from another address.
//!
//! The member sends from both ports of its one address to two probe sockets: *opened*, which has sent to the first port
//! only, and *untouched*, which has sent to a server only. If packets from the second port arrive at *opened*, the filter
//! is by address; if not, by address and port.
//!
//! A missing packet means something only if all other reasons are excluded:
//!
//! - loss: the first port's packets arrive at *opened* in the same rounds, ten more than are lost
//!   ([`crate::filtering_rounds`]);
//! - a lost mapping: a server sees both mappings before and after;
//! - the member's own NAT: at last the NAT is opened for exactly what was missing, and then it has to arrive from
//!   exactly where it was announced, ten times more often than not.
//!
//! Whatever does not fit leaves filtering unknown. Only a NAT with endpoint-independent mapping is judged: with another
//! one the member would have to send to where only a server is let in.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Filtering, Mapping, SocketId};
use tracing::{debug, trace};

use crate::{
    address::is_beyond_nat,
    api::{PortPair, ProbeRound},
    client::{Client, Request},
    context::{Context, Finding, Unknown},
    purpose::Purpose,
    stun::Id,
};

const ROUND_INTERVAL: Duration = Duration::from_millis(30);
/// Packets to have beyond those that were lost.
const REQUIRED_LEAD: i32 = 10;
const MAX_ROUNDS: usize = 50;
/// How long the packets of a round may take until some have shown it, and at most.
const MAX_PACKET_WAIT: Duration = Duration::from_millis(1200);
/// How much longer than twice the longest time so far they may take.
const PACKET_SLACK: Duration = Duration::from_millis(150);

const INCONSISTENT: Unknown = Unknown("a mapping changed, or a packet arrived that fits no filter");
const LOSSY: Unknown = Unknown("too few of the member's packets arrived");

/// What arrived of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    sent_at: Instant,
    /// From the first port at the opened socket.
    control: bool,
    /// From the second port at the opened socket.
    second: bool,
    /// From the first port at the untouched socket.
    untouched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A server is to see both mappings, before the next phase.
    Verifying {
        open: u8,
        next: Rounds,
    },
    Sending(Rounds),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounds {
    /// To find out what passes the filter.
    Measure,
    /// To receive what was missing, now that the NAT is opened for it.
    Prove(Filtering),
}

/// A probe socket as a server sees it.
#[derive(Debug, Clone, Copy)]
struct Probe {
    socket: SocketId,
    reflexive: SocketAddr,
    server: SocketAddr,
}

/// The test under way.
#[derive(Debug)]
pub(crate) struct PortPairTest {
    pair: PortPair,
    opened: Probe,
    untouched: Probe,
    phase: Phase,
    token: Id,
    rounds: Vec<Round>,
    next_at: Instant,
    /// The longest time that a packet took.
    slowest: Option<Duration>,
    inconsistent: bool,
    /// The request to the member that was not taken yet.
    request: Option<ProbeRound>,
}

/// Returns true if the ports can show anything: two of one address, which is neither a server's nor near this computer's.
pub(crate) fn is_usable(context: &Context, PortPair { first, second }: PortPair) -> bool {
    let Some(own) = context.observations.first_of(context.roles.filtering) else { return false };
    let stranger = context.contacts.iter().all(|server| server.ip() != first.ip());
    let two_ports = first.ip() == second.ip() && first.port() != second.port();
    two_ports && stranger && first.is_ipv4() && is_beyond_nat(first, own.reflexive)
}

impl PortPairTest {
    /// Begins the test, or returns `None` if mapping is not endpoint-independent or no two sockets are fit for it.
    pub(crate) fn new(now: Instant, pair: PortPair, context: &Context, client: &mut Client) -> Option<Self> {
        let independent = context.policies.mapping == Some(Mapping::EndpointIndependent);
        if !independent || context.inconsistent {
            return None;
        }
        let probe = |socket: SocketId| {
            let seen = context.observations.first_of(socket)?;
            let stranger = client.destinations(socket).all(|sent| sent.ip() != pair.first.ip());
            stranger.then_some(Probe { socket, reflexive: seen.reflexive, server: seen.destination })
        };
        let opened = probe(context.roles.filtering)?;
        let untouched = context.roles.fresh.iter().copied().find_map(probe)?;
        debug!(first = %pair.first, second = %pair.second, "filtering test by a member with two ports begins");
        let mut test = Self {
            pair,
            opened,
            untouched,
            phase: Phase::Sending(Rounds::Measure),
            token: client.random_id(),
            rounds: Vec::new(),
            next_at: now,
            slowest: None,
            inconsistent: false,
            request: None,
        };
        test.verify(now, Rounds::Measure, context, client);
        Some(test)
    }

    /// Returns the request to the member, once.
    pub(crate) const fn take_request(&mut self) -> Option<ProbeRound> {
        self.request.take()
    }

    /// A server responded to the verification of a mapping, or did not.
    pub(crate) fn on_verified(&mut self, answered: bool) {
        self.inconsistent |= !answered;
        if let Phase::Verifying { open, .. } = &mut self.phase {
            *open = open.saturating_sub(1);
        }
    }

    /// Takes a Binding indication. False if it has no token of a round.
    pub(crate) fn on_indication(
        &mut self,
        now: Instant,
        socket: SocketId,
        source: SocketAddr,
        token: Id,
    ) -> bool {
        let number = usize::from(token[11] ^ self.token[11]);
        let Some(round) = self.rounds.get_mut(number).filter(|_| token[..11] == self.token[..11]) else {
            return false;
        };
        self.slowest = self.slowest.max(Some(now.saturating_duration_since(round.sent_at)));
        let at_untouched = socket == self.untouched.socket && source.ip() == self.pair.first.ip();
        match self.phase {
            _ if socket == self.opened.socket && source == self.pair.first => round.control = true,
            _ if socket == self.opened.socket && source == self.pair.second => round.second = true,
            Phase::Sending(Rounds::Prove(_)) if at_untouched => {
                round.untouched |= source == self.pair.first;
            }
            _ if at_untouched => {
                debug!(%source, reason = "the untouched socket got a packet", "filtering test is inconsistent");
                self.inconsistent = true;
            }
            _ => {}
        }
        true
    }

    pub(crate) fn step(
        &mut self,
        now: Instant,
        context: &Context,
        client: &mut Client,
    ) -> Option<Finding<Filtering>> {
        loop {
            if self.inconsistent || context.policies.mapping != Some(Mapping::EndpointIndependent) {
                return Some(Err(INCONSISTENT));
            }
            match self.phase {
                Phase::Verifying { open: 0, next } => self.begin_rounds(now, next, client),
                Phase::Verifying { .. } => return None,
                Phase::Sending(rounds) if self.is_over(now) => match self.conclude(now, rounds) {
                    Ok(Rounds::Prove(filtering)) if rounds == Rounds::Measure => {
                        self.verify(now, Rounds::Prove(filtering), context, client);
                    }
                    Ok(Rounds::Prove(filtering)) => return Some(Ok(filtering)),
                    Ok(Rounds::Measure) | Err(_) => return Some(Err(LOSSY)),
                },
                Phase::Sending(rounds) => {
                    if self.wants_round(now) && self.next_at <= now {
                        self.send_round(now, rounds, client);
                    }
                    return None;
                }
            }
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let settling =
            self.rounds.iter().map(|round| round.sent_at + self.packet_wait()).find(|at| *at > now);
        let sends = matches!(self.phase, Phase::Sending(_)) && self.wants_round(now);
        [settling, sends.then_some(self.next_at)].into_iter().flatten().min()
    }

    /// Has a server look at both mappings.
    fn verify(&mut self, now: Instant, next: Rounds, context: &Context, client: &mut Client) {
        for Probe { socket, server, .. } in [self.opened, self.untouched] {
            let delivery = context.config.retransmit();
            client.send(now, Request::plain(socket, server, Purpose::VerifyMapping, delivery));
        }
        self.restart_rounds(Phase::Verifying { open: 2, next }, client);
    }

    fn begin_rounds(&mut self, now: Instant, rounds: Rounds, client: &mut Client) {
        debug!(?rounds, reason = "both mappings are the same", "member is asked for rounds of packets");
        self.restart_rounds(Phase::Sending(rounds), client);
        self.next_at = now;
    }

    fn restart_rounds(&mut self, phase: Phase, client: &mut Client) {
        (self.phase, self.token, self.slowest) = (phase, client.random_id(), None);
        self.rounds.clear();
    }

    /// Opens the NAT for what may arrive, and asks the member for packets.
    fn send_round(&mut self, now: Instant, rounds: Rounds, client: &mut Client) {
        let PortPair { first, second } = self.pair;
        let missing = match rounds {
            Rounds::Prove(Filtering::AddressDependent) => Some((self.untouched.socket, first)),
            Rounds::Prove(_) => Some((self.opened.socket, second)),
            Rounds::Measure => None,
        };
        for (socket, destination) in [Some((self.opened.socket, first)), missing].into_iter().flatten() {
            client.send_indication(socket, destination, Purpose::VerifyMapping);
        }
        let mut token = self.token;
        token[11] ^= u8::try_from(self.rounds.len()).unwrap_or(u8::MAX);
        self.request = Some(ProbeRound { to: [self.opened.reflexive, self.untouched.reflexive], token });
        trace!(number = self.rounds.len(), ?rounds, "round of packets requested");
        self.rounds.push(Round { sent_at: now, control: false, second: false, untouched: false });
        self.next_at = now + ROUND_INTERVAL;
    }

    /// Returns what is to be proven, or was proven.
    fn conclude(&self, now: Instant, rounds: Rounds) -> Finding<Rounds> {
        let lead = self.lead(now, false);
        debug!(?rounds, count = self.rounds.len(), lead, "rounds of the member's packets ended");
        if lead < REQUIRED_LEAD {
            return Err(LOSSY);
        }
        let by_port = || !self.rounds.iter().any(|round| round.second);
        Ok(match rounds {
            Rounds::Prove(filtering) => Rounds::Prove(filtering),
            Rounds::Measure if by_port() => Rounds::Prove(Filtering::AddressAndPortDependent),
            Rounds::Measure => Rounds::Prove(Filtering::AddressDependent),
        })
    }

    /// Returns how many more of the required packets came than were lost, of the rounds that are over. With
    /// `optimistic`, rounds under way count as complete.
    fn lead(&self, now: Instant, optimistic: bool) -> i32 {
        let arrived = |round: &Round| match self.phase {
            Phase::Sending(Rounds::Prove(Filtering::AddressDependent)) => round.untouched,
            Phase::Sending(Rounds::Prove(_)) => round.second,
            Phase::Sending(Rounds::Measure) | Phase::Verifying { .. } => round.control,
        };
        let count = |round: &Round| match (round.sent_at + self.packet_wait() <= now, arrived(round)) {
            (_, true) => 1,
            (true, false) => -1,
            (false, false) => i32::from(optimistic),
        };
        self.rounds.iter().map(count).sum()
    }

    fn wants_round(&self, now: Instant) -> bool {
        self.rounds.len() < MAX_ROUNDS && self.lead(now, true) < REQUIRED_LEAD
    }

    fn is_over(&self, now: Instant) -> bool {
        !self.wants_round(now) && self.rounds.iter().all(|round| round.sent_at + self.packet_wait() <= now)
    }

    fn packet_wait(&self) -> Duration {
        self.slowest.map_or(MAX_PACKET_WAIT, |slowest| (slowest * 2 + PACKET_SLACK).min(MAX_PACKET_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::Allocation;
    use partyline_nat::Rules;

    use super::*;
    use crate::test_nat::{TestNat, reference};

    const PORTS: PortPair = PortPair {
        first: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(11, 0, 7, 1)), 41_641),
        second: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(11, 0, 7, 1)), 50_000),
    };

    /// A NAT with endpoint-independent mapping, behind which three probe sockets are known to a server.
    fn nat(filtering: Filtering) -> TestNat {
        let rules = Rules::new(Mapping::EndpointIndependent, filtering, Allocation::Preserving);
        let mut nat = TestNat::new(rules);
        nat.context.contacts.push(reference().server);
        nat.context.policies.mapping = Some(Mapping::EndpointIndependent);
        for socket in [1, 2].map(SocketId::probe) {
            nat.observe(socket, reference().server);
        }
        nat
    }

    /// Runs the test with a member that can send from these of its ports.
    fn run(nat: &mut TestNat, works: [bool; 2]) -> Finding<Filtering> {
        let now = nat.now;
        let mut test =
            PortPairTest::new(now, PORTS, &nat.context, &mut nat.client).expect("two probe sockets");
        nat.run_with(
            &mut test,
            |test, now, context, client| test.step(now, context, client),
            |test, _, _, outcome| {
                if outcome.is_answered() || outcome.is_timeout() {
                    test.on_verified(outcome.is_answered());
                }
            },
            |test, nat| {
                let Some(round) = test.take_request() else { return };
                // What the sockets sent has to open the NAT first.
                nat.flush();
                for to in round.to {
                    for (source, _) in [PORTS.first, PORTS.second].into_iter().zip(works).filter(|(_, w)| *w)
                    {
                        if let Some(socket) = nat.inbound(source, to) {
                            test.on_indication(nat.now, socket, source, round.token);
                        }
                    }
                }
            },
        )
    }

    #[test]
    fn both_closed_filters_are_told_apart() {
        for filtering in [Filtering::AddressDependent, Filtering::AddressAndPortDependent] {
            assert_eq!(run(&mut nat(filtering), [true; 2]), Ok(filtering));
        }
    }

    #[test]
    fn open_filter_is_inconsistent_with_an_untouched_socket() {
        assert_eq!(run(&mut nat(Filtering::EndpointIndependent), [true; 2]), Err(INCONSISTENT));
    }

    #[test]
    fn member_that_cannot_send_from_a_port_shows_nothing() {
        for works in [[false, true], [true, false], [false; 2]] {
            assert_eq!(run(&mut nat(Filtering::AddressDependent), works), Err(LOSSY), "{works:?}");
        }
    }

    #[test]
    fn silent_server_leaves_filtering_unknown() {
        let mut nat = nat(Filtering::AddressDependent);
        nat.server_is_dead = true;
        assert_eq!(run(&mut nat, [true; 2]), Err(INCONSISTENT));
    }

    #[test]
    fn nat_that_maps_by_destination_is_not_judged() {
        let mut nat = nat(Filtering::AddressDependent);
        nat.context.policies.mapping = Some(Mapping::AddressDependent);
        assert!(PortPairTest::new(nat.now, PORTS, &nat.context, &mut nat.client).is_none());
    }

    #[test]
    fn only_two_ports_of_one_address_beyond_the_nat_are_usable() {
        let nat = nat(Filtering::AddressDependent);
        let pair =
            |ip: [u8; 4], first, second| PortPair { first: (ip, first).into(), second: (ip, second).into() };
        assert!(is_usable(&nat.context, PORTS));
        for useless in [
            pair([11, 0, 0, 9], 1, 2),
            pair([192, 168, 7, 7], 1, 2),
            pair([11, 0, 1, 1], 1, 2),
            pair([11, 0, 7, 1], 1, 1),
            PortPair { second: ([11, 0, 8, 1], 2).into(), ..PORTS },
        ] {
            assert!(!is_usable(&nat.context, useless), "{useless:?}");
        }
    }
}
