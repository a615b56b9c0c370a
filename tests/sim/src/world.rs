//! A party's world: its members, its servers, and the wires between them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use partyline_model::{
    AppError, Command, ErrorCode, InviteLifetime, InviteTerms, MemberView, Now, PartyId, PartyView, PathKind,
    Reply, Role, Snapshot, Timestamp,
};
use partyline_node::{LocalNetwork, Node, PortMappingReport, ServerId, ServerInput};
use partyline_rendezvous::Limits;
use partyline_tests_netsim::{Datagram, Direction, Event, HostId, Line, Network, Place, Segment};

use crate::{
    item::Item,
    member::{self, Member, TUNNEL_PORT, member_on},
    packet,
    rendezvous::Connection,
    servers::Servers,
    wires::{LATENCY, RELAY, Wires},
};

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// After how long TCP delivers to a computer that slept, at most.
const TCP_RETRY: Duration = Duration::from_millis(200);

/// Members, servers and wires.
pub struct World {
    /// The members by number.
    pub members: Vec<Member>,
    /// The network and the clock.
    pub wires: Wires,
    /// The rendezvous server's limits when it starts next.
    pub limits: Limits,
    /// True while frames to and from the rendezvous server are lost, though its connections stand.
    pub frozen: bool,
    /// True if the rendezvous server grants the relay.
    pub grants: bool,
    servers: Servers,
    timers: BTreeSet<(Instant, usize)>,
    /// The entry of each member in `timers`.
    deadlines: Vec<Option<Instant>>,
}

