//! The loop.

mod answers;
mod attempts;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use partyline_model::{
    AppError, ClientCommand, Command, EngineCommand, ErrorCode, Now, Reply, Settings, Snapshot,
};
use partyline_net::{BeaconSockets, RecvBatch, Roots, TlsClient};
use partyline_node::{LocalNetwork, Node, Output, RequestId, SocketId};
use partyline_platform::{Clock, NetworkState, SleepWatch, sweep};
use partyline_telemetry::Metrics;
use rand::RngCore as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Call, Controller, EngineOptions, RunningEngine,
    connections::{ConnectionEvent, Connections},
    devices::{Batch, Devices},
    egress::EngineEgress,
    open,
    ports::Ports,
    router,
    sockets::{Arrivals, Sockets},
    store::Store,
    surroundings::{self, Surrounding, beacon_interfaces, hear, reachable},
    trial,
    wake::{Inbox, Wake},
};

/// Snapshots are at least this far apart, and at most that far while the engine is up.
const SNAPSHOT_GAP: Duration = Duration::from_millis(100);
const SNAPSHOT_AGE: Duration = Duration::from_secs(1);
/// Calls and events that may wait for the loop.
const QUEUE: usize = 256;
/// The longest packet a datagram can carry.
const PACKET: usize = 64 * 1024;

/// The engine.
pub struct Engine {
    clock: Clock,
    node: Node,
    store: Store,
    egress: EngineEgress,
    beacon: Option<BeaconSockets>,
    ports: Ports,
    network: NetworkState,
    calls: mpsc::Receiver<Call>,
    answers: HashMap<RequestId, oneshot::Sender<Result<Reply, AppError>>>,
    next_request: RequestId,
    snapshots: watch::Sender<Arc<Snapshot>>,
    shown: (u32, Now),
    inbox: Inbox,
    watcher: JoinHandle<()>,
    sleep: SleepWatch,
    metrics: Metrics,
    packet: Vec<u8>,
    received: Option<RecvBatch>,
    stopped: bool,
}

type Answer = oneshot::Sender<Result<Reply, AppError>>;

impl Engine {
    /// Opens state and sockets and starts the event loop on the current runtime.
    ///
    /// # Errors
    /// State that cannot be read or written, sockets that cannot be opened.
    pub async fn start(options: EngineOptions) -> Result<RunningEngine, AppError> {
        let removed = sweep(&options.state_dir).await?;
        if !removed.is_empty() {
            tracing::info!(?removed, "removed the devices that an earlier run left behind");
        }
        let (calls_in, calls) = mpsc::channel(QUEUE);
        let (mut engine, snapshots) = Self::open(options, calls)?;
        let now = engine.clock.now();
        // A new device has to be written down before anybody hears of it; a known one runs with a full disk, too.
        if engine.store.is_new()? {
            engine.store.write(now.instant, engine.node.save()).await?;
        }
        let join = tokio::spawn(engine.run());
        Ok(RunningEngine { controller: Controller::new(calls_in, snapshots), join })
    }

