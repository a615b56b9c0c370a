//! The tray: an icon for the state, and a menu for what does not need the window.

use partyline_model::{MemberView, PartyId, PartyPhase, PartyView, PathKind, Role, Snapshot};

use crate::{
    surface::Backing,
    words::{Words, fill},
};

mod host;
mod icon;

pub use host::is_shown;
pub use icon::Tray;

/// The state that the icon shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No party is switched on.
    Off,
    /// A party or a member is not connected yet.
    Connecting,
    /// All members online are connected directly.
    Direct,
    /// A member is connected through a relay.
    Relayed,
    /// A party has a problem.
    Trouble,
}

impl State {
    /// Returns the state of all parties together: the one that needs most attention.
    pub fn of(backing: &Backing, snapshot: Option<&Snapshot>) -> Self {
        let Some(snapshot) = snapshot else {
            return if backing.problem.is_some() { Self::Trouble } else { Self::Off };
        };
        let on = || snapshot.parties.iter().filter(|party| party.phase != PartyPhase::Down);
        let friends = || on().flat_map(|party| &party.members).filter(|member| !member.me && member.online);
        if on().any(|party| party.problem.is_some()) {
            Self::Trouble
        } else if on().next().is_none() {
            Self::Off
        } else if on().any(|party| party.phase == PartyPhase::Connecting)
            || friends().any(|friend| friend.path.is_none())
        {
            Self::Connecting
        } else if friends().any(is_relayed) {
            Self::Relayed
        } else {
            Self::Direct
        }
    }
}

fn is_relayed(member: &MemberView) -> bool {
    member
        .path
        .as_ref()
        .is_some_and(|path| matches!(path.kind, PathKind::Relay | PathKind::MemberRelay | PathKind::Overlay))
}

/// What a click in the menu does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Show the window.
    Open,
    /// Show a party in the window.
    Show(PartyId),
    /// Switch all parties on.
    Connect,
    /// Switch all parties off.
    Disconnect,
    /// Create an invite and copy its link.
    CopyInvite(PartyId),
    /// End the app.
    Quit,
}

/// A line of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Text.
    Text(String),
    /// An item that can be clicked.
    Click(Action, String),
    /// A submenu.
    Menu(String, Vec<Line>),
    /// A separator.
    Rule,
}

/// The largest number of members in a party's submenu.
const MAX_MENU_MEMBERS: usize = 20;

/// Returns the menu for a state.
pub fn menu(state: State, snapshot: Option<&Snapshot>, words: &Words) -> Vec<Line> {
    let parties = snapshot.map_or(&[][..], |snapshot| &snapshot.parties);
    let on = parties.iter().any(|party| party.phase != PartyPhase::Down);
    let mut lines = vec![Line::Text(headline(state, words).to_owned())];
    if on {
        lines.push(Line::Click(Action::Disconnect, words.disconnect.to_owned()));
    } else if !parties.is_empty() {
        lines.push(Line::Click(Action::Connect, words.connect.to_owned()));
    }
    lines.push(Line::Rule);
    lines.extend(parties.iter().map(|party| party_menu(party, words)));
    if parties.is_empty() {
        lines.push(Line::Text(words.no_party.to_owned()));
    }
    lines.push(Line::Rule);
    lines.push(Line::Click(Action::Open, words.open.to_owned()));
    lines.push(Line::Click(Action::Quit, words.quit.to_owned()));
    lines
}

const fn headline(state: State, words: &Words) -> &'static str {
    match state {
        State::Off => words.off,
        State::Connecting => words.connecting,
        State::Direct | State::Relayed => words.on,
        State::Trouble => words.trouble,
    }
}

fn party_menu(party: &PartyView, words: &Words) -> Line {
    let friends = party.members.iter().filter(|member| !member.me);
    let mut lines: Vec<_> =
        friends.take(MAX_MENU_MEMBERS).map(|friend| Line::Text(friend_line(friend, words))).collect();
    if !lines.is_empty() {
        lines.push(Line::Rule);
    }
    if party.role != Role::Member {
        lines.push(Line::Click(Action::CopyInvite(party.id), words.copy_invite.to_owned()));
    }
    lines.push(Line::Click(Action::Show(party.id), words.show_party.to_owned()));
    Line::Menu(label(&party.name), lines)
}

fn friend_line(friend: &MemberView, words: &Words) -> String {
    let how = match (&friend.path, friend.quality.rtt_ms) {
        (Some(_), Some(rtt)) => format!("{} ms", rtt.round().max(1.0)),
        (Some(_), None) if is_relayed(friend) => words.relayed.to_owned(),
        (Some(_), None) => words.direct.to_owned(),
        (None, _) if friend.online => words.connecting.to_owned(),
        (None, _) => words.offline.to_owned(),
    };
    fill("{}  ", &label(&friend.name)) + &how
}

/// Escapes a name for menus, where an ampersand would mark a key.
fn label(name: &str) -> String {
    let letters = name.chars().filter(|letter| !letter.is_control());
    letters.flat_map(|letter| std::iter::repeat_n(letter, if letter == '&' { 2 } else { 1 })).collect()
}

#[cfg(test)]
pub mod tests;
