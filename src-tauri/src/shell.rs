//! Joins the engine with the window, the tray and the notifications.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use clap::Parser as _;
use partyline_model::{AppError, Command, InviteTerms, PartyId, PartyPhase, Reply, Snapshot};
use partyline_service::interrupted;
use partyline_telemetry::Logging;
use tauri::{App, AppHandle, Manager as _, RunEvent, async_runtime::spawn};
use tauri_plugin_window_state::StateFlags;

use crate::{
    announce::{self, Announcement},
    arguments::Arguments,
    autostart, bindings,
    clipboard::Clipboard,
    display,
    engine::{Change, Engine},
    links::PendingLink,
    preferences::{Preferences, Store},
    surface::{BackingChanged, BackingKind, LinkArrived, Navigate, Route, SnapshotChanged},
    tray::{self, Action, Tray},
    window,
    words::{self, Words},
};

/// The state that all parts of the app share.
pub struct Shell {
    pub engine: Engine,
    pub pending_link: PendingLink,
    pub clipboard: Clipboard,
    store: Store,
    preferences: Mutex<Preferences>,
    /// None where the system has none.
    tray: OnceLock<Option<Tray>>,
}

/// Runs the app until the user quits.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let _log = Logging::verbosity(arguments.verbose).start().ok();
    if cfg!(no_ui) {
        eprintln!(
            "This Partyline was built without its user interface. Build and start it with `cargo xtask run`."
        );
        return ExitCode::FAILURE;
    }
    if let Err(message) = display::open() {
        eprintln!("{message}");
        return ExitCode::from(display::NO_DISPLAY);
    }
    match build(arguments) {
        Ok(app) => {
            app.run(on_event);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Partyline's window cannot be opened: {error}.");
            ExitCode::FAILURE
        }
    }
}

fn build(arguments: Arguments) -> tauri::Result<App> {
    let surface = bindings::builder();
    let builder = tauri::Builder::default()
        // First, so that a second instance only hands over its link.
        .plugin(tauri_plugin_single_instance::init(|app, words, _| second_start(app, &words)))
        .plugin(
            tauri_plugin_window_state::Builder::default()
                .with_state_flags(StateFlags::SIZE | StateFlags::POSITION | StateFlags::MAXIMIZED)
                .build(),
        )
        .plugin(tauri_plugin_deep_link::init());
    #[cfg(not(target_os = "linux"))]
    let builder = builder.plugin(autostart::plugin());
    builder
        .invoke_handler(surface.invoke_handler())
        .on_window_event(window::on_event)
        .setup(move |app| {
            surface.mount_events(app);
            set_up(app.handle(), arguments)?;
            Ok(())
        })
        .build(tauri::generate_context!())
}

fn set_up(app: &AppHandle, arguments: Arguments) -> tauri::Result<()> {
    let store = Store::in_dir(&app.path().app_config_dir()?);
    let preferences = store.load();
    let hidden = arguments.minimised && preferences.start_minimised;
    let theme = preferences.theme;
    let shell = Shell {
        engine: Engine::default(),
        pending_link: PendingLink::default(),
        clipboard: Clipboard::default(),
        store,
        preferences: Mutex::new(preferences),
        tray: OnceLock::new(),
    };
    let links = || arguments.links.iter().map(String::as_str);
    shell.pending_link.keep(links());
    // Not before a second copy has handed them over, which reads the command line again.
    partyline_platform::hide_arguments(links());
    app.manage(shell);
    // First: the user waits for it, and its page starts in a process of its own meanwhile.
    window::create(app, theme, hidden)?;
    app.state::<Shell>().tray.get_or_init(|| Tray::new(app, on_tray_action));
    listen_to_links(app);
    spawn(follow_engine(app.clone(), arguments));
    spawn(quit_on_signal(app.clone()));
    Ok(())
}

/// Forwards the engine's changes to window, tray and notifications.
async fn follow_engine(app: AppHandle, arguments: Arguments) {
    let shell = app.state::<Shell>();
    shell.show_tray(&app);
    let mut before: Option<Arc<Snapshot>> = None;
    let notify = |change| match change {
        Change::Snapshot(now) => {
            shell.announce(&app, before.as_deref(), &now);
            if before.as_deref() != Some(&*now) && window::is_visible(&app) {
                emit(SnapshotChanged((*now).clone()), &app);
            }
            before = Some(now);
            shell.show_tray(&app);
        }
        Change::Backing(backing) => {
            let wanted = shell.preferences();
            if backing.kind == BackingKind::None && before.take().is_some() && wanted.notifications.connection
            {
                shell.notify(&app, "Partyline", shell.words().engine_gone);
            }
            emit(BackingChanged(backing), &app);
            shell.show_tray(&app);
        }
    };
    shell.engine.run(&arguments.place, &arguments.settings, notify).await;
}

fn emit(event: impl tauri_specta::Event + serde::Serialize + Clone, app: &AppHandle) {
    if let Err(error) = event.emit(app) {
        tracing::warn!(%error, "the event did not reach the window");
    }
}

impl Shell {
    /// Returns the preferences of the app itself.
    pub fn preferences(&self) -> Preferences {
        self.lock_preferences().clone()
    }

    /// Stores new preferences and applies them.
    ///
    /// # Errors
    /// `ErrorCode::Storage` if they cannot be stored; nothing has changed then.
    pub fn set_preferences(&self, app: &AppHandle, preferences: Preferences) -> Result<(), AppError> {
        let before = self.preferences();
        if before.autostart != preferences.autostart {
            autostart::set(app, preferences.autostart)?;
        }
        self.store.save(&preferences)?;
        if let (true, Some(window)) =
            (before.theme != preferences.theme, app.get_webview_window(window::LABEL))
            && let Err(error) = window.set_theme(window::shade(preferences.theme))
        {
            tracing::debug!(%error, "the theme of the window's frame cannot be changed");
        }
        *self.lock_preferences() = preferences;
        self.show_tray(app);
        Ok(())
    }

