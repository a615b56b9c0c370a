//! Parties and members as tables.

use partyline_model::{
    AppError, Discovery, ErrorCode, FormerPartyView, MemberNotices, MemberView, PartyPhase, PartyView, Phase,
    Role, ServerView, SharedNat, Snapshot,
};

use crate::{
    member,
    names::{joiner_name, name_of},
    output::{Output, Tone},
    table::{self, Cell},
    text::{bytes, clean},
};

const HEADER: [&str; 8] = ["MEMBER", "ADDRESS", "CONNECTION", "PING", "LOSS", "NETWORK", "RECEIVED", "SENT"];

/// Everything, or one party.
pub fn lines(output: &Output, snapshot: &Snapshot, only: Option<&PartyView>, why: bool) -> Vec<String> {
    let mut lines = Vec::new();
    match snapshot.phase {
        Phase::Starting => lines.push("The engine is starting…".to_owned()),
        Phase::Stopping => lines.push("The engine is stopping…".to_owned()),
        Phase::Ready => {}
    }
    let parties: Vec<_> = only.map_or_else(|| snapshot.parties.iter().collect(), |party| vec![party]);
    if parties.is_empty() && snapshot.former_parties.is_empty() {
        lines.push(
            "No parties. Make one with `partyline create <name>`, or join one with `partyline join`.".into(),
        );
    }
    for (index, party) in parties.into_iter().enumerate() {
        if index > 0 {
            lines.push(String::new());
        }
        lines.extend(party_lines(output, party, why));
    }
    lines.extend(former_lines(output, snapshot));
    if let Some(badge) = snapshot.network.badge {
        lines.push(String::new());
        lines.push(output.paint(&format!("This computer's network: {}", member::network(badge)), Tone::Dim));
    }
    lines
}

/// What to do about the parties of an earlier identity.
pub fn former_lines(output: &Output, snapshot: &Snapshot) -> Vec<String> {
    let line = |former: &FormerPartyView| {
        let name = output.paint(&clean(&former.name), Tone::Strong);
        format!(
            "{name}  ask a member for an invite, then `partyline join`; you were {} there",
            clean(&former.display_name)
        )
    };
    snapshot.former_parties.iter().map(line).collect()
}

/// One line for each party.
pub fn list(output: &Output, snapshot: &Snapshot) -> Vec<String> {
    if snapshot.parties.is_empty() {
        return lines(output, snapshot, None, false);
    }
    let rows: Vec<_> = snapshot.parties.iter().map(list_row).collect();
    table::render(output, &["PARTY", "ID", "STATE", "MEMBERS", "NETWORK", "YOU"], &rows)
}

fn list_row(party: &PartyView) -> Vec<Cell> {
    let online = party.members.iter().filter(|member| member.me || member.online).count();
    let (state, tone) = phase(party.phase);
    vec![
        (clean(&party.name), Tone::Strong),
        plain(party.id.short()),
        (state.into(), tone),
        plain(format!("{online} of {} online", party.members.len())),
        plain(party.range.map_or_else(|| "–".into(), |range| range.to_string())),
        plain(role(party.role).into()),
    ]
}

/// Returns why a friend on another network may not find this computer.
const fn discovery_note(discovery: Discovery) -> Option<&'static str> {
    match discovery {
        Discovery::Off => Some(
            "! Friends on other networks may not find this computer: the party has no server, and the DHT is off              (`partyline config set dht on`).",
        ),
        Discovery::Blocked => Some(
            "! This network blocks the way Partyline finds friends. Use another network or a phone hotspot for a moment,              or a party with a server.",
        ),
        Discovery::Searching | Discovery::Listed | Discovery::Kept => None,
    }
}

fn party_lines(output: &Output, party: &PartyView, why: bool) -> Vec<String> {
    let mut lines = vec![heading(output, party)];
    lines.extend(party.problem.iter().flat_map(|problem| problem_lines(output, problem)));
    for server in party.servers.iter().filter(|server| is_troubled(server) && party.phase != PartyPhase::Down)
    {
        lines.extend(server_lines(output, server));
    }
    let note = party.discovery.filter(|_| party.phase != PartyPhase::Down).and_then(discovery_note);
    lines.extend(note.map(|note| output.paint(note, Tone::Fair)));
    let asking: Vec<_> =
        party.join_requests.iter().filter(|request| !request.declined).map(joiner_name).collect();
    if !asking.is_empty() {
        let line = format!("! {} would like to join", asking.join(", "));
        lines.extend([
            output.paint(&line, Tone::Fair),
            "  `partyline approve` shows who asks and lets them in.".to_owned(),
        ]);
    }
    let rows: Vec<_> = party.members.iter().map(member_row).collect();
    let mut rows = table::render(output, &HEADER, &rows).into_iter();
    lines.extend(rows.next());
    for (member, row) in party.members.iter().zip(rows) {
        lines.push(row);
        if why {
            lines.extend(why_lines(output, member));
        }
    }
    lines.extend(party.members.iter().flat_map(|member| notice_lines(output, party, member)));
    lines
}

