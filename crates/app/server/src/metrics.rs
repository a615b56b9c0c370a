//! Figures in Prometheus's text format, counted by the parts themselves and only written down here.

use std::fmt::Write;


use crate::{relay, server::Shared};

/// A page of figures.
struct Figures(String);

impl Figures {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string does not fail.
        let _ = write!(self.0, "# HELP partyline_{name} {help}\n# TYPE partyline_{name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.0, "partyline_{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.labelled(name, help, "", [("", value)]);
    }

    fn labelled<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (text, value) in values {
            let labels = if label.is_empty() { String::new() } else { format!("{{{label}=\"{text}\"}}") };
            let _ = writeln!(self.0, "partyline_{name} {value}", name = format_args!("{name}{labels}"));
        }
    }
}

/// All figures of a server.
pub(crate) fn render(shared: &Shared) -> String {
    let mut figures = Figures(String::with_capacity(8 * 1024));
    let (open, turned_away) = shared.gate.count();
    figures.gauge("sockets", "TCP connections open.", open as u64);
    figures.counter("sockets_turned_away_total", "TCP connections closed at once for a limit.", turned_away);
    rendezvous(&mut figures, shared);
    if let Some(relay) = &shared.relay {
        relayed(&mut figures, &relay.counters());
    }
    figures.0
}

fn rendezvous(figures: &mut Figures, shared: &Shared) {
    let (stats, queued) = shared.hub.stats();
    let now = [
        ("connections", "WebSockets open.", stats.connections),
        ("addresses", "Client addresses remembered.", stats.addresses),
        ("topics", "Topics with somebody present or something waiting.", stats.topics),
        ("members", "Members present, over all topics.", stats.members),
        ("mail", "Messages waiting for somebody absent.", stats.mail),
        ("held_bytes", "Bytes of records and messages held.", stats.held_bytes),
        ("queued_bytes", "Bytes waiting to be sent.", queued),
    ];
    now.into_iter().for_each(|(name, help, value)| figures.gauge(name, help, value as u64));
    figures.labelled("rendezvous_events_total", "What happened at the rendezvous.", "event", stats.counters.each());
    figures.labelled("rendezvous_refused_total", "Frames refused.", "reason", stats.refusals.each());
    figures.labelled("rendezvous_limits_total", "Limits reached.", "limit", stats.limit_hits.each());
}

fn relayed(figures: &mut Figures, counters: &relay::Counters) {
    figures.gauge("relay_allocations", "Relay allocations alive.", counters.allocations_active);
    let since_start = [
        ("relay_allocations_total", "Relay allocations made.", counters.allocations_created),
        ("relay_requests_total", "STUN and TURN requests.", counters.requests),
        ("relay_bindings_total", "STUN Binding requests answered.", counters.bindings),
    ];
    since_start.into_iter().for_each(|(name, help, value)| figures.counter(name, help, value));
    let refused = counters.refused.each();
    figures.labelled("relay_refused_total", "STUN and TURN requests refused.", "reason", refused);
    figures.labelled("relay_packets_total", "Packets relayed.", "direction", counters.packets.each());
    figures.labelled("relay_bytes_total", "Payload bytes relayed.", "direction", counters.bytes.each());
    let dropped = counters.dropped.each();
    figures.labelled("relay_dropped_total", "Packets dropped by the relay.", "reason", dropped);
}