    fn open(
        options: EngineOptions,
        calls: mpsc::Receiver<Call>,
    ) -> Result<(Box<Self>, watch::Receiver<Arc<Snapshot>>), AppError> {
        let clock = Clock::new();
        let now = clock.now();
        let store = Store::new(&options.state_dir);
        let node = open::node(now, &options, &store)?;
        let tls = TlsClient::new(&Roots { extra_ca: options.extra_ca.clone() }).map_err(|error| {
            AppError::new(
                ErrorCode::ServerCertificate,
                error.to_string(),
                "Correct the path of the extra certificates.",
            )
        })?;
        let udp = open::bind(node.settings().port)?;
        let (connection_events, connections) = mpsc::channel(QUEUE);
        let (device_events, devices) = mpsc::channel(QUEUE);
        let (batches, packets) = mpsc::channel(4);
        let (surrounding_events, surroundings) = mpsc::channel(QUEUE);
        let (snapshots, watched) = watch::channel(Arc::new(node.snapshot(now)));
        let seed = rand::rngs::OsRng.next_u64();
        let ports = Ports::new(&udp, seed, &options.state_dir, surrounding_events.clone());
        let (sockets, arrivals) = Sockets::new(udp);
        let engine = Self {
            egress: EngineEgress {
                sockets,
                devices: Devices::new(&options.state_dir, device_events, batches),
                connections: Connections::new(tls, connection_events),
            },
            ports: ports.enabled(node.settings().port_mapping),
            watcher: surroundings::watch(surrounding_events),
            sleep: SleepWatch::new(clock),
            metrics: Metrics::install(),
            beacon: open::beacon(),
            clock,
            shown: (node.revision(), now),
            node,
            store,
            network: NetworkState::default(),
            calls,
            answers: HashMap::new(),
            next_request: 0,
            snapshots,
            inbox: Inbox { connections, devices, packets, surroundings, arrivals },
            packet: vec![0; PACKET],
            received: Some(RecvBatch::new()),
            stopped: false,
        };
        Ok((Box::new(engine), watched))
    }

    async fn run(mut self: Box<Self>) -> Result<(), AppError> {
        while !self.stopped {
            self.pump().await;
            if self.stopped {
                break;
            }
            let mut batch = self.received.take().unwrap_or_default();
            let wake = self.wait(&mut batch).await;
            self.handle(wake, &batch).await;
            self.received = Some(batch);
        }
        self.watcher.abort();
        self.ports.stop().await;
        Ok(())
    }

    async fn wait(&mut self, batch: &mut RecvBatch) -> Wake {
        let now = self.clock.now();
        let deadline = [self.node.poll_timeout(), self.store.deadline(), Some(self.snapshot_due(now))];
        let wait = deadline.into_iter().flatten().min().map_or(SNAPSHOT_AGE, |at| self.clock.until(at));
        tokio::select! {
            biased;
            call = self.calls.recv() => Wake::Call(call),
            Some(event) = self.inbox.connections.recv() => Wake::Connection(event),
            Some(event) = self.inbox.devices.recv() => Wake::Device(event),
            Some(event) = self.inbox.surroundings.recv() => Wake::Surrounding(event),
            Some(arrivals) = self.inbox.arrivals.recv() => Wake::Arrivals(arrivals),
            received = hear(self.beacon.as_ref()) => Wake::Beacon(received),
            () = tokio::time::sleep(wait), if wait.is_zero() => Wake::Time,
            received = self.egress.sockets.main.recv(batch) => Wake::Datagrams(received),
            Some(batch) = self.inbox.packets.recv() => Wake::Packets(batch),
            () = tokio::time::sleep(wait) => Wake::Time,
        }
    }

    async fn handle(&mut self, wake: Wake, received: &RecvBatch) {
        let now = self.clock.now();
        // Somebody looks at least once a second, since snapshots are due; a game's packets come sooner.
        if let Some(slept) = self.sleep.woke() {
            tracing::info!(seconds = slept.as_secs(), "the computer slept");
            self.node.handle_wake(now);
        }
        match wake {
            Wake::Call(Some((command, answer))) => {
                self.call(now, command, answer).await;
            }
            // Whoever hosts this engine is gone, and with it everybody who could stop it.
            Wake::Call(None) => self.node.handle_command(now, 0, Command::Stop),
            Wake::Datagrams(Ok(())) => self.receive(now, received).await,
            Wake::Datagrams(Err(error)) => self.rebind(now, &error).await,
            Wake::Packets(batch) => self.take_packets(now, batch),
            Wake::Connection(event) => self.on_connection(now, event),
            Wake::Device(event) => {
                if let Some((party, input)) = self.egress.devices.handle(event) {
                    self.node.handle_device(party, input);
                }
            }
            Wake::Surrounding(surrounding) => self.on_surrounding(now, surrounding).await,
            Wake::Arrivals(arrivals) => self.receive_arrivals(now, &arrivals).await,
            Wake::Beacon(Ok((bytes, source))) => self.node.handle_beacon(now, source, &bytes),
            Wake::Beacon(Err(error)) => {
                tracing::warn!(%error, "the LAN beacon is lost");
                self.beacon = None;
            }
            Wake::Time => {}
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle_timeout(now);
        }
    }

