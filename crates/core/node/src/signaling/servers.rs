//! The rendezvous servers of all parties: links, rooms and frames.
//!
//! A server is a mailbox and a roster for each topic. This device enters the topics of its parties, keeps its sealed
//! announcement there, and sends sealed messages to the handles that the server lists.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use partyline_model::{AppError, DeviceId, ErrorCode, Topic};
use partyline_party::Outgoing;
use partyline_wire::rendezvous::{ClientFrame, RefusalCode, ServerFrame, VERSION};
use tracing::{debug, trace};

use super::{
    channel::{Channel, Context, Covered},
    channel_kind::ChannelKind,
    event::Event,
    leave::PendingLeaves,
    link::{Room, ServerLink, enter_frame},
    party::LocalParty,
    resend::{QueuedFrame, ResendCounters, ResendQueue},
};
use crate::io::{Output, ServerId, ServerInput};

/// How often relay grants are looked at, to be renewed or asked for again.
const GRANT_CHECK: Duration = Duration::from_secs(20);

/// All links.
#[derive(Debug)]
pub(super) struct Servers {
    links: BTreeMap<ServerId, ServerLink>,
    resends: ResendQueue,
    next_id: u32,
    /// The number of the last message or question sent to any server.
    numbers: u32,
    check_grants_at: Instant,
}

