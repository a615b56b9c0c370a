//! The event loop.
//!
//! Each turn waits for one [`Wakeup`], hands it to the node, and then lets the node send and ask for things until it is
//! quiet. Whatever takes time (connecting, looking up names, talking to the router, reading devices) is a task of its
//! own that reports through the [`Inbox`], so that packets never wait for it.

use std::{net::SocketAddr, sync::Arc};

use partyline_model::{AppError, ClientCommand, Command, EngineCommand, Now, Reply, Settings, Snapshot};
use partyline_net::RecvBatch;
use partyline_node::{
    HostAddress, LocalNetwork, Node, Output, PortMappingReport, RequestId, ServerInput, SocketId,
};
use partyline_platform::{Clock, LocalAddress, NetworkState, SleepDetector, remove_stale_devices};
use rand::RngCore as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    answers::{self, Answer, PendingAnswers},
    beacon::Beacon,
    connections::{ConnectionEvent, Connections},
    controller::{Call, Controller},
    departures::Departures,
    devices::{Batch, DeviceSource, Devices},
    doctor,
    egress::EngineEgress,
    metrics::EngineMetrics,
    network_events::{self, NetworkSource, is_reachable},
    offered_ports,
    options::{EngineOptions, RunningEngine},
    port_mapping::{PortMapping, RouterSource},
    router_report, server_test,
    snapshots::{MAX_INTERVAL, SnapshotFeed},
    sockets::{Arrivals, Sockets},
    startup,
    store::Store,
    wakeup::{Inbox, Wakeup},
};

/// Calls and events that may wait for the loop.
const QUEUE: usize = 256;
/// Batches of packets from devices that may wait for the loop.
const PACKET_QUEUE: usize = 4;
/// The longest message that a datagram or a stream can carry, in bytes.
const SCRATCH: usize = 64 * 1024;

/// The event loop around one node. One task owns it, so that nothing in it needs a lock.
pub struct Engine {
    clock: Clock,
    sleep: SleepDetector,
    node: Node,
    egress: EngineEgress,
    beacon: Beacon,
    port_mapping: PortMapping,
    network: NetworkState,
    watcher: JoinHandle<()>,
    store: Store,
    calls: mpsc::Receiver<Call>,
    answers: PendingAnswers,
    feed: SnapshotFeed,
    inbox: Inbox,
    metrics: EngineMetrics,
    scratch: Vec<u8>,
    received: Option<RecvBatch>,
    stopped: bool,
}

/// The parts of the operating system that tests replace.
pub(crate) struct Environment {
    pub devices: DeviceSource,
    pub network: NetworkSource,
    pub router: RouterSource,
}

impl Engine {
    /// Opens state and sockets and starts the event loop on the current runtime.
    ///
    /// # Errors
    /// State that cannot be read or written, sockets that cannot be opened.
    pub async fn start(options: EngineOptions) -> Result<RunningEngine, AppError> {
        let removed = remove_stale_devices(&options.state_dir).await?;
        if !removed.is_empty() {
            tracing::info!(?removed, "removed the devices that an earlier run left behind");
        }
        let environment = Environment {
            devices: DeviceSource::System,
            network: NetworkSource::System,
            router: RouterSource::Network,
        };
        Self::start_in(options, environment).await
    }

    pub(crate) async fn start_in(
        options: EngineOptions,
        environment: Environment,
    ) -> Result<RunningEngine, AppError> {
        let (calls_in, calls) = mpsc::channel(QUEUE);
        let (mut engine, snapshots) = Self::open(options, environment, calls)?;
        let now = engine.clock.now();
        // A new device, and the sequence numbers of a known one, have to be stored before another computer learns of
        // them. Where that fails, a known device runs nevertheless: its next run then begins with the clock.
        let is_new = engine.store.is_new()?;
        let written = engine.store.write(now.instant, engine.node.save()).await;
        if is_new {
            written?;
        }
        let join = tokio::spawn(engine.run());
        Ok(RunningEngine { controller: Controller::new(calls_in, snapshots), join })
    }

