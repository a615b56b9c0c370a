//! What the tray shows.

use partyline_model::{
    AppError, DeviceId, DeviceView, ErrorCode, InviteId, NetworkView, PathView, Phase, Quality, Settings,
    TrafficView,
};

use super::*;
use crate::{preferences::Language, surface::BackingKind, words};

/// A member; the first is this computer.
pub fn member(number: u8, path: Option<PathKind>) -> MemberView {
    MemberView {
        id: DeviceId([number; 32]),
        name: format!("friend {number}"),
        alike: false,
        role: Role::Member,
        me: number == 1,
        confirmed: true,
        invite: InviteId([7; 32]),
        joined_at: 0,
        online: true,
        address: None,
        address_v6: None,
        badge: None,
        path: path.map(|kind| PathView {
            kind,
            remote: ([192, 0, 2, 1], 1).into(),
            relay: None,
            via: None,
            age_s: 0,
            handshake_s: None,
            why: Vec::new(),
        }),
        quality: Quality::default(),
        traffic: TrafficView::default(),
        history: Vec::new(),
        notices: Default::default(),
    }
}

/// A party of ours.
pub fn party(phase: PartyPhase, members: Vec<MemberView>) -> PartyView {
    PartyView {
        id: PartyId([9; 32]),
        name: "R&D".into(),
        phase,
        role: Role::Owner,
        range: None,
        range_requested: false,
        incoming: partyline_model::IncomingPolicy::default(),
        interface: None,
        members,
        invites: Vec::new(),
        approval: false,
        join_requests: Vec::new(),
        waits_for: None,
        servers: Vec::new(),
        discovery: None,
        problem: None,
    }
}

/// A state with these parties.
pub fn snapshot(parties: Vec<PartyView>) -> Snapshot {
    Snapshot {
        revision: 1,
        phase: Phase::Ready,
        device: DeviceView { id: DeviceId([1; 32]), version: "0".into() },
        parties,
        former_parties: Vec::new(),
        network: NetworkView::default(),
        settings: Settings::default(),
    }
}

fn backing(problem: Option<AppError>) -> Backing {
    Backing { kind: BackingKind::Service, problem }
}

fn state(parties: Vec<PartyView>) -> State {
    State::of(&backing(None), Some(&snapshot(parties)))
}

#[test]
fn icon_shows_the_state_that_needs_most_attention() {
    let up = |members| party(PartyPhase::Up, members);
    assert_eq!(state(Vec::new()), State::Off);
    assert_eq!(state(vec![party(PartyPhase::Down, Vec::new())]), State::Off);
    assert_eq!(state(vec![up(vec![member(1, None)])]), State::Direct);
    assert_eq!(state(vec![up(vec![member(2, Some(PathKind::Mapped))])]), State::Direct);
    assert_eq!(
        state(vec![up(vec![member(2, Some(PathKind::Lan)), member(3, Some(PathKind::Relay))])]),
        State::Relayed
    );
    assert_eq!(state(vec![up(vec![member(2, Some(PathKind::Relay)), member(3, None)])]), State::Connecting);
    assert_eq!(state(vec![up(Vec::new()), party(PartyPhase::Connecting, Vec::new())]), State::Connecting);
    let problem = AppError::new(ErrorCode::Device, "x", "y");
    assert_eq!(state(vec![PartyView { problem: Some(problem.clone()), ..up(Vec::new()) }]), State::Trouble);
    assert_eq!(State::of(&backing(Some(problem)), None), State::Trouble);
    assert_eq!(State::of(&backing(None), None), State::Off);
}

#[test]
fn menu_lists_parties_with_members_and_invites_for_owners() {
    let mut friend = member(2, Some(PathKind::Direct));
    friend.quality.rtt_ms = Some(22.6);
    let mine = party(PartyPhase::Up, vec![member(1, None), friend]);
    let theirs =
        PartyView { role: Role::Member, id: PartyId([8; 32]), ..party(PartyPhase::Down, Vec::new()) };
    let words = words::of(Language::En);
    let lines = menu(State::Direct, Some(&snapshot(vec![mine, theirs])), words);
    let inside = vec![
        Line::Text("friend 2  23 ms".into()),
        Line::Rule,
        Line::Click(Action::CopyInvite(PartyId([9; 32])), "Copy invite".into()),
        Line::Click(Action::Show(PartyId([9; 32])), "Show".into()),
    ];
    assert!(lines.contains(&Line::Click(Action::Disconnect, "Disconnect".into())), "{lines:?}");
    assert!(lines.contains(&Line::Menu("R&&D".into(), inside)), "{lines:?}");
    let shown = vec![Line::Click(Action::Show(PartyId([8; 32])), "Show".into())];
    assert!(lines.contains(&Line::Menu("R&&D".into(), shown)), "{lines:?}");
    assert!(matches!(lines.last(), Some(Line::Click(Action::Quit, _))));
}

#[test]
fn menu_without_parties_has_no_switch() {
    let lines = menu(State::Off, None, words::of(Language::En));
    assert!(!lines.iter().any(|line| matches!(line, Line::Click(Action::Connect | Action::Disconnect, _))));
}
