//! A second port, lent to members who find out whom their NAT lets in.
//!
//! One that asks ([`ControlMessage::AskPort`]) is told where a server sees our own port and one opened for the occasion.
//! Then it asks for packets from both, round by round ([`ControlMessage::SendFromBoth`]); netcheck says what their
//! arrival and absence prove. A member lends to one other at a time, for seconds, so many rounds of four small packets,
//! and only to addresses that the other has announced as its own.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, Mapping, Now, PartyId};
use partyline_netcheck::{PortPair, ProbeRound, binding_request, mapped_address};
use partyline_paths::SocketId;
use rand_core::RngCore as _;

use crate::{Node, control::ControlMessage, egress::Local, io::Output};

const SOCKET: SocketId = SocketId::second_port(0);
/// How long it is lent at most.
const TERM: Duration = Duration::from_secs(12);
/// Rounds that are sent for one who borrows.
const MOST_ROUNDS: u8 = 100;
/// Questions to the server, against loss.
const QUESTIONS: usize = 2;

/// What is lent, and from whom we borrow.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    loan: Option<Loan>,
    /// Who was asked to lend us one.
    lender: Option<(PartyId, DeviceId)>,
}

#[derive(Debug)]
struct Loan {
    party: PartyId,
    to: DeviceId,
    until: Instant,
    server: SocketAddr,
    token: [u8; 12],
    told: bool,
    rounds: u8,
}

impl Ports {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.loan.as_ref().map(|loan| loan.until)
    }
}

impl Node {
    /// Asks one of these members for a second port: one whose own network sends from one port to everybody.
    pub(crate) fn ask_for_port(&mut self, now: Now, observers: &[(PartyId, DeviceId)]) {
        let steady = |(party, member): &&(PartyId, DeviceId)| {
            let member = self.parties.get(party).and_then(|local| local.membership.member(member));
            let mapping = member.and_then(|member| member.nat).and_then(|nat| nat.mapping);
            mapping == Some(Mapping::EndpointIndependent)
        };
        let lender = observers.iter().find(steady).copied();
        self.ports.lender = lender;
        if let Some((party, member)) = lender {
            self.send_control(now.instant, party, member, &ControlMessage::AskPort);
        }
    }

    /// A member asks for a second port of ours.
    pub(crate) fn asked_for_port(&mut self, now: Now, party: PartyId, from: DeviceId) {
        let server = self.netcheck.keepalive_servers().into_iter().find(SocketAddr::is_ipv4);
        let busy = self.ports.loan.is_some();
        let Some(server) = server.filter(|_| self.settings.serve_friends && !busy) else { return };
        let mut token = [0; 12];
        self.rng.fill_bytes(&mut token);
        let until = now.instant + TERM;
        self.ports.loan = Some(Loan { party, to: from, until, server, token, told: false, rounds: 0 });
        self.outputs.push_back(Output::OpenSockets { ids: vec![SOCKET] });
    }

    /// The socket that is lent is open, or could not be: asks a server where it is seen.
    pub(crate) fn second_port_opened(&mut self) {
        if let Some(loan) = &self.ports.loan {
            let request = binding_request(loan.token);
            for _ in 0..QUESTIONS {
                self.transmits.push(Local::Socket(SOCKET), loan.server, &request);
            }
        }
    }

    /// Takes a datagram that came to the socket that is lent.
    pub(crate) fn on_second_port_datagram(&mut self, now: Now, source: SocketAddr, bytes: &[u8]) {
        let first = self.reflexive.iter().copied().find(SocketAddr::is_ipv4);
        let Some(loan) = self.ports.loan.as_mut().filter(|loan| loan.server == source && !loan.told) else {
            return;
        };
        if let (Some(first), Some(second)) = (first, mapped_address(source, loan.token, bytes)) {
            loan.told = true;
            let (party, to) = (loan.party, loan.to);
            self.send_control(now.instant, party, to, &ControlMessage::LendPort { first, second });
        }
    }

    /// A member lends us a port.
    pub(crate) fn lent_port(&mut self, now: Now, from: DeviceId, pair: PortPair) {
        if self.ports.lender.is_some_and(|(_, lender)| lender == from) {
            self.netcheck.set_port_pair(now.instant, pair);
        }
    }

    pub(crate) fn ask_for_round(&mut self, now: Now, ProbeRound { to, token }: ProbeRound) {
        if let Some((party, member)) = self.ports.lender {
            self.send_control(now.instant, party, member, &ControlMessage::SendFromBoth { to, token });
        }
    }

    /// Who borrows asks for packets from both ports.
    pub(crate) fn asked_to_send_from_both(
        &mut self,
        now: Now,
        party: PartyId,
        from: DeviceId,
        round: &ProbeRound,
    ) {
        let fair = round.to.iter().all(|to| self.is_at(party, from, *to));
        let loan = self.ports.loan.as_mut().filter(|loan| fair && (loan.party, loan.to) == (party, from));
        let Some(loan) = loan.filter(|loan| loan.until > now.instant && loan.rounds < MOST_ROUNDS) else {
            return;
        };
        loan.rounds += 1;
        let packet = round.packet();
        for destination in round.to {
            for socket in [SocketId::MAIN, SOCKET] {
                self.transmits.push(Local::Socket(socket), destination, &packet);
            }
        }
    }

    /// Takes the port back when its time is over.
    pub(crate) fn take_ports_back(&mut self, now: Instant) {
        if self.ports.loan.take_if(|loan| loan.until <= now).is_some() {
            self.outputs.push_back(Output::CloseSocket { id: SOCKET });
        }
    }
}
