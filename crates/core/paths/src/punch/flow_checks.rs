//! Checks, while a spray grows, whether the router still accepts new flows.
//!
//! A check is a Binding request from a fresh socket, as another program's new flow would be. If it stays unanswered
//! although the same server answers the main socket, whose flow is old, the router's table is full.

use std::time::{Duration, Instant};

use partyline_model::SocketId;
use partyline_wire::probe::TransactionId;
use tracing::{debug, trace};

use super::sampling::binding_request;
use crate::{
    api::Transmit,
    context::Context,
    path::{Local, PeerId},
    sockets::PunchSocket,
};

/// When the requests of a check are sent, in milliseconds after the first.
const SCHEDULE_MS: [u64; 4] = [0, 150, 400, 700];
/// How long after the last request a response is awaited.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(400);

/// The router does not accept new flows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouterFull;

/// The checks of one attempt.
#[derive(Debug, Default)]
pub(super) struct FlowChecks {
    /// Sockets from which nothing was sent yet.
    fresh: Vec<PunchSocket>,
    pending: Option<PendingCheck>,
    asked: Vec<TransactionId>,
}

#[derive(Debug)]
struct PendingCheck {
    socket: SocketId,
    /// The request from the fresh socket.
    fresh: TransactionId,
    /// The request from the main socket.
    main: TransactionId,
    began: Instant,
    sent: usize,
    is_answered: bool,
    main_is_answered: bool,
    /// How many flows stood when it was sent.
    standing: u32,
}

impl PendingCheck {
    /// Returns when the next request is to be sent, or the check is over.
    fn due(&self) -> Instant {
        let at = |ms: &u64| self.began + Duration::from_millis(*ms);
        let last = SCHEDULE_MS.last().map_or(self.began, at);
        SCHEDULE_MS.get(self.sent).map_or(last + RESPONSE_TIMEOUT, at)
    }
}

impl FlowChecks {
    pub(super) fn new(fresh: Vec<PunchSocket>) -> Self {
        Self { fresh, pending: None, asked: Vec::new() }
    }

    /// Returns true if this attempt can find out whether there is room.
    pub(super) fn can_check(&self, ctx: &Context<'_>) -> bool {
        self.pending.is_some() || !self.fresh.is_empty() && !ctx.device.stun_servers.is_empty()
    }

    /// Returns the number of flows that the checks so far have created.
    pub(super) const fn count(&self) -> usize {
        self.asked.len() / 2
    }

    /// Returns the ids of all requests.
    pub(super) fn ids(&self) -> impl Iterator<Item = TransactionId> {
        self.asked.iter().copied()
    }

    /// Takes what may be the response to a request; returns false if it is not.
    pub(super) fn on_response(&mut self, id: TransactionId) -> bool {
        let Some(pending) = &mut self.pending else { return self.asked.contains(&id) };
        pending.is_answered |= pending.fresh == id;
        pending.main_is_answered |= pending.main == id;
        self.asked.contains(&id)
    }

    /// Sends what is due and acts on responses. Returns when to continue, if a check is pending.
    ///
    /// # Errors
    /// The router is full.
    pub(super) fn drive(
        &mut self,
        ctx: &mut Context<'_>,
        peer: PeerId,
    ) -> Result<Option<Instant>, RouterFull> {
        if let Some(pending) = self.pending.take_if(|pending| pending.is_answered) {
            ctx.pacing.sprays.table.on_room(ctx.now, pending.standing);
            ctx.sockets.close(pending.socket, ctx.events);
        }
        if let Some(pending) =
            self.pending.take_if(|pending| pending.sent == SCHEDULE_MS.len() && ctx.now >= pending.due())
        {
            ctx.sockets.close(pending.socket, ctx.events);
            if pending.main_is_answered {
                ctx.pacing.sprays.table.on_refused(ctx.now);
                return Err(RouterFull);
            }
            debug!(reason = "no response on the main socket either", "flow check lost");
        }
        if self.pending.is_none() && self.can_check(ctx) && ctx.pacing.sprays.table.needs_check(ctx.now) {
            self.start(ctx, peer);
        }
        self.send_due(ctx);
        Ok(self.pending.as_ref().map(PendingCheck::due))
    }