    async fn call(&mut self, now: Now, command: ClientCommand, answer: Answer) {
        match command {
            ClientCommand::Node(command) => self.node_command(now, command, answer).await,
            ClientCommand::Engine(EngineCommand::TestServer { target }) => {
                trial::answer(target, self.node.settings(), self.egress.connections.tls(), answer);
            }
            ClientCommand::Engine(EngineCommand::Metrics) => {
                // The caller may have given up.
                let _ = answer.send(Ok(Reply::Metrics { text: self.metrics.render() }));
            }
        }
    }

    async fn node_command(&mut self, now: Now, command: Command, answer: Answer) {
        if let Command::Configure { settings } = &command
            && let Err(error) = self.move_port(now, settings).await
        {
            // The caller may have given up.
            let _ = answer.send(Err(error));
            return;
        }
        let configures = matches!(command, Command::Configure { .. });
        self.next_request += 1;
        self.answers.insert(self.next_request, answer);
        self.node.handle_command(now, self.next_request, command);
        if configures && self.ports.enable(self.node.settings().port_mapping) {
            self.ports.follow(&self.network);
        }
    }

    /// Opens the socket on another port where the settings name one; refuses what cannot be had.
    async fn move_port(&mut self, now: Now, settings: &Settings) -> Result<(), AppError> {
        settings.validate()?;
        if settings.port == self.node.settings().port || settings.port == self.egress.sockets.main.port() {
            return Ok(());
        }
        self.egress.sockets.main = open::bind(settings.port)?;
        tracing::info!(port = self.egress.sockets.main.port(), "moved to another UDP port");
        self.ports.move_to(&self.egress.sockets.main);
        self.ports.follow(&self.network);
        self.tell_network(now).await;
        Ok(())
    }

    async fn receive(&mut self, now: Now, batch: &RecvBatch) {
        for datagram in batch.datagrams() {
            self.handle_datagram(now, SocketId::MAIN, datagram.from, datagram.bytes).await;
        }
    }

    async fn receive_arrivals(&mut self, now: Now, arrivals: &Arrivals) {
        if !self.egress.sockets.is_current(arrivals) {
            return;
        }
        for (from, bytes) in &arrivals.datagrams {
            self.handle_datagram(now, arrivals.socket, *from, bytes).await;
        }
    }

