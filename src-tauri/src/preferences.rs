//! Preferences of the app itself, apart from the engine's settings.

use std::path::{Path, PathBuf};

use partyline_model::{AppError, ErrorCode};
use partyline_platform::{read, replace};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the app looks and behaves on this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, specta::Type)]
pub struct Preferences {
    /// The colour theme.
    pub theme: Theme,
    /// The language of the user interface.
    pub language: Language,
    /// Whether the app starts when the user logs in.
    pub autostart: bool,
    /// Whether it starts without its window then.
    pub start_minimised: bool,
    /// Whether closing the window keeps the app in the tray, if there is one.
    pub close_to_tray: bool,
    /// The notifications shown while the window has no focus.
    pub notifications: Notifications,
    /// The names of hints that were dismissed; at most 64 of at most 64 bytes.
    pub hints_seen: Vec<String>,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            theme: Theme::default(),
            language: Language::default(),
            autostart: false,
            start_minimised: false,
            close_to_tray: true,
            notifications: Notifications::default(),
            hints_seen: Vec::new(),
        }
    }
}

/// The colour theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, specta::Type)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// The system's.
    #[default]
    System,
    /// Dark text on light.
    Light,
    /// Light text on dark.
    Dark,
}

/// The language of the user interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, specta::Type)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// The system's.
    #[default]
    System,
    /// English.
    En,
    /// German.
    De,
    /// Chinese.
    Zh,
}

/// Notifications while the window has no focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, specta::Type)]
pub struct Notifications {
    /// A member joined.
    pub joins: bool,
    /// A connection was lost or came back.
    pub connection: bool,
}

impl Default for Notifications {
    fn default() -> Self {
        Self { joins: true, connection: true }
    }
}

/// The largest number of dismissed hints.
const MAX_HINTS: usize = 64;
/// The longest name of a hint, in bytes.
const MAX_HINT_LEN: usize = 64;

impl Preferences {
    /// Reads preferences from JSON. Missing and invalid fields keep their defaults.
    pub fn from_json(text: &str) -> Self {
        let defaults = Self::default();
        let Ok(Value::Object(given)) = serde_json::from_str(text) else { return defaults };
        let Ok(Value::Object(mut fields)) = serde_json::to_value(&defaults) else { return defaults };
        for (name, value) in given {
            let before = fields.insert(name.clone(), value);
            if serde_json::from_value::<Self>(Value::Object(fields.clone())).is_err() {
                before.map(|before| fields.insert(name, before));
            }
        }
        serde_json::from_value(Value::Object(fields)).unwrap_or(defaults)
    }

    /// Returns the preferences if their lists are within their limits.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidInput`] otherwise.
    pub fn checked(self) -> Result<Self, AppError> {
        if self.hints_seen.len() <= MAX_HINTS && self.hints_seen.iter().all(|hint| hint.len() <= MAX_HINT_LEN)
        {
            return Ok(self);
        }
        Err(AppError::new(
            ErrorCode::InvalidInput,
            "There are too many hints in these preferences.",
            "Import a file that Partyline exported.",
        ))
    }
}

/// The file that holds the preferences.
#[derive(Debug)]
pub struct Store(PathBuf);

impl Store {
    /// Returns the store in a directory, which is created when needed.
    pub fn in_dir(directory: &Path) -> Self {
        Self(directory.join("preferences.json"))
    }

    /// Returns what was saved last, or the defaults if the file is missing or damaged.
    pub fn load(&self) -> Preferences {
        match read(&self.0) {
            Ok(Some(bytes)) => Preferences::from_json(&String::from_utf8_lossy(&bytes)),
            Ok(None) => Preferences::default(),
            Err(error) => {
                tracing::warn!(%error, "preferences cannot be read");
                Preferences::default()
            }
        }
    }

    /// Saves preferences atomically.
    ///
    /// # Errors
    /// [`ErrorCode::Storage`] if the file cannot be written.
    pub fn save(&self, preferences: &Preferences) -> Result<(), AppError> {
        let text = serde_json::to_vec_pretty(preferences).map_err(|error| cannot_save(&error))?;
        if let Some(directory) = self.0.parent() {
            std::fs::create_dir_all(directory).map_err(|error| cannot_save(&error))?;
        }
        replace(&self.0, &text).map_err(AppError::from)
    }
}

fn cannot_save(error: &dyn std::fmt::Display) -> AppError {
    AppError::new(
        ErrorCode::Storage,
        format!("The preferences could not be saved: {error}."),
        "Check whether the disk is full.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_preferences_are_loaded() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::in_dir(&home.path().join("config"));
        assert_eq!(store.load(), Preferences::default());
        let chosen =
            Preferences { theme: Theme::Dark, hints_seen: vec!["invite".into()], ..Preferences::default() };
        store.save(&chosen).unwrap();
        assert_eq!(store.load(), chosen);
    }

    #[test]
    fn damaged_fields_keep_their_defaults() {
        let read =
            Preferences::from_json(r#"{"theme":"pink","language":"de","close_to_tray":false,"future":1}"#);
        let expected = Preferences { language: Language::De, close_to_tray: false, ..Preferences::default() };
        assert_eq!(read, expected);
        assert_eq!(Preferences::from_json("{"), Preferences::default());
    }

    #[test]
    fn unwritable_directory_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        let error = Store::in_dir(&home.path().join("file")).save(&Preferences::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Storage);
    }

    #[test]
    fn oversized_lists_are_refused() {
        let many = Preferences { hints_seen: vec!["x".into(); 65], ..Preferences::default() };
        assert_eq!(many.checked().unwrap_err().code, ErrorCode::InvalidInput);
    }
}
