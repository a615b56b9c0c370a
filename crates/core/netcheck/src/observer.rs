//! Members of a party as observers of filtering, where no server can answer from elsewhere.
//!
//! A lent socket that has talked to servers only is seen by one of them at some port of the NAT. A member with another
//! address sends a packet to that port. What arrives proves that the NAT lets everybody in. What does not arrive
//! proves nothing, since nobody knows what the member's own network did to it. A member who can lend two ports is
//! asked further then ([`crate::pair`]).
//!
//! Behind one carrier's NAT the packet may be turned around inside, past the filter; so members at addresses near our
//! own are not believed.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Filtering, SocketId};

use crate::{
    FilteringProbeRequest, Netcheck,
    client::Client,
    filtering::{LOSSY, NO_REFERENCE, UNFIT, UNPROVEN},
    servers::Family,
    stun,
    survey::{Purpose, Survey},
};

/// How long a packet may be under way, with what asks for it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1200);

/// What servers failed at, and a member made up for.
const UNTOLD: [&str; 4] = [NO_REFERENCE, UNFIT, UNPROVEN, LOSSY];

/// What is awaited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    errand: FilteringProbeRequest,
    pub(crate) until: Instant,
}

impl Netcheck {
    /// Tells whether there are members who could send a packet for us. The first ones are a reason to measure again
    /// where nobody could show filtering so far.
    pub fn set_observers_available(&mut self, now: Instant, there: bool) {
        if self.observers == there {
            return;
        }
        self.observers = there;
        self.surveys.iter_mut().for_each(|survey| survey.terms.observers = there);
        if there && self.finished.is_some() && self.lacks_filtering() {
            // The first need not wait for the lifetime of idle mappings, which takes minutes.
            let first = !self.surveys[Family::V4 as usize].filtering.is_watched();
            if first { self.measure_again(now) } else { self.resurvey(now) }
        }
    }

    fn lacks_filtering(&self) -> bool {
        self.config.probe_sockets > 0 && self.config.enabled && self.profile.filtering.is_none()
    }

    /// Takes a packet that a member may have sent for us.
    pub(crate) fn observed(
        &mut self,
        now: Instant,
        socket: SocketId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let survey = &mut self.surveys[Family::V4 as usize];
        let token = stun::indicated_id(bytes);
        token.is_some_and(|token| {
            survey.observed(socket, source, token) || survey.arrived(now, socket, source, token)
        })
    }
}

impl Survey {
    /// A watch for a member's packet to the socket of the filtering test, once a server has seen that.
    pub(crate) fn watch(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<Watch> {
        let to = self.seen_of(self.roles.filtering).first()?.reflexive;
        let errand = FilteringProbeRequest { to, token: client.token() };
        self.errand = Some(errand);
        Some(Watch { errand, until: now + PATIENCE })
    }

    /// Whether a member may be asked to send something: only to a socket that nobody but servers has heard of.
    pub(crate) fn may_watch(&self) -> bool {
        let wanted = self.found.filtering.is_none() && !self.filtering.is_watched();
        wanted && self.terms.observers && !self.roles.is_shared()
    }

    fn observed(&mut self, socket: SocketId, source: SocketAddr, token: stun::Id) -> bool {
        let Some(Watch { errand, .. }) = self.filtering.watch().filter(|watch| watch.errand.token == token)
        else {
            return false;
        };
        let stranger = self.asked_by(socket).all(|asked| asked.ip() != source.ip());
        if socket == self.roles.filtering && stranger && is_far(source, errand.to) {
            self.told_by_member(Filtering::EndpointIndependent);
            self.filtering.finish();
        }
        true
    }

    /// A member made up for what servers could not do.
    pub(crate) fn told_by_member(&mut self, filtering: Filtering) {
        self.found.filtering = Some(filtering);
        self.gaps.retain(|gap| !UNTOLD.contains(gap));
    }
}

/// The question by which one who lends a socket learns where a server sees it.
#[must_use]
pub fn binding_request(token: [u8; 12]) -> Vec<u8> {
    stun::request(token, stun::Change::Nothing, None)
}

/// The answer to it.
#[must_use]
pub fn mapped_address(server: SocketAddr, token: [u8; 12], bytes: &[u8]) -> Option<SocketAddr> {
    let answer = stun::answered_id(bytes)
        .filter(|id| *id == token)
        .and_then(|_| stun::answer(bytes, server, None).ok());
    answer.map(|answer| answer.mapped)
}

/// Whether packets from there to us surely pass all of our NAT.
pub(crate) fn is_far(source: SocketAddr, own: SocketAddr) -> bool {
    stun::is_public(source) == stun::is_public(own) && !are_near(source.ip(), own.ip())
}

/// Whether two addresses may belong to one carrier's NAT, as far as that shows: in one /24.
fn are_near(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        _ => true,
    }
}
