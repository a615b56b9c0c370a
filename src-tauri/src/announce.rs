//! Notifications while the window has no focus: members that joined, devices that ask to join, connections that were lost
//! or came back.

use partyline_model::{PartyPhase, PartyView, Snapshot};

use crate::{
    preferences::Notifications,
    words::{Words, fill},
};

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub title: String,
    pub body: String,
}

/// Returns the notifications for the changes between two states.
pub fn between(before: &Snapshot, now: &Snapshot, wanted: Notifications, words: &Words) -> Vec<Announcement> {
    let mut announcements = Vec::new();
    for party in &now.parties {
        // A party that is new here was just created or joined by the user.
        let Some(old) = before.parties.iter().find(|old| old.id == party.id) else { continue };
        let mut say = |body: String| announcements.push(Announcement { title: plain(&party.name), body });
        if wanted.joins {
            joined(old, party).for_each(|name| say(fill(words.joined, &plain(name))));
            asking(old, party).for_each(|name| say(fill(words.asks, &plain(name))));
        }
        match (old.phase, party.phase) {
            (PartyPhase::Up, PartyPhase::Connecting) if wanted.connection => say(words.lost.to_owned()),
            (PartyPhase::Connecting, PartyPhase::Up) if wanted.connection && was_up(old) => {
                say(words.back.to_owned());
            }
            _ => {}
        }
    }
    announcements
}

fn joined<'a>(before: &'a PartyView, now: &'a PartyView) -> impl Iterator<Item = &'a str> {
    let known = |id| before.members.iter().any(|member| member.id == id);
    now.members
        .iter()
        .filter(move |member| !member.me && !known(member.id))
        .map(|member| member.name.as_str())
}

/// Returns the names of devices that ask the owner to be let in.
fn asking<'a>(before: &'a PartyView, now: &'a PartyView) -> impl Iterator<Item = &'a str> {
    let known = |device| before.join_requests.iter().any(|request| request.device == device);
    now.join_requests
        .iter()
        .filter(move |request| !known(request.device))
        .map(|request| request.name.as_str())
}

/// Returns true if a party that is connecting was connected before; a member has a history then.
fn was_up(party: &PartyView) -> bool {
    party.members.iter().any(|member| !member.history.is_empty())
}

/// Removes line breaks and markup from a name, which was chosen by somebody else.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control() && !matches!(letter, '<' | '>' | '&')).collect()
}

/// Shows a notification; without a notification service it is dropped.
pub fn show(announcement: Announcement) {
    tauri::async_runtime::spawn_blocking(move || {
        let shown = notify_rust::Notification::new()
            .appname("Partyline")
            .icon("app.partyline.desktop")
            .summary(&announcement.title)
            .body(&announcement.body)
            .show();
        if let Err(error) = shown {
            tracing::debug!(%error, "a notification was not shown");
        }
    });
}

#[cfg(test)]
mod tests {
    use partyline_model::{DeviceId, InviteId, JoinRequestView};

    use super::*;
    use crate::{
        preferences::Language,
        tray::tests::{member, party, snapshot},
        words,
    };

    fn said(before: Vec<PartyView>, now: Vec<PartyView>, wanted: Notifications) -> Vec<String> {
        let words = words::of(Language::En);
        between(&snapshot(before), &snapshot(now), wanted, words).into_iter().map(|one| one.body).collect()
    }

    #[test]
    fn joins_are_announced_unless_muted() {
        let before = vec![party(PartyPhase::Up, vec![member(1, None)])];
        let now = vec![party(PartyPhase::Up, vec![member(1, None), member(2, None)])];
        assert_eq!(said(before.clone(), now.clone(), Notifications::default()), ["friend 2 joined"]);
        let muted = Notifications { joins: false, connection: true };
        assert_eq!(said(before, now.clone(), muted), Vec::<String>::new());
        assert_eq!(said(Vec::new(), now, Notifications::default()), Vec::<String>::new());
    }

    #[test]
    fn devices_that_ask_to_join_are_announced_once() {
        let before = vec![party(PartyPhase::Up, Vec::new())];
        let mut now = before.clone();
        now[0].join_requests.push(JoinRequestView {
            device: DeviceId([5; 32]),
            name: "Ben".into(),
            alike: false,
            invite: InviteId([6; 32]),
            declined: false,
        });
        assert_eq!(said(before, now.clone(), Notifications::default()), ["Ben would like to join"]);
        assert_eq!(said(now.clone(), now, Notifications::default()), Vec::<String>::new());
    }

    #[test]
    fn lost_and_restored_connections_are_announced() {
        let up = vec![party(PartyPhase::Up, Vec::new())];
        let connecting = vec![party(PartyPhase::Connecting, Vec::new())];
        assert_eq!(said(up.clone(), connecting.clone(), Notifications::default()).len(), 1);
        // The first connection is no return.
        assert_eq!(said(connecting, up, Notifications::default()).len(), 0);
    }

    #[test]
    fn names_contain_no_markup() {
        assert_eq!(plain("<b>A\nnna&</b>"), "bAnna/b");
    }
}
