//! How the ports of new mappings are chosen: what sockets that have sent nothing yet show, one after the other.

use std::time::Instant;

use partyline_model::SocketId;

use crate::{
    client::Client,
    infer::{self, Samples},
    survey::{Meeting, Purpose, Survey},
};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortsTest {
    Waiting,
    /// The next socket to ask from, and whether the one before is still waiting.
    Asking {
        next: usize,
        open: bool,
    },
    Done,
}

impl PortsTest {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }

    pub(crate) fn is_under_way(self) -> bool {
        matches!(self, Self::Asking { .. })
    }

    /// A question was answered, or never will be.
    pub(crate) fn answered(&mut self) {
        if let Self::Asking { open, .. } = self {
            *open = false;
        }
    }
}

impl Survey {
    /// True if there may be more to do. Begins when nobody else of us makes new mappings any more.
    pub(crate) fn step_ports(
        &mut self,
        now: Instant,
        meeting: Meeting,
        client: &mut Client<Purpose>,
    ) -> bool {
        match self.ports {
            PortsTest::Waiting if self.mapping.is_done() && meeting.asked => {
                self.ports = PortsTest::Asking { next: 0, open: false };
            }
            PortsTest::Asking { next, open: false } => self.ask_fresh(now, next, client),
            PortsTest::Waiting | PortsTest::Asking { open: true, .. } | PortsTest::Done => return false,
        }
        true
    }

    /// Asks one server from each fresh socket in turn. Over IPv6 there is nothing to allocate.
    fn ask_fresh(&mut self, now: Instant, next: usize, client: &mut Client<Purpose>) {
        let server = self.seen_of(self.roles.mapping).first().map(|seen| seen.destination);
        match (server.filter(|server| server.is_ipv4()), self.fresh().get(next).copied()) {
            (Some(server), Some(socket)) => {
                self.ask(now, (socket, server), Purpose::Fresh, client);
                self.ports = PortsTest::Asking { next: next + 1, open: true };
            }
            _ => {
                self.conclude_allocation();
                self.ports = PortsTest::Done;
            }
        }
    }

    /// The sockets to ask from in turn; that of the filtering test too, where no server was fit for that.
    fn fresh(&self) -> Vec<SocketId> {
        let unused = self.asked_by(self.roles.filtering).next().is_none();
        let idle = self.filtering.is_done() && unused && !self.roles.is_shared();
        self.roles.fresh.iter().copied().chain(idle.then_some(self.roles.filtering)).collect()
    }

    fn conclude_allocation(&mut self) {
        let mut sockets = vec![self.roles.mapping];
        sockets.extend((!self.roles.is_shared()).then_some(self.roles.filtering));
        sockets.extend(&self.roles.fresh);
        if !self.roles.ports.contains_key(&self.roles.mapping) {
            self.gaps.push("allocation needs the socket's own port");
            return;
        }
        let samples: Vec<_> = sockets.into_iter().filter_map(|socket| self.samples(socket)).collect();
        self.found.allocation = infer::allocation(&samples);
        if self.found.allocation.is_none() {
            self.gaps.push("allocation needs three fresh mappings in a known order");
        }
    }

    fn samples(&self, socket: SocketId) -> Option<Samples> {
        let observations = self.seen_of(socket);
        let heard = self.asked_by(socket).all(|asked| observations.iter().any(|o| o.destination == *asked));
        let complete = heard && (socket != SocketId::MAIN || self.terms.fresh);
        let local_port = *self.roles.ports.get(&socket)?;
        Some(Samples { local_port, complete, in_turn: self.fresh().contains(&socket), observations })
    }
}
