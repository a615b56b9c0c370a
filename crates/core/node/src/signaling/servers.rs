//! The rendezvous servers of all parties: links, topics and frames.
//!
//! A server is a mailbox and a roster for each topic. This device enters the topics of its parties, keeps its sealed
//! announcement there, and sends sealed messages to the handles that the server lists.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{AddressScope, AppError, DeviceId, ErrorCode, Topic};
use partyline_party::{Outgoing, TopicAccess, TopicPurpose};
use partyline_wire::rendezvous::{ClientFrame, RefusalCode, ServerFrame, VERSION};
use tracing::{debug, trace};

use super::{
    channel::{Channel, Context, Covered},
    channel_kind::ChannelKind,
    event::Event,
    leave::PendingLeaves,
    link::{RESPONSE_TIMEOUT, ServerLink, TopicEntry},
    party::LocalParty,
    resend::{QueuedFrame, ResendCounters, ResendQueue},
};
use crate::{
    host_names::{Found, Host, HostNames, literal_address, server_host},
    io::{Output, ServerId, ServerInput},
    trusted_servers::TrustedServers,
};

/// How long a server may take to answer where its name has moved, so that most likely nobody is there any more.
const MOVED_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take after packets to members were lost.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest time between two questions for that reason.
const DOUBT_INTERVAL: Duration = Duration::from_secs(5);
/// The revision of what is listed in a lobby, which does not change.
const LOBBY_REVISION: u64 = u64::MAX;
/// How often relay grants are looked at, to be renewed or asked for again.
const GRANT_CHECK: Duration = Duration::from_secs(20);

/// All links.
#[derive(Debug)]
pub(super) struct Servers {
    links: BTreeMap<ServerId, ServerLink>,
    names: HostNames,
    /// When the links were last asked because packets to a member were lost.
    doubted_at: Option<Instant>,
    resends: ResendQueue,
    /// The number in the last id that was assigned.
    last_id: u32,
    /// The number of the last message or question sent to any server.
    last_number: u32,
    /// True if any server was connected when that was last reported.
    online: bool,
    check_grants_at: Instant,
    trusted: TrustedServers,
}

