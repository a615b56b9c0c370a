//! The tray icon and its menu.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use partyline_model::PartyId;
use tauri::{
    AppHandle,
    image::Image,
    menu::{IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu},
    tray::{MouseButton, MouseButtonState, TrayIcon, TrayIconBuilder, TrayIconEvent},
};

use super::{Action, Line, State};

/// The tray icon, and what it shows.
pub struct Tray {
    icon: TrayIcon,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    state: Option<State>,
    lines: Vec<Line>,
    entries: Vec<Entry>,
}

/// An item whose text can change.
enum Entry {
    Item(MenuItem<tauri::Wry>),
    Menu(Submenu<tauri::Wry>),
}

impl Tray {
    /// Creates a tray icon whose clicks go to `act`; returns `None` if the system has no tray.
    pub fn new(app: &AppHandle, act: fn(&AppHandle, Action)) -> Option<Self> {
        let build = || {
            TrayIconBuilder::with_id("state")
                .icon(picture(State::Off)?)
                .tooltip("Partyline")
                .show_menu_on_left_click(cfg!(target_os = "macos"))
                .on_menu_event(move |app, event| {
                    if let Some(action) = Action::from_id(event.id().as_ref()) {
                        act(app, action);
                    }
                })
                .on_tray_icon_event(move |tray, event| {
                    let released = matches!(
                        event,
                        TrayIconEvent::Click {
                            button: MouseButton::Left,
                            button_state: MouseButtonState::Up,
                            ..
                        }
                    );
                    if released && !cfg!(target_os = "macos") {
                        act(tray.app_handle(), Action::Open);
                    }
                })
                .build(app)
        };
        // The builder panics without the indicator library, which is loaded on first use.
        match catch_unwind(AssertUnwindSafe(build)) {
            Ok(Ok(icon)) => Some(Self { icon, shown: Mutex::default() }),
            Ok(Err(error)) => {
                tracing::warn!(%error, "no tray");
                None
            }
            Err(_) => {
                tracing::warn!("no tray: the system lacks the indicator library");
                None
            }
        }
    }

    /// Shows a state. Must be called on the main thread.
    ///
    /// # Errors
    /// The system's error.
    pub fn show(&self, app: &AppHandle, state: State, lines: Vec<Line>) -> tauri::Result<()> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.state != Some(state) {
            self.icon.set_icon(Some(picture(state)?))?;
            shown.state = Some(state);
        }
        if shown.lines == lines {
            return Ok(());
        }
        // An open menu stays open while only its texts change.
        if same_shape(&shown.lines, &lines) {
            let (mut before, mut now) = (Vec::new(), Vec::new());
            texts(&shown.lines, &mut before);
            texts(&lines, &mut now);
            for ((entry, before), now) in shown.entries.iter().zip(before).zip(now) {
                if before != now {
                    entry.set_text(now)?;
                }
            }
        } else {
            let mut entries = Vec::new();
            let items = items(app, &lines, &mut entries)?;
            let menu = Menu::with_items(app, &references(&items))?;
            self.icon.set_menu(Some(menu))?;
            shown.entries = entries;
        }
        shown.lines = lines;
        Ok(())
    }
}

impl Entry {
    fn set_text(&self, text: &str) -> tauri::Result<()> {
        match self {
            Self::Item(item) => item.set_text(text),
            Self::Menu(menu) => menu.set_text(text),
        }
    }
}

type Item = Box<dyn IsMenuItem<tauri::Wry>>;

fn references(items: &[Item]) -> Vec<&dyn IsMenuItem<tauri::Wry>> {
    items.iter().map(AsRef::as_ref).collect()
}

