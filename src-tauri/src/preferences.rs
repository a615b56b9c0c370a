//! What the user chose for the app itself, apart from the engine's settings.

use std::path::{Path, PathBuf};

use partyline_model::{AppError, ErrorCode};
use partyline_platform::{read, replace};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the app looks and behaves on this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, specta::Type)]
pub struct Preferences {
    /// Colours.
    pub theme: Theme,
    /// Words.
    pub language: Language,
    /// Whether the app starts when the user logs in.
    pub autostart: bool,
    /// Whether it then starts without its window.
    pub start_minimised: bool,
    /// Whether closing the window leaves the app in the tray, where there is one.
    pub close_to_tray: bool,
    /// What is announced while the window is not in front.
    pub notifications: Notifications,
    /// Hints that need not be shown again, by name; at most 64, each at most 64 characters.
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

/// Colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, specta::Type)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// As the system's.
    #[default]
    System,
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// Words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, specta::Type)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// As the system's.
    #[default]
    System,
    /// English.
    En,
    /// German.
    De,
    /// Chinese.
    Zh,
}

/// What is announced while the window is not in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, specta::Type)]
pub struct Notifications {
    /// Somebody joined.
    pub joins: bool,
    /// A connection was lost or came back.
    pub connection: bool,
}

impl Default for Notifications {
    fn default() -> Self {
        Self { joins: true, connection: true }
    }
}

/// Most hints that are remembered, and the length of a hint's name.
const HINTS: (usize, usize) = (64, 64);

impl Preferences {
    /// Those that a text has; what it lacks, or what is no preference, is as by default.
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

    /// The same, if its lists are within their limits.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidInput`].
    pub fn checked(self) -> Result<Self, AppError> {
        let (most, longest) = HINTS;
        if self.hints_seen.len() <= most && self.hints_seen.iter().all(|hint| hint.len() <= longest) {
            return Ok(self);
        }
        Err(AppError::new(
            ErrorCode::InvalidInput,
            "There are too many hints in these preferences.",
            "Import a file that Partyline exported.",
        ))
    }
}

/// Where preferences are kept.
#[derive(Debug)]
pub struct Store(PathBuf);

impl Store {
    /// In a directory, which is made when it is needed.
    pub fn in_dir(directory: &Path) -> Self {
        Self(directory.join("preferences.json"))
    }

    /// What was written last. A file that is missing or broken is no reason not to start.
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

    /// Writes them down, whole or not at all.
    ///
    /// # Errors
    /// [`ErrorCode::Storage`].
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
        "See whether the disk is full.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::in_dir(&home.path().join("config"));
        assert_eq!(store.load(), Preferences::default());
        let chosen =
            Preferences { theme: Theme::Dark, hints_seen: vec!["invite".into()], ..Preferences::default() };
        store.save(&chosen).unwrap();
        assert_eq!(store.load(), chosen);
    }

    #[test]
    fn a_broken_file_loses_only_what_is_broken() {
        let read =
            Preferences::from_json(r#"{"theme":"pink","language":"de","close_to_tray":false,"future":1}"#);
        let expected = Preferences { language: Language::De, close_to_tray: false, ..Preferences::default() };
        assert_eq!(read, expected);
        assert_eq!(Preferences::from_json("{"), Preferences::default());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        let error = Store::in_dir(&home.path().join("file")).save(&Preferences::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Storage);
    }

    #[test]
    fn endless_lists_are_refused() {
        let many = Preferences { hints_seen: vec!["x".into(); 65], ..Preferences::default() };
        assert_eq!(many.checked().unwrap_err().code, ErrorCode::InvalidInput);
    }
}
