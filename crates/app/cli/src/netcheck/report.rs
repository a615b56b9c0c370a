//! The report, as people read it.

use partyline_model::{
    Allocation, Badge, CheckTopic, Filtering, Mapping, NatProfile, NetworkView, RouterCheck, ServerCheck,
};

use super::advice;
use crate::{
    member,
    output::{Output, Tone},
    text::clean,
};

/// All of it.
pub fn lines(output: &Output, network: &NetworkView) -> Vec<String> {
    let mut lines = vec![String::new(), heading(output, network)];
    lines.extend(advice::meaning(network).map(|line| format!("  {line}")));
    lines.push(String::new());
    lines.extend(facts(network).into_iter().map(|(name, value)| format!("  {name:<12} {value}")));
    lines.extend(
        network.report.servers.iter().map(|server| format!("  {:<12} {}", "Server", server_line(server))),
    );
    for gap in &network.report.gaps {
        lines.push(output.paint(&format!("  Not measured: {}", clean(gap)), Tone::Dim));
    }
    let advice = advice::advice(network);
    if !advice.is_empty() {
        lines.extend([String::new(), output.paint("What could be better", Tone::Strong)]);
        lines.extend(advice.iter().map(|line| format!("  - {line}")));
    }
    lines.extend(footer(output, network));
    lines
}

fn heading(output: &Output, network: &NetworkView) -> String {
    let (word, tone) = match network.badge {
        Some(badge) => (member::network(badge), tone(badge)),
        None if !network.report.enabled => ("not measured (switched off)", Tone::Dim),
        None => ("not known for certain", Tone::Fair),
    };
    let level = network.badge.and_then(Badge::level).map(|level| format!(" (level {level} of 4)"));
    let above = match (network.nat.carrier_nat, network.nat.double_nat) {
        (Some(true), _) => ", behind the provider's NAT",
        (_, Some(true)) => ", behind a second NAT",
        _ => "",
    };
    format!("Your network: {}{}{above}", output.paint(word, tone), level.unwrap_or_default())
}

const fn tone(badge: Badge) -> Tone {
    match badge {
        Badge::Open | Badge::FullCone | Badge::Restricted => Tone::Good,
        Badge::PortRestricted => Tone::Plain,
        Badge::Symmetric => Tone::Fair,
        Badge::UdpBlocked => Tone::Bad,
    }
}

fn facts(network: &NetworkView) -> Vec<(&'static str, String)> {
    let nat = &network.nat;
    let mut facts = vec![
        ("Addresses", addresses(nat)),
        ("Mapping", nat.mapping.map_or("not known", mapping).into()),
        ("Filtering", nat.filtering.map_or("not known", filtering).into()),
        ("Allocation", nat.allocation.map_or_else(|| "not known".into(), allocation)),
        ("Hairpin", yes_or_no(nat.hairpin, "players at home meet at the public address", "no")),
        ("IPv6", ipv6(nat)),
        ("Second NAT", yes_or_no(nat.double_nat, "yes", "no")),
    ];
    if let Some(lifetime) = nat.lifetime {
        facts.push((
            "Lifetime",
            format!("the router keeps an idle connection open for at least {} s", lifetime.as_secs()),
        ));
    }
    facts.extend(network.report.router.iter().map(|check| ("Router", router(check))));
    facts
}

/// What became of a step, in one line.
pub fn step(network: &NetworkView, topic: CheckTopic) -> String {
    let nat = &network.nat;
    match topic {
        CheckTopic::Address => format!("public address: {}", addresses(nat)),
        CheckTopic::Filtering => format!("filtering: {}", nat.filtering.map_or("not known", filtering)),
        CheckTopic::Mapping => format!("mapping: {}", nat.mapping.map_or("not known", mapping)),
        CheckTopic::Allocation => {
            format!("allocation: {}", nat.allocation.map_or_else(|| "not known".into(), allocation))
        }
        CheckTopic::Hairpin => format!("hairpin: {}", yes_or_no(nat.hairpin, "yes", "no")),
        CheckTopic::Ipv6 => format!("IPv6: {}", ipv6(nat)),
        CheckTopic::Lifetime => {
            let lifetime = nat.lifetime.map(|lifetime| format!("{} s", lifetime.as_secs()));
            format!("lifetime of an idle mapping: {}", lifetime.unwrap_or_else(|| "not known".into()))
        }
    }
}

fn addresses(nat: &NatProfile) -> String {
    match (nat.public.is_empty(), nat.udp_blocked) {
        (false, _) => nat.public.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        (true, Some(true)) => "no server answers over UDP".into(),
        (true, _) => "not known".into(),
    }
}

const fn mapping(policy: Mapping) -> &'static str {
    match policy {
        Mapping::EndpointIndependent => "one port for everybody (endpoint-independent)",
        Mapping::AddressDependent => "another port for every address (address-dependent)",
        Mapping::AddressAndPortDependent => {
            "another port for every destination (address- and port-dependent)"
        }
    }
}

const fn filtering(policy: Filtering) -> &'static str {
    match policy {
        Filtering::EndpointIndependent => "lets everybody in (endpoint-independent)",
        Filtering::AddressDependent => "lets in addresses that were sent to (address-dependent)",
        Filtering::AddressAndPortDependent => {
            "lets in exactly whom was sent to (address- and port-dependent)"
        }
    }
}

fn allocation(policy: Allocation) -> String {
    match policy {
        Allocation::Preserving => "keeps this computer's port".into(),
        Allocation::Contiguous { delta } => format!("counts by {delta} from port to port"),
        Allocation::Random => "random".into(),
    }
}

fn ipv6(nat: &NatProfile) -> String {
    match (nat.ipv6, nat.firewall_v6) {
        (Some(false), _) => "none".into(),
        (Some(true), Some(policy)) => format!("works; the firewall {}", filtering(policy)),
        (Some(true), None) => "works".into(),
        (None, _) => "not known".into(),
    }
}

fn yes_or_no(value: Option<bool>, yes: &str, no: &str) -> String {
    value.map_or("not known", |value| if value { yes } else { no }).into()
}

fn router(check: &RouterCheck) -> String {
    match &check.problem {
        _ if check.works => format!("{} opened a port", clean(&check.protocol)),
        Some(problem) => format!("{}: {}", clean(&check.protocol), clean(problem)),
        None => format!("{}: no answer", clean(&check.protocol)),
    }
}

fn server_line(server: &ServerCheck) -> String {
    let answer = match (server.silent, server.rtt_ms) {
        (true, _) => "silent".to_owned(),
        (_, Some(rtt)) => format!("{rtt} ms"),
        (false, None) => "not asked".to_owned(),
    };
    let two = if server.two_addresses { ", with a second address" } else { "" };
    format!("{} {}: {answer}{two}", clean(&server.name), server.address)
}

fn footer(output: &Output, network: &NetworkView) -> Option<String> {
    let report = &network.report;
    report.measured_at?;
    let seconds = f64::from(report.took_ms) / 1000.0;
    let line = format!("Measured in {seconds:.1} s with {} packets.", report.packets);
    Some(format!("\n{}", output.paint(&line, Tone::Dim)))
}