    fn open(
        options: EngineOptions,
        environment: Environment,
        calls: mpsc::Receiver<Call>,
    ) -> Result<(Box<Self>, watch::Receiver<Arc<Snapshot>>), AppError> {
        let clock = Clock::new();
        let now = clock.now();
        let mut store = Store::new(&options.state_dir);
        let node = startup::node(now, &options, &mut store)?;
        let tls = startup::tls(&options)?;
        let main = startup::bind(node.settings().port)?;
        let (connection_events, connections) = mpsc::channel(QUEUE);
        let (device_events, devices) = mpsc::channel(QUEUE);
        let (batches, packets) = mpsc::channel(PACKET_QUEUE);
        let (network_events, network) = mpsc::channel(QUEUE);
        let seed = rand::rngs::OsRng.next_u64();
        let (enabled, lan_beacon) = (node.settings().port_mapping, node.settings().lan_beacon);
        let port_mapping = PortMapping::new(environment.router, &main, seed, &options.state_dir);
        let (sockets, arrivals) = Sockets::new(main);
        let (feed, watched) = SnapshotFeed::new(now.instant, node.revision(), node.snapshot(now));
        tracing::info!(
            port = sockets.main.port(),
            device = %node.device().short(),
            version = env!("CARGO_PKG_VERSION"),
            "the engine starts"
        );
        let engine = Self {
            egress: EngineEgress {
                sockets,
                devices: Devices::new(environment.devices, &options.state_dir, device_events, batches),
                connections: Connections::new(tls, connection_events),
                departures: Departures::default(),
            },
            port_mapping: port_mapping.enabled(enabled),
            watcher: network_events::watch(environment.network, network_events),
            sleep: SleepDetector::new(clock),
            metrics: EngineMetrics::install(),
            beacon: Beacon::new(lan_beacon),
            clock,
            node,
            store,
            network: NetworkState::default(),
            calls,
            answers: PendingAnswers::default(),
            feed,
            inbox: Inbox { connections, devices, packets, network, arrivals },
            scratch: vec![0; SCRATCH],
            received: Some(RecvBatch::new()),
            stopped: false,
        };
        Ok((Box::new(engine), watched))
    }

    async fn run(mut self: Box<Self>) -> Result<(), AppError> {
        loop {
            self.drain().await;
            if self.stopped {
                break;
            }
            let mut batch = self.received.take().unwrap_or_default();
            let wakeup = self.wait(&mut batch).await;
            self.handle(wakeup, &batch).await;
            self.received = Some(batch);
        }
        self.watcher.abort();
        self.port_mapping.stop().await;
        tracing::info!("the engine has stopped");
        Ok(())
    }

    async fn wait(&mut self, batch: &mut RecvBatch) -> Wakeup {
        let now = self.clock.now().instant;
        let snapshot = self.feed.due(now, self.node.revision());
        let deadline = [self.node.poll_timeout(), self.store.deadline(), Some(snapshot)];
        let wait = deadline.into_iter().flatten().min().map_or(MAX_INTERVAL, |at| self.clock.until(at));
        tokio::select! {
            biased;
            call = self.calls.recv() => Wakeup::Call(call),
            Some(event) = self.inbox.connections.recv() => Wakeup::Connection(event),
            Some(event) = self.inbox.devices.recv() => Wakeup::Device(event),
            Some(change) = self.inbox.network.recv() => Wakeup::Network(change),
            () = self.port_mapping.changed() => Wakeup::Router,
            Some(arrivals) = self.inbox.arrivals.recv() => Wakeup::Arrivals(arrivals),
            received = self.beacon.receive() => Wakeup::Beacon(received),
            // A deadline that has come goes before packets, however many arrive.
            () = tokio::time::sleep(wait), if wait.is_zero() => Wakeup::Deadline,
            received = self.egress.sockets.main.recv(batch) => Wakeup::Datagrams(received),
            Some(batch) = self.inbox.packets.recv() => Wakeup::Packets(batch),
            () = tokio::time::sleep(wait) => Wakeup::Deadline,
        }
    }