impl Servers {
    pub(super) fn new(now: Instant, trusted: TrustedServers) -> Self {
        Self {
            links: BTreeMap::new(),
            names: HostNames::default(),
            doubted_at: None,
            resends: ResendQueue::default(),
            last_id: 0,
            last_number: 0,
            online: false,
            check_grants_at: now,
            trusted,
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
                self.last_id += 1;
                self.links.insert(ServerId(self.last_id), ServerLink::new(cx.now.instant, url.clone()));
            }
        }
        self.names.set_wanted(cx.now.instant, wanted.iter().filter_map(|url| server_host(url)));
        self.open_links(cx);
        self.report_online(cx);
    }

    /// Takes the addresses of a host. Where a server has moved, the connection to it is made again, or has to show that it
    /// still works.
    pub(super) fn handle_resolved(&mut self, cx: &mut Context<'_>, host: &Host, addresses: &[SocketAddr]) {
        let at_host = |link: &ServerLink| server_host(&link.url).as_ref() == Some(host);
        let ready = self.links.values().any(|link| at_host(link) && link.is_ready());
        let found = self.names.on_resolved(cx.now.instant, host, addresses, |_| ready);
        if !matches!(found, Found::Changed | Found::Moved) {
            return;
        }
        for (id, link) in self.links.iter_mut().filter(|(_, link)| at_host(link)) {
            link.retry_now(cx.now.instant);
            if link.is_opening() && link.abandon() {
                cx.output(Output::ServerClose { id: *id });
            }
            question(cx, (*id, link), MOVED_TIMEOUT);
        }
        self.open_links(cx);
    }

    /// Reports whether any server is connected, if that has changed.
    fn report_online(&mut self, cx: &mut Context<'_>) {
        let online = self.links.values().any(ServerLink::is_ready);
        if online != self.online {
            debug!(online, "contact with rendezvous servers changed");
            self.online = online;
            cx.events.push_back(Event::Online(online));
        }
    }

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(ServerLink::poll_timeout);
        let grants = (!self.links.is_empty()).then_some(self.check_grants_at);
        links.chain(self.resends.poll_timeout()).chain(grants).chain(self.names.poll_timeout()).min()
    }

    /// Opens links, closes silent ones, sends refused messages again and renews relay grants.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.open_links(cx);
        self.look_up(cx);
        for QueuedFrame { server, number, frame, .. } in self.resends.take_due(cx.now.instant) {
            let ClientFrame::Send { topic, .. } = &frame else { continue };
            if self.links.get(&server).is_some_and(|link| link.topic(topic).is_some()) {
                trace!(server = server.0, number, "sending again");
                send_frame(cx, server, &frame);
            } else {
                debug!(server = server.0, number, reason = "topic left meanwhile", "message dropped");
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

    fn look_up(&mut self, cx: &mut Context<'_>) {
        for (host, port) in self.names.poll_lookups(cx.now.instant) {
            cx.output(Output::Resolve { host, port });
        }
    }

    fn open_links(&mut self, cx: &mut Context<'_>) {
        for (id, link) in &mut self.links {
            if link.poll_silent(cx.now.instant) {
                cx.output(Output::ServerClose { id: *id });
            }
            if link.poll_open(cx.now.instant) {
                let scope = self.trusted.scope(&link.url);
                cx.output(Output::ServerOpen { id: *id, url: link.url.clone(), scope });
            }
        }
    }

    /// Uses a server at private addresses, too, from now on, and the relays that it names.
    pub(super) fn trust(&mut self, cx: &mut Context<'_>, url: &str) {
        if !self.trusted.insert(url) {
            return;
        }
        for (id, link) in &mut self.links {
            if self.trusted.scope(&link.url) == AddressScope::Public {
                continue;
            }
            link.retry_now(cx.now.instant);
            if link.is_opening() && link.abandon() {
                cx.output(Output::ServerClose { id: *id });
            }
            cx.events.push_back(Event::ServerTrusted { server: *id });
        }
        self.open_links(cx);
    }

    /// Returns the servers that the user named or confirmed.
    pub(super) const fn trusted(&self) -> &TrustedServers {
        &self.trusted
    }

    /// Retries at once where a link waits, and asks open links to show that they still work: the network changed, or
    /// the computer slept.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) {
        self.names.expedite_all(cx.now.instant);
        for (id, link) in &mut self.links {
            link.retry_now(cx.now.instant);
            question(cx, (*id, link), RESPONSE_TIMEOUT);
        }
    }

    /// Asks open links whether they still work, because packets to a member were lost. A router that lost its table leaves
    /// connections that look open: what the server sends waits for its retransmission timer, up to half a minute.
    pub(super) fn doubt(&mut self, cx: &mut Context<'_>) {
        if self.doubted_at.is_some_and(|at| cx.now.instant < at + DOUBT_INTERVAL) {
            return;
        }
        self.doubted_at = Some(cx.now.instant);
        self.links.iter_mut().for_each(|(id, link)| question(cx, (*id, link), DOUBT_TIMEOUT));
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
        let Some(link) = self.links.get_mut(&id) else {
            trace!(server = id.0, reason = "link removed meanwhile", "server input dropped");
            return None;
        };
        link.on_received();
        // Messages are frequent, and what they change is reported by the party. Everything else changes who is listed, or
        // whether the server can be used.
        let mut is_shown = true;
        let frame = match input {
            ServerInput::Opened => {
                link.on_opened(cx.now.instant);
                None
            }
            ServerInput::Closed(problem) => {
                if link.is_ready() {
                    cx.events.push_back(Event::ServerDown { server: id });
                }
                let host = server_host(&link.url);
                self.names.doubt(cx.now.instant, |name| Some(name) == host.as_ref());
                link.on_closed(cx.now.instant, problem, cx.rng);
                None
            }
            ServerInput::Frame(bytes) => match ServerFrame::decode(&bytes) {
                Ok(frame) => {
                    is_shown = !matches!(frame, ServerFrame::Message { .. } | ServerFrame::TimeReply { .. });
                    self.handle_frame(cx, id, frame)
                }
                Err(error) => {
                    debug!(server = %link.url, reason = %error, "server link closing");
                    cx.output(Output::ServerClose { id });
                    None
                }
            },
        };
        self.report_online(cx);
        if is_shown {
            cx.events.push_back(Event::Changed);
        }
        frame
    }

    /// Does what concerns the link alone, and hands the frame on.
    fn handle_frame(
        &mut self,
        cx: &mut Context<'_>,
        id: ServerId,
        mut frame: ServerFrame,
    ) -> Option<ServerFrame> {
        let link = self.links.get_mut(&id)?;
        match &mut frame {
            ServerFrame::Welcome { version, challenge, .. } => {
                if *version != VERSION {
                    debug!(server = %link.url, version, reason = "other protocol version", "server link closing");
                    link.set_problem(other_version(&link.url));
                    cx.output(Output::ServerClose { id });
                    return None;
                }
                link.on_welcome(*challenge);
            }
            ServerFrame::Roster { topic, members, more } => {
                let sought = link.sought_handle(topic);
                let handles = members.iter().map(|member| member.handle);
                // Asked again on every connection: a restarted server may know nothing of what it granted before.
                if link.on_roster(cx.now.instant, topic, handles, *more)? {
                    debug!(server = %link.url, reason = "connected", "asking for relay credentials");
                    send_frame(cx, id, &ClientFrame::Relays { topic: *topic });
                }
                // A visitor cannot answer others. They are all listed again when it takes its place.
                if let Some(sought) = sought {
                    members.retain(|member| member.handle == sought);
                }
            }
            ServerFrame::Present { topic, handle, .. } => {
                link.on_present(topic, *handle)?;
                if link.sought_handle(topic).is_some_and(|sought| sought != *handle) {
                    return None;
                }
            }
            ServerFrame::Gone { topic, handle } => {
                link.on_gone(topic, handle);
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
                if let Some(topic) = topic {
                    link.on_replaced(topic);
                }
            }
            // A visitor needs a place, too. In a full topic this device's own is looked for the direct way.
            RefusalCode::TopicFull
                if topic.is_some_and(|topic| link.topic(topic).is_some_and(TopicEntry::is_visit)) =>
            {
                if let Some(topic) = topic {
                    link.claim(*topic);
                }
            }
            _ => {
                let hint = "Try again later, or use another server.";
                link.set_problem(refused(&link.url, detail, hint));
            }
        }
        if let Some(topic) = topic.filter(|_| is_retried(code)) {
            link.on_announcement_refused(topic, code == RefusalCode::NotEntered);
        }
    }

    /// Ends the visits on which no other run has answered; returns true if there were any.
    pub(super) fn poll_visits(&mut self, now: Instant) -> bool {
        self.links.values_mut().fold(false, |over, link| link.poll_visits(now) | over)
    }

    /// Returns true if a server has let this device into a topic under its own handle.
    pub(super) fn has_entered(&self, topic: &Topic) -> bool {
        self.links.values().any(|link| link.topic(topic).is_some_and(TopicEntry::is_entered))
    }

    /// Forgets that a topic was entered, since another run begins, which has to enter again.
    pub(super) fn forget_topic(&mut self, topic: &Topic) {
        self.links.values_mut().for_each(|link| link.forget_topic(topic));
    }

    /// Leaves the topics that nobody visits any more.
    pub(super) fn exit_unwanted(&mut self, cx: &mut Context<'_>, wanted: &[Topic]) {
        for (id, link) in self.links.iter_mut().filter(|(_, link)| link.is_ready()) {
            for topic in link.exit_unwanted(wanted) {
                send_frame(cx, *id, &ClientFrame::Leave { topic });
            }
        }
    }

    /// Sends what pending leaves owe to the servers now.
    pub(super) fn send_leaves(&mut self, cx: &mut Context<'_>, leaves: &mut PendingLeaves) {
        for (id, link) in &mut self.links {
            let resending = self.resends.is_waiting(*id);
            for frame in leaves.poll_frames(cx, link, &mut self.last_number, resending) {
                send_frame(cx, *id, &frame);
                if let ClientFrame::Send { id: number, .. } = frame {
                    self.resends.on_sent(*id, number, frame);
                }
            }
        }
    }

    /// Returns true if a message that the server refused waits to be sent to it again.
    pub(super) fn is_resending(&self, id: ServerId) -> bool {
        self.resends.is_waiting(id)
    }

    /// Returns a server's URL.
    pub(super) fn url(&self, id: ServerId) -> Option<&str> {
        self.links.get(&id).map(|link| link.url.as_str())
    }

    /// Returns the id of the link to a server.
    pub(super) fn id(&self, url: &str) -> Option<ServerId> {
        self.links.iter().find(|(_, link)| link.url == url).map(|(id, _)| *id)
    }

    /// Returns the addresses at which a server, and relays that it names, may be contacted.
    pub(super) fn scope(&self, id: ServerId) -> AddressScope {
        self.url(id).map_or(AddressScope::Public, |url| self.trusted.scope(url))
    }

    /// Returns whether the server is connected, and what is wrong with it.
    pub(super) fn status(&self, url: &str) -> (bool, Option<AppError>) {
        let link = self.links.values().find(|link| link.url == url);
        (link.is_some_and(ServerLink::is_ready), link.and_then(|link| link.problem().cloned()))
    }

    /// Returns the addresses of a server: a literal one, or those that its name was resolved to.
    pub(super) fn addresses(&self, url: &str) -> Vec<IpAddr> {
        let named = server_host(url).map(|host| self.names.addresses(&host));
        let resolved = named.into_iter().flatten().map(SocketAddr::ip);
        resolved.chain(literal_address(url)).collect()
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
        let mut entries = self.links.values().filter_map(|link| link.topic(topic));
        entries.any(|entry| {
            let is_listed =
                |member| party.handle_of(topic, member).is_some_and(|handle| entry.lists(&handle));
            members.iter().all(is_listed)
        })
    }

    fn send(&mut self, cx: &mut Context<'_>, _: &LocalParty, message: &Outgoing, _: Covered<'_>) {
        for (id, link) in &self.links {
            let Some(entry) = link.topic(&message.topic) else { continue };
            let one = message.handle.into_iter();
            let all = entry.present().filter(|_| message.to.is_none());
            for to in one.chain(all) {
                self.last_number = self.last_number.wrapping_add(1);
                let (topic, message, number) = (message.topic, message.message.clone(), self.last_number);
                let frame = ClientFrame::Send { topic, to, id: number, kept: false, message };
                trace!(channel = "server", server = %link.url, number, "sending");
                cx.sent(ChannelKind::Server, 1);
                send_frame(cx, *id, &frame);
                self.resends.on_sent(*id, number, frame);
            }
        }
    }

    /// Enters the party's topics where it has not, and announces where the announcement has changed.
    fn announce(&mut self, cx: &mut Context<'_>, party: &mut LocalParty, _: Covered<'_>) {
        let named = |link: &ServerLink, party: &LocalParty| party.membership.servers().contains(&link.url);
        for (id, link) in self.links.iter_mut().filter(|(_, link)| link.is_ready()) {
            if named(link, party) {
                announce_on(cx, (*id, link), party);
            }
        }
    }
}