/// Creates items for lines; those with a text are also added to `entries`, in order.
fn items(app: &AppHandle, lines: &[Line], entries: &mut Vec<Entry>) -> tauri::Result<Vec<Item>> {
    let mut made: Vec<Item> = Vec::new();
    for line in lines {
        let item = |entries: &mut Vec<Entry>, item: MenuItem<tauri::Wry>| -> Item {
            entries.push(Entry::Item(item.clone()));
            Box::new(item)
        };
        made.push(match line {
            Line::Rule => Box::new(PredefinedMenuItem::separator(app)?),
            Line::Text(text) => item(entries, MenuItem::new(app, text, false, None::<&str>)?),
            Line::Click(action, text) => {
                item(entries, MenuItem::with_id(app, action.id(), text, true, None::<&str>)?)
            }
            Line::Menu(text, lines) => {
                let at = entries.len();
                let inside = items(app, lines, entries)?;
                let menu = Submenu::with_items(app, text, true, &references(&inside))?;
                entries.insert(at, Entry::Menu(menu.clone()));
                Box::new(menu)
            }
        });
    }
    Ok(made)
}

/// Returns true if two menus differ only in their texts.
fn same_shape(one: &[Line], other: &[Line]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Line::Rule, Line::Rule) | (Line::Text(_), Line::Text(_)) => true,
            (Line::Click(one, _), Line::Click(other, _)) => one == other,
            (Line::Menu(_, one), Line::Menu(_, other)) => same_shape(one, other),
            _ => false,
        })
}

fn texts<'a>(lines: &'a [Line], found: &mut Vec<&'a str>) {
    for line in lines {
        match line {
            Line::Rule => {}
            Line::Text(text) | Line::Click(_, text) => found.push(text),
            Line::Menu(text, lines) => {
                found.push(text);
                texts(lines, found);
            }
        }
    }
}

impl Action {
    fn id(self) -> String {
        match self {
            Self::Open => "open".into(),
            Self::Connect => "connect".into(),
            Self::Disconnect => "disconnect".into(),
            Self::Quit => "quit".into(),
            Self::Show(party) => format!("show:{party}"),
            Self::CopyInvite(party) => format!("invite:{party}"),
        }
    }

    fn from_id(id: &str) -> Option<Self> {
        let party = |text: &str| text.parse::<PartyId>().ok();
        match id.split_once(':') {
            Some(("show", id)) => party(id).map(Self::Show),
            Some(("invite", id)) => party(id).map(Self::CopyInvite),
            Some(_) => None,
            None => [Self::Open, Self::Connect, Self::Disconnect, Self::Quit]
                .into_iter()
                .find(|action| action.id() == id),
        }
    }
}

fn picture(state: State) -> tauri::Result<Image<'static>> {
    let bytes: &[u8] = match state {
        State::Off => include_bytes!("../../../icons/tray/off.png"),
        State::Connecting => include_bytes!("../../../icons/tray/connecting.png"),
        State::Direct => include_bytes!("../../../icons/tray/direct.png"),
        State::Relayed => include_bytes!("../../../icons/tray/relayed.png"),
        State::Trouble => include_bytes!("../../../icons/tray/trouble.png"),
    };
    Image::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_ids_round_trip() {
        let party = PartyId([3; 32]);
        let all = [
            Action::Open,
            Action::Connect,
            Action::Disconnect,
            Action::Quit,
            Action::Show(party),
            Action::CopyInvite(party),
        ];
        for action in all {
            assert_eq!(Action::from_id(&action.id()), Some(action));
        }
        for other in ["", "x", "show:", "show:12", "kick:00"] {
            assert_eq!(Action::from_id(other), None);
        }
    }

    #[test]
    fn changed_texts_keep_the_shape() {
        let menu = |ping: &str| vec![Line::Menu("p".into(), vec![Line::Text(ping.into())]), Line::Rule];
        assert!(same_shape(&menu("1 ms"), &menu("2 ms")));
        assert!(!same_shape(&menu("1 ms"), &[Line::Rule]));
        assert!(!same_shape(
            &[Line::Click(Action::Connect, "x".into())],
            &[Line::Click(Action::Quit, "x".into())]
        ));
    }

    #[test]
    fn every_state_has_an_icon() {
        for state in [State::Off, State::Connecting, State::Direct, State::Relayed, State::Trouble] {
            assert_eq!(picture(state).unwrap().width(), 64);
        }
    }
}
