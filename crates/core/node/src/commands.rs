//! What users ask for.

use std::time::Instant;

use ipnet::Ipv4Net;
use partyline_model::{
    AppError, Command, DeviceId, ErrorCode, InviteLifetime, InvitePreview, Now, PartyId, PingSample, Reply,
    Role,
};
use partyline_party::{Membership, NewParty};
use partyline_wire::invite::Invite;

use crate::{
    Node,
    control::{ControlMessage, PING_PATIENCE},
    io::Output,
    local::LocalParty,
    problem::{join_error, party_error, timed_out, unknown_member, unknown_party},
    range::choose_range,
};

/// Names a command whose answer comes later.
pub type RequestId = u64;

/// Pings whose answer is still to come.
#[derive(Debug, Default)]
pub struct Pings {
    open: Vec<Ping>,
    next: u32,
}

#[derive(Debug)]
struct Ping {
    id: u32,
    request: RequestId,
    party: PartyId,
    member: DeviceId,
    sent: Instant,
}

impl Pings {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.open.iter().map(|ping| ping.sent + PING_PATIENCE).min()
    }
}

impl Node {
    /// Carries out a command. Answers come as [`Output::Answer`], most of them at once; what has to be written first
    /// ([`Output::Save`]) comes before them.
    pub fn handle_command(&mut self, now: Now, request: RequestId, command: Command) {
        let result = match command {
            // Its pong answers it.
            Command::Ping { party, member } => return self.ping(now, request, party, member),
            Command::Snapshot => {
                self.measure(now);
                Ok(Reply::Snapshot(Box::new(self.snapshot(now))))
            }
            Command::Configure { settings } => self.configure(now, *settings),
            Command::MeasurePaths { party, members } => Ok(self.look(now, party, &members)),
            Command::Samples { party, member } => self.samples(now, party, member),
            Command::Create { name, display_name, servers, range } => {
                self.create(now, name, display_name, servers, range)
            }
            Command::Preview { link } => self.preview(&link).map(Reply::Preview),
            Command::Join { link, display_name } => self.join(now, &link, display_name),
            Command::Invite { party, lifetime, role } => self.invite(now, party, lifetime, role),
            Command::Revoke { party, invite } => {
                self.govern(now, party, |party, now, rng| party.revoke_invite(now.unix, rng, invite))
            }
            Command::Kick { party, member } => {
                self.govern(now, party, |party, now, rng| party.remove_member(now.unix, rng, member))
            }
            Command::SetRange { party, range } => {
                self.govern(now, party, |party, now, rng| party.set_range(now.unix, rng, range))
            }
            Command::Leave { party } => self.leave(now, party),
            Command::Up { party } => self.set_on(now, party, true),
            Command::Down { party } => self.set_on(now, party, false),
            Command::Netcheck { stun } => self.check_network(now, &stun),
            Command::Doctor => Ok(Reply::Doctor(self.findings())),
            Command::Stop => self.stop(),
        };
        self.outputs.push_back(Output::Answer { request, result: Box::new(result) });
        self.touch();
    }

    fn create(
        &mut self,
        now: Now,
        name: String,
        display_name: String,
        servers: Vec<String>,
        range: Option<Ipv4Net>,
    ) -> Result<Reply, AppError> {
        let servers = if servers.is_empty() { self.settings.servers.clone() } else { servers };
        let display_name = self.name_or_own(display_name);
        let taken = self.parties.values().filter_map(|local| local.membership.range());
        let range = match range {
            Some(range) => range,
            None => choose_range(&self.local.prefixes, taken, &mut self.rng),
        };
        let new = NewParty { name, display_name, servers, range };
        let mut membership = Membership::create(now.unix, &mut self.rng, &self.device, new)
            .map_err(|error| party_error(&error))?;
        let (invite, _) = membership
            .create_invite(now.unix, &mut self.rng, InviteLifetime::Day, Role::Member)
            .map_err(|error| party_error(&error))?;
        let party = self.admit(now, membership);
        Ok(Reply::Created { party, link: link(&invite) })
    }

    /// The name of a command, or else the one that is set.
    fn name_or_own(&self, name: String) -> String {
        if name.is_empty() { self.settings.display_name.clone() } else { name }
    }

    fn preview(&self, link: &str) -> Result<InvitePreview, AppError> {
        let invite = Invite::parse(link)?;
        Ok(InvitePreview {
            party: invite.party,
            member: self.parties.contains_key(&invite.party),
            expires: invite.not_after.time(),
            role: invite.role,
            name: invite.name,
            inviter: invite.inviter,
            members: invite.members,
            servers: invite.servers,
        })
    }

    fn join(&mut self, now: Now, link: &str, display_name: String) -> Result<Reply, AppError> {
        let invite = Invite::parse(link)?;
        // Whoever was dismissed may come back by a new invite.
        let known = self.parties.get(&invite.party);
        if let Some(local) = known.filter(|local| !local.is_dismissed()) {
            return Err(AppError::new(
                ErrorCode::AlreadyMember,
                format!("This computer is in {} already.", local.membership.name()),
                "Switch it on with `partyline up`.",
            ));
        }
        let display_name = self.name_or_own(display_name);
        let membership = Membership::join(now.unix, &mut self.rng, &self.device, &invite, display_name)
            .map_err(|error| join_error(&error))?;
        let party = self.admit(now, membership);
        Ok(Reply::Joined { party })
    }

