//! The system's clipboard.

use std::sync::{Mutex, PoisonError};

use arboard::Clipboard as System;
use partyline_model::{AppError, ErrorCode};

/// The clipboard. It stays open because on X11 the owner serves the copied text.
#[derive(Default)]
pub struct Clipboard(Mutex<Option<System>>);

impl Clipboard {
    /// Returns the text, if there is one.
    pub fn text(&self) -> Option<String> {
        self.with(System::get_text).ok()
    }

    /// Writes a text.
    ///
    /// # Errors
    /// There is no clipboard, or another program holds it.
    pub fn set(&self, text: String) -> Result<(), AppError> {
        self.with(|clipboard| clipboard.set_text(text)).map_err(|error| {
            AppError::new(
                ErrorCode::Internal,
                format!("The clipboard cannot be used: {error}."),
                "Select the text and copy it yourself.",
            )
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut System) -> Result<T, arboard::Error>,
    ) -> Result<T, arboard::Error> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let clipboard = match open.take() {
            Some(clipboard) => open.insert(clipboard),
            None => open.insert(System::new()?),
        };
        work(clipboard)
    }
}