    async fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        if !self.egress.devices.has_room() {
            self.egress.devices.flush().await;
        }
        self.node.handle_datagram(now, socket, from, bytes, &mut self.packet, &mut self.egress);
    }

    fn take_packets(&mut self, now: Now, mut batch: Batch) {
        for packet in batch.reads.packets() {
            self.node.handle_packet(now.instant, batch.party, packet);
        }
        batch.done();
    }

    fn on_connection(&mut self, now: Now, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Server(id, input) => self.node.handle_server(now, id, input),
            ConnectionEvent::Stream(id, input) => {
                self.node.handle_stream(now, id, input, &mut self.packet, &mut self.egress);
            }
            ConnectionEvent::Resolved { host, port, addresses } => {
                self.node.handle_resolved(now, host, port, addresses);
            }
            ConnectionEvent::Reached(address) => self.node.handle_reached(now, address),
        }
    }

    async fn on_surrounding(&mut self, now: Now, surrounding: Surrounding) {
        match surrounding {
            Surrounding::Network { state, prefixes } => {
                self.ports.follow(&state);
                if let Some(beacon) = &mut self.beacon {
                    beacon.set_interfaces(beacon_interfaces(&state.addresses));
                }
                let local = self.local_network(&state, prefixes);
                self.network = state;
                self.node.handle_network(now, local);
            }
            Surrounding::Mapped { addresses } => self.node.handle_mapped(now, addresses),
        }
    }

    async fn rebind(&mut self, now: Now, error: &std::io::Error) {
        tracing::warn!(%error, "the UDP sockets are lost; opening them anew");
        if let Err(error) = self.egress.sockets.main.rebind() {
            tracing::error!(%error, "no UDP socket");
            tokio::time::sleep(SNAPSHOT_AGE).await;
        }
        self.tell_network(now).await;
    }

    async fn tell_network(&mut self, now: Now) {
        let prefixes = partyline_platform::local_prefixes().await.unwrap_or_default();
        let local = self.local_network(&self.network, prefixes);
        self.node.handle_network(now, local);
    }

    fn local_network(&self, state: &NetworkState, prefixes: Vec<ipnet::IpNet>) -> LocalNetwork {
        LocalNetwork {
            addresses: state.addresses.iter().map(|local| local.address).filter(reachable).collect(),
            prefixes,
            routers: state.gateways.iter().map(|gateway| gateway.address).collect(),
            port_v4: self.egress.sockets.main.has_v4().then(|| self.egress.sockets.main.port()),
            port_v6: self.egress.sockets.main.port_v6(),
        }
    }

    /// Sends what waits and does what the node asks for, until it asks for nothing.
    async fn pump(&mut self) {
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
            let _ = self.store.write(now.instant, self.node.save()).await;
        }
        self.show(now);
    }

    async fn perform(&mut self, now: Now, output: Output) {
        match output {
            Output::OpenSockets { ids } => {
                let opened = self.egress.sockets.open(&ids);
                self.node.handle_sockets_opened(now, &opened);
            }
            Output::CloseSocket { id } => self.egress.sockets.close(id),
            Output::DeviceUp { party, device } => self.egress.devices.open(party, device),
            Output::DeviceDown { party } => self.egress.devices.close(party),
            Output::ServerOpen { id, url } => self.egress.connections.open_server(id, url),
            Output::ServerSend { id, frame } => self.egress.connections.send_to_server(id, frame),
            Output::ServerClose { id } => self.egress.connections.close_server(id),
            Output::StreamOpen { id, tls, address, host } => {
                self.egress.connections.open_stream(id, tls, address, host)
            }
            Output::StreamClose { id } => self.egress.connections.close_stream(id),
            Output::Resolve { host, port } => self.egress.connections.resolve(host, port),
            Output::Beacon { to, bytes } => self.send_beacon(to, &bytes),
            Output::Reach { address } => self.egress.connections.reach(address),
            Output::Tried { method, worked, took } => attempts::count(&self.metrics, method, worked, took),
            Output::Save => self.store.mark(now.instant),
            Output::Answer { request, result } => self.answer(now, request, *result).await,
            Output::Stopped => {
                let _ = self.store.write(now.instant, self.node.save()).await;
                self.stopped = true;
            }
        }
    }

    fn send_beacon(&self, to: Option<SocketAddr>, bytes: &[u8]) {
        let Some(beacon) = &self.beacon else { return };
        match to {
            Some(to) => drop(beacon.send_to(to, bytes)),
            None => drop(beacon.send_to_group(bytes)),
        }
    }

    fn snapshot_due(&self, now: Now) -> std::time::Instant {
        let changed = self.node.revision() != self.shown.0;
        let gap = if changed { SNAPSHOT_GAP } else { SNAPSHOT_AGE };
        (self.shown.1.instant + gap).max(now.instant)
    }

    fn show(&mut self, now: Now) {
        if self.snapshot_due(now) <= now.instant {
            let states = self.ports.states();
            self.node.handle_router(router::checks(&states));
            self.node.handle_peer_mappings(now, router::promises(&states));
            self.ports.talk_to(self.node.keepalive_servers());
            self.node.measure(now);
            self.shown = (self.node.revision(), now);
            self.snapshots.send_replace(Arc::new(self.node.snapshot(now)));
        }
    }
}
