//! Exports and imports all settings as the text of a file.

use partyline_model::{AppError, Command, ErrorCode, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tauri::{AppHandle, Manager as _};

use crate::{preferences::Preferences, shell::Shell};

/// The format's version.
const VERSION: u32 = 1;

/// The longest text that is parsed, in bytes.
const MAX_FILE_LEN: usize = 256 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    partyline: u32,
    preferences: Value,
    /// The engine's settings without passwords; `None` if there was no engine.
    settings: Option<Settings>,
}

/// Returns all settings as a text.
///
/// # Errors
/// [`ErrorCode::Internal`] if the settings cannot be serialised.
pub fn export(shell: &Shell) -> Result<String, AppError> {
    let preferences = serde_json::to_value(shell.preferences()).map_err(|error| defect(&error))?;
    let settings = shell.engine.snapshot().map(|snapshot| snapshot.settings.clone());
    serde_json::to_string_pretty(&File { partyline: VERSION, preferences, settings })
        .map_err(|error| defect(&error))
}

/// Applies the settings of an exported text.
///
/// # Errors
/// [`ErrorCode::InvalidInput`] if the text is not an export, and the errors of applying it.
pub async fn import(app: &AppHandle, text: &str) -> Result<(), AppError> {
    let file = parse(text)?;
    let preferences = Preferences::from_json(&file.preferences.to_string()).checked()?;
    let shell = app.state::<Shell>();
    if let Some(settings) = file.settings {
        settings.validate()?;
        shell.engine.request(Command::Configure { settings: Box::new(settings) }).await?;
    }
    shell.set_preferences(app, preferences)
}

fn parse(text: &str) -> Result<File, AppError> {
    let file = (text.len() <= MAX_FILE_LEN).then(|| serde_json::from_str::<File>(text).ok()).flatten();
    match file {
        Some(file) if file.partyline == VERSION => Ok(file),
        Some(_) => Err(AppError::new(
            ErrorCode::InvalidInput,
            "These settings were exported by a newer Partyline.",
            "Update Partyline, then import them again.",
        )),
        None => Err(AppError::new(
            ErrorCode::InvalidInput,
            "This file does not contain Partyline settings.",
            "Choose a file that Partyline exported.",
        )),
    }
}

fn defect(error: &serde_json::Error) -> AppError {
    AppError::new(
        ErrorCode::Internal,
        format!("The settings could not be exported: {error}."),
        "Please report it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        for text in ["", "{}", "[1]", r#"{"partyline":1}"#] {
            assert!(parse(text).unwrap_err().message.contains("does not contain"), "{text}");
        }
        assert!(parse(r#"{"partyline":2,"preferences":{}}"#).unwrap_err().message.contains("newer"));
        assert!(parse(r#"{"partyline":1,"preferences":{}}"#).is_ok());
    }
}
