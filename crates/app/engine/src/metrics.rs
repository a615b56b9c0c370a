//! Everything the engine exports through the `metrics` crate.
//!
//! Names, labels and meanings are listed once, in [`METRICS`]; `docs/metrics.md` has the same table for people, and a
//! test compares the two. Counters that the parts keep themselves are copied here every ten seconds and whenever
//! the metrics are asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use metrics::Unit;
use partyline_model::{DeviceId, MemberView, Method, PartyPhase, PathKind, Snapshot};
use partyline_node::{Counters, ServerId, ServerInput};
use partyline_portmap::{Health, MethodState, Protocol};
use partyline_telemetry::Metrics;
use partyline_tunnel::{DropCounters, DropReason};

use crate::{departures::Departures, sockets::Sockets};

/// The longest time between two exports of what the parts count.
const EXPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Members that are told apart in labels; the others are counted together as `other`.
const MAX_PEER_LABELS: usize = 64;

/// How a metric is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One exported metric.
#[derive(Debug)]
pub(crate) struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    pub meaning: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal $unit:ident [$($label:literal),*] $meaning:literal;)*) => {
        $(pub(crate) const $constant: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            meaning: $meaning,
        };)*
        /// Every metric of the engine.
        pub(crate) const METRICS: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    PATH_ATTEMPTS: Counter "partyline_path_attempts_total" Count ["method", "outcome"]
        "Attempts to reach a member, by method; outcome is worked or no_answer.";
    PATH_ATTEMPT_SECONDS: Histogram "partyline_path_attempt_seconds" Seconds ["method", "outcome"]
        "Time from the start of an attempt until its path worked or was given up.";
    PATH_DROPS: Counter "partyline_path_drops_total" Count ["reason"]
        "Received datagrams that the path machine dropped.";
    PATH_PEERS: Gauge "partyline_path_peers" Count ["method"]
        "Members with a path in use, by the kind of path.";
    TUNNEL_DROPS: Counter "partyline_tunnel_drops_total" Count ["reason"]
        "Packets and datagrams that the tunnel dropped; broadcast_rate_limited is the storm limit.";
    TUNNEL_PEER_DROPS: Counter "partyline_tunnel_peer_drops_total" Count ["peer", "reason"]
        "Packets from and to a member that were dropped; the first 64 members by short id, further ones as other.";
    TUNNEL_HANDSHAKES: Counter "partyline_tunnel_handshakes_total" Count ["outcome"]
        "WireGuard handshakes with all members; an initiation counts as initiated or answered, later as completed.";
    TUNNEL_SESSIONS: Gauge "partyline_tunnel_sessions" Count []
        "WireGuard sessions whose keys are agreed on.";
    TUNNEL_DEVICE_FAILURES: Counter "partyline_tunnel_device_failures_total" Count []
        "Network devices that could not be made or were lost; each is tried again.";
    UDP_DATAGRAMS: Counter "partyline_udp_datagrams_total" Count ["direction"]
        "Datagrams sent and received on all UDP sockets; direction is sent or received.";
    UDP_BYTES: Counter "partyline_udp_bytes_total" Bytes ["direction"]
        "UDP payload bytes sent and received on all UDP sockets.";
    UDP_DROPS: Counter "partyline_udp_drops_total" Count ["reason"]
        "Bursts that a UDP socket could not send; too_big is EMSGSIZE, busy a full buffer.";
    UDP_RECEIVE_ERRORS: Counter "partyline_udp_receive_errors_total" Count []
        "Transient errors on receiving, such as an ICMP report about an earlier datagram.";
    UDP_GSO_FALLBACKS: Counter "partyline_udp_gso_fallbacks_total" Count []
        "Times a network adapter refused segmentation offload (GSO), so that datagrams were sent one by one.";
    UDP_SOCKETS: Gauge "partyline_udp_sockets" Count []
        "Open UDP sockets: the main one, and those for punching, probing and second ports.";
    RELAY_STREAMS: Counter "partyline_relay_streams_total" Count ["transport", "outcome"]
        "Streams to relays over tcp or tls; outcome is opened, failed or closed.";
    RELAY_STREAM_DROPS: Counter "partyline_relay_stream_drops_total" Count []
        "Messages dropped because a stream to a relay did not keep up.";
    RELAY_LOOKUPS: Counter "partyline_relay_lookups_total" Count ["outcome"]
        "Name lookups for servers, relays and STUN servers; outcome is found or failed.";
    RENDEZVOUS_CONNECTIONS: Counter "partyline_rendezvous_connections_total" Count ["outcome"]
        "Connections to rendezvous servers; outcome is opened, failed or lost.";
    RENDEZVOUS_FRAMES: Counter "partyline_rendezvous_frames_total" Count ["direction"]
        "Frames exchanged with rendezvous servers; direction is sent or received.";
    RENDEZVOUS_RESENDS: Counter "partyline_rendezvous_resends_total" Count ["outcome"]
        "Frames that a server refused for now, by outcome: refused, resent, given_up, or unknown to this member.";
    RENDEZVOUS_SERVERS: Gauge "partyline_rendezvous_servers" Count []
        "Rendezvous servers connected to.";
    PORTMAP_RESULTS: Counter "partyline_portmap_results_total" Count ["protocol", "outcome"]
        "What became of port mappings and of requests to the router for them, by protocol.";
    PORTMAP_CIRCUIT_OPENED: Counter "partyline_portmap_circuit_opened_total" Count ["protocol"]
        "Times that a protocol's circuit breaker opened.";
    PORTMAP_CIRCUIT_OPEN: Gauge "partyline_portmap_circuit_open" Count ["protocol"]
        "1 while a protocol's circuit breaker is open: it failed three times in a row and is tried rarely.";
    PORTMAP_MAPPED: Gauge "partyline_portmap_mapped" Count ["protocol"]
        "1 while the protocol holds a port mapping.";
    NETCHECK_RUNS: Counter "partyline_netcheck_runs_total" Count []
        "Network checks that ended.";
    NETCHECK_SECONDS: Histogram "partyline_netcheck_seconds" Seconds []
        "Duration of a network check.";
    NETCHECK_DATAGRAMS: Counter "partyline_netcheck_datagrams_total" Count []
        "Datagrams that network checks sent.";
    NETCHECK_REQUESTS: Counter "partyline_netcheck_requests_total" Count ["test"]
        "STUN requests and indications sent, by test; retransmissions included.";
    NETCHECK_RETRANSMISSIONS: Counter "partyline_netcheck_retransmissions_total" Count ["test"]
        "STUN requests that were retransmissions.";
    NETCHECK_RESPONSES: Counter "partyline_netcheck_responses_total" Count ["test"]
        "STUN responses that were used.";
    NETCHECK_TIMEOUTS: Counter "partyline_netcheck_timeouts_total" Count ["test"]
        "STUN transactions that ended without a response.";
    NETCHECK_DROPS: Counter "partyline_netcheck_drops_total" Count ["reason"]
        "STUN responses that were dropped.";
    DHT_QUERIES: Counter "partyline_dht_queries_total" Count ["method", "outcome"]
        "Queries to nodes of the DHT, by method: all of them (queries), and what came of them (responses, errors, timeouts).";
    DHT_LOOKUPS: Counter "partyline_dht_lookups_total" Count ["outcome"]
        "Lookups in the DHT that ended.";
    DHT_DROPS: Counter "partyline_dht_drops_total" Count ["reason"]
        "Messages of nodes of the DHT that were dropped.";
    PARTY_ACTIVE: Gauge "partyline_party_active" Count []
        "Parties that are switched on and have an address.";
    PARTY_MEMBERS: Gauge "partyline_party_members" Count []
        "Other members of all parties, each device once per party.";
    PARTY_MEMBERS_ONLINE: Gauge "partyline_party_members_online" Count []
        "Other members that are online, each device once per party.";
    PARTY_BROADCAST_STORMS: Gauge "partyline_party_broadcast_storms" Count []
        "Members, this one included, some of whose broadcasts were dropped in the last minute because they sent too many.";
    PARTY_MESSAGES: Counter "partyline_party_messages_total" Count ["transport", "outcome"]
        "Sealed messages by channel (server, tunnel or beacon); outcome is sent, received or dropped.";
    PARTY_MESSAGE_DROPS: Counter "partyline_party_message_drops_total" Count ["transport", "reason"]
        "Sealed messages that were dropped; own, not_for_me and replayed are normal.";
    NODE_STATE_WRITES: Counter "partyline_node_state_writes_total" Count ["outcome"]
        "Writes of the state file; outcome is written or failed.";
    NODE_FILTERING_PROBES: Counter "partyline_node_filtering_probes_total" Count ["outcome"]
        "Filtering probes that other members asked for; outcome is answered or why it was refused.";
    NODE_MEMBER_RELAY_MESSAGES: Counter "partyline_node_member_relay_messages_total" Count ["outcome"]
        "Messages relayed between members; outcome is forwarded or why it was not.";
    NODE_MALFORMED_CONTROL: Counter "partyline_node_malformed_control_messages_total" Count []
        "Control messages from members that could not be read.";
}