impl Servers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            links: BTreeMap::new(),
            resends: ResendQueue::default(),
            next_id: 0,
            numbers: 0,
            check_grants_at: now,
        }
    }

    /// Makes links match the wanted URLs, and opens those that are due.
    pub(super) fn sync(&mut self, cx: &mut Context<'_>, wanted: &[String]) {
        let unwanted = self.links.iter().filter(|(_, link)| !wanted.contains(&link.url));
        for id in unwanted.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(link) = self.links.remove(&id) {
                debug!(server = %link.url, reason = "no party uses it", "server link removed");
            }
            cx.events.push_back(Event::ServerForgotten { server: id });
            cx.output(Output::ServerClose { id });
        }
        for url in wanted {
            if self.links.values().all(|link| link.url != *url) {
                self.next_id += 1;
                self.links.insert(ServerId(self.next_id), ServerLink::new(cx.now.instant, url.clone()));
            }
        }
        self.open_links(cx);
    }

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(ServerLink::poll_timeout);
        let grants = (!self.links.is_empty()).then_some(self.check_grants_at);
        links.chain(self.resends.poll_timeout()).chain(grants).min()
    }

    /// Opens links, closes silent ones, sends refused messages again and renews relay grants.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.open_links(cx);
        for QueuedFrame { server, frame, .. } in self.resends.take_due(cx.now.instant) {
            let ClientFrame::Send { topic, .. } = &frame else { continue };
            if self.links.get(&server).is_some_and(|link| link.rooms.contains_key(topic)) {
                send_frame(cx, server, &frame);
            }
        }
        if self.check_grants_at <= cx.now.instant {
            self.check_grants_at = cx.now.instant + GRANT_CHECK;
            for (id, link) in &self.links {
                if let Some(topic) = link.grant_due(cx.now.instant) {
                    debug!(server = %link.url, "asking for relay credentials");
                    send_frame(cx, *id, &ClientFrame::Relays { topic });
                }
            }
        }
    }

    fn open_links(&mut self, cx: &mut Context<'_>) {
        for (id, link) in &mut self.links {
            if link.poll_silent(cx.now.instant) {
                cx.output(Output::ServerClose { id: *id });
            }
            if link.poll_open(cx.now.instant) {
                cx.output(Output::ServerOpen { id: *id, url: link.url.clone() });
            }
        }
    }

    /// Retries at once where a link waits, and asks open links to show that they still work: the network changed, or
    /// the computer slept.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) {
        for (id, link) in &mut self.links {
            link.retry_now(cx.now.instant);
            if link.require_liveness(cx.now.instant) {
                send_frame(cx, *id, &ClientFrame::Time { echo: 0 });
            }
        }
    }

    /// Closes every connection, because the address that they were made from is gone.
    pub(super) fn abandon(&mut self, cx: &mut Context<'_>) {
        for (id, link) in &mut self.links {
            if link.abandon() {
                cx.output(Output::ServerClose { id: *id });
            }
        }
    }

    /// Closes every link, because the node stops.
    pub(super) fn close_all(&self, cx: &mut Context<'_>) {
        self.links.keys().for_each(|id| cx.output(Output::ServerClose { id: *id }));
    }

    /// Takes what happened to a connection. Returns the frame that arrived, if the parties have to see it.
    pub(super) fn handle_input(
        &mut self,
        cx: &mut Context<'_>,
        id: ServerId,
        input: ServerInput,
    ) -> Option<ServerFrame> {
        let link = self.links.get_mut(&id)?;
        link.on_received();
        let frame = match input {
            ServerInput::Opened => {
                link.on_opened(cx.now.instant);
                None
            }
            ServerInput::Closed(problem) => {
                link.on_closed(cx.now.instant, problem, cx.rng);
                None
            }
            ServerInput::Frame(bytes) => match ServerFrame::decode(&bytes) {
                Ok(frame) => self.handle_frame(cx, id, frame),
                Err(error) => {
                    debug!(server = %link.url, reason = %error, "server link closing");
                    cx.output(Output::ServerClose { id });
                    None
                }
            },
        };
        cx.events.push_back(Event::Online(self.links.values().any(ServerLink::is_ready)));
        frame
    }

    /// Does what concerns the link alone, and hands the frame on.
    fn handle_frame(
        &mut self,
        cx: &mut Context<'_>,
        id: ServerId,
        frame: ServerFrame,
    ) -> Option<ServerFrame> {
        let link = self.links.get_mut(&id)?;
        match &frame {
            ServerFrame::Welcome { version, challenge, .. } => {
                if *version != VERSION {
                    debug!(server = %link.url, version, reason = "other protocol version", "server link closing");
                    link.problem = Some(other_version(&link.url));
                    cx.output(Output::ServerClose { id });
                    return None;
                }
                link.on_welcome(*challenge);
            }
            ServerFrame::Roster { topic, members, more } => {
                let first = link.rooms.values().all(|room| !room.entered);
                let room = link.rooms.get_mut(topic)?;
                members.iter().for_each(|member| room.insert(member.handle));
                if !more {
                    room.entered = true;
                    debug!(server = %link.url, count = room.present.len(), "topic entered");
                }
                // Asked again on every connection: a restarted server may know nothing of what it granted before.
                if first && !more {
                    send_frame(cx, id, &ClientFrame::Relays { topic: *topic });
                }
            }
            ServerFrame::Present { topic, handle, .. } => link.rooms.get_mut(topic)?.insert(*handle),
            ServerFrame::Gone { topic, handle } => {
                if let Some(room) = link.rooms.get_mut(topic) {
                    room.present.remove(handle);
                }
                return None;
            }
            ServerFrame::RelayGrant(grant) => link.on_relay_grant(cx.now, grant.expires),
            // A message: it is sent again, and nothing is wrong with the announcement.
            ServerFrame::Refused {
                id: Some(number),
                code: RefusalCode::RateLimited | RefusalCode::MailboxFull,
                ..
            } => {
                self.resends.on_refused(cx.now.instant, id, *number, cx.rng);
                return None;
            }
            ServerFrame::Refused { topic, code, detail, .. } => {
                self.on_refused(id, topic.as_ref(), *code, detail);
            }
            ServerFrame::Message { .. } | ServerFrame::TimeReply { .. } => {}
        }
        Some(frame)
    }

    fn on_refused(&mut self, id: ServerId, topic: Option<&Topic>, code: RefusalCode, detail: &str) {
        let Some(link) = self.links.get_mut(&id) else { return };
        debug!(server = %link.url, reason = ?code, detail, "request refused by server");
        match code {
            // Taken up again with the next announcement, or by reconnecting.
            RefusalCode::RateLimited | RefusalCode::MailboxFull | RefusalCode::NoRelay => {}
            RefusalCode::Replaced => {
                let hint = "Another Partyline runs with this device's keys; stop it.";
                link.problem = Some(refused(&link.url, detail, hint));
            }
            _ => {
                let hint = "Try again later, or use another server.";
                link.problem = Some(refused(&link.url, detail, hint));
            }
        }
        if let Some(topic) = topic.filter(|_| is_retried(code)) {
            link.on_announcement_refused(topic, code == RefusalCode::NotEntered);
        }
    }

    /// Leaves the rooms of topics that nobody visits any more.
    pub(super) fn leave_rooms(&mut self, cx: &mut Context<'_>, wanted: &[Topic]) {
        for (id, link) in self.links.iter_mut().filter(|(_, link)| link.is_ready()) {
            let gone: Vec<Topic> =
                link.rooms.keys().filter(|topic| !wanted.contains(topic)).copied().collect();
            for topic in gone {
                link.rooms.remove(&topic);
                send_frame(cx, *id, &ClientFrame::Leave { topic });
            }
        }
    }

    /// Sends what pending leaves owe to this server, or to every one.
    pub(super) fn send_leaves(
        &mut self,
        cx: &mut Context<'_>,
        leaves: &mut PendingLeaves,
        only: Option<ServerId>,
    ) {
        for (id, link) in &mut self.links {
            if only.is_none_or(|only| only == *id) {
                let frames = leaves.poll_frames(cx, link, &mut self.numbers);
                frames.iter().for_each(|frame| send_frame(cx, *id, frame));
            }
        }
    }

    /// Returns a server's URL.
    pub(super) fn url(&self, id: ServerId) -> Option<&str> {
        self.links.get(&id).map(|link| link.url.as_str())
    }

    /// Returns whether the server is connected, and what is wrong with it.
    pub(super) fn status(&self, url: &str) -> (bool, Option<AppError>) {
        let link = self.links.values().find(|link| link.url == url);
        (link.is_some_and(ServerLink::is_ready), link.and_then(|link| link.problem.clone()))
    }

    /// Returns the counters of messages that servers refused.
    pub(super) const fn resend_counters(&self) -> &ResendCounters {
        self.resends.counters()
    }
}

