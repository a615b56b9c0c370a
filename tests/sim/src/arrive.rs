//! What happens when something arrives.

use std::net::SocketAddr;

use partyline_model::{AppError, ErrorCode};
use partyline_node::{
    PACKET_ROOM, PortMappingReport, ServerId, ServerInput, SocketId, StreamId, StreamInput,
};

use crate::{
    internet::{Place, Turned},
    member::Out,
    relay,
    server::{Said, Server},
    world::{Item, LATENCY, World},
};

/// The longest message on a stream, and a little more.
const LONGEST_MESSAGE: usize = 66_000;

impl World {
    pub(crate) fn arrive(&mut self, item: Item) {
        match item {
            Item::Datagram(turned, bytes) => self.deliver(turned, &bytes),
            Item::Beacon { to, .. } if self.members[to].asleep => {}
            Item::Beacon { to, from, bytes } => {
                self.with(to, |node, now| node.handle_beacon(now, from, &bytes));
            }
            Item::Connect(who, link) => self.connect(who, link),
            Item::ToServer(..) | Item::ToMember(..) if self.frozen => {}
            Item::ToServer(who, connection, bytes) => self.server_gets(who, connection, &bytes),
            Item::Hangup(connection) => {
                let now = self.now;
                if let Some(server) = &mut self.server {
                    server.disconnect(now, connection);
                }
                self.serve();
            }
            Item::ToMember(who, ..) | Item::StreamDown(who, ..) | Item::Closed(who, ..)
                if self.members[who].asleep =>
            {
                // TCP tries again until the computer wakes.
                self.put(LATENCY * 10, item);
            }
            Item::ToMember(who, link, connection, bytes) => {
                let member = &self.members[who];
                let lives = member.connections.get(&link) == Some(&connection);
                if lives && !member.stale.contains(&connection) {
                    self.with(who, |node, now| node.handle_server(now, link, ServerInput::Frame(bytes)));
                }
            }
            Item::Closed(who, link, connection) => self.closed(who, link, connection),
            Item::OpenStream(who, id) => self.open_stream(who, id),
            Item::StreamUp(number, bytes) => self.stream_up(number, &bytes),
            Item::StreamDown(who, id, number, bytes) => self.stream_down(who, id, number, bytes),
            Item::StreamHangup(number) => self.stream_hangup(number),
            Item::Reached(who, ip) => self.with(who, |node, now| node.handle_reached(now, ip)),
            Item::Mapped(who) => self.mapped(who),
            Item::Save(who) => self.save(who),
        }
    }

    fn deliver(&mut self, turned: Turned, bytes: &[u8]) {
        if turned.below.is_none() && relay::owns(turned.to.ip()) {
            let now = self.now;
            let v6 = self.relay_v6;
            let relay = self.relay.as_mut().filter(|_| v6 || turned.to.is_ipv4());
            let sent = relay.map(|relay| relay.receive(now, turned.from, turned.to, bytes));
            sent.into_iter().flatten().for_each(|sent| self.send_from_relay(sent));
            return;
        }
        let Some((place, to)) = self.internet.down(self.now.instant, turned) else { return };
        let Some((who, socket)) = self.hears(place, to) else { return };
        self.hand_over(who, socket, turned.from, bytes);
    }

    /// Who listens at an address within a place, and by which socket.
    pub(crate) fn hears(&mut self, place: Place, to: SocketAddr) -> Option<(usize, SocketId)> {
        let at = |who: usize| {
            let member = self.members.get(who).filter(|member| member.home == place && !member.asleep)?;
            Some((who, member.socket(to)?))
        };
        let known = self.found.inside.get(&(place, to.ip())).and_then(|who| at(*who));
        let found = known.or_else(|| (0..self.members.len()).find_map(at))?;
        self.found.inside.insert((place, to.ip()), found.0);
        Some(found)
    }

    fn hand_over(&mut self, who: usize, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let (mut scratch, mut out) = (vec![0; bytes.len().max(PACKET_ROOM)], Out::default());
        self.with(who, |node, now| node.handle_datagram(now, socket, from, bytes, &mut scratch, &mut out));
        self.send_out(who, out);
    }

    fn server_gets(&mut self, who: usize, connection: partyline_rendezvous::ConnectionId, bytes: &[u8]) {
        let now = self.now;
        let stale = self.members[who].stale.contains(&connection);
        if let Some(server) = self.server.as_mut().filter(|_| !stale) {
            server.core.handle_frame(now, connection, bytes);
        }
        self.serve();
    }

    fn closed(&mut self, who: usize, link: ServerId, connection: Option<partyline_rendezvous::ConnectionId>) {
        let member = &mut self.members[who];
        let known = member.connections.get(&link).copied();
        if known.is_none() || known == connection {
            member.connections.remove(&link);
            let input = ServerInput::Closed(connection.is_none().then(unreachable_server));
            self.with(who, |node, now| node.handle_server(now, link, input));
        }
    }

    fn connect(&mut self, who: usize, link: ServerId) {
        let (now, ip) = (self.now, self.public_ip(who));
        let connection = self.server.as_mut().and_then(|server| server.connect(now, who, link, ip));
        let Some(connection) = connection else {
            return self.put(LATENCY, Item::Closed(who, link, None));
        };
        let member = &mut self.members[who];
        member.connections.insert(link, connection);
        member.online.get_or_insert(now.instant);
        self.with(who, |node, now| node.handle_server(now, link, ServerInput::Opened));
        self.serve();
    }

    pub(crate) fn public_ip(&self, who: usize) -> std::net::IpAddr {
        let member = &self.members[who];
        member.home.map_or_else(|| member.address.ip(), |home| self.internet.public_ip(home))
    }

    fn serve(&mut self) {
        let said = self.server.as_mut().map(Server::say);
        for said in said.into_iter().flatten() {
            self.put(
                LATENCY,
                match said {
                    Said::Frame(who, link, connection, bytes) => Item::ToMember(who, link, connection, bytes),
                    Said::Closed(who, link, connection) => Item::Closed(who, link, Some(connection)),
                },
            );
        }
    }

    fn mapped(&mut self, who: usize) {
        let Some(home) = self.members[who].home else { return };
        let member = &self.members[who];
        let inside = [Some(member.address), member.v6].into_iter().flatten();
        let mapped = inside.map(|inside| self.internet.open(home, inside)).collect();
        let report = PortMappingReport { mapped, ..PortMappingReport::default() };
        self.with(who, |node, now| node.handle_port_mapping(now, report));
    }

    fn stream_down(&mut self, who: usize, id: StreamId, number: u32, bytes: Option<Vec<u8>>) {
        if self.members[who].streams.get(&id) != Some(&number) {
            return;
        }
        let input = bytes.map_or(StreamInput::Closed, |bytes| {
            if bytes.is_empty() { StreamInput::Opened } else { StreamInput::Data(bytes) }
        });
        if matches!(input, StreamInput::Closed) {
            self.members[who].streams.remove(&id);
        }
        let (mut scratch, mut out) = (vec![0; LONGEST_MESSAGE], Out::default());
        self.with(who, |node, now| node.handle_stream(now, id, input, &mut scratch, &mut out));
        self.send_out(who, out);
    }
}

fn unreachable_server() -> AppError {
    AppError::new(ErrorCode::ServerUnreachable, "The server cannot be reached.", "Partyline keeps trying.")
}