/// Increments a counter by 1; one label value for each of its labels.
pub(crate) fn increment(metric: &'static Metric, values: &[&'static str]) {
    metrics::counter!(metric.name, &labels(metric, values)).increment(1);
}

/// Adds to a counter, which is shown from the first time on, with 0 if nothing was counted.
fn add(metric: &'static Metric, values: &[&str], growth: u64) {
    metrics::counter!(metric.name, &labels(metric, values)).increment(growth);
}

fn set_counter(metric: &'static Metric, values: &[&str], value: u64) {
    metrics::counter!(metric.name, &labels(metric, values)).absolute(value);
}

fn set_each(metric: &'static Metric, counts: impl Iterator<Item = (&'static str, u64)>) {
    counts.for_each(|(label, count)| set_counter(metric, &[label], count));
}

#[expect(clippy::cast_precision_loss, reason = "gauges count far below 2^53")]
fn set_gauge(metric: &'static Metric, values: &[&str], value: usize) {
    metrics::gauge!(metric.name, &labels(metric, values)).set(value as f64);
}

fn record(metric: &'static Metric, values: &[&str], span: Duration) {
    metrics::histogram!(metric.name, &labels(metric, values)).record(span.as_secs_f64());
}

fn labels(metric: &'static Metric, values: &[&str]) -> Vec<(&'static str, String)> {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    metric.labels.iter().zip(values).map(|(label, value)| (*label, (*value).to_owned())).collect()
}

