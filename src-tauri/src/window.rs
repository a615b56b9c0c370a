//! The window: created once, then shown and hidden.

use tauri::{
    AppHandle, Manager as _, Theme as Shade, WebviewUrl, WebviewWindow, WebviewWindowBuilder, Window,
    WindowEvent,
    utils::config::Color,
    webview::{NewWindowResponse, PageLoadEvent},
};

#[cfg(target_os = "linux")]
use crate::graphics;
use crate::{
    preferences::Theme,
    shell::{self, Shell},
    surface::BackingKind,
};

/// The label of the only window.
pub const LABEL: &str = "main";

const SIZE: (f64, f64) = (1120.0, 760.0);
const MIN_SIZE: (f64, f64) = (720.0, 480.0);

/// Creates the window. Unless `hidden`, it is shown when its page begins to load: not later, because a hidden page is not
/// painted, and not sooner, because a page that is rendered in software crashes then.
///
/// # Errors
/// The system's error.
pub fn create(app: &AppHandle, theme: Theme, hidden: bool) -> tauri::Result<WebviewWindow> {
    let window = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App("index.html".into()))
        .title("Partyline")
        .inner_size(SIZE.0, SIZE.1)
        .min_inner_size(MIN_SIZE.0, MIN_SIZE.1)
        .visible(false)
        .theme(shade(theme))
        // Visible until the page has painted.
        .background_color(canvas(theme))
        .initialization_script(paint(theme))
        .disable_drag_drop_handler()
        .on_page_load(move |window, load| {
            let app = window.app_handle();
            // Without a tray icon a hidden window could not be shown again.
            if load.event() == PageLoadEvent::Started && !(hidden && app.state::<Shell>().has_tray()) {
                show(app);
            }
        })
        .on_navigation(|url| is_own(url.as_str()))
        .on_new_window(|_, _| NewWindowResponse::Deny)
        .build()?;
    if theme == Theme::System && window.theme()? == Shade::Light {
        window.set_background_color(Some(canvas(Theme::Light)))?;
    }
    #[cfg(target_os = "linux")]
    graphics::configure(&window)?;
    Ok(window)
}

/// The background colour of the page (`ui/src/styles/tokens.css`).
const fn canvas(theme: Theme) -> Color {
    match theme {
        Theme::Light => Color(0xf5, 0xf7, 0xf7, 255),
        Theme::Dark | Theme::System => Color(0x10, 0x16, 0x1b, 255),
    }
}

/// A script that sets the theme before the page has asked for the preferences.
fn paint(theme: Theme) -> String {
    let light = match theme {
        Theme::Light => "true",
        Theme::Dark => "false",
        Theme::System => "matchMedia('(prefers-color-scheme: light)').matches",
    };
    format!("document.documentElement.dataset.theme = {light} ? 'light' : 'dark'")
}

/// Returns true for the app's own pages; no others are loaded.
fn is_own(url: &str) -> bool {
    ["tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"]
        .iter()
        .any(|own| url.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Brings the window to the front.
pub fn show(app: &AppHandle) {
    let Some(window) = app.get_webview_window(LABEL) else { return };
    let shown = window.show().and_then(|()| window.unminimize()).and_then(|()| window.set_focus());
    if let Err(error) = shown {
        tracing::warn!(%error, "the window cannot be shown");
    }
    app.state::<Shell>().refresh(app);
}

/// Returns true if the window is visible.
pub fn is_visible(app: &AppHandle) -> bool {
    app.get_webview_window(LABEL).is_some_and(|window| window.is_visible().unwrap_or(true))
}

/// Returns true if the window has the focus.
pub fn is_focused(app: &AppHandle) -> bool {
    app.get_webview_window(LABEL).is_some_and(|window| window.is_focused().unwrap_or(false))
}

/// Colours as chosen; `None` follows the system.
pub const fn shade(theme: Theme) -> Option<Shade> {
    match theme {
        Theme::System => None,
        Theme::Light => Some(Shade::Light),
        Theme::Dark => Some(Shade::Dark),
    }
}

/// Closing the window keeps the connections where that is possible.
pub fn on_event(window: &Window, event: &WindowEvent) {
    let WindowEvent::CloseRequested { api, .. } = event else { return };
    api.prevent_close();
    let app = window.app_handle();
    let shell = app.state::<Shell>();
    let done =
        match after_close(shell.has_tray(), shell.preferences().close_to_tray, shell.engine.backing().kind) {
            AfterClose::Hide => window.hide(),
            AfterClose::Minimise => window.minimize(),
            AfterClose::Quit => {
                shell::quit(app);
                Ok(())
            }
        };
    if let Err(error) = done {
        tracing::warn!(%error, "the window cannot be hidden or minimised");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum AfterClose {
    Hide,
    Minimise,
    Quit,
}

/// Decides what closing the window does. Without a tray, a hidden window could not be shown again; quitting would end an engine
/// in this process.
const fn after_close(tray: bool, wanted: bool, engine: BackingKind) -> AfterClose {
    match (tray && wanted, engine) {
        (true, _) => AfterClose::Hide,
        (false, BackingKind::Embedded) if wanted => AfterClose::Minimise,
        (false, _) => AfterClose::Quit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_never_hides_a_window_for_good_or_ends_an_embedded_engine() {
        assert_eq!(after_close(true, true, BackingKind::Embedded), AfterClose::Hide);
        assert_eq!(after_close(false, true, BackingKind::Embedded), AfterClose::Minimise);
        assert_eq!(after_close(false, true, BackingKind::Service), AfterClose::Quit);
        assert_eq!(after_close(true, false, BackingKind::Embedded), AfterClose::Quit);
    }

    #[test]
    fn only_own_pages_are_loaded() {
        assert!(is_own("tauri://localhost") && is_own("tauri://localhost/index.html"));
        assert!(is_own("http://tauri.localhost/"));
        for other in ["https://example.org", "tauri://localhost.evil.example/", "file:///", "about:blank"] {
            assert!(!is_own(other), "{other}");
        }
    }
}
