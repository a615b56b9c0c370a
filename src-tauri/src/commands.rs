//! The commands that the user interface may call.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use partyline_engine::Invite;
use partyline_model::{AppError, ClientCommand, ErrorCode, Reply, Snapshot, Timestamp};
use partyline_service::name_programs;
use tauri::{AppHandle, Manager as _};

use crate::{diagnostics, links, preferences::Preferences, shell::Shell, surface::Backing, transfer};

/// Sends a command to the engine and returns its reply.
#[tauri::command]
#[specta::specta]
pub async fn request(app: AppHandle, command: ClientCommand) -> Result<Reply, AppError> {
    let mut reply = app.state::<Shell>().engine.request(command).await?;
    name_programs(&mut reply);
    Ok(reply)
}

/// Returns the engine's state, if there is an engine.
#[tauri::command]
#[specta::specta]
pub fn snapshot(app: AppHandle) -> Option<Snapshot> {
    app.state::<Shell>().engine.snapshot().map(Arc::unwrap_or_clone)
}

/// Returns where the engine runs.
#[tauri::command]
#[specta::specta]
pub fn backing(app: AppHandle) -> Backing {
    app.state::<Shell>().engine.backing()
}

/// Starts the service after the system has asked the user for permission; installs it first if necessary.
#[tauri::command]
#[specta::specta]
pub async fn start_service(app: AppHandle) -> Result<(), AppError> {
    partyline_service::start_with_consent().await?;
    app.state::<Shell>().engine.retry();
    Ok(())
}

/// Returns the invite link that was opened last, and forgets it.
#[tauri::command]
#[specta::specta]
pub fn take_link(app: AppHandle) -> Option<String> {
    app.state::<Shell>().pending_link.take()
}

/// Returns the link of the invite in a text, however it was copied.
#[tauri::command(async)]
#[specta::specta]
pub fn find_invite(text: String) -> Result<String, AppError> {
    Ok(Invite::find(&text)?.app_link())
}

/// Returns the link of the invite on the clipboard, if there is one that is valid and leads to another party than those that
/// this computer is in.
#[tauri::command(async)]
#[specta::specta]
pub fn clipboard_link(app: AppHandle) -> Option<String> {
    let shell = app.state::<Shell>();
    let snapshot = shell.engine.snapshot();
    let parties = snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.parties);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    links::offer(&shell.clipboard.text()?, parties, Timestamp::default().plus(now))
}

/// Writes a text to the clipboard.
#[tauri::command]
#[specta::specta]
pub fn copy_text(app: AppHandle, text: String) -> Result<(), AppError> {
    app.state::<Shell>().clipboard.set(text)
}

/// Returns the preferences of the app itself.
#[tauri::command]
#[specta::specta]
pub fn preferences(app: AppHandle) -> Preferences {
    app.state::<Shell>().preferences()
}

/// Replaces the preferences of the app itself.
#[tauri::command]
#[specta::specta]
pub fn set_preferences(app: AppHandle, preferences: Preferences) -> Result<(), AppError> {
    app.state::<Shell>().set_preferences(&app, preferences.checked()?)
}

/// Opens a web page in the user's browser. The user interface asks for consent first.
#[tauri::command]
#[specta::specta]
pub fn open_external(url: String) -> Result<(), AppError> {
    let web = url.starts_with("https://") || url.starts_with("http://");
    if !web || url.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Err(AppError::new(
            ErrorCode::InvalidInput,
            "Only web pages can be opened.",
            "Copy the address and open it yourself, if you trust it.",
        ));
    }
    open::that_detached(&url).map_err(|error| {
        AppError::new(
            ErrorCode::Internal,
            format!("The browser could not be started: {error}."),
            "Copy the address into your browser.",
        )
    })
}

/// Returns all settings as the text of a file.
#[tauri::command]
#[specta::specta]
pub fn export_settings(app: AppHandle) -> Result<String, AppError> {
    transfer::export(&app.state::<Shell>())
}

/// Applies settings from the text of an exported file.
#[tauri::command]
#[specta::specta]
pub async fn import_settings(app: AppHandle, text: String) -> Result<(), AppError> {
    transfer::import(&app, &text).await
}

/// Returns a report for troubleshooting. It contains addresses and names, but no keys.
#[tauri::command]
#[specta::specta]
pub async fn diagnostics(app: AppHandle) -> String {
    diagnostics::text(&app.state::<Shell>().engine).await
}

/// Returns the system's user name as a suggestion.
#[tauri::command]
#[specta::specta]
pub fn system_name() -> String {
    partyline_service::own_name()
}

/// Ends the app. An engine in this process ends with it; the service keeps running.
#[tauri::command]
#[specta::specta]
pub fn quit(app: AppHandle) {
    crate::shell::quit(&app);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_pages_are_opened() {
        for url in
            ["file:///etc/passwd", "javascript:alert(1)", "partyline://join/x", "https://a b", "", "-x"]
        {
            assert_eq!(open_external(url.into()).unwrap_err().code, ErrorCode::InvalidInput, "{url}");
        }
    }
}