    fn admit(&mut self, now: Now, membership: Membership) -> PartyId {
        let party = membership.id();
        self.farewells.forget(party);
        self.parties.insert(party, LocalParty::new(now.instant, membership, true));
        self.outputs.push_back(Output::Save);
        self.switch_on(now, party);
        party
    }

    /// Takes back a party that was just made or joined, because it could not be written down.
    pub fn abandon(&mut self, now: Now, party: PartyId) {
        self.switch_off(now, party);
        self.parties.remove(&party);
        self.sync_links(now);
    }

    fn invite(
        &mut self,
        now: Now,
        party: PartyId,
        lifetime: InviteLifetime,
        role: Role,
    ) -> Result<Reply, AppError> {
        let local = self.parties.get_mut(&party).ok_or_else(unknown_party)?;
        let (invite, outcome) = local
            .membership
            .create_invite(now.unix, &mut self.rng, lifetime, role)
            .map_err(|error| party_error(&error))?;
        self.save_if(outcome.persist);
        Ok(Reply::Invite { link: link(&invite) })
    }

    fn govern(
        &mut self,
        now: Now,
        party: PartyId,
        act: impl FnOnce(
            &mut Membership,
            Now,
            &mut rand_chacha::ChaCha20Rng,
        ) -> Result<partyline_party::Outcome, partyline_party::PartyError>,
    ) -> Result<Reply, AppError> {
        let local = self.parties.get_mut(&party).ok_or_else(unknown_party)?;
        let outcome = act(&mut local.membership, now, &mut self.rng).map_err(|error| party_error(&error))?;
        self.apply(now, party, outcome);
        Ok(Reply::Done)
    }

    fn leave(&mut self, now: Now, party: PartyId) -> Result<Reply, AppError> {
        let local = self.parties.get_mut(&party).ok_or_else(unknown_party)?;
        let goodbyes = local.membership.leave(now.unix, &mut self.rng).messages;
        for goodbye in goodbyes {
            self.deliver_without(now, party, &goodbye);
        }
        self.queue_outbox(now);
        self.take_down(now, party);
        if let Some(local) = self.parties.remove(&party) {
            self.begin_farewell(now, local.membership);
        }
        self.outputs.push_back(Output::Save);
        Ok(Reply::Done)
    }

    fn set_on(&mut self, now: Now, party: PartyId, on: bool) -> Result<Reply, AppError> {
        let local = self.parties.get(&party).ok_or_else(unknown_party)?;
        if local.on != on {
            if on {
                self.switch_on(now, party)
            } else {
                self.switch_off(now, party)
            }
            self.outputs.push_back(Output::Save);
        }
        Ok(Reply::Done)
    }

    /// Ends cleanly: parties stay on for the next start, but their devices and connections go.
    fn stop(&mut self) -> Result<Reply, AppError> {
        self.stopping = true;
        self.outputs.push_back(Output::Save);
        let on: Vec<PartyId> = self.parties.iter().filter(|(_, local)| local.on).map(|(id, _)| *id).collect();
        for party in on {
            self.outputs.push_back(Output::DeviceDown { party });
        }
        let links: Vec<_> = self.links.keys().copied().collect();
        links.into_iter().for_each(|id| self.outputs.push_back(Output::ServerClose { id }));
        self.outputs.push_back(Output::Stopped);
        Ok(Reply::Done)
    }

    fn ping(&mut self, now: Now, request: RequestId, party: PartyId, member: DeviceId) {
        let known = match self.parties.get(&party) {
            None => Err(unknown_party()),
            Some(local) => local.membership.member(&member).map(|_| ()).ok_or_else(unknown_member),
        };
        if let Err(error) = known {
            return self.outputs.push_back(Output::Answer { request, result: Box::new(Err(error)) });
        }
        self.pings.next = self.pings.next.wrapping_add(1);
        let id = self.pings.next;
        self.pings.open.push(Ping { id, request, party, member, sent: now.instant });
        self.send_control(now.instant, party, member, &ControlMessage::Ping(id));
    }

    pub(crate) fn pong(&mut self, now: Instant, party: PartyId, from: DeviceId, id: u32) {
        let matches = |ping: &Ping| ping.id == id && ping.party == party && ping.member == from;
        if let Some(index) = self.pings.open.iter().position(matches) {
            let ping = self.pings.open.swap_remove(index);
            let rtt_ms = now.saturating_duration_since(ping.sent).as_secs_f32() * 1000.0;
            let result = Box::new(Ok(Reply::Pong(PingSample { rtt_ms })));
            self.outputs.push_back(Output::Answer { request: ping.request, result });
        }
    }

    pub(crate) fn expire_pings(&mut self, now: Instant) {
        let outputs = &mut self.outputs;
        self.pings.open.retain(|ping| {
            let open = ping.sent + PING_PATIENCE > now;
            if !open {
                let result = Box::new(Err(timed_out()));
                outputs.push_back(Output::Answer { request: ping.request, result });
            }
            open
        });
    }
}

/// The form that opens in a browser where the party has a server, else the one that opens the app.
fn link(invite: &Invite) -> String {
    invite.web_link().unwrap_or_else(|| invite.app_link())
}
