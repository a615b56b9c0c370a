//! What clients see.

use std::{net::SocketAddr, time::Instant};

use partyline_model::{
    DeviceId, DeviceView, DoctorFinding, InviteView, MemberView, NetworkReport, NetworkView, Now, PartyPhase,
    PartyView, PathEvent, PathView, Phase, Quality, Role, ServerView, Snapshot, Timestamp, TrafficView,
    Verdict,
};
use partyline_party::{Member, Standing};
use partyline_paths::PeerView;
use partyline_tunnel::SessionStats;

use crate::{Node, local::LocalParty, measure::Measurement};

impl Node {
    /// Everything there is to show now.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut parties: Vec<&LocalParty> = self.parties.values().collect();
        parties.sort_by_key(|local| (local.membership.joined_at(), local.membership.id()));
        Snapshot {
            revision: self.revision,
            phase: if self.stopping { Phase::Stopping } else { Phase::Ready },
            device: DeviceView { id: self.device.id(), version: self.config.version.clone() },
            parties: parties.into_iter().map(|local| self.party_view(now, local)).collect(),
            network: NetworkView { report: self.network_report(now), ..self.network_view() },
            settings: self.settings.without_passwords(),
        }
    }

    fn network_view(&self) -> NetworkView {
        let nat = self.netcheck.profile().clone();
        let port = self.local.port_v4.or(self.local.port_v6).unwrap_or_default();
        NetworkView { badge: self.netcheck.badge(), nat, port, report: NetworkReport::default() }
    }

    fn party_view(&self, now: Now, local: &LocalParty) -> PartyView {
        let membership = &local.membership;
        let mut members: Vec<MemberView> =
            membership.members().map(|member| self.member_view(now, local, &member)).collect();
        members.sort_by_key(|member| (!member.online, member.name.to_lowercase(), member.id));
        members.insert(0, self.own_view(local));
        PartyView {
            id: membership.id(),
            name: membership.name().to_owned(),
            phase: local.phase(),
            role: membership.role(),
            range: membership.range(),
            interface: local.interface.clone(),
            members,
            invites: membership
                .invites(now.unix)
                .map(|(id, expires, role)| invite_view(id, expires, role))
                .collect(),
            servers: membership.servers().iter().map(|url| self.server_view(url)).collect(),
            problem: local.problem.clone(),
        }
    }

    fn server_view(&self, url: &str) -> ServerView {
        let link = self.links.values().find(|link| link.url == url);
        ServerView {
            url: url.to_owned(),
            connected: link.is_some_and(crate::link::ServerLink::is_ready),
            problem: link.and_then(|link| link.problem.clone()),
        }
    }

    fn own_view(&self, local: &LocalParty) -> MemberView {
        let membership = &local.membership;
        MemberView {
            id: membership.me(),
            name: membership.display_name().to_owned(),
            role: membership.role(),
            me: true,
            confirmed: membership.standing() == Standing::Confirmed,
            online: local.phase() == PartyPhase::Up,
            address: membership.address_v4(),
            address_v6: Some(membership.address_v6()),
            badge: self.network_view().badge,
            path: None,
            quality: Quality::default(),
            traffic: TrafficView::default(),
            history: Vec::new(),
        }
    }

    fn member_view(&self, now: Now, local: &LocalParty, member: &Member<'_>) -> MemberView {
        let party = local.membership.id();
        let session = self.tunnel.session(party, member.device);
        let measured = self.measurements.get(&(party, member.device));
        let path = self.peers.id(party, member.device).and_then(|id| self.paths.view(now.instant, id));
        let open = member.nat.is_some_and(|nat| {
            // Over IPv6 everybody has a public address, whatever is in front of it.
            let mut public = nat.public.iter().filter(|address| address.is_ipv4());
            public.any(|address| member.candidates.iter().any(|known| is_host(known, *address)))
        });
        MemberView {
            id: member.device,
            name: member.name.to_owned(),
            role: member.role,
            me: false,
            confirmed: member.confirmed,
            online: self.is_online(now.instant, local, &member.device, path.as_ref(), session.as_ref()),
            address: member.address_v4,
            address_v6: Some(member.address_v6()),
            badge: member.nat.and_then(|nat| nat.badge(open)),
            quality: quality(now.instant, path.as_ref(), measured),
            history: path.as_ref().map(|path| history(now, path)).unwrap_or_default(),
            path: path.and_then(|path| self.path_view(now.instant, local, path, session.as_ref())),
            traffic: session.map(|session| traffic(&session, measured)).unwrap_or_default(),
        }
    }

    fn path_view(
        &self,
        now: Instant,
        local: &LocalParty,
        path: PeerView,
        session: Option<&SessionStats>,
    ) -> Option<PathView> {
        let handshake = session.and_then(|session| session.last_handshake);
        let via = path.through.and_then(|through| self.peers.member(through)).map(|(_, device)| device);
        let helper =
            via.and_then(|device| local.membership.member(&device)).map(|member| member.name.to_owned());
        Some(PathView {
            kind: path.kind?,
            remote: path.remote?,
            relay: path.relay.or(helper),
            via,
            age_s: whole_seconds(path.age),
            handshake_s: handshake.map(|at| whole_seconds(now.saturating_duration_since(at))),
            why: path.attempts,
        })
    }

    /// Online is who is connected, listed by a server, or was heard on the LAN or through others lately.
    pub(crate) fn is_online(
        &self,
        now: Instant,
        local: &LocalParty,
        device: &DeviceId,
        path: Option<&PeerView>,
        session: Option<&SessionStats>,
    ) -> bool {
        let connected =
            path.is_some_and(|path| path.kind.is_some()) && session.is_some_and(|session| session.ready);
        let listed = || {
            local.membership.topics().iter().filter(|access| access.current).any(|access| {
                let handle = local.handle_of(&access.topic, device);
                let rooms = self.links.values().filter_map(|link| link.rooms.get(&access.topic));
                rooms.into_iter().any(|room| handle.is_some_and(|handle| room.present.contains(&handle)))
            })
        };
        connected || local.heard_lately(now, device) || listed()
    }

    /// What a check-up finds, as far as the node knows.
    pub(crate) fn findings(&self) -> Vec<DoctorFinding> {
        let mut findings = vec![self.udp_finding()];
        for local in self.parties.values().filter(|local| local.on) {
            findings.extend(self.party_findings(local));
        }
        findings.extend(self.methods.finding());
        findings.extend(self.refusals_finding());
        findings.extend(self.errands.finding());
        findings
    }

    fn refusals_finding(&self) -> Option<DoctorFinding> {
        let counts: Vec<String> =
            self.refusals.telling().map(|(refusal, count)| format!("{count} x {refusal}")).collect();
        (!counts.is_empty()).then(|| DoctorFinding {
            what: "Messages".to_owned(),
            verdict: Verdict::Fair,
            note: format!("Dropped since the start: {}.", counts.join(", ")),
        })
    }

    fn udp_finding(&self) -> DoctorFinding {
        let (verdict, note) = match self.netcheck.profile().udp_blocked {
            Some(true) => (
                Verdict::Fair,
                "This network lets no UDP out. Parties work through a relay over TLS, with more delay; another \
                 network or a firewall rule for UDP makes them direct."
                    .to_owned(),
            ),
            Some(false) => {
                let addresses: Vec<String> = self.reflexive.iter().map(SocketAddr::to_string).collect();
                (Verdict::Good, format!("Servers see this computer at {}.", addresses.join(", ")))
            }
            None => (Verdict::Fair, "Not measured: no server has answered yet.".to_owned()),
        };
        DoctorFinding { what: "UDP".to_owned(), verdict, note }
    }

    fn party_findings(&self, local: &LocalParty) -> Vec<DoctorFinding> {
        let name = local.membership.name();
        let mut findings = Vec::new();
        if let Some(problem) = &local.problem {
            let note = format!("{} {}", problem.message, problem.hint);
            findings.push(DoctorFinding { what: format!("Party {name}"), verdict: Verdict::Bad, note });
        } else if local.phase() == PartyPhase::Up {
            let connected = self.connected(local.membership.id()).len();
            let note = format!("Up, with {connected} connected.");
            findings.push(DoctorFinding { what: format!("Party {name}"), verdict: Verdict::Good, note });
        } else {
            let note = "Waiting for another member to tell the party's address range.".to_owned();
            findings.push(DoctorFinding { what: format!("Party {name}"), verdict: Verdict::Fair, note });
        }
        if let Some(skew) = local.membership.clock_skew() {
            let direction = if skew.behind { "behind" } else { "ahead" };
            let minutes = skew.by.as_secs() / 60;
            let note = format!(
                "This computer's clock seems {minutes} minutes {direction}. Set it right: invites may seem expired."
            );
            findings.push(DoctorFinding { what: "Clock".to_owned(), verdict: Verdict::Bad, note });
        }
        findings.extend(local.membership.servers().iter().map(|url| self.server_finding(url)));
        findings
    }

    fn server_finding(&self, url: &str) -> DoctorFinding {
        let view = self.server_view(url);
        let (verdict, note) = match (view.connected, view.problem) {
            (true, _) => (Verdict::Good, "Connected.".to_owned()),
            (false, Some(problem)) => (Verdict::Bad, format!("{} {}", problem.message, problem.hint)),
            (false, None) => (Verdict::Fair, "Connecting.".to_owned()),
        };
        DoctorFinding { what: format!("Server {url}"), verdict, note }
    }
}

fn is_host(candidate: &partyline_model::Candidate, address: std::net::IpAddr) -> bool {
    candidate.kind == partyline_model::CandidateKind::Host && candidate.address.ip() == address
}

fn invite_view(id: partyline_model::InviteId, expires: Option<Timestamp>, role: Role) -> InviteView {
    InviteView { id, expires: expires.map(seconds), role }
}

fn history(now: Now, path: &PeerView) -> Vec<PathEvent> {
    let event = |(age, kind): &(std::time::Duration, _)| {
        let at = now.unix.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        PathEvent { at: seconds(Timestamp(at)), kind: *kind }
    };
    path.history.iter().map(event).collect()
}

fn quality(now: Instant, path: Option<&PeerView>, measured: Option<&Measurement>) -> Quality {
    let path = path.map(|path| path.quality).unwrap_or_default();
    measured.map_or(path, |measured| measured.quality(now, path))
}

fn traffic(session: &SessionStats, measured: Option<&Measurement>) -> TrafficView {
    let none = Measurement::default();
    measured.unwrap_or(&none).traffic(session)
}

fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.seconds()).unwrap_or(u32::MAX)
}

fn whole_seconds(span: std::time::Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}