    fn start(&mut self, ctx: &mut Context<'_>, peer: PeerId) {
        let Some(socket) = self.fresh.pop() else { return };
        let [fresh, main] = [(); 2].map(|()| {
            let id = ctx.transactions.next_id();
            ctx.transactions.open(id, peer);
            id
        });
        self.asked.extend([fresh, main]);
        let standing = ctx.pacing.sprays.table.on_check_sent(ctx.now);
        trace!(standing, socket = socket.id.0, "flow check sent");
        self.pending = Some(PendingCheck {
            socket: socket.id,
            fresh,
            main,
            began: ctx.now,
            sent: 0,
            is_answered: false,
            main_is_answered: false,
            standing,
        });
    }

    fn send_due(&mut self, ctx: &mut Context<'_>) {
        let Some(server) = ctx.device.stun_servers.first().copied() else { return };
        let Some(pending) = self.pending.as_mut().filter(|pending| ctx.now >= pending.due()) else { return };
        pending.sent += 1;
        for (socket, id) in [(pending.socket, pending.fresh), (SocketId::MAIN, pending.main)] {
            let (local, bytes) = (Local::Socket(socket), binding_request(id));
            ctx.transmits.push_back(Transmit { local, destination: server, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::Shared,
        testing::{shared, start},
    };

    const SERVER: ([u8; 4], u16) = ([203, 0, 113, 1], 3478);

    /// A device that has created as many flows as it may without a check.
    fn setting() -> (FlowChecks, Shared, Instant) {
        let (mut shared, now) = (shared(), start());
        shared.device.stun_servers = vec![SERVER.into()];
        while shared.pacing.sprays.table.has_room(now).is_ok() {
            shared.pacing.sprays.table.on_created(now);
        }
        let fresh = [1, 2].map(|number| PunchSocket { id: SocketId(number), port: number });
        (FlowChecks::new(fresh.to_vec()), shared, now)
    }

    fn run(
        checks: &mut FlowChecks,
        shared: &mut Shared,
        mut now: Instant,
        answers: impl Fn(SocketId) -> bool,
    ) -> (Result<(), RouterFull>, usize) {
        let mut sent = 0;
        loop {
            let next = checks.drive(&mut shared.context(now), PeerId(1));
            while let Some(transmit) = shared.transmits.pop_front() {
                sent += 1;
                let Local::Socket(socket) = transmit.local else { panic!("no socket") };
                let id = TransactionId(*transmit.bytes[8..].first_chunk().unwrap());
                if answers(socket) {
                    assert!(checks.on_response(id));
                }
            }
            if checks.pending.as_ref().is_some_and(|pending| pending.is_answered) {
                continue;
            }
            match next {
                Ok(Some(next)) if checks.pending.is_some() => now = next,
                Ok(_) => return (Ok(()), sent),
                Err(full) => return (Err(full), sent),
            }
        }
    }

    #[test]
    fn a_new_flow_that_is_answered_lets_the_spray_grow() {
        let (mut checks, mut shared, now) = setting();
        assert_eq!(run(&mut checks, &mut shared, now, |_| true), (Ok(()), 2));
        assert!(shared.pacing.sprays.table.has_room(now).is_ok());
        assert_eq!(checks.count(), 1);
    }

    #[test]
    fn the_router_is_full_if_only_the_old_flow_is_answered() {
        let (mut checks, mut shared, now) = setting();
        let (result, sent) = run(&mut checks, &mut shared, now, |socket| socket == SocketId::MAIN);
        assert_eq!((result, sent), (Err(RouterFull), SCHEDULE_MS.len() * 2));
        assert!(shared.pacing.sprays.table.limit().is_some());
    }

    #[test]
    fn a_server_that_answers_nobody_says_nothing_about_the_router() {
        let (mut checks, mut shared, now) = setting();
        assert_eq!(run(&mut checks, &mut shared, now, |_| false).0, Ok(()));
        assert_eq!(shared.pacing.sprays.table.limit(), None);
        assert!(shared.pacing.sprays.table.has_room(now).is_err());
    }
}
