//! Which destinations share a mapping (RFC 5780, section 4.3).
//!
//! One socket asks a server at all its four addresses at once, or all servers there are; [`crate::infer::mapping`]
//! says what the answers mean, as soon as they mean something. Where the mappings differ, the first one is asked for
//! again, so that a NAT that merely forgot it is not taken for one that tells destinations apart.

use std::{net::SocketAddr, time::Instant};

use partyline_model::Mapping;

use crate::{
    client::Client,
    infer,
    survey::{Meeting, Purpose, Survey},
};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MappingTest {
    Waiting,
    /// So many questions are open.
    Asking(u8),
    /// Whether the first mapping is still there is asked; with the answer, once it is there.
    Confirming(Option<bool>),
    Done,
}

impl MappingTest {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }

    pub(crate) fn is_under_way(self) -> bool {
        matches!(self, Self::Asking(_) | Self::Confirming(_))
    }

    /// A question was answered, or was not.
    pub(crate) fn settled(&mut self, answered: bool) {
        *self = match *self {
            Self::Asking(open) => Self::Asking(open.saturating_sub(1)),
            Self::Confirming(None) => Self::Confirming(Some(answered)),
            other => other,
        };
    }
}

impl Survey {
    /// True if there may be more to do.
    pub(crate) fn step_mapping(
        &mut self,
        now: Instant,
        meeting: Meeting,
        client: &mut Client<Purpose>,
    ) -> bool {
        let next = match self.mapping {
            MappingTest::Waiting if self.may_compare(meeting) => MappingTest::Asking(0),
            MappingTest::Asking(open) => return self.compare(now, meeting, open, client),
            MappingTest::Confirming(Some(answered)) => {
                self.conclude_confirmed(answered);
                MappingTest::Done
            }
            MappingTest::Waiting | MappingTest::Confirming(None) | MappingTest::Done => return false,
        };
        self.mapping = next;
        true
    }

    /// A socket that also tests filtering must not talk to anybody else before that is over.
    fn may_compare(&self, meeting: Meeting) -> bool {
        let known = meeting.met || !self.references.is_empty();
        if self.roles.is_shared() { self.filtering.is_tried() } else { known }
    }

    /// Asks whoever was not asked yet: all at once, or, where the order of the allocations has to be known from this
    /// socket because there are no others, one after the other.
    fn compare(
        &mut self,
        now: Instant,
        meeting: Meeting,
        mut open: u8,
        client: &mut Client<Purpose>,
    ) -> bool {
        let in_turn = self.roles.fresh.is_empty();
        for target in self.targets() {
            if (in_turn && open > 0) || self.has_asked(self.roles.mapping, target) {
                continue;
            }
            self.ask(now, (self.roles.mapping, target), Purpose::Compare, client);
            open += 1;
        }
        self.mapping = MappingTest::Asking(open);
        if open > 0 || !(meeting.met || self.reference().is_some()) {
            return false;
        }
        self.confirm(now, client);
        true
    }

    fn targets(&self) -> Vec<SocketAddr> {
        let four = self.reference().map(|r| [r.server, r.other_port(), r.other_address(), r.other]);
        let mut targets: Vec<_> = four.into_iter().flatten().collect();
        for contact in &self.contacts {
            if !targets.contains(contact) {
                targets.push(*contact);
            }
        }
        targets
    }

    fn confirm(&mut self, now: Instant, client: &mut Client<Purpose>) {
        let seen = self.seen_of(self.roles.mapping);
        let inferred = infer::mapping(&seen).filter(|_| !self.torn);
        match seen.first().filter(|_| inferred != Some(Mapping::EndpointIndependent)) {
            Some(first) => {
                self.mapping = MappingTest::Confirming(None);
                self.ask(now, (self.roles.mapping, first.destination), Purpose::Compare, client);
            }
            None => {
                self.conclude_confirmed(!seen.is_empty());
                self.mapping = MappingTest::Done;
            }
        }
    }

    fn conclude_confirmed(&mut self, confirmed: bool) {
        self.found.mapping =
            infer::mapping(&self.seen_of(self.roles.mapping)).filter(|_| confirmed && !self.torn);
        if self.found.mapping.is_none() {
            self.gaps.push("mapping needs answers from two addresses and two ports");
        }
    }
}
