//! The LAN beacon: sealed messages by multicast on the local network, or by unicast to a neighbor.
//!
//! A beacon is repeated every few seconds while some member whose messages are received is still unconnected, and
//! rarely once all of them are connected.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, PartyId, Topic};
use partyline_party::Outgoing;
use partyline_wire::beacon;
use tracing::{debug, trace};

use super::{
    channel::{Channel, Context, Covered},
    channel_kind::ChannelKind,
    party::LocalParty,
};
use crate::io::Output;

/// Between two beacons while somebody heard lately is unconnected, or nobody was heard yet.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);
/// Between two beacons once everybody heard lately is connected.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);

/// The beacon, and when each party that is on sends the next one.
#[derive(Debug, Default)]
pub(super) struct Beacon {
    next: BTreeMap<PartyId, Instant>,
    /// True if the user wants none on any network.
    switched_off: bool,
}

impl Beacon {
    /// Switches the beacon on or off. On, the next ones are sent now.
    pub(super) fn set_on(&mut self, now: Instant, on: bool) {
        if self.is_on() != on {
            debug!(on, reason = "settings", "beacon switched");
            self.switched_off = !on;
            self.expedite_all(now);
        }
    }

    /// Returns true unless the beacon is switched off.
    pub(super) const fn is_on(&self) -> bool {
        !self.switched_off
    }

    /// Sends the next beacon of a party now, for example because it was switched on.
    pub(super) fn expedite(&mut self, now: Instant, party: PartyId) {
        self.next.insert(party, now);
    }

    /// Sends the next beacon of every party now, because the local network may be another one.
    pub(super) fn expedite_all(&mut self, now: Instant) {
        self.next.values_mut().for_each(|at| *at = now);
    }

    /// Ends the beacons of a party.
    pub(super) fn stop(&mut self, party: PartyId) {
        self.next.remove(&party);
    }

    /// Returns true if the party's next beacon is due.
    pub(super) fn is_due(&self, now: Instant, party: PartyId) -> bool {
        self.is_on() && self.next.get(&party).is_some_and(|at| *at <= now)
    }

    /// Plans the party's next beacon.
    pub(super) fn schedule(&mut self, now: Instant, party: PartyId, complete: bool) {
        let interval = if complete { IDLE_INTERVAL } else { SEARCH_INTERVAL };
        trace!(party = %party.short(), complete, next_s = interval.as_secs(), "beacon planned");
        if let Some(at) = self.next.get_mut(&party) {
            *at = now + interval;
        }
    }

    /// Returns the moment of the next beacon.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next.values().min().copied().filter(|_| self.is_on())
    }

    /// Announces this device to one neighbor, or to everybody on the local network.
    pub(super) fn announce_to(
        &self,
        cx: &mut Context<'_>,
        party: &mut LocalParty,
        neighbor: Option<SocketAddr>,
    ) {
        let Some(access) = party.current_topic().filter(|_| party.may_speak(cx.now.instant)) else { return };
        let outcome = party.membership.beacon(cx.now.unix, cx.rng, &access.topic, cx.reach);
        if let Some(message) = cx.take_message(outcome) {
            self.transmit(cx, &message, neighbor);
        }
    }

    /// Asks on the local network whether another run has this device's keys, or answers one.
    pub(super) fn say_to_runs(&self, cx: &mut Context<'_>, message: &Outgoing, to: Option<SocketAddr>) {
        self.transmit(cx, message, to);
    }

    fn transmit(&self, cx: &mut Context<'_>, message: &Outgoing, to: Option<SocketAddr>) {
        if !self.is_on() {
            return;
        }
        let Some(bytes) = beacon::encode(&message.topic, &message.message) else {
            trace!(channel = "beacon", len = message.message.len(), reason = "too long", "message not sent");
            return;
        };
        trace!(channel = "beacon", ?to, len = bytes.len(), "sending");
        cx.sent(ChannelKind::Beacon, 1);
        cx.output(Output::Beacon { to, bytes });
    }
}

impl Channel for Beacon {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Beacon
    }

    fn reaches(&self, party: &LocalParty, _: &Topic, members: &[DeviceId]) -> bool {
        self.is_on() && members.iter().all(|member| party.neighbor(member).is_some())
    }

    /// To everybody what is for everybody, to a neighbor what is for it. A member that is elsewhere, and within reach
    /// of another channel, needs no beacon.
    fn send(&mut self, cx: &mut Context<'_>, party: &LocalParty, message: &Outgoing, covered: Covered<'_>) {
        if !party.is_on() {
            return;
        }
        let neighbor = message.to.and_then(|to| party.neighbor(&to));
        let elsewhere = || message.to.is_some_and(|to| covered(party, &message.topic, &[to]));
        if neighbor.is_some() || !elsewhere() {
            self.transmit(cx, message, neighbor);
        }
    }

    fn announce(&mut self, cx: &mut Context<'_>, party: &mut LocalParty, _: Covered<'_>) {
        self.announce_to(cx, party, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn beacon_that_is_switched_off_is_never_due() {
        let (now, mut beacon, party) = (Instant::now(), Beacon::default(), PartyId([1; 32]));
        beacon.set_on(now, false);
        beacon.expedite(now, party);
        assert!(!beacon.is_due(now, party));
        assert_eq!(beacon.poll_timeout(), None);
        beacon.schedule(now, party, true);
        beacon.set_on(now, true);
        assert!(beacon.is_due(now, party), "at once");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn beacons_are_rare_once_everybody_is_connected() {
        let (now, mut beacon, party) = (Instant::now(), Beacon::default(), PartyId([1; 32]));
        assert!(!beacon.is_due(now, party), "a party that is off sends none");
        beacon.expedite(now, party);
        assert!(beacon.is_due(now, party));
        beacon.schedule(now, party, false);
        assert_eq!(beacon.poll_timeout(), Some(now + SEARCH_INTERVAL));
        beacon.schedule(now, party, true);
        assert_eq!(beacon.poll_timeout(), Some(now + IDLE_INTERVAL));
        beacon.expedite_all(now);
        assert!(beacon.is_due(now, party));
        beacon.stop(party);
        beacon.schedule(now, party, true);
        assert_eq!(beacon.poll_timeout(), None);
    }
}