    /// Returns true if a panel shows our tray icon.
    pub fn has_tray(&self) -> bool {
        self.tray().is_some() && tray::is_shown()
    }

    fn tray(&self) -> Option<&Tray> {
        self.tray.get()?.as_ref()
    }

    /// Sends the newest state to the window, which gets none while it is hidden.
    pub fn refresh(&self, app: &AppHandle) {
        if let Some(snapshot) = self.engine.snapshot() {
            emit(SnapshotChanged(Arc::unwrap_or_clone(snapshot)), app);
        }
    }

    fn lock_preferences(&self) -> MutexGuard<'_, Preferences> {
        self.preferences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn words(&self) -> &'static Words {
        words::of(self.lock_preferences().language)
    }

    fn announce(&self, app: &AppHandle, before: Option<&Snapshot>, now: &Snapshot) {
        let Some(before) = before else { return };
        let wanted = self.preferences().notifications;
        for Announcement { title, body } in announce::between(before, now, wanted, self.words()) {
            self.notify(app, &title, &body);
        }
    }

    fn notify(&self, app: &AppHandle, title: &str, body: &str) {
        if !window::is_focused(app) {
            announce::show(Announcement { title: title.to_owned(), body: body.to_owned() });
        }
    }

    fn show_tray(&self, app: &AppHandle) {
        if self.tray().is_none() {
            return;
        }
        let snapshot = self.engine.snapshot();
        let state = tray::State::of(&self.engine.backing(), snapshot.as_deref());
        let lines = tray::menu(state, snapshot.as_deref(), self.words());
        let handle = app.clone();
        let shown = app.run_on_main_thread(move || {
            let shell = handle.state::<Self>();
            if let Some(Err(error)) = shell.tray().map(|tray| tray.show(&handle, state, lines)) {
                tracing::warn!(%error, "the tray cannot be changed");
            }
        });
        if let Err(error) = shown {
            tracing::debug!(%error, "the app is ending");
        }
    }
}

/// Carries out a click in the tray's menu.
fn on_tray_action(app: &AppHandle, action: Action) {
    match action {
        Action::Open => window::show(app),
        Action::Show(party) => {
            emit(Navigate(Route::Party { party }), app);
            window::show(app);
        }
        Action::Connect => switch(app, |party| Command::Up { party }),
        Action::Disconnect => switch(app, |party| Command::Down { party }),
        Action::CopyInvite(party) => drop(spawn(copy_invite(app.clone(), party))),
        Action::Quit => quit(app),
    }
}

fn switch(app: &AppHandle, command: fn(PartyId) -> Command) {
    let app = app.clone();
    spawn(async move {
        let shell = app.state::<Shell>();
        let Some(snapshot) = shell.engine.snapshot() else { return };
        let to_down = matches!(command(PartyId([0; 32])), Command::Down { .. });
        for party in snapshot.parties.iter().filter(|party| (party.phase != PartyPhase::Down) == to_down) {
            if let Err(error) = shell.engine.request(command(party.id)).await {
                shell.notify(&app, &party.name, &error.message);
            }
        }
    });
}

async fn copy_invite(app: AppHandle, party: PartyId) {
    let shell = app.state::<Shell>();
    let command = Command::Invite { party, terms: InviteTerms::FRIENDS };
    let copied = match shell.engine.request(command).await {
        Ok(Reply::Invite { link }) => shell.clipboard.set(link),
        Ok(_) => return,
        Err(error) => Err(error),
    };
    match copied {
        Ok(()) => shell.notify(&app, "Partyline", shell.words().invite_copied),
        Err(error) => shell.notify(&app, "Partyline", &error.message),
    }
}

/// Reacts to a second start of the app, with or without a link.
fn second_start(app: &AppHandle, words: &[String]) {
    on_links(app, words.iter().skip(1).map(String::as_str));
    window::show(app);
}

fn on_links<'a>(app: &AppHandle, words: impl IntoIterator<Item = &'a str>) {
    if let Some(link) = app.state::<Shell>().pending_link.keep(words) {
        emit(LinkArrived(link), app);
    }
}

/// Registers for the event by which macOS delivers links.
fn listen_to_links(app: &AppHandle) {
    use tauri_plugin_deep_link::DeepLinkExt as _;
    let handle = app.clone();
    app.deep_link().on_open_url(move |event| {
        let links: Vec<_> = event.urls().iter().map(ToString::to_string).collect();
        on_links(&handle, links.iter().map(String::as_str));
        window::show(&handle);
    });
}

/// Ends the app after stopping an engine in this process.
pub fn quit(app: &AppHandle) {
    let app = app.clone();
    spawn(async move {
        if let Some(window) = app.get_webview_window(window::LABEL) {
            // Stopping may take seconds.
            let _ = window.hide();
        }
        app.state::<Shell>().engine.stop().await;
        app.exit(0);
    });
}

async fn quit_on_signal(app: AppHandle) {
    match interrupted().await {
        Ok(()) => quit(&app),
        Err(error) => tracing::warn!(%error, "signals cannot be received"),
    }
}

fn on_event(app: &AppHandle, event: RunEvent) {
    match event {
        // The last window was closed: stop the engine before exiting.
        RunEvent::ExitRequested { code: None, api, .. } => {
            api.prevent_exit();
            quit(app);
        }
        #[cfg(target_os = "macos")]
        RunEvent::Reopen { .. } => window::show(app),
        _ => {}
    }
}