    async fn handle(&mut self, wakeup: Wakeup, received: &RecvBatch) {
        let now = self.clock.now();
        // The loop runs at least once a second, since snapshots are due; so sleep is noticed at the first turn after it.
        if let Some(slept) = self.sleep.take_slept() {
            tracing::info!(after_ms = slept.as_millis(), "the computer woke from sleep");
            self.node.handle_wake(now);
        }
        match wakeup {
            Wakeup::Call(Some((command, answer))) => self.handle_call(now, command, answer).await,
            Wakeup::Call(None) => {
                tracing::info!(reason = "every controller is gone", "stopping");
                self.node.handle_command(now, PendingAnswers::OWN, Command::Stop);
            }
            Wakeup::Datagrams(Ok(())) => self.receive(now, received).await,
            Wakeup::Datagrams(Err(error)) => self.rebind(now, &error).await,
            Wakeup::Arrivals(arrivals) => self.receive_arrivals(now, &arrivals).await,
            Wakeup::Packets(batch) => self.send_packets(now, batch),
            Wakeup::Connection(event) => self.handle_connection(now, event),
            Wakeup::Device(event) => {
                self.egress.departures.forget();
                if let Some((party, input)) = self.egress.devices.handle(event) {
                    self.node.handle_device(now, party, input);
                }
            }
            Wakeup::Network(state) => self.handle_network(now, state),
            Wakeup::Router => {
                let report = router_report::report(self.port_mapping.take_router());
                self.node.handle_port_mapping(now, report);
            }
            Wakeup::Beacon(Ok((bytes, source))) => self.node.handle_beacon(now, source, &bytes),
            Wakeup::Beacon(Err(error)) => self.beacon.close(&error),
            Wakeup::Deadline => {}
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle_timeout(now);
        }
    }

    async fn handle_call(&mut self, now: Now, command: ClientCommand, answer: Answer) {
        match command {
            ClientCommand::Engine(EngineCommand::TestServer { target }) => {
                server_test::spawn(target, self.node.settings(), self.egress.connections.tls(), answer);
            }
            ClientCommand::Engine(EngineCommand::OfferedPorts { party }) => {
                let parties = self.node.snapshot(now).parties;
                match parties.iter().find(|known| known.id == party) {
                    Some(party) => offered_ports::spawn(party, answer),
                    None => answers::send(answer, Err(offered_ports::unknown_party())),
                }
            }
            ClientCommand::Engine(EngineCommand::Metrics) => {
                let snapshot = self.node.snapshot(now);
                self.export_metrics(now, &snapshot);
                answers::send(answer, Ok(Reply::Metrics { text: self.metrics.render() }));
            }
            ClientCommand::Node(Command::Configure { settings }) => {
                if let Err(error) = self.move_port(now, &settings).await {
                    return answers::send(answer, Err(error));
                }
                self.ask_node(now, Command::Configure { settings }, answer);
                self.beacon.set_on(self.node.settings().lan_beacon);
                if self.port_mapping.enable(self.node.settings().port_mapping) {
                    self.follow_router(now);
                }
            }
            ClientCommand::Node(command) => self.ask_node(now, command, answer),
        }
    }

    fn ask_node(&mut self, now: Now, command: Command, answer: Answer) {
        let request = self.answers.add(answer);
        self.node.handle_command(now, request, command);
    }

    /// Moves the main socket to the port that the settings name.
    ///
    /// # Errors
    /// Settings out of range, or a port that cannot be had; nothing has changed then.
    async fn move_port(&mut self, now: Now, settings: &Settings) -> Result<(), AppError> {
        settings.validate()?;
        let current = self.egress.sockets.main.port();
        if settings.port == self.node.settings().port || settings.port == current {
            return Ok(());
        }
        self.egress.sockets.replace_main(startup::bind(settings.port)?);
        let port = self.egress.sockets.main.port();
        tracing::info!(before = current, port, "moved to another UDP port");
        self.port_mapping.move_to(&self.egress.sockets.main);
        self.follow_router(now);
        self.report_network(now);
        Ok(())
    }

    async fn receive(&mut self, now: Now, batch: &RecvBatch) {
        for datagram in batch.datagrams() {
            self.handle_datagram(now, SocketId::MAIN, datagram.from, datagram.bytes).await;
        }
    }

