//! Words for members and how they are connected, as players say them.

use partyline_model::{Attempt, AttemptOutcome, Badge, MemberView, Method, PathEvent, PathKind, PathView};

use crate::{
    output::Tone,
    text::{clean, milliseconds},
};

/// How a member is connected, and how good that is.
pub fn connection(member: &MemberView) -> (String, Tone) {
    match &member.path {
        _ if member.me => ("this computer".into(), Tone::Dim),
        Some(path) => path_words(path),
        None if member.online => ("connecting…".into(), Tone::Fair),
        None => ("offline".into(), Tone::Dim),
    }
}

fn path_words(path: &PathView) -> (String, Tone) {
    let relay = path.relay.as_deref().map(clean);
    match (path.kind, relay) {
        (PathKind::Relay, Some(relay)) => (format!("relay {relay}"), Tone::Fair),
        (PathKind::MemberRelay, Some(member)) => (format!("through {member}"), Tone::Fair),
        (kind, _) => (kind_words(kind).into(), tone(kind)),
    }
}

/// A kind of path.
pub const fn kind_words(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Lan => "same network",
        PathKind::DirectV6 => "direct (IPv6)",
        PathKind::Mapped => "direct (mapped port)",
        PathKind::Direct => "direct",
        PathKind::MemberRelay => "through a member",
        PathKind::Relay => "relay",
        PathKind::Overlay => "another VPN",
    }
}

const fn tone(kind: PathKind) -> Tone {
    match kind {
        PathKind::MemberRelay | PathKind::Relay | PathKind::Overlay => Tone::Fair,
        PathKind::Lan | PathKind::DirectV6 | PathKind::Mapped | PathKind::Direct => Tone::Good,
    }
}

/// A round trip, or a dash.
pub fn round_trip(value: Option<f32>) -> String {
    value.map_or_else(|| "–".into(), milliseconds)
}

/// A share, or a dash.
pub fn loss(value: Option<f32>) -> (String, Tone) {
    let Some(share) = value else { return ("–".into(), Tone::Plain) };
    let tone = match share {
        share if share < 0.01 => Tone::Plain,
        share if share < 0.05 => Tone::Fair,
        _ => Tone::Bad,
    };
    (format!("{:.0}%", share * 100.0), tone)
}

/// The word for a network.
pub const fn network(badge: Badge) -> &'static str {
    match badge {
        Badge::Open => "open",
        Badge::FullCone => "full cone",
        Badge::Restricted => "restricted",
        Badge::PortRestricted => "port restricted",
        Badge::Symmetric => "symmetric",
        Badge::UdpBlocked => "UDP blocked",
    }
}

/// Why a path of this kind is the one in use.
pub const fn reason(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Lan => "nothing is nearer than the same network",
        PathKind::DirectV6 | PathKind::Mapped | PathKind::Direct => {
            "the best of the direct paths that answer"
        }
        PathKind::MemberRelay => "no direct path answers, and this member reaches both",
        PathKind::Relay => "no direct path answers; it is looked for again from time to time",
        PathKind::Overlay => "nothing else answers, no relay either",
    }
}

/// The paths used so far with how long each was, oldest first; nothing if there was only one.
pub fn history(events: &[PathEvent]) -> Option<String> {
    if events.len() < 2 {
        return None;
    }
    let ends = events.iter().skip(1).map(|event| Some(event.at)).chain([None]);
    let words: Vec<String> = events
        .iter()
        .zip(ends)
        .map(|(event, end)| {
            let kind = event.kind.map_or("unreachable", kind_words);
            end.map_or_else(
                || kind.to_owned(),
                |end| format!("{kind} for {} s", end.saturating_sub(event.at)),
            )
        })
        .collect();
    Some(format!("So far: {}.", words.join(", ")))
}

/// One attempt to reach a member.
pub fn attempt(attempt: &Attempt) -> (String, Tone) {
    let method = match attempt.method {
        Method::Lan => "same network",
        Method::Ipv6 => "IPv6",
        Method::Mapped => "mapped port",
        Method::Punch => "hole punching",
        Method::Predict => "port prediction",
        Method::Spray => "many ports",
        Method::MemberRelay => "another member",
        Method::RelayUdp => "relay (UDP)",
        Method::RelayTcp => "relay (TCP)",
        Method::RelayTls => "relay (TLS)",
        Method::Overlay => "another VPN",
    };
    let (outcome, tone) = match attempt.outcome {
        AttemptOutcome::Trying => ("trying", Tone::Fair),
        AttemptOutcome::Worked => ("worked", Tone::Good),
        AttemptOutcome::NoAnswer => ("no answer", Tone::Bad),
        AttemptOutcome::Impossible => ("impossible", Tone::Dim),
    };
    let note = if attempt.note.is_empty() { String::new() } else { format!("  {}", clean(&attempt.note)) };
    (format!("{method:<16} {outcome:<10} {:>6} ms{note}", attempt.took_ms), tone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_says_how_long_each_path_was_used() {
        let event = |at, kind| PathEvent { at, kind };
        let events = [event(10, Some(PathKind::Relay)), event(13, None), event(14, Some(PathKind::Direct))];
        let line = "So far: relay for 3 s, unreachable for 1 s, direct.";
        assert_eq!(history(&events).as_deref(), Some(line));
        assert_eq!(history(&events[..1]), None);
    }
}