/// The registry, and what is needed to turn states into counts.
pub(crate) struct EngineMetrics {
    registry: Metrics,
    exported_at: Option<Instant>,
    connected: BTreeSet<ServerId>,
    port_mapping: BTreeMap<Protocol, partyline_portmap::Counters>,
    peer_drops: PeerDrops,
    measured_at: Option<u32>,
}

impl EngineMetrics {
    /// Installs the process's registry and describes every metric in it.
    pub(crate) fn install() -> Self {
        let registry = Metrics::install();
        for Metric { name, kind, unit, meaning, .. } in METRICS {
            match kind {
                Kind::Counter => metrics::describe_counter!(*name, *unit, *meaning),
                Kind::Gauge => metrics::describe_gauge!(*name, *unit, *meaning),
                Kind::Histogram => metrics::describe_histogram!(*name, *unit, *meaning),
            }
        }
        Self {
            registry,
            exported_at: None,
            connected: BTreeSet::new(),
            port_mapping: BTreeMap::new(),
            peer_drops: PeerDrops::default(),
            measured_at: None,
        }
    }

    /// Returns everything in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        self.registry.render()
    }

    /// Counts one attempt to reach a member and how long it took to succeed or fail.
    pub(crate) fn on_path_attempt(&self, method: Method, worked: bool, took: Duration) {
        let outcome = if worked { "worked" } else { "no_answer" };
        tracing::debug!(method = method.name(), outcome, after_ms = took.as_millis(), "path attempt ended");
        increment(&PATH_ATTEMPTS, &[method.name(), outcome]);
        record(&PATH_ATTEMPT_SECONDS, &[method.name(), outcome], took);
        // Without upkeep, histograms grow with each record as long as nobody renders them.
        self.registry.run_upkeep();
    }

    /// Counts what happened to a connection to a rendezvous server.
    pub(crate) fn on_rendezvous(&mut self, id: ServerId, input: &ServerInput) {
        match input {
            ServerInput::Opened => {
                self.connected.insert(id);
                increment(&RENDEZVOUS_CONNECTIONS, &["opened"]);
            }
            ServerInput::Frame(_) => increment(&RENDEZVOUS_FRAMES, &["received"]),
            ServerInput::Closed(problem) => {
                let was_open = self.connected.remove(&id);
                match (was_open, problem) {
                    (true, Some(_)) => increment(&RENDEZVOUS_CONNECTIONS, &["lost"]),
                    (false, Some(_)) => increment(&RENDEZVOUS_CONNECTIONS, &["failed"]),
                    // Closed by the engine.
                    (_, None) => {}
                }
            }
        }
    }

    /// True if the parts' own counters have not been exported for a while.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.exported_at.is_none_or(|at| now.saturating_duration_since(at) >= EXPORT_INTERVAL)
    }

    /// Copies the counters and states of all parts into the registry.
    pub(crate) fn export(
        &mut self,
        now: Instant,
        node: &Counters,
        snapshot: &Snapshot,
        (sockets, departures): (&Sockets, &Departures),
        port_mapping: &[MethodState],
    ) {
        self.exported_at = Some(now);
        export_node(node);
        self.peer_drops.export(&node.tunnel_peers);
        export_parties(snapshot);
        export_sockets(sockets);
        set_counter(&UDP_DROPS, &["inside_party"], departures.refused());
        set_gauge(&RENDEZVOUS_SERVERS, &[], self.connected.len());
        self.export_port_mapping(port_mapping);
        self.export_netcheck(snapshot);
    }

    /// The counters of a protocol start from 0 with every network, so that only their growth is added.
    fn export_port_mapping(&mut self, states: &[MethodState]) {
        for MethodState { method, health, counters, .. } in states {
            let protocol = protocol_name(*method);
            let before = self.port_mapping.insert(*method, *counters).unwrap_or_default();
            for ((outcome, count), (_, before)) in counters.each().zip(before.each()) {
                let growth = growth(count, before);
                match outcome {
                    "circuit_opened" => add(&PORTMAP_CIRCUIT_OPENED, &[protocol], growth),
                    _ => add(&PORTMAP_RESULTS, &[protocol, outcome], growth),
                }
            }
            set_gauge(&PORTMAP_CIRCUIT_OPEN, &[protocol], usize::from(*health == Health::CircuitOpen));
            set_gauge(&PORTMAP_MAPPED, &[protocol], usize::from(*health == Health::Mapped));
        }
    }

    fn export_netcheck(&mut self, snapshot: &Snapshot) {
        let report = &snapshot.network.report;
        // A profile recalled from an earlier visit has a date, but was not measured by this run.
        if report.running || report.took_ms == 0 || report.measured_at == self.measured_at {
            return;
        }
        self.measured_at = report.measured_at;
        increment(&NETCHECK_RUNS, &[]);
        record(&NETCHECK_SECONDS, &[], Duration::from_millis(report.took_ms.into()));
        metrics::counter!(NETCHECK_DATAGRAMS.name).increment(report.packets.into());
    }
}

