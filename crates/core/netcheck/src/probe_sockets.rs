//! The probe sockets of one measurement after the other: fresh ones for each, since a socket that has sent shows less.

use std::mem;

use partyline_model::SocketId;
use tracing::debug;

use crate::api::Event;

const MAX_PROBE_SOCKETS: usize = 8;

/// The probe sockets that are open or were asked for.
#[derive(Debug, Default)]
pub(crate) struct ProbeSockets {
    /// The number of the next socket; ids are not used again soon, so that no late packet reaches another measurement.
    next: u16,
    requested: Vec<SocketId>,
    /// Sockets with their ports that no measurement has used yet.
    fresh: Vec<(SocketId, u16)>,
}

impl ProbeSockets {
    /// Asks for fresh sockets in place of those asked for before.
    pub(crate) fn request(&mut self, count: u8) -> impl Iterator<Item = Event> {
        let close = self.close();
        let count = u16::from(count).min(MAX_PROBE_SOCKETS as u16);
        let ids: Vec<_> = (0..count).map(|n| SocketId::probe(self.next.wrapping_add(n))).collect();
        self.next = self.next.wrapping_add(count);
        debug!(count, ?ids, "probe sockets requested");
        self.requested.clone_from(&ids);
        let open = (!ids.is_empty()).then_some(Event::OpenProbeSockets { ids });
        close.into_iter().chain(open)
    }

    /// Takes sockets that were opened. Returns true if a measurement waits for them.
    pub(crate) fn on_opened(&mut self, opened: &[(SocketId, Option<u16>)]) -> bool {
        let awaited = |id: &SocketId| self.requested.is_empty() || self.requested.contains(id);
        let (current, stale): (Vec<_>, Vec<_>) = opened.iter().copied().partition(|(id, _)| awaited(id));
        let failed = current.iter().filter(|(_, port)| port.is_none()).count();
        debug!(count = current.len(), failed, stale = stale.len(), "probe sockets opened");
        if current.is_empty() {
            return false;
        }
        let bound = current.into_iter().filter_map(|(id, port)| Some((id, port?)));
        self.fresh = bound.take(MAX_PROBE_SOCKETS).collect();
        !self.requested.is_empty()
    }

    pub(crate) const fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Returns the fresh sockets, which are no longer fresh from now on.
    pub(crate) fn take_fresh(&mut self) -> Vec<(SocketId, u16)> {
        mem::take(&mut self.fresh)
    }

    /// Gives up all sockets that were asked for.
    pub(crate) fn close(&mut self) -> Option<Event> {
        let ids = mem::take(&mut self.requested);
        (!ids.is_empty()).then(|| {
            debug!(count = ids.len(), "probe sockets closed");
            Event::CloseProbeSockets { ids }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_measurement_gets_sockets_with_new_ids() {
        let mut sockets = ProbeSockets::default();
        let ids = |range: std::ops::Range<u16>| range.map(SocketId::probe).collect::<Vec<_>>();
        let events: Vec<_> = sockets.request(2).collect();
        assert_eq!(events, [Event::OpenProbeSockets { ids: ids(0..2) }]);
        let events: Vec<_> = sockets.request(2).collect();
        let close = Event::CloseProbeSockets { ids: ids(0..2) };
        assert_eq!(events, [close, Event::OpenProbeSockets { ids: ids(2..4) }]);
        assert_eq!(sockets.close(), Some(Event::CloseProbeSockets { ids: ids(2..4) }));
        assert_eq!(sockets.close(), None);
    }

    #[test]
    fn sockets_that_could_not_be_opened_are_not_used() {
        let mut sockets = ProbeSockets::default();
        assert_eq!(sockets.request(2).count(), 1);
        let [one, other] = [0, 1].map(SocketId::probe);
        assert!(sockets.on_opened(&[(one, None), (other, Some(4001))]));
        assert_eq!(sockets.take_fresh(), [(other, 4001)]);
        assert!(!sockets.has_fresh());
    }

    #[test]
    fn sockets_of_an_earlier_request_are_ignored() {
        let mut sockets = ProbeSockets::default();
        assert_eq!(sockets.request(1).count() + sockets.request(1).count(), 3);
        let [earlier, present] = [0, 1].map(SocketId::probe);
        assert!(!sockets.on_opened(&[(earlier, Some(4001))]) && !sockets.has_fresh());
        assert!(sockets.on_opened(&[(present, Some(4002))]));
        assert_eq!(sockets.take_fresh(), [(present, 4002)]);
    }
}
