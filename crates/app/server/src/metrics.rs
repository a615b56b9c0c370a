//! The `/metrics` page in the Prometheus text format.
//!
//! The parts of the server count for themselves; this module only writes their counters down. `docs/metrics.md` lists
//! every metric, and a test compares that list with the page.

use std::fmt::Write;

use partyline_rendezvous::{Counters as RendezvousCounters, Limits};
use partyline_telemetry::Metrics;

use crate::{
    counters::Histogram,
    hub::Hub,
    relay::{Counters, RelayHandle},
    shared::Shared,
};

/// Renders all metrics of a server, and those of the process's registry if it is installed.
pub(crate) fn render(shared: &Shared) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    page.labelled(
        GAUGE,
        "server_info",
        "Always 1; the version is a label.",
        "version",
        [(env!("CARGO_PKG_VERSION"), 1)],
    );
    write_connections(&mut page, shared);
    write_rendezvous(&mut page, &shared.hub);
    if let Some(relay) = &shared.relay {
        write_relay(&mut page, relay);
    }
    if let Some(registry) = Metrics::installed() {
        page.0.push_str(&registry.render());
    }
    page.0
}

fn write_connections(page: &mut Page, shared: &Shared) {
    let limiter = &shared.limiter;
    page.gauge("server_connections", "Open TCP connections.", limiter.open() as u64);
    page.counter("server_connections_accepted_total", "Accepted TCP connections.", limiter.admitted());
    page.labelled(
        COUNTER,
        "server_connections_refused_total",
        "TCP connections closed at once because of a limit.",
        "reason",
        limiter.refused().each(),
    );
    page.labelled(
        COUNTER,
        "server_connections_closed_early_total",
        "TCP connections closed before their protocol was known.",
        "reason",
        shared.counters.closed_early.each(),
    );
    let limits = limiter.limits();
    let limits = [
        ("connections", limits.total),
        ("connections_per_address", limits.per_address),
        ("connections_per_prefix56", limits.per_prefix56),
        ("connections_per_prefix48", limits.per_prefix48),
    ]
    .map(|(name, limit)| (name, limit as u64));
    page.labelled(GAUGE, "server_limit", "Configured limits of TCP connections.", "limit", limits);
    page.histogram(
        "server_tls_handshake_seconds",
        "Duration of successful TLS handshakes.",
        &shared.counters.tls_handshake,
    );
}

fn write_rendezvous(page: &mut Page, hub: &Hub) {
    let stats = hub.stats();
    let gauges = [
        ("sessions", "Open rendezvous sessions (WebSockets).", stats.connections),
        ("addresses", "Client addresses remembered for their rate.", stats.addresses),
        ("topics", "Topics with a member present or a stored message.", stats.topics),
        ("members", "Members present, over all topics.", stats.members),
        ("stored_messages", "Messages stored for absent members.", stats.mail),
        ("stored_bytes", "Bytes of stored records and messages.", stats.held_bytes),
        ("send_queue_bytes", "Bytes queued for members that have not read them yet.", hub.queued_bytes()),
    ];
    for (name, help, value) in gauges {
        page.gauge(&format!("rendezvous_{name}"), help, value as u64);
    }
    write_rendezvous_counters(page, &stats.counters);
    let help = "Frames answered with a refusal, by reason.";
    page.labelled(COUNTER, "rendezvous_frames_refused_total", help, "reason", stats.refusals.each());
    let help = "Frames and connections refused because of a limit, by limit.";
    page.labelled(COUNTER, "rendezvous_limit_reached_total", help, "limit", stats.limit_hits.each());
    page.labelled(
        COUNTER,
        "rendezvous_sessions_ended_total",
        "Sessions that ended, by reason.",
        "reason",
        hub.ended().each(),
    );
    page.histogram("rendezvous_session_seconds", "Duration of the sessions that ended.", hub.durations());
    let limits = rendezvous_limits(hub.limits());
    page.labelled(GAUGE, "rendezvous_limit", "Configured limits of the rendezvous server.", "limit", limits);
}