fn export_node(counters: &Counters) {
    set_each(&PATH_DROPS, counters.paths.each());
    set_each(&TUNNEL_DROPS, counters.tunnel.each());
    set_each(&TUNNEL_HANDSHAKES, counters.handshakes.each());
    set_each(&RENDEZVOUS_RESENDS, counters.resends.each());
    set_each(&NODE_FILTERING_PROBES, counters.probe_responder.each());
    set_each(&NODE_MEMBER_RELAY_MESSAGES, counters.member_relays.each());
    set_counter(&NODE_MALFORMED_CONTROL, &[], counters.malformed_control_messages);
    set_each(&NETCHECK_REQUESTS, counters.netcheck.requests.each());
    set_each(&NETCHECK_RETRANSMISSIONS, counters.netcheck.retransmissions.each());
    set_each(&NETCHECK_RESPONSES, counters.netcheck.responses.each());
    set_each(&NETCHECK_TIMEOUTS, counters.netcheck.timeouts.each());
    set_each(&NETCHECK_DROPS, counters.netcheck.dropped.each());
    set_each(&DHT_LOOKUPS, counters.dht.lookups.each());
    set_each(&DHT_DROPS, counters.dht.dropped.each());
    for (outcome, counts) in counters.dht.by_method() {
        counts.each().for_each(|(method, count)| set_counter(&DHT_QUERIES, &[method, outcome], count));
    }
    for (transport, channel) in counters.signaling.channels() {
        for (outcome, count) in channel.each() {
            set_counter(&PARTY_MESSAGES, &[transport, outcome], count);
        }
        for (reason, count) in channel.dropped.each() {
            set_counter(&PARTY_MESSAGE_DROPS, &[transport, reason], count);
        }
    }
}

