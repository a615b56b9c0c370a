//! Rendezvous servers: which to be at, which topics to enter there, what they say.

use std::{collections::BTreeMap, time::Duration};

use partyline_model::{AppError, DeviceId, ErrorCode, Now, PartyId, Topic};
use partyline_party::{Membership, Outgoing, TopicAccess};
use partyline_wire::rendezvous::{
    ClientFrame, RefusalCode, ServerFrame, TopicMember, VERSION, proof_message,
};

use crate::{
    Node,
    io::{Output, ServerId, ServerInput},
    link::{Room, ServerLink},
    signalling::Channel,
};

impl Node {
    /// Opens links that some party wants and closes those that none wants any more.
    pub(crate) fn sync_links(&mut self, now: Now) {
        let wanted: Vec<String> = self
            .parties
            .values()
            .filter(|local| local.on)
            .flat_map(|local| local.membership.servers())
            .chain(self.farewells.servers())
            .cloned()
            .collect();
        let unwanted: Vec<ServerId> =
            self.links.iter().filter(|(_, link)| !wanted.contains(&link.url)).map(|(id, _)| *id).collect();
        for id in unwanted {
            self.links.remove(&id);
            self.relays.forget(id);
            self.outputs.push_back(Output::ServerClose { id });
        }
        for url in wanted {
            if self.links.values().all(|link| link.url != url) {
                self.next_server += 1;
                self.links.insert(ServerId(self.next_server), ServerLink::new(now.instant, url));
            }
        }
        self.open_links(now);
        self.sync_rooms(now);
        self.apply_relays(now);
    }

    pub(crate) fn open_links(&mut self, now: Now) {
        for (id, link) in &mut self.links {
            if link.is_silent(now.instant) {
                self.outputs.push_back(Output::ServerClose { id: *id });
            }
            if link.due(now.instant) {
                self.outputs.push_back(Output::ServerOpen { id: *id, url: link.url.clone() });
            }
        }
    }

    /// The network is another one, or was gone: connections that wait are made at once, and those that stand have to
    /// show that they still do.
    pub(crate) fn check_links(&mut self, now: Now) {
        self.links.values_mut().for_each(|link| link.hurry(now.instant));
        let doubted: Vec<ServerId> =
            self.links.iter_mut().filter_map(|(id, link)| link.doubt(now.instant).then_some(*id)).collect();
        doubted.into_iter().for_each(|id| self.send_frame(id, &ClientFrame::Time { echo: 0 }));
    }

    /// The address that connections were made from is gone, and with it whatever they would still carry.
    pub(crate) fn leave_links(&mut self) {
        for (id, link) in &mut self.links {
            if link.moved() {
                self.outputs.push_back(Output::ServerClose { id: *id });
            }
        }
    }