impl Channel for Servers {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Server
    }

    /// True if one server lists all of them.
    fn reaches(&self, party: &LocalParty, topic: &Topic, members: &[DeviceId]) -> bool {
        let mut rooms = self.links.values().filter_map(|link| link.rooms.get(topic));
        rooms.any(|room| {
            let is_listed =
                |member| party.handle_of(topic, member).is_some_and(|handle| room.present.contains(&handle));
            members.iter().all(is_listed)
        })
    }

    fn send(&mut self, cx: &mut Context<'_>, _: &LocalParty, message: &Outgoing, _: Covered<'_>) {
        for (id, link) in &self.links {
            let Some(room) = link.rooms.get(&message.topic) else { continue };
            let one = message.handle.into_iter();
            let all = room.present.iter().copied().filter(|_| message.to.is_none());
            for to in one.chain(all) {
                self.numbers = self.numbers.wrapping_add(1);
                let (topic, message, number) = (message.topic, message.message.clone(), self.numbers);
                let frame = ClientFrame::Send { topic, to, id: number, message };
                trace!(channel = "server", server = %link.url, number, "sending");
                cx.sent(ChannelKind::Server, 1);
                send_frame(cx, *id, &frame);
                self.resends.on_sent(*id, number, frame);
            }
        }
    }

    /// Enters the party's topics where it has not, and announces where the announcement has changed.
    fn announce(&mut self, cx: &mut Context<'_>, party: &mut LocalParty, _: Covered<'_>) {
        for (id, link) in &mut self.links {
            let Some(challenge) = link.challenge().filter(|_| party.membership.servers().contains(&link.url))
            else {
                continue;
            };
            for access in party.membership.topics() {
                let (topic, revision) = (access.topic, party.revision());
                if link.rooms.get(&topic).is_some_and(|room| room.announced == revision) {
                    continue;
                }
                let outcome = party.membership.announcement(cx.now.unix, cx.rng, &topic, cx.reach);
                let Some(record) = cx.take_message(outcome).map(|message| message.message) else { continue };
                let frame = if let Some(room) = link.rooms.get_mut(&topic) {
                    room.announced = revision;
                    ClientFrame::Announce { topic, record }
                } else {
                    let Some(frame) = enter_frame(&party.membership, &challenge, &access, record) else {
                        continue;
                    };
                    link.rooms.insert(topic, Room { announced: revision, ..Room::default() });
                    frame
                };
                trace!(channel = "server", server = %link.url, revision, "announcing");
                cx.sent(ChannelKind::Server, 1);
                send_frame(cx, *id, &frame);
            }
        }
    }
}

/// Returns true if an announcement that was refused for this reason is to be made again.
pub(super) const fn is_retried(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::RateLimited | RefusalCode::NotEntered)
}

fn send_frame(cx: &mut Context<'_>, id: ServerId, frame: &ClientFrame) {
    // Everything put into frames is within their limits.
    if let Ok(frame) = frame.encode() {
        cx.output(Output::ServerSend { id, frame });
    }
}

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