fn export_parties(snapshot: &Snapshot) {
    let active = snapshot.parties.iter().filter(|party| party.phase == PartyPhase::Up).count();
    set_gauge(&PARTY_ACTIVE, &[], active);
    let others: Vec<_> =
        snapshot.parties.iter().flat_map(|party| &party.members).filter(|member| !member.me).collect();
    set_gauge(&PARTY_MEMBERS, &[], others.len());
    set_gauge(&PARTY_MEMBERS_ONLINE, &[], others.iter().filter(|member| member.online).count());
    let members = snapshot.parties.iter().flat_map(|party| &party.members);
    let storms = members.filter(|member| member.notices.broadcasts_dropped.is_some()).count();
    set_gauge(&PARTY_BROADCAST_STORMS, &[], storms);
    let has_keys =
        |member: &&&MemberView| member.path.as_ref().is_some_and(|path| path.handshake_s.is_some());
    set_gauge(&TUNNEL_SESSIONS, &[], others.iter().filter(has_keys).count());
    for (kind, method) in PATH_KINDS {
        let uses = |path: &partyline_model::PathView| path.kind == kind;
        let peers = others.iter().filter(|member| member.path.as_ref().is_some_and(uses)).count();
        set_gauge(&PATH_PEERS, &[method], peers);
    }
}

/// The drops of each member as they were exported last, and the members with a label of their own.
#[derive(Default)]
struct PeerDrops {
    exported: BTreeMap<DeviceId, DropCounters>,
    labelled: BTreeSet<DeviceId>,
}

impl PeerDrops {
    /// Exports the drops of the present members. A member that returns, or gets other keys, starts from 0, so that only the
    /// growth is added.
    fn export(&mut self, drops: &BTreeMap<DeviceId, DropCounters>) {
        self.exported.retain(|device, _| drops.contains_key(device));
        for (device, counters) in drops {
            if self.labelled.len() < MAX_PEER_LABELS {
                self.labelled.insert(*device);
            }
            let peer = if self.labelled.contains(device) { device.short() } else { "other".to_owned() };
            let before = self.exported.insert(*device, *counters).unwrap_or_default();
            for ((reason, count), (_, before)) in counters.each().zip(before.each()) {
                add(&TUNNEL_PEER_DROPS, &[&peer, peer_drop_reason(reason)], growth(count, before));
            }
        }
    }
}

