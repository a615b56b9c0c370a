//! Draws the snapshot: everything clients show, read from all parts of the node.

use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use partyline_model::{
    Candidate, CandidateKind, DeviceView, InviteView, JoinRequestView, MemberNotices, MemberView,
    NetworkView, Now, PartyPhase, PartyView, PathEvent, PathView, Phase, Quality, ServerView, Settings,
    Snapshot, Timestamp, TrafficView,
};
use partyline_party::{Member, OpenInvite, PendingJoin, Standing};
use partyline_paths::PeerView;
use partyline_tunnel::{SessionStats, Storm};
use partyline_wire::name::{alike, folded};

use super::{
    measurement::{Measurement, Measurements},
    own_address::server_status,
};
use crate::{
    connectivity::Connectivity,
    signaling::{LocalParty, Signaling},
};

/// How long after its last drop a broadcast storm is shown.
const STORM_SHOWN_FOR: Duration = Duration::from_secs(60);

/// What a snapshot is drawn from.
pub(super) struct Sources<'a> {
    pub now: Now,
    pub signaling: &'a Signaling,
    pub connectivity: &'a Connectivity,
    pub measurements: &'a Measurements,
}

impl Sources<'_> {
    /// Draws everything there is to show now.
    pub(super) fn snapshot(
        &self,
        revision: u32,
        phase: Phase,
        device: DeviceView,
        settings: &Settings,
    ) -> Snapshot {
        let mut parties: Vec<&LocalParty> = self.signaling.parties().collect();
        parties.sort_by_key(|party| (party.membership().joined_at(), party.id()));
        Snapshot {
            revision,
            phase,
            device,
            parties: parties.into_iter().map(|party| self.party_view(party)).collect(),
            former_parties: self.signaling.former_parties().to_vec(),
            network: self.network_view(),
            settings: settings.without_passwords(),
        }
    }

    fn network_view(&self) -> NetworkView {
        NetworkView {
            badge: self.connectivity.badge(),
            nat: self.connectivity.nat().clone(),
            port: self.connectivity.port().unwrap_or_default(),
            report: self.connectivity.network_report(self.now),
        }
    }

    fn party_view(&self, party: &LocalParty) -> PartyView {
        let membership = party.membership();
        let mut members: Vec<MemberView> =
            membership.members().map(|member| self.member_view(party, &member)).collect();
        members.sort_by_key(|member| (!member.online, folded(&member.name), member.id));
        members.insert(0, self.own_view(party));
        let mut join_requests: Vec<JoinRequestView> =
            membership.join_requests().map(join_request_view).collect();
        mark_alike(&mut members, &mut join_requests);
        let invites = membership.invites(self.now.unix);
        PartyView {
            id: party.id(),
            name: membership.name().to_owned(),
            phase: party.phase(),
            role: membership.role(),
            range: membership.range(),
            range_requested: party.is_range_requested(),
            incoming: party.incoming().clone(),
            interface: party.interface().map(str::to_owned),
            members,
            invites: invites.map(invite_view).collect(),
            approval: membership.is_approval_needed(),
            join_requests,
            waits_for: membership.waits_for(),
            servers: membership.servers().iter().map(|url| self.server_view(url)).collect(),
            discovery: self.signaling.discovery(party.id()),
            problem: party.problem(),
        }
    }

    fn server_view(&self, url: &str) -> ServerView {
        let (connected, problem) = server_status(self.signaling, self.connectivity, url);
        ServerView { url: url.to_owned(), connected, problem }
    }

    fn own_view(&self, party: &LocalParty) -> MemberView {
        let membership = party.membership();
        MemberView {
            id: membership.me(),
            name: membership.display_name().to_owned(),
            alike: false,
            role: membership.role(),
            me: true,
            confirmed: membership.standing() == Standing::Confirmed,
            invite: membership.invite(),
            joined_at: seconds(membership.joined_at()),
            online: party.phase() == PartyPhase::Up,
            address: membership.address_v4(),
            address_v6: Some(membership.address_v6()),
            badge: self.connectivity.badge(),
            path: None,
            quality: Quality::default(),
            traffic: TrafficView::default(),
            history: Vec::new(),
            notices: MemberNotices {
                broadcasts_dropped: self.ongoing(self.connectivity.tunnel().own_storm(party.id())),
                copied: party.has_met_copy(self.now.instant),
                ..MemberNotices::default()
            },
        }
    }

    /// Returns how many broadcasts a storm has cost, if it still goes on.
    fn ongoing(&self, storm: Storm) -> Option<u32> {
        let age = self.now.instant.saturating_duration_since(storm.last?);
        (age < STORM_SHOWN_FOR).then(|| u32::try_from(storm.dropped).unwrap_or(u32::MAX))
    }

    fn member_view(&self, party: &LocalParty, member: &Member<'_>) -> MemberView {
        let (id, device, now) = (party.id(), member.device, self.now.instant);
        let session = self.connectivity.session(id, device);
        let measured = self.measurements.get((id, device));
        let path = self.connectivity.path(now, id, device);
        let connected = path.as_ref().is_some_and(|path| path.kind.is_some())
            && session.is_some_and(|session| session.ready);
        let online = connected || self.signaling.is_online(now, id, &device);
        let no_hairpin = path.as_ref().and_then(|path| path.no_hairpin).filter(|_| online);
        MemberView {
            id: device,
            name: member.name.to_owned(),
            alike: false,
            role: member.role,
            me: false,
            confirmed: member.confirmed,
            invite: member.invite,
            joined_at: seconds(member.joined_at),
            online,
            address: member.address_v4,
            address_v6: Some(member.address_v6()),
            badge: member.nat.and_then(|nat| nat.badge(has_public_address(member))),
            quality: quality(now, path.as_ref(), measured),
            history: path.as_ref().map(|path| history(self.now, path)).unwrap_or_default(),
            path: path.and_then(|path| self.path_view(party, path, session.as_ref())),
            traffic: session.map(|session| traffic(&session, measured)).unwrap_or_default(),
            notices: MemberNotices {
                broadcasts_dropped: session.and_then(|session| self.ongoing(session.storm)),
                range_clash: range_clash(party, member),
                copied: member.copied,
                no_hairpin,
            },
        }
    }

    fn path_view(
        &self,
        party: &LocalParty,
        path: PeerView,
        session: Option<&SessionStats>,
    ) -> Option<PathView> {
        let handshake = session.and_then(|session| session.last_handshake);
        let via =
            path.through.and_then(|through| self.connectivity.member(through)).map(|(_, device)| device);
        let relaying = via.and_then(|device| party.membership().member(&device));
        let age = |at| whole_seconds(self.now.instant.saturating_duration_since(at));
        Some(PathView {
            kind: path.kind?,
            remote: path.remote?,
            relay: path.relay.or(relaying.map(|member| member.name.to_owned())),
            via,
            age_s: whole_seconds(path.age),
            handshake_s: handshake.map(age),
            why: path.attempts,
        })
    }
}