fn write_rendezvous_counters(page: &mut Page, counters: &RendezvousCounters) {
    let frames = [("from_client", counters.frames_received), ("to_client", counters.frames_sent)];
    page.labelled(COUNTER, "rendezvous_frames_total", "Frames, by direction.", "direction", frames);
    let bytes = [("from_client", counters.bytes_received), ("to_client", counters.bytes_sent)];
    page.labelled(COUNTER, "rendezvous_bytes_total", "Bytes of frames, by direction.", "direction", bytes);
    let messages = [
        ("forwarded", counters.messages_forwarded),
        ("stored", counters.messages_stored),
        ("delivered", counters.messages_delivered),
        ("duplicate", counters.messages_duplicate),
        ("expired", counters.messages_expired),
    ];
    let help = "Messages between members, by what became of them.";
    page.labelled(COUNTER, "rendezvous_messages_total", help, "outcome", messages);
    let single = [
        ("sessions_opened_total", "Sessions opened.", counters.connections_admitted),
        ("sessions_refused_total", "Sessions refused because of a limit.", counters.connections_rejected),
        ("topics_created_total", "Topics created.", counters.topics_created),
        ("members_entered_total", "Members that entered a topic.", counters.sessions),
        ("records_announced_total", "Records announced after entering.", counters.records_announced),
        ("relay_grants_total", "Relay credentials granted.", counters.relay_grants),
    ];
    for (name, help, value) in single {
        page.counter(&format!("rendezvous_{name}"), help, value);
    }
}

/// The limits, named as in the configuration.
fn rendezvous_limits(limits: &Limits) -> [(&'static str, u64); 11] {
    [
        ("connections", limits.connections),
        ("connections_per_address", limits.connections_per_address),
        ("connections_per_prefix56", limits.connections_per_prefix56),
        ("connections_per_prefix48", limits.connections_per_prefix48),
        ("addresses", limits.addresses),
        ("topics", limits.topics),
        ("topics_per_connection", limits.topics_per_connection),
        ("members_per_topic", limits.members_per_topic),
        ("held_bytes", limits.held_bytes),
        ("mail_per_handle", limits.mail_per_handle),
        ("mail_bytes_per_topic", limits.mail_bytes_per_topic),
    ]
    .map(|(name, limit)| (name, limit as u64))
}

fn write_relay(page: &mut Page, relay: &RelayHandle) {
    let Counters {
        allocations_active,
        allocations_created,
        requests,
        bindings,
        refused,
        packets,
        bytes,
        dropped,
    } = relay.counters();
    page.gauge("relay_allocations", "Existing allocations.", allocations_active);
    page.counter("relay_allocations_created_total", "Allocations created.", allocations_created);
    page.counter("relay_requests_total", "STUN and TURN requests received.", requests);
    page.counter("relay_bindings_total", "STUN Binding requests answered with success.", bindings);
    let help = "STUN and TURN requests answered with an error, by reason.";
    page.labelled(COUNTER, "relay_requests_refused_total", help, "reason", refused.each());
    page.labelled(
        COUNTER,
        "relay_packets_total",
        "Relayed packets, by direction.",
        "direction",
        packets.each(),
    );
    let help = "Relayed payload bytes, by direction.";
    page.labelled(COUNTER, "relay_bytes_total", help, "direction", bytes.each());
    page.labelled(COUNTER, "relay_dropped_total", "Dropped packets, by reason.", "reason", dropped.each());
    page.gauge("relay_streams", "Open TURN connections over TCP and TLS.", relay.open_streams());
    let help = "TURN connections over TCP and TLS refused because of the limit.";
    page.counter("relay_streams_refused_total", help, relay.refused_streams());
    page.labelled(GAUGE, "relay_limit", "Configured limits of the relay.", "limit", relay.limits());
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// A page in the Prometheus text format. Names are given without the prefix `partyline_`. Writing into a string does not
/// fail.
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, GAUGE, help);
        let _ = writeln!(self.0, "partyline_{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, COUNTER, help);
        let _ = writeln!(self.0, "partyline_{name} {value}");
    }

    fn labelled<'a>(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, kind, help);
        for (text, value) in values {
            let _ = writeln!(self.0, "partyline_{name}{{{label}=\"{text}\"}} {value}");
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let mut count = 0;
        for (bound, cumulative) in histogram.cumulative() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            let _ = writeln!(self.0, "partyline_{name}_bucket{{le=\"{bound}\"}} {cumulative}");
            count = cumulative;
        }
        let _ = writeln!(self.0, "partyline_{name}_sum {}\npartyline_{name}_count {count}", histogram.sum());
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP partyline_{name} {help}\n# TYPE partyline_{name} {kind}\n");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn histograms_have_cumulative_buckets_sum_and_count() {
        let histogram = Histogram::new(&[0.5, 2.0]);
        histogram.record(Duration::from_millis(250));
        histogram.record(Duration::from_secs(3));
        let mut page = Page(String::new());
        page.histogram("x_seconds", "Help.", &histogram);
        let expected = "# HELP partyline_x_seconds Help.\n# TYPE partyline_x_seconds histogram\n\
                        partyline_x_seconds_bucket{le=\"0.5\"} 1\npartyline_x_seconds_bucket{le=\"2\"} 1\n\
                        partyline_x_seconds_bucket{le=\"+Inf\"} 2\n\
                        partyline_x_seconds_sum 3.25\npartyline_x_seconds_count 2\n";
        assert_eq!(page.0, expected);
    }
}