/// Reasons that are told apart for each member: those of packets to and from games. The others, which are attacks or
/// races during handshakes, are counted together.
const PEER_DROP_REASONS: [DropReason; 6] = [
    DropReason::BroadcastRateLimited,
    DropReason::NoPath,
    DropReason::PendingOverflow,
    DropReason::PendingExpired,
    DropReason::ExceedsMtu,
    DropReason::OutboxFull,
];

fn peer_drop_reason(label: &'static str) -> &'static str {
    if PEER_DROP_REASONS.iter().any(|reason| reason.label() == label) { label } else { "other" }
}

/// Returns by how much a counter has grown that may have started from 0 again.
const fn growth(count: u64, before: u64) -> u64 {
    if count >= before { count - before } else { count }
}

fn export_sockets(sockets: &Sockets) {
    let counters = sockets.counters();
    for (direction, datagrams, bytes) in [
        ("sent", counters.sent_datagrams, counters.sent_bytes),
        ("received", counters.received_datagrams, counters.received_bytes),
    ] {
        set_counter(&UDP_DATAGRAMS, &[direction], datagrams);
        set_counter(&UDP_BYTES, &[direction], bytes);
    }
    counters.drops.each().for_each(|(reason, count)| set_counter(&UDP_DROPS, &[reason], count));
    set_counter(&UDP_RECEIVE_ERRORS, &[], counters.receive_errors);
    set_counter(&UDP_GSO_FALLBACKS, &[], counters.gso_fallbacks);
    set_gauge(&UDP_SOCKETS, &[], sockets.count());
}

/// Kinds of paths, with the label that stands for each.
const PATH_KINDS: [(PathKind, &str); 7] = [
    (PathKind::Lan, "lan"),
    (PathKind::DirectV6, "ipv6"),
    (PathKind::Mapped, "mapped"),
    (PathKind::Direct, "direct"),
    (PathKind::MemberRelay, "member_relay"),
    (PathKind::Relay, "relay"),
    (PathKind::Overlay, "overlay"),
];

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Pcp => "pcp",
        Protocol::NatPmp => "nat_pmp",
        Protocol::Upnp => "upnp",
        Protocol::PcpV6 => "pcp_ipv6",
        Protocol::Pinhole => "upnp_pinhole",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

    /// The rows of the engine's tables in the document: name, type, unit, labels, meaning.
    fn documented() -> Vec<Vec<String>> {
        let engine = DOCUMENT.split("\n## Server").next().unwrap_or_default();
        let rows = engine.lines().filter(|line| line.starts_with("| `partyline_"));
        rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
            .collect()
    }

    fn row(metric: &Metric) -> Vec<String> {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let unit = if metric.unit == Unit::Count { "" } else { metric.unit.as_str() };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let name = format!("`{}`", metric.name);
        vec![name, kind, unit.to_owned(), labels.join(", "), metric.meaning.to_owned()]
    }

    #[test]
    fn every_metric_is_documented_as_it_is_exported_and_no_other() {
        let (exported, documented): (BTreeSet<_>, BTreeSet<_>) =
            (METRICS.iter().map(|metric| row(metric)).collect(), documented().into_iter().collect());
        let missing: Vec<_> =
            exported.difference(&documented).map(|row| format!("| {} |", row.join(" | "))).collect();
        let surplus: Vec<_> = documented.difference(&exported).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "missing:\n{}\nsurplus: {surplus:?}",
            missing.join("\n")
        );
    }

    #[test]
    fn names_follow_the_conventions() {
        const AREAS: [&str; 10] =
            ["path", "tunnel", "udp", "relay", "rendezvous", "portmap", "netcheck", "dht", "party", "node"];
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a name occurs twice");
        for metric in METRICS {
            let rest = metric.name.strip_prefix("partyline_").expect("the prefix");
            assert!(AREAS.iter().any(|area| rest.starts_with(&format!("{area}_"))), "{rest}");
            let (total, seconds) = (rest.ends_with("_total"), rest.ends_with("_seconds"));
            assert_eq!(total, metric.kind == Kind::Counter, "{rest}");
            assert_eq!(seconds, metric.kind == Kind::Histogram, "{rest}");
            assert!(metric.meaning.ends_with('.'), "{rest}");
        }
    }

    #[test]
    fn port_mapping_counters_that_start_anew_are_added_up() {
        let mut metrics = EngineMetrics::install();
        let state = |health, granted, no_response, circuit_opened| MethodState {
            health,
            counters: partyline_portmap::Counters {
                granted,
                no_response,
                circuit_opened,
                ..Default::default()
            },
            ..MethodState::pending(Protocol::Pinhole)
        };
        for (health, granted, no_response, circuit_opened) in [
            (Health::Pending, 0, 0, 0),
            (Health::Retrying, 0, 2, 0),
            (Health::Retrying, 0, 2, 0),
            (Health::CircuitOpen, 0, 3, 1),
            (Health::Mapped, 1, 3, 1),
            // Another network.
            (Health::Retrying, 0, 1, 0),
        ] {
            metrics.export_port_mapping(&[state(health, granted, no_response, circuit_opened)]);
        }
        let text = metrics.render();
        let of = |outcome: &str, count: u32| {
            format!(
                r#"partyline_portmap_results_total{{protocol="upnp_pinhole",outcome="{outcome}"}} {count}"#
            )
        };
        assert!(text.contains(&of("no_response", 4)) && text.contains(&of("granted", 1)), "{text}");
        assert!(text.contains(&of("renewed", 0)), "counters are shown before anything happens: {text}");
        assert!(!text.contains(r#"outcome="circuit_opened""#), "{text}");
        assert!(
            text.contains(r#"partyline_portmap_circuit_opened_total{protocol="upnp_pinhole"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"partyline_portmap_circuit_open{protocol="upnp_pinhole"} 0"#), "{text}");
    }

    fn device(number: u8) -> DeviceId {
        DeviceId([number; 32])
    }

    #[test]
    fn drops_of_a_member_that_returns_are_added_to_the_earlier_ones() {
        let metrics = EngineMetrics::install();
        let mut drops = PeerDrops::default();
        let member = device(0xe1);
        let storm = |count| DropCounters { broadcast_rate_limited: count, replayed: 1, ..Default::default() };
        drops.export(&BTreeMap::from([(member, storm(5))]));
        drops.export(&BTreeMap::from([(member, storm(7))]));
        drops.export(&BTreeMap::new());
        drops.export(&BTreeMap::from([(member, storm(2))]));
        let text = metrics.render();
        let of = |reason: &str, count: u32| {
            format!(r#"partyline_tunnel_peer_drops_total{{peer="e1e1e1e1",reason="{reason}"}} {count}"#)
        };
        assert!(text.contains(&of("broadcast_rate_limited", 9)), "{text}");
        assert!(text.contains(&of("other", 2)) && text.contains(&of("exceeds_mtu", 0)), "{text}");
    }

    #[test]
    fn members_beyond_the_limit_share_one_label() {
        let metrics = EngineMetrics::install();
        let mut drops = PeerDrops::default();
        let one = DropCounters { no_path: 1, ..Default::default() };
        let all: BTreeMap<_, _> = (0..70).map(|number| (device(number), one)).collect();
        drops.export(&all);
        drops.export(&all);
        let text = metrics.render();
        let of = |peer: &str, count: u32| {
            format!(r#"partyline_tunnel_peer_drops_total{{peer="{peer}",reason="no_path"}} {count}"#)
        };
        assert!(text.contains(&of("3f3f3f3f", 1)) && text.contains(&of("other", 6)), "{text}");
        assert!(!text.contains(r#"peer="40404040""#), "{text}");
    }

    #[test]
    fn counters_of_the_node_are_exported_under_their_labels() {
        let metrics = EngineMetrics::install();
        let mut node = node_counters();
        node.handshakes.completed = 3;
        node.netcheck.requests.mapping = 4;
        node.netcheck.timeouts.contact = 5;
        node.netcheck.dropped.wrong_source = 6;
        node.signaling.tunnel.received = 7;
        node.signaling.tunnel.dropped.party_full = 8;
        export_node(&node);
        let text = metrics.render();
        for expected in [
            r#"partyline_tunnel_handshakes_total{outcome="completed"} 3"#,
            r#"partyline_netcheck_requests_total{test="mapping"} 4"#,
            r#"partyline_netcheck_retransmissions_total{test="mapping"} 0"#,
            r#"partyline_netcheck_responses_total{test="lifetime"} 0"#,
            r#"partyline_netcheck_timeouts_total{test="contact"} 5"#,
            r#"partyline_netcheck_drops_total{reason="wrong_source"} 6"#,
            r#"partyline_party_messages_total{transport="tunnel",outcome="received"} 7"#,
            r#"partyline_party_messages_total{transport="tunnel",outcome="dropped"} 8"#,
            r#"partyline_party_message_drops_total{transport="tunnel",reason="party_full"} 8"#,
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    /// The values that the document lists for a label, up to the full stop.
    fn listed(label: &str) -> BTreeSet<String> {
        let (_, rest) = DOCUMENT.split_once(&format!("\n- {label}: ")).unwrap_or_default();
        let (values, _) = rest.split_once('.').unwrap_or_default();
        values.split(',').map(|value| value.trim().trim_matches('`').to_owned()).collect()
    }

    #[test]
    fn values_of_labels_are_those_that_are_documented() {
        let node = node_counters();
        let labels = |each: &mut dyn Iterator<Item = (&'static str, u64)>| -> BTreeSet<String> {
            each.map(|(label, _)| label.to_owned()).collect()
        };
        let portmap = partyline_portmap::Counters::default();
        let peer_reasons =
            DropCounters::default().each().map(|(label, count)| (peer_drop_reason(label), count));
        for (name, values) in [
            ("`reason` of path drops", labels(&mut node.paths.each())),
            ("`reason` of tunnel drops", labels(&mut node.tunnel.each())),
            ("`reason` of a member's drops", labels(&mut { peer_reasons })),
            ("`reason` of message drops", labels(&mut node.signaling.server.dropped.each())),
            ("`reason` of network check drops", labels(&mut node.netcheck.dropped.each())),
            (
                "`reason` of UDP drops",
                labels(&mut partyline_net::SendDrops::default().each().chain([("inside_party", 0)])),
            ),
            ("`outcome` of handshakes", labels(&mut node.handshakes.each())),
            (
                "`outcome` of port mapping",
                labels(&mut portmap.each().filter(|(label, _)| *label != "circuit_opened")),
            ),
            ("`outcome` of filtering probes", labels(&mut node.probe_responder.each())),
            ("`outcome` of relayed messages", labels(&mut node.member_relays.each())),
            ("`test`", labels(&mut node.netcheck.requests.each())),
        ] {
            assert_eq!(
                listed(name),
                values,
                "{name}: {}",
                values.iter().cloned().collect::<Vec<_>>().join("`, `")
            );
        }
    }

    fn node_counters() -> Counters {
        Counters {
            signaling: partyline_node::SignalingCounters::default(),
            resends: partyline_node::ResendCounters::default(),
            member_relays: partyline_node::MemberRelayCounters::default(),
            probe_responder: partyline_node::ProbeResponderCounters::default(),
            malformed_control_messages: 0,
            paths: Default::default(),
            tunnel: DropCounters::default(),
            tunnel_peers: BTreeMap::new(),
            handshakes: partyline_tunnel::HandshakeCounters::default(),
            netcheck: Default::default(),
            dht: Default::default(),
        }
    }
}