/// Returns true if a server sees the member at an IPv4 address of its own interface. Over IPv6 everybody has a public
/// address, whatever filters in front of it.
fn has_public_address(member: &Member<'_>) -> bool {
    let public = member.nat.into_iter().flat_map(|nat| &nat.public);
    let mut v4 = public.filter(|address| address.is_ipv4());
    let is_host = |candidate: &Candidate, address: &std::net::IpAddr| {
        candidate.kind == CandidateKind::Host && candidate.address.ip() == *address
    };
    v4.any(|address| member.candidates.iter().any(|known| is_host(known, address)))
}

/// Returns the member's network that the party's range clashes with, if the member asks for another range. Until it
/// announces itself again after a change of the range, it still names the former one.
fn range_clash(party: &LocalParty, member: &Member<'_>) -> Option<Ipv4Net> {
    let (network, range) = (member.avoided_networks.first()?, party.membership().range()?);
    (network.contains(&range) || range.contains(network)).then_some(*network)
}

/// Marks those whose names can be taken for another one's: everybody chooses their own name, and may choose that of
/// somebody else.
fn mark_alike(members: &mut [MemberView], requests: &mut [JoinRequestView]) {
    let named = members.iter().map(|member| member.name.as_str());
    let alike = alike(named.chain(requests.iter().map(|request| request.name.as_str())));
    let marks = members.iter_mut().map(|member| &mut member.alike);
    let marks = marks.chain(requests.iter_mut().map(|request| &mut request.alike));
    marks.zip(alike).for_each(|(mark, alike)| *mark = alike);
}

fn invite_view(invite: OpenInvite) -> InviteView {
    let OpenInvite { id, ends, used, uses, role } = invite;
    let used = u8::try_from(used).unwrap_or(u8::MAX);
    InviteView { id, expires: ends.map(seconds), used, uses, role }
}

fn join_request_view(pending: PendingJoin<'_>) -> JoinRequestView {
    let PendingJoin { device, name, invite, declined } = pending;
    JoinRequestView { device, name: name.to_owned(), alike: false, invite, declined }
}

fn history(now: Now, path: &PeerView) -> Vec<PathEvent> {
    let event = |(age, kind): &(Duration, _)| {
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

fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}