    /// Takes what became of a rendezvous connection.
    pub fn handle_server(&mut self, now: Now, id: ServerId, input: ServerInput) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard();
        match input {
            ServerInput::Opened => link.opened(now.instant),
            ServerInput::Closed(problem) => link.closed(now.instant, problem, &mut self.rng),
            ServerInput::Frame(bytes) => match ServerFrame::decode(&bytes) {
                Ok(frame) => self.handle_frame(now, id, frame),
                Err(_) => self.outputs.push_back(Output::ServerClose { id }),
            },
        }
        let online = self.links.values().any(ServerLink::is_ready);
        self.netcheck.set_online(now.instant, online);
        self.touch();
    }

    fn handle_frame(&mut self, now: Now, id: ServerId, frame: ServerFrame) {
        match frame {
            ServerFrame::Welcome { version, challenge, time } => {
                let Some(link) = self.links.get_mut(&id) else { return };
                if version != VERSION {
                    link.problem = Some(other_version(&link.url));
                    return self.outputs.push_back(Output::ServerClose { id });
                }
                link.welcomed(challenge);
                let url = link.url.clone();
                for local in
                    self.parties.values_mut().filter(|local| local.membership.servers().contains(&url))
                {
                    local.membership.on_server_time(now.unix, time);
                }
                self.sync_rooms(now);
                self.say_farewells(now, id);
            }
            ServerFrame::Roster { topic, members, more } => self.handle_roster(now, id, topic, members, more),
            ServerFrame::Present { topic, handle, record } => {
                self.handle_present(now, id, topic, TopicMember { handle, record });
            }
            ServerFrame::Gone { topic, handle } => {
                if let Some(room) = self.links.get_mut(&id).and_then(|link| link.rooms.get_mut(&topic)) {
                    room.present.remove(&handle);
                }
            }
            ServerFrame::Message { topic, message, .. } => {
                self.receive_for(now, &topic, &message);
            }
            ServerFrame::TimeReply { echo, .. } => self.farewell_taken(now, id, echo),
            ServerFrame::RelayGrant(grant) => {
                for (host, port) in self.relays.granted(id, grant, now) {
                    self.outputs.push_back(Output::Resolve { host, port });
                }
                self.apply_relays(now);
            }
            // A message: it is sent again, and nothing is wrong with the announcement.
            ServerFrame::Refused {
                id: Some(number),
                code: RefusalCode::RateLimited | RefusalCode::MailboxFull,
                ..
            } => {
                self.mail.refused(now.instant, id, number, &mut self.rng);
            }
            ServerFrame::Refused { topic, code, detail, .. } => {
                self.handle_refusal(now, id, topic, code, detail)
            }
        }
    }

    fn handle_roster(&mut self, now: Now, id: ServerId, topic: Topic, members: Vec<TopicMember>, more: bool) {
        for member in members {
            self.handle_present(now, id, topic, member);
        }
        if more {
            return;
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        // Asked anew on every connection: a server that was restarted may know nothing of what it granted before.
        let first = link.rooms.values().all(|room| !room.entered);
        let Some(room) = link.rooms.get_mut(&topic) else { return };
        room.entered = true;
        if first {
            self.send_frame(id, &ClientFrame::Relays { topic });
        }
        self.say_farewells(now, id);
    }

    fn handle_present(&mut self, now: Now, id: ServerId, topic: Topic, member: TopicMember) {
        let Some(room) = self.links.get_mut(&id).and_then(|link| link.rooms.get_mut(&topic)) else { return };
        if room.present.len() < MAX_PRESENT {
            room.present.insert(member.handle);
        }
        if let Some((party, device)) = self.receive_for(now, &topic, &member.record) {
            self.repeat_goodbyes(now, party, device);
        }
    }

    /// Takes a sealed message of a server's; says of which member it is, if it is new.
    fn receive_for(&mut self, now: Now, topic: &Topic, sealed: &[u8]) -> Option<(PartyId, DeviceId)> {
        let party = self.party_of(topic)?;
        Some((party, self.receive_sealed(now, party, topic, Channel::Server, sealed)?))
    }

    fn party_of(&self, topic: &Topic) -> Option<PartyId> {
        let visits =
            |local: &crate::local::LocalParty| local.membership.topics().iter().any(|a| a.topic == *topic);
        self.parties.iter().find(|(_, local)| local.on && visits(local)).map(|(id, _)| *id)
    }

    fn handle_refusal(
        &mut self,
        now: Now,
        id: ServerId,
        topic: Option<Topic>,
        code: RefusalCode,
        detail: String,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match code {
            // Taken up again with the next announcement, or by reconnecting.
            RefusalCode::RateLimited | RefusalCode::MailboxFull | RefusalCode::NoRelay => {}
            RefusalCode::Replaced => {
                link.problem = Some(refused(
                    &link.url,
                    &detail,
                    "Another Partyline runs with this device's keys; stop it.",
                ));
            }
            _ => link.problem = Some(refused(&link.url, &detail, "Try again later, or use another server.")),
        }
        let again = matches!(code, RefusalCode::RateLimited | RefusalCode::NotEntered);
        if let Some(topic) = topic.filter(|_| again) {
            link.try_again(&topic, code == RefusalCode::NotEntered);
            if let Some(local) = self.party_of(&topic).and_then(|party| self.parties.get_mut(&party)) {
                local.announce_later(now.instant);
            }
        }
    }

    /// Enters the topics that our parties visit, leaves the others, and announces what changed.
    pub(crate) fn sync_rooms(&mut self, now: Now) {
        let ids: Vec<ServerId> =
            self.links.iter().filter(|(_, link)| link.is_ready()).map(|(id, _)| *id).collect();
        for id in ids {
            self.leave_rooms(id);
            let parties: Vec<PartyId> =
                self.parties.iter().filter(|(_, local)| local.on).map(|(party, _)| *party).collect();
            parties.into_iter().for_each(|party| self.sync_party_rooms(now, id, party));
        }
    }

    fn leave_rooms(&mut self, id: ServerId) {
        let wanted: Vec<Topic> = self
            .parties
            .values()
            .filter(|local| local.on)
            .flat_map(|local| local.membership.topics())
            .map(|access| access.topic)
            .chain(self.farewells.topics())
            .collect();
        let Some(link) = self.links.get_mut(&id) else { return };
        let gone: Vec<Topic> = link.rooms.keys().filter(|topic| !wanted.contains(topic)).copied().collect();
        link.rooms.retain(|topic, _| !gone.contains(topic));
        gone.into_iter().for_each(|topic| self.send_frame(id, &ClientFrame::Leave { topic }));
    }

    fn sync_party_rooms(&mut self, now: Now, id: ServerId, party: PartyId) {
        let (Some(link), Some(local)) = (self.links.get_mut(&id), self.parties.get_mut(&party)) else {
            return;
        };
        let Some(challenge) = link.challenge().filter(|_| local.membership.servers().contains(&link.url))
        else {
            return;
        };
        let (mut frames, mut persist) = (Vec::new(), false);
        for access in local.membership.topics() {
            let topic = access.topic;
            if link.rooms.get(&topic).is_some_and(|room| room.announced == local.revision) {
                continue;
            }
            let mut outcome = local.membership.announcement(now.unix, &mut self.rng, &topic, &self.reach);
            persist |= outcome.persist;
            let Some(Outgoing { message: record, .. }) = outcome.messages.pop() else { continue };
            if let Some(room) = link.rooms.get_mut(&topic) {
                room.announced = local.revision;
                frames.push(ClientFrame::Announce { topic, record });
            } else {
                let Some(frame) = enter(&local.membership, (&challenge, &access), record) else { continue };
                link.rooms.insert(topic, Room { announced: local.revision, ..Room::default() });
                frames.push(frame);
            }
        }
        frames.iter().for_each(|frame| self.send_frame(id, frame));
        self.save_if(persist);
    }

    pub(crate) fn send_frame(&mut self, id: ServerId, frame: &ClientFrame) {
        // Everything we put into frames is within their limits.
        if let Ok(frame) = frame.encode() {
            self.outputs.push_back(Output::ServerSend { id, frame });
        }
    }

    /// Asks again for relay credentials whose time is half over, and for hosts that could not be looked up.
    pub(crate) fn renew_relays(&mut self, now: Now) {
        let due: Vec<(ServerId, Topic)> = self
            .links
            .iter()
            .filter(|(id, _)| self.relays.stale(**id, now.instant))
            .filter_map(|(id, link)| Some((*id, *link.rooms.iter().find(|(_, room)| room.entered)?.0)))
            .collect();
        due.into_iter().for_each(|(id, topic)| self.send_frame(id, &ClientFrame::Relays { topic }));
        for (host, port) in self.relays.unknown_hosts() {
            self.outputs.push_back(Output::Resolve { host, port });
        }
    }

    /// Hands the relays known by now to the path machine and to netcheck.
    pub(crate) fn apply_relays(&mut self, now: Now) {
        self.paths.set_relays(now.instant, self.relays.ranked());
        self.netcheck.set_servers(now.instant, self.stun_servers());
        self.tell_nat(now);
    }

    /// Prefers relays that answer, and among those the nearest, once that is measured.
    pub(crate) fn rank_relays(&mut self, now: Now) {
        let mut answers: BTreeMap<String, Option<Duration>> = BTreeMap::new();
        for server in self.netcheck.report().servers {
            let rtt = server.rtt.filter(|_| !server.timed_out);
            let best = answers.entry(server.name).or_default();
            *best = best.iter().copied().chain(rtt).min();
        }
        if self.relays.rank(&answers) {
            self.paths.set_relays(now.instant, self.relays.ranked());
        }
    }

    /// Looks all relays up again: on another network their names may lead elsewhere.
    pub(crate) fn look_up_relays(&mut self) {
        for (host, port) in self.relays.hosts() {
            self.outputs.push_back(Output::Resolve { host, port });
        }
    }
}

/// Asks to be let in on a topic.
pub(crate) fn enter(
    membership: &Membership,
    (challenge, access): (&[u8; 32], &TopicAccess),
    record: Vec<u8>,
) -> Option<ClientFrame> {
    let (topic, handle) = (access.topic, access.handle);
    let proof = membership.prove_topic_access(&topic, &proof_message(challenge, &topic, &handle))?;
    Some(ClientFrame::Enter { topic, handle, proof, record })
}

/// More than any party has members; a server that lists more is not believed.
const MAX_PRESENT: usize = 512;

fn other_version(url: &str) -> AppError {
    AppError::new(
        ErrorCode::VersionMismatch,
        format!("The server {url} speaks another version of the protocol."),
        "Update Partyline, or use another server.",
    )
}

fn refused(url: &str, detail: &str, hint: &str) -> AppError {
    AppError::new(ErrorCode::ServerUnreachable, format!("The server {url} refused: {detail}"), hint)
}
