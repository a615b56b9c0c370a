//! What is known, and how it is told.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use partyline_model::{Badge, CheckStep, CheckTopic, Confidence, NatProfile, StepState};

use crate::{Event, Netcheck, Report, servers::Family, stun};

const MOST_REFLEXIVE: usize = 8;
/// Servers at so many addresses do not all happen to be dead.
const SILENT_SERVERS: usize = 2;

impl Netcheck {
    /// What is known.
    #[must_use]
    pub fn profile(&self) -> &NatProfile {
        &self.profile
    }

    /// The same in one word, once known. Over IPv6 everybody has a public address, whatever is in front of it, so only
    /// an IPv4 address of one's own means that nothing is.
    #[must_use]
    pub fn badge(&self) -> Option<Badge> {
        self.profile.badge(self.profile.public.iter().any(|ip| ip.is_ipv4() && self.is_own(*ip)))
    }

    /// The addresses at which servers see the tunnel's socket, IPv4 first, one per server and mapping, at most 8.
    #[must_use]
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        let mut reflexive = Vec::new();
        for family in Family::BOTH {
            for seen in self.servers.list.iter().filter_map(|s| s.report.reflexive) {
                if Family::of(seen) == family && !reflexive.contains(&seen) {
                    reflexive.push(seen);
                }
            }
        }
        reflexive.truncate(MOST_REFLEXIVE);
        reflexive
    }

    /// What was asked and what came of it.
    #[must_use]
    pub fn report(&self) -> Report {
        let took = |(at, _): (Instant, u32)| at.saturating_duration_since(self.surveyed);
        Report {
            servers: self.servers.list.iter().map(|server| server.report.clone()).collect(),
            enabled: self.config.enabled,
            finished: self.finished.is_some(),
            finished_at: self.finished.map(|(at, _)| at),
            duration: self.finished.map(took),
            packets: self.finished.map_or_else(|| self.packets(), |(_, packets)| packets),
            steps: self.steps(),
            confidence: self.confidence(),
            gaps: self.gaps(),
            dropped: self.client.dropped,
        }
    }

    fn gaps(&self) -> Vec<&'static str> {
        let mut gaps = self.surveys[Family::V4 as usize].gaps.clone();
        gaps.extend(self.idle.gap);
        gaps.dedup();
        gaps
    }

    fn steps(&self) -> Vec<CheckStep> {
        let [v4, v6] = &self.surveys;
        let profile = &self.profile;
        let known = [
            (CheckTopic::Address, !profile.public.is_empty()),
            (CheckTopic::Filtering, profile.filtering.is_some()),
            (CheckTopic::Mapping, profile.mapping.is_some()),
            (CheckTopic::Allocation, profile.allocation.is_some()),
            (CheckTopic::Hairpin, profile.hairpin.is_some()),
            (CheckTopic::Ipv6, profile.ipv6 == Some(false) || profile.firewall_v6.is_some()),
        ];
        let state = |(what, known)| {
            let doing = if what == CheckTopic::Ipv6 { v6.is_at(what) } else { v4.is_at(what) };
            CheckStep { what, state: self.state(known, doing) }
        };
        known.into_iter().map(state).chain([self.lifetime_step()]).collect()
    }

    fn lifetime_step(&self) -> CheckStep {
        let state = match (self.idle.is_running(), self.profile.lifetime.is_some()) {
            (true, _) => StepState::Running,
            (false, true) => StepState::Known,
            (false, false) if self.finished.is_some() => StepState::Unknown,
            (false, false) => StepState::Waiting,
        };
        CheckStep { what: CheckTopic::Lifetime, state }
    }

    fn state(&self, known: bool, doing: bool) -> StepState {
        match (self.finished.is_some(), known) {
            (_, true) => StepState::Known,
            (true, false) => StepState::Unknown,
            (false, false) if doing && self.config.enabled => StepState::Running,
            (false, false) => StepState::Waiting,
        }
    }

    fn confidence(&self) -> Confidence {
        let NatProfile { mapping, filtering, allocation, public, .. } = &self.profile;
        match (public.is_empty(), mapping, filtering, allocation) {
            (true, ..) => Confidence::None,
            (_, None, ..) => Confidence::Low,
            (_, Some(_), Some(_), Some(_)) => Confidence::High,
            _ => Confidence::Medium,
        }
    }

    pub(crate) fn update_profile(&mut self) {
        let before = std::mem::take(&mut self.profile);
        let mut public: Vec<IpAddr> = self.reflexive().iter().map(SocketAddr::ip).collect();
        public.dedup();
        let keep = !moved(&before.public, &public);
        let [v4, v6] = &self.surveys;
        self.profile = NatProfile {
            mapping: if v4.is_done() || v4.found.mapping.is_some() {
                v4.found.mapping
            } else {
                before.mapping.filter(|_| keep)
            },
            filtering: v4.found.filtering.or(before.filtering.filter(|_| keep)),
            allocation: v4.found.allocation.or(before.allocation.filter(|_| keep)),
            hairpin: v4.found.hairpin.or(before.hairpin.filter(|_| keep)),
            lifetime: self.idle.found.map_or(before.lifetime.filter(|_| keep), |(found, _)| found),
            udp_blocked: self.udp_blocked(),
            double_nat: self.double_nat(&public),
            carrier_nat: self.outside().map(is_carrier),
            ipv6: self.ipv6(&public),
            firewall_v6: v6.found.filtering.or(before.firewall_v6.filter(|_| keep)),
            public: if public.is_empty() { before.public } else { public },
        };
    }

    /// Silence is blocked UDP only if it is not that a server is dead: if one that is reachable over TCP is silent, or
    /// several are while some server is reachable.
    fn udp_blocked(&self) -> Option<bool> {
        if self.servers.any_answers() {
            return Some(false);
        }
        let silent = self.servers.silent();
        let proven = silent.intersection(&self.reachable).next().is_some()
            || ((self.online || !self.reachable.is_empty()) && silent.len() >= SILENT_SERVERS);
        (proven && self.servers.all_silent(self.most())).then_some(true)
    }

    /// The router's own outside address, by the port it opened or the flow it keeps.
    fn outside(&self) -> Option<IpAddr> {
        self.router.or_else(|| self.kept.outside())
    }

    /// The router's outside address is not the one that servers see.
    fn double_nat(&self, public: &[IpAddr]) -> Option<bool> {
        let router = self.outside()?;
        if !stun::is_public(SocketAddr::new(router, 0)) {
            return Some(true);
        }
        let comparable = public.iter().any(|ip| ip.is_ipv4() == router.is_ipv4());
        comparable.then(|| !public.contains(&router))
    }

    /// An answer over IPv6 proves it; that there is no address for it disproves it.
    fn ipv6(&self, public: &[IpAddr]) -> Option<bool> {
        if public.iter().any(IpAddr::is_ipv6) {
            return Some(true);
        }
        (!self.local.is_empty() && self.local.iter().all(SocketAddr::is_ipv4)).then_some(false)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.local.iter().any(|local| local.ip() == ip)
    }

    pub(crate) fn tell(&mut self) {
        let reflexive = self.reflexive();
        if reflexive != self.told_reflexive {
            self.told_reflexive.clone_from(&reflexive);
            self.events.push_back(Event::Reflexive(reflexive));
        }
        if self.profile == self.told_profile {
            return;
        }
        if let Some(blocked) = self.profile.udp_blocked.filter(|b| Some(*b) != self.told_profile.udp_blocked)
        {
            self.events.push_back(Event::UdpBlocked(blocked));
        }
        self.told_profile.clone_from(&self.profile);
        self.events.push_back(Event::Profile(self.profile.clone()));
    }
}

/// 100.64.0.0/10, the space between carriers' NATs and their customers' routers.
fn is_carrier(router: IpAddr) -> bool {
    matches!(router, IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
}

/// Whether the public IPv4 addresses have nothing in common with those before.
fn moved(before: &[IpAddr], now: &[IpAddr]) -> bool {
    let v4 = |list: &[IpAddr]| list.iter().copied().filter(IpAddr::is_ipv4).collect::<Vec<_>>();
    let (before, now) = (v4(before), v4(now));
    !before.is_empty() && !now.is_empty() && !now.iter().any(|ip| before.contains(ip))
}
