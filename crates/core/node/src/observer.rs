//! Members as observers of each other's NATs, where no server can answer from elsewhere.
//!
//! Who measures its network asks a few connected members, inside the tunnels, to send a packet to where a lent socket
//! of its is seen (`Observe`); netcheck says what its arrival proves. A member does so only for members of the party,
//! only to an address that the one who asks has announced as its own, three small packets each time, and seldom: as an
//! amplifier or against others it is of no use.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Candidate, CandidateKind, DeviceId, DoctorFinding, NatProfile, Now, PartyId, Verdict};
use partyline_netcheck::FilteringProbeRequest;
use partyline_paths::SocketId;

use crate::{Node, control::ControlMessage, egress::Local};

/// Members asked at a time.
const ASKED: usize = 3;
/// Packets sent for each question, against loss.
const PACKETS: usize = 3;
/// How often one member may ask, and how many may within that time.
const PAUSE: Duration = Duration::from_secs(10);
const MOST: usize = 16;

/// What was done for others.
#[derive(Debug, Default)]
pub(crate) struct Errands {
    last: BTreeMap<DeviceId, Instant>,
    done: u32,
    refused: u32,
}

impl Errands {
    /// Whether a member may ask now; counted either way.
    fn admit(&mut self, now: Instant, from: DeviceId, fair: bool) -> bool {
        self.last.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        let admitted = fair && self.last.len() < MOST && !self.last.contains_key(&from);
        if admitted {
            self.last.insert(from, now);
        }
        let count = if admitted { &mut self.done } else { &mut self.refused };
        *count = count.saturating_add(1);
        admitted
    }

    pub(crate) fn finding(&self) -> Option<DoctorFinding> {
        (self.done + self.refused > 0).then(|| DoctorFinding {
            what: "Friends' network checks".to_owned(),
            verdict: Verdict::Good,
            note: format!("Helped with {}, refused {}.", self.done, self.refused),
        })
    }
}

impl Node {
    /// Tells netcheck whether there is anybody to ask.
    pub(crate) fn tell_observers(&mut self, now: Now) {
        let there = !self.observers().is_empty();
        self.netcheck.set_observers_available(now.instant, there);
    }

    pub(crate) fn ask_observers(&mut self, now: Now, errand: FilteringProbeRequest) {
        let message = ControlMessage::Observe { to: errand.to, token: errand.token };
        let observers = self.observers();
        for (party, member) in observers.iter().take(ASKED) {
            self.send_control(now.instant, *party, *member, &message);
        }
        self.ask_for_port(now, &observers);
    }

    /// Connected members, each device once.
    fn observers(&self) -> Vec<(PartyId, DeviceId)> {
        let parties = self.parties.iter().filter(|(_, local)| local.on).map(|(party, _)| *party);
        let all = parties.flat_map(|party| self.connected(party).into_iter().map(move |one| (one, party)));
        let devices: BTreeMap<DeviceId, PartyId> = all.collect();
        devices.into_iter().map(|(device, party)| (party, device)).collect()
    }

    /// A member asks us to send a packet to where it is seen.
    pub(crate) fn asked_to_observe(
        &mut self,
        now: Now,
        party: PartyId,
        from: DeviceId,
        FilteringProbeRequest { to, token }: FilteringProbeRequest,
    ) {
        let fair = self.settings.serve_friends && self.is_at(party, from, to);
        if !self.errands.admit(now.instant, from, fair) {
            return;
        }
        let packet = FilteringProbeRequest { to, token }.packet();
        for _ in 0..PACKETS {
            self.transmits.push(Local::Socket(SocketId::MAIN), to, &packet);
        }
    }
}

impl Node {
    /// Whether a member has announced that servers see it at this address.
    pub(crate) fn is_at(&self, party: PartyId, member: DeviceId, address: SocketAddr) -> bool {
        let member = self.parties.get(&party).and_then(|local| local.membership.member(&member));
        member.is_some_and(|member| is_at(member.nat, member.candidates, address))
    }
}

/// Whether a member has announced that servers see it at this address.
fn is_at(nat: Option<&NatProfile>, candidates: &[Candidate], address: SocketAddr) -> bool {
    let IpAddr::V4(v4) = address.ip() else { return false };
    let somebody = !(v4.is_loopback() || v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified());
    let public = nat.is_some_and(|nat| nat.public.contains(&address.ip()));
    let reflexive = candidates.iter().any(|candidate| {
        candidate.kind == CandidateKind::ServerReflexive && candidate.address.ip() == address.ip()
    });
    somebody && address.port() != 0 && (public || reflexive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn each_member_is_helped_now_and_then_and_only_so_many_are() {
        let (now, mut errands) = (Instant::now(), Errands::default());
        let device = |number: u8| DeviceId([number; 32]);
        assert!(errands.admit(now, device(0), true) && !errands.admit(now, device(0), true));
        assert!(!errands.admit(now, device(1), false), "not its own address");
        (1..16).for_each(|number| assert!(errands.admit(now, device(number), true), "{number}"));
        assert!(!errands.admit(now, device(16), true));
        assert!(errands.admit(now + PAUSE, device(16), true) && errands.admit(now + PAUSE, device(0), true));
        assert_eq!((errands.done, errands.refused), (18, 3));
    }

    #[test]
    fn nothing_is_sent_to_where_the_member_was_not_seen() {
        let at = |address: &str| address.parse().expect("an address");
        let candidate = |kind, address| Candidate { kind, address: at(address) };
        let candidates = [
            candidate(CandidateKind::Host, "192.168.1.7:41641"),
            candidate(CandidateKind::Relayed, "11.0.9.9:50000"),
            candidate(CandidateKind::ServerReflexive, "11.0.0.1:41641"),
        ];
        let nat = NatProfile { public: vec![[11, 0, 0, 2].into()], ..NatProfile::default() };
        let cases = [
            ("11.0.0.1:5000", true),
            ("11.0.0.2:5000", true),
            ("11.0.0.1:0", false),
            ("11.0.9.9:50000", false),
            ("192.168.1.7:41641", false),
            ("11.0.0.3:41641", false),
            ("[2001:db8::1]:41641", false),
        ];
        for (address, fair) in cases {
            assert_eq!(is_at(Some(&nat), &candidates, at(address)), fair, "{address}");
        }
        let liar = NatProfile { public: vec![[127, 0, 0, 1].into()], ..NatProfile::default() };
        assert!(!is_at(Some(&liar), &[], at("127.0.0.1:53")));
    }
}
