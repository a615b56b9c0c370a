//! What nodes ask for.

use std::{net::SocketAddr, time::Duration};

use partyline_node::{DeviceInput, Local, Output};
use partyline_wire::rendezvous::ClientFrame;

use crate::{
    Member,
    member::Out,
    relay,
    world::{Item, LATENCY, World},
};

const BEACON_PORT: u16 = 20_555;
/// How long at most the disk may be behind.
const CALM: Duration = Duration::from_secs(1);
/// How often a node may be called at one moment before it is taken to spin.
const SPIN: usize = 200;

impl World {
    /// Does what a node asks for, until it asks for nothing.
    pub(crate) fn settle(&mut self, who: usize) {
        for _ in 0..SPIN {
            self.perform_all(who);
            let now = self.now_of(who);
            let member = &mut self.members[who];
            let Some(node) = member.node.as_mut().filter(|_| !member.asleep) else { break };
            if node.poll_timeout().is_none_or(|at| at > now.instant) {
                return self.note_deadline(who);
            }
            node.handle_timeout(now);
        }
        let spins = self.members[who].node.is_some() && !self.members[who].asleep;
        assert!(!spins, "member {who} asks for the same moment for ever");
        self.note_deadline(who);
    }

    fn perform_all(&mut self, who: usize) {
        loop {
            let (now, mut out) = (self.now_of(who), Out::default());
            let member = &mut self.members[who];
            let Some(node) = member.node.as_mut() else { return };
            node.flush(now, &mut out);
            let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).collect();
            self.send_out(who, out);
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.perform(who, output));
        }
    }

    /// Sends and delivers what left a node.
    pub(crate) fn send_out(&mut self, who: usize, out: Out) {
        self.members[who].received.extend(out.packets);
        for (local, to, bytes) in out.messages {
            match local {
                Local::Socket(socket) => self.send(who, socket, to, bytes),
                Local::Stream(stream) => self.send_stream(who, stream, bytes),
            }
        }
    }

    fn perform(&mut self, who: usize, output: Output) {
        let member = &mut self.members[who];
        if member.node.is_none() {
            return;
        }
        match output {
            Output::OpenSockets { ids } => {
                let opened = member.open(ids);
                self.with_node(who, |node, now| node.handle_sockets_opened(now, &opened));
            }
            Output::CloseSocket { id } => member.close(id),
            Output::DeviceUp { party, device } => {
                member.devices.insert(party, device);
                member.devices_made += 1;
                self.with_node(who, |node, now| {
                    node.handle_device(now, party, DeviceInput::Up("party0".to_owned()))
                });
            }
            Output::DeviceDown { party } => drop(member.devices.remove(&party)),
            Output::ServerOpen { id, .. } => self.put(LATENCY, Item::Connect(who, id)),
            Output::ServerSend { id, frame } => self.send_to_server(who, id, frame),
            Output::ServerClose { id } => {
                if let Some(connection) = member.connections.get(&id).copied() {
                    self.put(LATENCY, Item::Hangup(connection));
                    self.put(LATENCY, Item::Closed(who, id, Some(connection)));
                }
            }
            Output::StreamOpen { id, .. } => self.put(LATENCY, Item::OpenStream(who, id)),
            Output::StreamClose { id } => {
                if let Some(number) = member.streams.remove(&id) {
                    self.put(LATENCY, Item::StreamHangup(number));
                }
            }
            Output::Resolve { host, port } => self.resolve(who, host, port),
            Output::Beacon { to, bytes } => self.beacon(who, to, &bytes),
            Output::Save => self.save_soon(who),
            Output::Answer { request, result } => {
                self.save(who);
                self.members[who].answers.insert(request, *result);
            }
            Output::Reach { address } => {
                if relay::owns(address.ip()) && self.relay.is_some() {
                    self.put(LATENCY * 2, Item::Reached(who, address.ip()));
                }
            }
            Output::KeepaliveServers { .. } | Output::PathAttempted { .. } => {}
            Output::Stopped => {
                member.unsaved = true;
                self.save(who);
                self.kill(who);
            }
        }
    }

    /// The engine writes at most once a second what nobody waits for.
    fn save_soon(&mut self, who: usize) {
        let member = &mut self.members[who];
        if !member.unsaved {
            member.unsaved = true;
            // The first state at once, since nobody may hear of a device that could be lost.
            let calm = if member.disk.is_some() { CALM } else { Duration::ZERO };
            self.put(calm, Item::Save(who));
        }
    }

    pub(crate) fn save(&mut self, who: usize) {
        let member = &mut self.members[who];
        if let Some(node) = member.node.as_ref().filter(|_| member.unsaved) {
            member.disk = Some(node.save());
            member.unsaved = false;
        }
    }

    fn with_node(&mut self, who: usize, what: impl FnOnce(&mut partyline_node::Node, partyline_model::Now)) {
        let now = self.now_of(who);
        if let Some(node) = &mut self.members[who].node {
            what(node, now);
        }
    }

    fn send_to_server(&mut self, who: usize, id: partyline_node::ServerId, frame: Vec<u8>) {
        let member = &mut self.members[who];
        member.frames += 1;
        self.trace.message(self.now.instant, who, frame.len());
        if let Ok(ClientFrame::Enter { topic, .. }) = ClientFrame::decode(&frame) {
            self.topics.push(topic);
        }
        if let Some(connection) = member.connections.get(&id).copied() {
            self.put(LATENCY, Item::ToServer(who, connection, frame));
        }
    }

    fn resolve(&mut self, who: usize, host: String, port: u16) {
        let families: &[bool] = if self.relay_v6 { &[false, true] } else { &[false] };
        let own = families.iter().map(|v6| SocketAddr::new(relay::addresses(*v6)[0], port));
        let addresses = if host == relay::HOST { own.collect() } else { Vec::new() };
        self.with_node(who, |node, now| node.handle_resolved(now, host, port, addresses));
    }

    fn beacon(&mut self, from: usize, to: Option<SocketAddr>, bytes: &[u8]) {
        let (lan, ip) = (self.members[from].lan, self.members[from].address.ip());
        let hears = |(who, member): (usize, &Member)| {
            let meant = to.is_none_or(|to| to.ip() == member.address.ip());
            (who != from && member.lan == lan && meant).then_some(who)
        };
        let hearers: Vec<usize> = self.members.iter().enumerate().filter_map(hears).collect();
        for to in hearers {
            let from = SocketAddr::new(ip, BEACON_PORT);
            let delay: Duration = self.beacon_jitter.mul_f64(self.chance());
            self.put(delay, Item::Beacon { to, from, bytes: bytes.to_vec() });
        }
    }
}
