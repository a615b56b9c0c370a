//! Keeps the tunnel and the path machine in step with who belongs and how they may be reached.

use std::time::Instant;

use hmac::{Hmac, Mac as _};
use ipnet::{Ipv4Net, Ipv6Net};
use partyline_model::{AppError, Candidate, CandidateKind, DeviceId, ErrorCode, Now, PartyId};
use partyline_paths::PeerParams;
use partyline_tunnel::{PartyConfig, PeerConfig};
use partyline_wire::probe::Tag;
use sha2::Sha256;

use crate::{
    Node,
    io::{DeviceConfig, DeviceInput, Output},
    local::LocalParty,
};

const PREFIX_V6: u8 = 64;

impl Node {
    /// Brings a party up: its network, its members, its servers.
    pub(crate) fn switch_on(&mut self, now: Now, party: PartyId) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        local.on = true;
        local.problem = None;
        local.beacon_soon(now.instant);
        local.announce_soon(now.instant);
        self.sync_device(now, party);
        self.sync_links(now);
        self.touch();
    }

    /// Takes a party down without leaving it.
    pub(crate) fn switch_off(&mut self, now: Now, party: PartyId) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        local.on = false;
        self.take_down(now, party);
        self.sync_links(now);
    }

    /// Ends a party's device and sessions.
    pub(crate) fn take_down(&mut self, now: Now, party: PartyId) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        local.interface = None;
        local.problem = None;
        let had_device = local.device.take().is_some();
        let members: Vec<DeviceId> = std::mem::take(&mut local.contacts).into_keys().collect();
        members.into_iter().for_each(|device| self.drop_peer(now.instant, party, device));
        self.tunnel.remove_party(party);
        if had_device {
            self.outputs.push_back(Output::DeviceDown { party });
        }
        self.touch();
    }

    /// Makes device and tunnel match the party's range and our address in it.
    pub(crate) fn sync_device(&mut self, now: Now, party: PartyId) {
        let wanted = |local: &&mut LocalParty| local.on && !local.is_dismissed();
        let Some(local) = self.parties.get_mut(&party).filter(wanted) else { return };
        let membership = &local.membership;
        let (Some(address), Some(range)) = (membership.address_v4(), membership.range()) else { return };
        let v4 = Ipv4Net::new(address, range.prefix_len());
        let v6 = Ipv6Net::new(membership.address_v6(), PREFIX_V6);
        let (Ok(v4), Ok(v6)) = (v4, v6) else { return };
        let mtu = self.settings.mtu;
        let device = DeviceConfig { v4, v6, mtu };
        if local.device.as_ref() == Some(&device) {
            return;
        }
        local.device = Some(device.clone());
        local.interface = None;
        local.problem = local.problem.take().filter(|problem| problem.code != ErrorCode::InviteExpired);
        let secret = local.membership.tunnel_secret();
        let members: Vec<DeviceId> = local.membership.devices().collect();
        self.tunnel.set_party(party, secret, PartyConfig { v4, v6, mtu });
        self.outputs.push_back(Output::DeviceUp { party, device });
        members.into_iter().for_each(|device| self.sync_member(now.instant, party, device));
        self.check_ranges();
    }

    /// Takes what became of a party's device.
    pub fn handle_device(&mut self, party: PartyId, input: DeviceInput) {
        let Some(local) = self.parties.get_mut(&party).filter(|local| local.on) else { return };
        match input {
            DeviceInput::Up(name) => {
                local.interface = Some(name);
                local.problem =
                    local.problem.take().filter(|problem| problem.code == ErrorCode::RangeConflict);
            }
            DeviceInput::Failed(error) => {
                local.interface = None;
                local.problem = Some(error);
            }
        }
        self.touch();
    }

    /// Tells each party whose range is also a network this computer is in.
    pub(crate) fn check_ranges(&mut self) {
        for local in self.parties.values_mut().filter(|local| local.on) {
            let Some(range) = local.membership.range() else { continue };
            let clash = self.local.prefixes.iter().find(|prefix| overlaps(prefix, range));
            let had = local.problem.as_ref().is_some_and(|problem| problem.code == ErrorCode::RangeConflict);
            match clash {
                Some(prefix) => local.problem = Some(range_conflict(range, prefix)),
                None if had => local.problem = None,
                None => {}
            }
        }
    }

    /// Tells the tunnel and the path machine what is known of a member now.
    pub(crate) fn sync_member(&mut self, now: Instant, party: PartyId, device: DeviceId) {
        // Without an address of our own the tunnel does not know the party yet, and would not hear of the path.
        let wanted = |local: &&mut LocalParty| local.on && local.device.is_some();
        let Some(local) = self.parties.get_mut(&party).filter(wanted) else { return };
        let probe_key = local.keep_keys(device);
        let Some(member) = local.membership.member(&device) else {
            return self.drop_peer(now, party, device);
        };
        let config = PeerConfig { key: member.tunnel_key, v4: member.address_v4, v6: member.address_v6() };
        let session = member.session;
        let params = probe_key.map(|probe_key| {
            let me = local.membership.me();
            let lan = local.lan_address(&device, member.candidates);
            let lan = lan.map(|address| Candidate { kind: CandidateKind::Lan, address });
            PeerParams {
                local_tag: tag(&probe_key, &me),
                remote_tag: tag(&probe_key, &device),
                probe_key,
                controlling: me < device,
                nat: member.nat.cloned().unwrap_or_default(),
                candidates: lan.into_iter().chain(member.candidates.iter().copied()).collect(),
            }
        });
        self.tunnel.set_peer(now, party, device, config);
        if let Some(params) = params {
            let id = self.peers.id_or_insert(party, device);
            self.paths.set_peer(now, id, params);
        }
        if let Some(local) = self.parties.get_mut(&party) {
            local.contacts.entry(device).or_default().address = config.v4;
        }
        self.note_session(now, party, device, session);
    }

    /// Tells the tunnel whose addresses are others now: in a clash, whoever gives way leaves the address to another, of
    /// whom nothing new is heard.
    pub(crate) fn sync_addresses(&mut self, now: Instant, party: PartyId) {
        let Some(local) = self.parties.get(&party) else { return };
        let told = |device: &DeviceId| local.contacts.get(device).and_then(|contact| contact.address);
        let moved: Vec<DeviceId> = local
            .membership
            .members()
            .filter(|member| told(&member.device) != member.address_v4)
            .map(|member| member.device)
            .collect();
        moved.into_iter().for_each(|device| self.sync_member(now, party, device));
    }

    /// A member whose engine was restarted has lost its keys: shake hands anew.
    fn note_session(
        &mut self,
        now: Instant,
        party: PartyId,
        device: DeviceId,
        session: Option<partyline_model::SessionNonce>,
    ) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        let contact = local.contacts.entry(device).or_default();
        let before = std::mem::replace(&mut contact.session, session);
        if before.is_some() && before != session {
            self.tunnel.rekey(now, party, device);
        }
    }

    /// Forgets the way to a member.
    pub(crate) fn drop_peer(&mut self, now: Instant, party: PartyId, device: DeviceId) {
        if let Some(id) = self.peers.remove(party, device) {
            self.paths.remove_peer(now, id);
        }
        self.tunnel.remove_peer(party, device);
        self.measurements.remove(&(party, device));
        if let Some(local) = self.parties.get_mut(&party) {
            local.contacts.remove(&device);
        }
        self.touch();
    }
}

/// What a member is called in probes: says nothing to anyone who lacks the probe key.
fn tag(probe_key: &[u8; 32], device: &DeviceId) -> Tag {
    let mut tag = [0; 8];
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(probe_key) {
        mac.update(&device.0);
        tag.copy_from_slice(&mac.finalize().into_bytes()[..8]);
    }
    Tag(tag)
}

fn overlaps(prefix: &ipnet::IpNet, range: Ipv4Net) -> bool {
    matches!(prefix, ipnet::IpNet::V4(prefix) if prefix.contains(&range) || range.contains(prefix))
}

fn range_conflict(range: Ipv4Net, prefix: &ipnet::IpNet) -> AppError {
    AppError::new(
        ErrorCode::RangeConflict,
        format!(
            "The party uses the addresses {range}, and so does a network this computer is in ({prefix})."
        ),
        "Ask the party's owner to move it to another range with `partyline range`, or leave that network.",
    )
}