/// Asks a server for a sign of life, if it is connected.
fn question(cx: &mut Context<'_>, (id, link): (ServerId, &mut ServerLink), within: Duration) {
    if link.require_liveness(cx.now.instant, within) {
        send_frame(cx, id, &ClientFrame::Time { echo: 0 });
    }
}

/// Announces this device on the party's topics on one server.
fn announce_on(cx: &mut Context<'_>, (id, link): (ServerId, &mut ServerLink), party: &mut LocalParty) {
    let current = party.membership.topic();
    if party.is_fresh() {
        link.claim(current);
    }
    for access in party.membership.topics() {
        let topic = access.topic;
        if !link.has_claimed(&current) {
            visit_on(cx, (id, link), party, &access);
            continue;
        }
        let revision = match access.purpose {
            TopicPurpose::Lobby => LOBBY_REVISION,
            TopicPurpose::Current | TopicPurpose::Former => party.revision(),
        };
        if !party.may_speak(cx.now.instant)
            || link.topic(&topic).is_some_and(|entry| entry.has_announced(revision))
        {
            continue;
        }
        let Some(record) = record_on(cx, party, &access) else { continue };
        let frame = if link.announce(&topic, revision) {
            ClientFrame::Announce { topic, record }
        } else {
            let Some(frame) = link.enter(&party.membership, topic, (record, revision)) else { continue };
            frame
        };
        trace!(channel = "server", server = %link.url, revision, "announcing");
        cx.sent(ChannelKind::Server, 1);
        send_frame(cx, id, &frame);
    }
}

/// Returns what this device has listed on a topic: its announcement, and nothing in a lobby where it waits for joiners.
fn record_on(cx: &mut Context<'_>, party: &mut LocalParty, access: &TopicAccess) -> Option<Vec<u8>> {
    if access.purpose == TopicPurpose::Lobby {
        return Some(Vec::new());
    }
    let outcome = party.membership.announcement(cx.now.unix, cx.rng, &access.topic, cx.reach);
    cx.take_message(outcome).map(|message| message.message)
}

/// Looks for another run with the same keys on the current topic, before this one takes its place there.
fn visit_on(
    cx: &mut Context<'_>,
    (id, link): (ServerId, &mut ServerLink),
    party: &mut LocalParty,
    access: &TopicAccess,
) {
    if !access.is_current() || link.topic(&access.topic).is_some() {
        return;
    }
    let outcome = party.membership.ask_runs(cx.now.unix, cx.rng);
    let Some(question) = cx.take_message(outcome) else { return };
    if let Some(frame) = link.visit(cx.rng, &party.membership, access.topic, question.message) {
        trace!(channel = "server", server = %link.url, "looking for another run with the same keys");
        send_frame(cx, id, &frame);
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