impl World {
    /// Returns a world without members and servers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            members: Vec::new(),
            wires: Wires::new(seed),
            limits: Limits { connections_per_address: 1_000, ..Limits::default() },
            frozen: false,
            grants: true,
            servers: Servers::default(),
            timers: BTreeSet::new(),
            deadlines: Vec::new(),
        }
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.wires.now()
    }

    /// Returns the hosts and routers.
    pub fn network(&mut self) -> &mut Network {
        &mut self.wires.net.network
    }

    /// Sets what happens to datagrams besides the properties of the lines.
    pub fn interfere(&mut self, interference: impl FnMut(&Datagram, u32) -> Option<Duration> + 'static) {
        self.network().interference = Box::new(interference);
    }

    /// Adds a computer on a LAN of its own and starts its program. Returns the member's number.
    pub fn member(&mut self) -> usize {
        let number = u32::try_from(self.members.len()).expect("a number");
        self.member_on(1_000 + number)
    }

    /// Adds a computer on a LAN that it may share, and starts its program. Returns the member's number.
    pub fn member_on(&mut self, lan: u32) -> usize {
        let who = self.add(lan);
        self.start(who);
        who
    }

    /// Adds a computer with a public address whose program does not run yet. Returns the member's number.
    pub fn add(&mut self, lan: u32) -> usize {
        let who = self.members.len();
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 1, 0).to_bits() + who as u32);
        let host = self.network().add_host(None, [IpAddr::V4(ip)], Line::GOOD);
        self.network().hosts[host].lan = lan;
        assert_eq!(member_on(host), who);
        self.members.push(Member::new(who, host));
        who
    }

    /// Puts a member's computer into a place at which it has these addresses.
    pub fn place(&mut self, who: usize, place: Place, addresses: impl Into<Vec<IpAddr>>) {
        let host = self.members[who].host;
        self.members[who].deprecated.clear();
        self.network().move_host(host, place, addresses);
    }

    /// Gives a member's computer other addresses on the same network. Its system still lists the deprecated ones, of which
    /// some may work.
    pub fn renumber(&mut self, who: usize, addresses: impl Into<Vec<IpAddr>>, deprecated: Vec<IpAddr>) {
        let host = self.members[who].host;
        let place = self.network().hosts[host].place();
        self.network().move_host(host, place, addresses);
        self.members[who].deprecated = deprecated;
        self.look_at_network(who);
    }

    /// Makes a member's program look at its computer's network, unless that sleeps; then it does when it wakes.
    fn look_at_network(&mut self, who: usize) {
        if !self.is_asleep(who) {
            let network = self.local_network(who);
            self.with(who, |node, now| node.handle_network(now, network));
        }
    }

    /// Returns the IPv4 address of a member's computer.
    #[must_use]
    pub fn host_address(&self, who: usize) -> IpAddr {
        member::address(&self.wires.net.network, self.members[who].host, false).expect("an IPv4 address")
    }

    /// Returns the address at which the public Internet sees a member.
    #[must_use]
    pub fn public_address(&self, who: usize) -> Option<IpAddr> {
        self.wires.net.network.public_address(self.members[who].host)
    }

    /// Returns the number of a member's LAN.
    #[must_use]
    pub fn lan(&self, who: usize) -> u32 {
        self.wires.net.network.hosts[self.members[who].host].lan
    }

    /// Returns what a member's system lists.
    #[must_use]
    pub fn local_network(&self, who: usize) -> LocalNetwork {
        self.members[who].local_network(&self.wires.net.network)
    }

    /// Starts a member's program with what is on its disk.
    pub fn start(&mut self, who: usize) {
        let server = self.servers.has_rendezvous();
        self.members[who].start(server, &mut self.wires);
        self.update_timer(who);
    }

    /// Kills a member's program: its sockets and devices are gone, its disk stays.
    pub fn kill(&mut self, who: usize) {
        self.members[who].kill(&mut self.wires);
        self.update_timer(who);
    }

    /// Cuts the power of a member's computer: like [`Self::kill`], but the servers do not learn of it.
    pub fn cut_power(&mut self, who: usize) {
        self.members[who].cut_power();
        self.update_timer(who);
    }

    /// Starts the rendezvous server and the relay.
    pub fn start_server(&mut self) {
        self.servers.start_rendezvous(self.limits.clone(), self.grants, &mut self.wires);
        self.start_relay();
    }

    /// Starts the relay alone.
    pub fn start_relay(&mut self) {
        self.servers.start_relay(&mut self.wires);
    }

    /// Returns true if the rendezvous server runs.
    #[must_use]
    pub fn has_server(&self) -> bool {
        self.servers.has_rendezvous()
    }

    /// Returns true if the relay runs.
    #[must_use]
    pub fn has_relay(&self) -> bool {
        self.servers.has_relay()
    }

    /// Kills both servers: their state is lost, and all connections break.
    pub fn kill_server(&mut self) {
        self.servers.stop_rendezvous();
        self.kill_relay();
        for member in &mut self.members {
            for (link, connection) in std::mem::take(&mut member.connections) {
                self.wires.schedule(LATENCY, Item::Closed(member.number, link, Some(connection)));
            }
        }
    }

    /// Takes both servers off the network without a notice: their state is lost, and connections hang.
    pub fn unplug_server(&mut self) {
        self.servers.unplug(&mut self.wires);
    }

    /// Starts both servers at another address, to which their names lead from now on.
    pub fn start_server_elsewhere(&mut self) {
        if self.has_server() {
            self.kill_server();
        }
        self.wires.moves += 1;
        self.start_server();
    }

    /// Kills the relay alone.
    pub fn kill_relay(&mut self) {
        self.servers.stop_relay(&mut self.wires);
    }

    /// Gives a member's computer another public address, as another network does. Its connections hang until an end
    /// notices.
    pub fn move_to(&mut self, who: usize, ip: Ipv4Addr) {
        self.place(who, None, [IpAddr::V4(ip)]);
        let network = self.local_network(who);
        self.with(who, |node, now| node.handle_network(now, network));
    }

    /// Moves a member's computer to another home. Packets of its connections are lost from now on.
    pub fn roam(&mut self, who: usize, home: Place, addresses: impl Into<Vec<IpAddr>>) {
        self.place(who, home, addresses);
        let member = &mut self.members[who];
        member.stale.extend(member.connections.values().copied());
        self.wires.net.streams.break_all_of(member.host);
        let network = self.local_network(who);
        self.with(who, |node, now| {
            node.handle_port_mapping(now, PortMappingReport::default());
            node.handle_network(now, network);
        });
    }

    /// Puts a member's computer to sleep, or wakes it.
    pub fn sleep(&mut self, who: usize, asleep: bool) {
        let host = self.members[who].host;
        self.network().hosts[host].asleep = asleep;
        if asleep {
            self.update_timer(who);
        } else {
            self.with(who, Node::handle_wake);
            self.look_at_network(who);
        }
    }

    /// Returns true if a member's computer sleeps.
    #[must_use]
    pub fn is_asleep(&self, who: usize) -> bool {
        self.wires.is_asleep(self.members[who].host)
    }

    /// Makes a member's router map the port of its tunnel's sockets, in a second.
    pub fn map_port(&mut self, who: usize) {
        self.wires.schedule(Duration::from_secs(1), Item::Mapped(who));
    }

    /// Cuts the path between the networks that two members are in now, until [`Network::restore_cuts`].
    pub fn cut(&mut self, one: usize, other: usize) {
        let (one, other) = (self.members[one].host, self.members[other].host);
        self.network().cut(one, other);
    }

    /// Calls a running node, and carries out what it asks for.
    pub fn with<R: Default>(&mut self, who: usize, call: impl FnOnce(&mut Node, Now) -> R) -> R {
        let _span = self.span(who).entered();
        let result = self.members[who].with(&mut self.wires, call);
        self.update_timer(who);
        result
    }

    /// Names a member and the virtual time in its log.
    fn span(&self, who: usize) -> tracing::Span {
        tracing::info_span!("member", who, unix_ms = self.now().unix.0)
    }

    /// Returns a member's name of its connection to the rendezvous server.
    #[must_use]
    pub fn link(&self, who: usize) -> ServerId {
        *self.members[who].connections.keys().next().expect("a connection")
    }

    /// Runs for a span of time.
    pub fn run(&mut self, span: Duration) {
        let end = self.wires.instant() + span;
        while self.step(end) {}
        self.advance(end);
    }

    /// Sets the wall clock alone.
    pub fn set_clock(&mut self, unix: Timestamp) {
        self.wires.net.set_wall_clock(unix);
    }

    /// Goes to the next moment at which something happens. Returns false if that is after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timer = self.timers.first().copied().filter(|(at, _)| *at <= end);
        let until = timer.map_or(end, |(at, _)| at);
        if self.wires.net.next_at().is_some_and(|at| at <= until) {
            if let Some(event) = self.wires.net.next(until) {
                self.servers.handle_timeout(self.wires.now());
                self.on_event(event);
            }
            return true;
        }
        let Some((at, who)) = timer else { return false };
        self.advance(at);
        self.members[who].wakes += 1;
        self.with(who, |node, now| node.handle_timeout(now));
        true
    }

    fn advance(&mut self, to: Instant) {
        self.wires.net.advance_to(to);
        self.servers.handle_timeout(self.wires.now());
    }

    /// Notes when a member wants to be woken.
    fn update_timer(&mut self, who: usize) {
        self.deadlines.resize(self.members.len(), None);
        let deadline = self.members[who].poll_timeout(&self.wires);
        let before = std::mem::replace(&mut self.deadlines[who], deadline);
        if before != deadline {
            before.map(|at| self.timers.remove(&(at, who)));
            deadline.map(|at| self.timers.insert((at, who)));
        }
    }

    fn on_event(&mut self, event: Event<Item>) {
        match event {
            Event::Datagram(datagram) if datagram.host == RELAY => {
                self.servers.on_datagram(&datagram, &mut self.wires);
            }
            Event::Datagram(datagram) => {
                self.on_member(datagram.host, |member, wires| member.on_datagram(&datagram, wires));
            }
            Event::Segment(segment) => self.on_segment(segment),
            Event::Other(item) => self.on_item(item),
        }
    }

    fn on_member(&mut self, host: HostId, call: impl FnOnce(&mut Member, &mut Wires)) {
        let who = member_on(host);
        let _span = self.span(who).entered();
        call(&mut self.members[who], &mut self.wires);
        self.update_timer(who);
    }

    fn on_segment(&mut self, segment: Segment) {
        let Segment { stream, client, direction, bytes } = segment;
        if direction == Direction::ToServer {
            self.servers.on_stream(stream, bytes.as_deref(), &mut self.wires);
        } else if self.wires.is_asleep(client) {
            let segment = Segment { stream, client, direction, bytes };
            self.wires.net.schedule_segment(TCP_RETRY, segment);
        } else {
            self.on_member(client, |member, wires| member.on_stream(stream, bytes, wires));
        }
    }

    fn on_item(&mut self, item: Item) {
        match item {
            Item::Beacon { to, .. } if self.is_asleep(to) => {}
            Item::Beacon { to, from, bytes } => {
                self.with(to, |node, now| node.handle_beacon(now, from, &bytes));
            }
            Item::OpenStream(who, ..) if self.members[who].node.is_none() => {}
            Item::Connect(who, link, attempt) => self.connect(who, link, attempt),
            Item::ToServer(..) | Item::ToMember(..) if self.frozen => {}
            Item::ToServer(who, connection, bytes) => {
                if !self.members[who].stale.contains(&connection) {
                    self.servers.on_frame(connection, &bytes, &mut self.wires);
                }
            }
            Item::HangUp(connection) => self.servers.hang_up(connection, &mut self.wires),
            Item::ToMember(who, ..) | Item::Closed(who, ..) | Item::Unreachable(who, ..)
                if self.is_asleep(who) =>
            {
                self.wires.schedule(TCP_RETRY, item);
            }
            Item::ToMember(who, link, connection, bytes) => {
                let member = &self.members[who];
                let is_open = member.connections.get(&link) == Some(&connection);
                if is_open && !member.stale.contains(&connection) {
                    self.with(who, |node, now| node.handle_server(now, link, ServerInput::Frame(bytes)));
                }
            }
            Item::Closed(who, link, connection) => self.closed(who, link, connection),
            Item::Unreachable(who, link, attempt) => self.unreachable(who, link, attempt),
            Item::OpenStream(who, id, at) => {
                let stream = self.servers.open_stream(self.members[who].host, at, &mut self.wires);
                self.members[who].on_stream_numbered(id, stream);
            }
            Item::Reached(who, ip) if self.has_relay() => {
                self.with(who, |node, now| node.handle_reached(now, ip));
            }
            Item::Reached(..) => {}
            Item::Mapped(who) => self.mapped(who),
            Item::Save(who) => self.members[who].save(),
        }
    }

    fn connect(&mut self, who: usize, link: ServerId, attempt: u32) {
        if self.members[who].opening.get(&link) != Some(&attempt) {
            return;
        }
        let connection = self.servers.connect(who, self.members[who].host, link, &self.wires);
        let Some(connection) = connection else {
            let item = Item::Unreachable(who, link, attempt);
            return self.wires.schedule(self.servers.failure_delay(), item);
        };
        let member = &mut self.members[who];
        member.opening.remove(&link);
        member.connections.insert(link, connection);
        member.online.get_or_insert(self.wires.instant());
        self.with(who, |node, now| node.handle_server(now, link, ServerInput::Opened));
        self.servers.serve(&mut self.wires);
    }

    fn unreachable(&mut self, who: usize, link: ServerId, attempt: u32) {
        let opening = &mut self.members[who].opening;
        if opening.get(&link) == Some(&attempt) {
            opening.remove(&link);
            let input = ServerInput::Closed(Some(unreachable_server()));
            self.with(who, |node, now| node.handle_server(now, link, input));
        }
    }

    fn closed(&mut self, who: usize, link: ServerId, connection: Option<Connection>) {
        let member = &mut self.members[who];
        let known = member.connections.get(&link).copied();
        let is_opening = member.opening.contains_key(&link);
        if !is_opening && (known.is_none() || known == connection) {
            member.connections.remove(&link);
            self.with(who, |node, now| node.handle_server(now, link, ServerInput::Closed(None)));
        }
    }

    fn mapped(&mut self, who: usize) {
        let host = &self.wires.net.network.hosts[self.members[who].host];
        let Some(router) = host.place() else { return };
        let inside: Vec<_> = host.addresses().iter().map(|ip| (*ip, TUNNEL_PORT).into()).collect();
        let router = &mut self.network().routers[router];
        let mapped = inside.into_iter().map(|inside| router.map_port(inside)).collect();
        let report = PortMappingReport { mapped, ..PortMappingReport::default() };
        self.with(who, |node, now| node.handle_port_mapping(now, report));
    }

    /// Makes a member carry out a command, and waits for the answer.
    ///
    /// # Errors
    /// The node's answer is an error.
    pub fn command(&mut self, who: usize, command: Command) -> Result<Reply, AppError> {
        let request = self.members[who].next_request();
        self.with(who, |node, now| node.handle_command(now, request, command));
        self.until("an answer", COMMAND_TIMEOUT, |world| world.members[who].answers.contains_key(&request));
        self.members[who].answers.remove(&request).expect("an answer")
    }

    /// Creates a party. Returns it and its link.
    pub fn create(&mut self, who: usize, range: Option<&str>) -> (PartyId, String) {
        let range: Option<Ipv4Net> = range.map(|text| text.parse().expect("a range"));
        let display_name = format!("member {who}");
        let command = Command::Create { name: "friday".into(), display_name, servers: Vec::new(), range };
        match self.command(who, command) {
            Ok(Reply::Created { party, link }) => (party, link),
            other => panic!("no party: {other:?}"),
        }
    }

    /// Makes a member join a party.
    pub fn join(&mut self, who: usize, link: &str) {
        let command = Command::Join { link: link.to_owned(), display_name: format!("member {who}") };
        self.command(who, command).expect("a valid link");
    }

    /// Returns an invite that never expires.
    pub fn invite(&mut self, who: usize, party: PartyId) -> String {
        let terms = InviteTerms { lifetime: InviteLifetime::Never, uses: None, role: Role::Member };
        let command = Command::Invite { party, terms };
        match self.command(who, command) {
            Ok(Reply::Invite { link }) => link,
            other => panic!("no invite: {other:?}"),
        }
    }

    /// Adds `size` members of one new party, all connected to each other.
    pub fn party(&mut self, size: usize) -> PartyId {
        let first = self.members.len();
        (0..size).for_each(|_| _ = self.member());
        let (party, link) = self.create(first, None);
        (first + 1..first + size).for_each(|who| self.join(who, &link));
        self.until_mesh(Duration::from_secs(30));
        party
    }

    /// Runs until something holds. Returns how long it took.
    ///
    /// # Panics
    /// If it takes longer than `limit`.
    pub fn until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let start = self.wires.instant();
        while !holds(self) {
            assert!(self.step(start + limit), "waited {limit:?} for {what} in vain");
        }
        self.wires.instant() - start
    }

    /// Runs until every running member shows every other one as connected and with an address. Returns how long it took.
    pub fn until_mesh(&mut self, limit: Duration) -> Duration {
        let mut waited = Duration::ZERO;
        while !self.missing().is_empty() {
            assert!(waited < limit, "no full mesh after {limit:?}: missing {:?}", self.missing());
            self.run(Duration::from_millis(100));
            waited += Duration::from_millis(100);
        }
        waited
    }

    /// Returns the pairs of which the first does not show the second as connected.
    #[must_use]
    pub fn missing(&self) -> Vec<(usize, usize)> {
        let running: Vec<usize> = (0..self.members.len()).filter(|who| self.has_active_party(*who)).collect();
        let pairs = running.iter().flat_map(|from| running.iter().map(move |to| (*from, *to)));
        let missing = pairs.filter(|(from, to)| {
            from != to && !self.sees(*from, *to).is_some_and(|view| is_connected(&view))
        });
        missing.collect()
    }

    /// Returns true if a member's program runs and has a party that is switched on.
    fn has_active_party(&self, who: usize) -> bool {
        let member = &self.members[who];
        let on = |party: &PartyView| party.phase != partyline_model::PartyPhase::Down;
        !member.devices.is_empty()
            || member.node.is_some() && member.snapshot(self.now()).parties.iter().any(on)
    }

    /// Returns what a member shows.
    #[must_use]
    pub fn snapshot(&self, who: usize) -> Snapshot {
        self.members[who].snapshot(self.now())
    }

    /// Returns what a member shows of its first party.
    #[must_use]
    pub fn view(&self, who: usize) -> PartyView {
        self.members[who].party(self.now()).expect("a party")
    }

    /// Returns what one member shows of another.
    #[must_use]
    pub fn sees(&self, who: usize, other: usize) -> Option<MemberView> {
        self.members[who].sees(&self.members[other], self.now())
    }

    /// Returns the kind of the path in use from one member to another.
    #[must_use]
    pub fn path(&self, who: usize, other: usize) -> Option<PathKind> {
        Some(self.sees(who, other)?.path?.kind)
    }

    /// Returns a member's address in its first party.
    #[must_use]
    pub fn address(&self, who: usize) -> Ipv4Addr {
        self.members[who].party_address()
    }

    /// Writes a packet to a member's device.
    pub fn send_packet(&mut self, who: usize, to: Ipv4Addr, payload: &[u8]) {
        let party = *self.members[who].devices.keys().next().expect("a device");
        let mut packet = packet::udp(self.address(who), to, payload);
        self.with(who, |node, now| node.handle_packet(now.instant, party, &mut packet));
    }

    /// Returns the senders of the packets with this payload that a member's devices received.
    #[must_use]
    pub fn heard(&self, who: usize, payload: &[u8]) -> Vec<IpAddr> {
        self.members[who].heard(payload)
    }

    /// Sends a packet. Returns true if it arrives within two seconds, exactly once and from the right address.
    pub fn reaches(&mut self, from: usize, to: usize) -> bool {
        let payload = self.send_unique(from, to);
        self.run(Duration::from_secs(2));
        self.heard(to, &payload) == [IpAddr::from(self.address(from))]
    }

    /// Checks that packets pass between all members that have devices, in both directions.
    ///
    /// # Panics
    /// If they do not.
    pub fn assert_all_reach(&mut self) {
        let up: Vec<usize> =
            (0..self.members.len()).filter(|who| !self.members[*who].devices.is_empty()).collect();
        let pairs = up.iter().flat_map(|from| up.iter().map(move |to| (*from, *to))).filter(|(a, b)| a != b);
        let sent: Vec<_> = pairs.map(|(from, to)| (from, to, self.send_unique(from, to))).collect();
        self.run(Duration::from_secs(2));
        for (from, to, payload) in sent {
            let heard = self.heard(to, &payload);
            assert_eq!(heard, [IpAddr::from(self.address(from))], "from {from} to {to}");
        }
    }

    fn send_unique(&mut self, from: usize, to: usize) -> Vec<u8> {
        let payload = format!("{from} to {to} at {:?}", self.now().unix).into_bytes();
        let target = self.address(to);
        self.send_packet(from, target, &payload);
        payload
    }
}

fn is_connected(view: &MemberView) -> bool {
    view.address.is_some() && view.path.as_ref().is_some_and(|path| path.handshake_s.is_some())
}

fn unreachable_server() -> AppError {
    AppError::new(ErrorCode::ServerUnreachable, "The server cannot be reached.", "Partyline keeps trying.")
}