/// What somebody should know of a member, and what to do about it.
fn notice_lines(output: &Output, party: &PartyView, member: &MemberView) -> Vec<String> {
    let MemberNotices { broadcasts_dropped, range_clash, copied, no_hairpin } = member.notices;
    let name = name_of(member);
    let mut lines = Vec::new();
    if let Some(dropped) = broadcasts_dropped {
        let (who, hint) = if member.me {
            ("This computer".to_owned(), "A program here floods the party: close it.".to_owned())
        } else {
            (name.clone(), format!("A program there floods the party: ask {name} to close it."))
        };
        let line = format!("! {who} sends more broadcasts than the limit; {dropped} were dropped");
        lines.extend([output.paint(&line, Tone::Fair), format!("  {hint}")]);
    }
    if let Some(network) = range_clash {
        let line =
            format!("! {name} asks for another address range: the party's clashes with {network} there");
        let hint = match party.role {
            Role::Owner => "`partyline range` moves the party to a free one.",
            Role::CoOwner | Role::Member => "The owner can move the party with `partyline range`.",
        };
        lines.extend([output.paint(&line, Tone::Fair), format!("  {hint}")]);
    }
    if copied {
        let (line, hint) = if member.me {
            (
                "! Another computer has a copy of this computer's keys, and stands back".to_owned(),
                "There, `partyline identity new` makes it a member of its own.".to_owned(),
            )
        } else {
            (
                format!("! A copy of {name}'s computer wants to join with the same keys, and stands back"),
                format!("If {name} asks for an invite for it, send one."),
            )
        };
        lines.extend([output.paint(&line, Tone::Fair), format!("  {hint}")]);
    }
    lines.extend(no_hairpin.into_iter().flat_map(|shared| hairpin_lines(output, &name, shared)));
    lines
}

/// Why a member behind the same NAT is not reached directly, and what to do about it.
fn hairpin_lines(output: &Output, name: &str, shared: SharedNat) -> [String; 2] {
    let (what, hint) = match shared {
        SharedNat::Router => (
            "you share one public address, and the router there does not route packets back inside (no hairpinning)",
            "In one place, join the same network, not a guest Wi-Fi, and switch off client isolation in the router; in \
             different places it is your provider's, and IPv6 on both sides helps. A relay is used meanwhile, if there \
             is one.",
        ),
        SharedNat::Carrier => (
            "you are behind one carrier's NAT, which does not route packets back inside (no hairpinning)",
            "IPv6 on both sides, or a public address from the provider, makes it direct. A relay is used meanwhile, if \
             there is one.",
        ),
    };
    let line = format!("! {name} is not reached directly: {what}");
    [output.paint(&line, Tone::Fair), format!("  {hint}")]
}

fn heading(output: &Output, party: &PartyView) -> String {
    let (state, tone) = phase(party.phase);
    let name = output.paint(&clean(&party.name), Tone::Strong);
    let range = party.range.map(|range| format!("  {range}")).unwrap_or_default();
    let interface =
        party.interface.as_deref().map(|name| format!("  on {}", clean(name))).unwrap_or_default();
    format!("{name}  {}{range}{interface}  {}", output.paint(state, tone), role(party.role))
}

fn problem_lines(output: &Output, problem: &AppError) -> [String; 2] {
    [
        output.paint(&format!("! {}", clean(&problem.message)), Tone::Bad),
        format!("  {}", clean(&problem.hint)),
    ]
}

/// Returns true for a server that is not connected, or whose relay is not used.
fn is_troubled(server: &ServerView) -> bool {
    let refused = |problem: &AppError| problem.code == ErrorCode::ServerPrivate;
    !server.connected || server.problem.as_ref().is_some_and(refused)
}

/// What is wrong with a server that was not reached.
pub fn server_lines(output: &Output, server: &ServerView) -> Vec<String> {
    let url = clean(&server.url);
    match &server.problem {
        Some(problem) => {
            let line = format!("! {url}: {}", clean(&problem.message));
            vec![output.paint(&line, Tone::Fair), format!("  {}", clean(&problem.hint))]
        }
        None => vec![output.paint(&format!("  reaching {url}…"), Tone::Dim)],
    }
}

fn member_row(member: &MemberView) -> Vec<Cell> {
    let quality = member.quality;
    vec![
        (member_name(member), if member.me { Tone::Strong } else { Tone::Plain }),
        plain(member.address.map_or_else(|| "–".into(), |address| address.to_string())),
        member::connection(member),
        plain(if member.me { "–".into() } else { member::round_trip(quality.rtt_ms) }),
        if member.me { plain("–".into()) } else { member::loss(quality.loss) },
        plain(member.badge.map_or("–", member::network).into()),
        plain(bytes(member.traffic.received_bytes)),
        plain(bytes(member.traffic.sent_bytes)),
    ]
}

fn member_name(member: &MemberView) -> String {
    let what = match (member.role, member.confirmed) {
        (Role::Owner, _) => " (owner)",
        (Role::CoOwner, _) => " (co-owner)",
        (Role::Member, false) => " (unconfirmed)",
        (Role::Member, true) => "",
    };
    name_of(member) + what
}

fn why_lines(output: &Output, member: &MemberView) -> Vec<String> {
    let Some(path) = &member.path else { return Vec::new() };
    let handshake = path.handshake_s.map(|age| format!(", handshake {age} s ago")).unwrap_or_default();
    let reason = member::reason(path.kind);
    let facts = format!("    {} for {} s{handshake}; {reason}", path.remote, path.age_s);
    let attempts =
        path.why.iter().map(member::attempt).map(|(line, tone)| format!("    {}", output.paint(&line, tone)));
    let history =
        member::history(&member.history).map(|line| output.paint(&format!("    {line}"), Tone::Dim));
    std::iter::once(output.paint(&facts, Tone::Dim)).chain(attempts).chain(history).collect()
}

const fn plain(text: String) -> Cell {
    (text, Tone::Plain)
}

const fn phase(phase: PartyPhase) -> (&'static str, Tone) {
    match phase {
        PartyPhase::Down => ("off", Tone::Dim),
        PartyPhase::Connecting => ("connecting…", Tone::Fair),
        PartyPhase::Up => ("on", Tone::Good),
    }
}

/// What a member may do, in a word.
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::CoOwner => "co-owner",
        Role::Member => "member",
    }
}