    async fn receive_arrivals(&mut self, now: Now, arrivals: &Arrivals) {
        if !self.egress.sockets.is_current(arrivals) {
            tracing::trace!(
                socket = arrivals.socket.0,
                count = arrivals.datagrams.len(),
                reason = "socket closed meanwhile",
                "dropped received datagrams"
            );
            return;
        }
        for (source, bytes) in &arrivals.datagrams {
            self.handle_datagram(now, arrivals.socket, *source, bytes).await;
        }
    }

    async fn handle_datagram(&mut self, now: Now, socket: SocketId, source: SocketAddr, bytes: &[u8]) {
        // One datagram delivers at most one packet; with room for it nothing is copied twice.
        if !self.egress.devices.has_room() {
            self.egress.devices.flush().await;
        }
        let source = self.egress.sockets.inward(source);
        self.node.handle_datagram(now, socket, source, bytes, &mut self.scratch, &mut self.egress);
    }

    fn send_packets(&mut self, now: Now, mut batch: Batch) {
        for packet in batch.reads.packets() {
            self.node.handle_packet(now.instant, batch.party, packet);
        }
        batch.give_back();
    }

    fn handle_connection(&mut self, now: Now, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Server(id, input) => {
                self.metrics.on_rendezvous(id, &input);
                if let ServerInput::Closed(Some(problem)) = &input {
                    tracing::debug!(server = id.0, reason = %problem, "the connection to a rendezvous server ended");
                }
                self.node.handle_server(now, id, input);
            }
            ConnectionEvent::Stream(id, input) => {
                self.node.handle_stream(now, id, input, &mut self.scratch, &mut self.egress);
            }
            ConnectionEvent::Resolved { host, port, addresses } => {
                self.node.handle_resolved(now, host, port, addresses);
            }
            ConnectionEvent::Nat64(prefix) => self.egress.sockets.set_nat64(prefix),
            ConnectionEvent::Reached(address) => self.node.handle_reached(now, address),
            ConnectionEvent::ServerTime(request, time) => self.node.handle_server_time(request, time),
        }
    }

    fn handle_network(&mut self, now: Now, state: NetworkState) {
        self.beacon.set_addresses(&state.addresses);
        self.egress.departures.set_addresses(&state.addresses);
        self.egress.connections.find_nat64();
        self.network = state;
        self.follow_router(now);
        self.report_network(now);
    }

    /// Lets port mapping follow the computer to another router or port. Mappings of the former one are void at once.
    fn follow_router(&mut self, now: Now) {
        if self.port_mapping.follow(&self.network) {
            self.node.handle_port_mapping(now, PortMappingReport::default());
        }
    }

    async fn rebind(&mut self, now: Now, error: &std::io::Error) {
        tracing::warn!(%error, "the main UDP socket is lost; opening another one");
        if let Err(error) = self.egress.sockets.main.rebind() {
            let retry_ms = MAX_INTERVAL.as_millis();
            tracing::error!(%error, retry_ms, "no UDP socket can be opened");
            tokio::time::sleep(MAX_INTERVAL).await;
        }
        self.report_network(now);
    }

    fn report_network(&mut self, now: Now) {
        let local = self.local_network(&self.network);
        self.node.handle_network(now, local);
    }

    fn local_network(&self, state: &NetworkState) -> LocalNetwork {
        let main = &self.egress.sockets.main;
        LocalNetwork {
            addresses: host_addresses(state),
            routes: state.routes.clone(),
            prefixes: state.networks.on_link.clone(),
            routed: state.networks.routed.clone(),
            routers: state.gateways.iter().map(|gateway| gateway.address).collect(),
            port_v4: main.has_v4().then(|| main.port()),
            port_v6: main.port_v6(),
        }
    }

    /// Sends what waits and does what the node asks for, until it asks for nothing.
    async fn drain(&mut self) {
        let now = self.clock.now();
        loop {
            self.node.flush(now, &mut self.egress);
            self.egress.devices.flush().await;
            let Some(output) = self.node.poll_output() else { break };
            self.perform(now, output).await;
            while let Some(output) = self.node.poll_output() {
                self.perform(now, output).await;
            }
        }
        if self.store.deadline().is_some_and(|at| at <= now.instant) {
            // A failed write is logged, shown by `doctor`, and tried again.
            let _ = self.store.write(now.instant, self.node.save()).await;
        }
        if self.feed.due(now.instant, self.node.revision()) <= now.instant {
            self.publish(now);
        }
    }

    async fn perform(&mut self, now: Now, output: Output) {
        let EngineEgress { sockets, devices, connections, .. } = &mut self.egress;
        match output {
            Output::OpenSockets { ids } => {
                let opened = sockets.open(&ids);
                self.node.handle_sockets_opened(now, &opened);
            }
            Output::CloseSocket { id } => sockets.close(id),
            Output::DeviceUp { party, device } => devices.open(party, device),
            Output::DeviceDown { party } => devices.close(party),
            Output::ServerOpen { id, url, scope } => connections.open_server(id, url, scope),
            Output::ServerSend { id, frame } => connections.send_to_server(id, frame),
            Output::ServerClose { id } => connections.close_server(id),
            Output::StreamOpen { id, tls, address, host } => connections.open_stream(id, tls, address, host),
            Output::StreamClose { id } => connections.close_stream(id),
            Output::Resolve { host, port } => connections.resolve(host, port),
            Output::AskTime { request, servers } => connections.ask_time(request, servers),
            Output::Reach { address } => connections.reach(address),
            Output::Beacon { to, bytes } => self.beacon.send(to, &bytes),
            Output::KeepaliveServers { servers } => self.port_mapping.set_remotes(servers),
            Output::PathAttempted { method, succeeded, took } => {
                self.metrics.on_path_attempt(method, succeeded, took);
            }
            Output::Save => self.store.mark(now.instant),
            Output::Answer { request, result } => self.answer(now, request, *result).await,
            Output::Stopped => {
                let _ = self.store.write(now.instant, self.node.save()).await;
                self.stopped = true;
            }
        }
    }

    /// Answers a command, once what it changed is on disk.
    async fn answer(&mut self, now: Now, request: RequestId, result: Result<Reply, AppError>) {
        let Some(answer) = self.answers.take(request) else { return };
        let result = match result {
            Ok(Reply::Doctor(findings)) => {
                Ok(Reply::Doctor(doctor::complete(findings, &self.store, &self.port_mapping.states())))
            }
            Ok(reply) if self.store.is_dirty() && is_change(&reply) => self.persist(now, reply).await,
            other => other,
        };
        answers::send(answer, result);
    }

    /// Writes the state before a change is confirmed; a party that cannot be written down is given up again.
    async fn persist(&mut self, now: Now, reply: Reply) -> Result<Reply, AppError> {
        let written = self.store.write(now.instant, self.node.save()).await;
        if let (Err(error), Reply::Created { party, .. } | Reply::Joined { party }) = (&written, &reply) {
            tracing::warn!(party = %party.short(), %error, "gave up a new party that cannot be saved");
            self.node.abandon(now, *party);
        }
        written.map(|()| reply)
    }

    fn publish(&mut self, now: Now) {
        self.egress.departures.expire(now.instant);
        self.node.sample_traffic(now);
        let snapshot = self.node.snapshot(now);
        if self.metrics.is_due(now.instant) {
            self.export_metrics(now, &snapshot);
        }
        self.feed.publish(now.instant, snapshot);
    }

    fn export_metrics(&mut self, now: Now, snapshot: &Snapshot) {
        let (counters, states) = (self.node.counters(), self.port_mapping.states());
        let udp = (&self.egress.sockets, &self.egress.departures);
        self.metrics.export(now.instant, &counters, snapshot, udp, &states);
    }
}

/// Returns the addresses at which others may reach this computer.
fn host_addresses(state: &NetworkState) -> Vec<HostAddress> {
    let reachable = state.addresses.iter().filter(|local| is_reachable(&local.address));
    let host = |local: &LocalAddress| HostAddress {
        address: local.address,
        card: local.card,
        deprecated: local.deprecated,
    };
    reachable.map(host).collect()
}

/// True for an answer that confirms a change, rather than reporting how things are.
const fn is_change(reply: &Reply) -> bool {
    !matches!(
        reply,
        Reply::Snapshot(_)
            | Reply::Preview(_)
            | Reply::Pong(_)
            | Reply::Samples(_)
            | Reply::Doctor(_)
            | Reply::OfferedPorts(_)
            | Reply::Metrics { .. }
    )
}

#[cfg(test)]
mod tests;
