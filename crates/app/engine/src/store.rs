//! The state file: written at once before a command that changed it is answered, else at most once a second.
//!
//! The contents before the last write are kept beside it. If the file is found damaged, that copy takes its place, and
//! the damaged file is put aside.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use partyline_model::{AppError, ErrorCode};
use partyline_platform::{StorageError, keep, read, rename, replace_and_keep};

use crate::metrics::{self, NODE_STATE_WRITES};

const FILE: &str = "state.json";
/// What the file contained before the last write.
const COPY: &str = "state.json.last";
/// A file that was damaged, kept for people who want to look into it.
const DAMAGED: &str = "state.json.damaged";
/// The shortest time between two writes that no command waits for.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a failed write the next one is tried.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The file that the node's state is kept in, and when it is due to be written.
pub(crate) struct Store {
    path: PathBuf,
    due: Option<Instant>,
    problem: Option<AppError>,
    /// How the state was recovered at the start, if it was damaged.
    recovery: Option<String>,
}

impl Store {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { path: directory.join(FILE), due: None, problem: None, recovery: None }
    }

    /// Reads what was saved last; `None` if nothing ever was.
    pub(crate) fn load(&self) -> Result<Option<Vec<u8>>, StorageError> {
        read(&self.path)
    }

    /// Reads what was saved before that.
    pub(crate) fn load_copy(&self) -> Result<Option<Vec<u8>>, StorageError> {
        read(&self.path.with_file_name(COPY))
    }

    /// Puts a damaged file aside and the copy in its place.
    pub(crate) fn recover(&mut self, reason: &str) -> Result<(), AppError> {
        let aside = self.path.with_file_name(DAMAGED);
        keep(&self.path, &aside)?;
        rename(&self.path.with_file_name(COPY), &self.path)?;
        let recovery = format!(
            "The saved parties were damaged ({reason}) and have been replaced by the copy from before the last change. \
             The damaged file is {}.",
            aside.display()
        );
        tracing::warn!(reason, damaged = %aside.display(), "the saved state was damaged, the last copy is used");
        self.recovery = Some(recovery);
        Ok(())
    }

    /// How the state was recovered at the start, for people, if it was damaged.
    pub(crate) fn recovery(&self) -> Option<&str> {
        self.recovery.as_deref()
    }

    /// True if nothing was ever saved.
    pub(crate) fn is_new(&self) -> Result<bool, AppError> {
        self.load().map(|saved| saved.is_none()).map_err(AppError::from)
    }

    /// The file's path, for messages.
    pub(crate) fn location(&self) -> String {
        self.path.display().to_string()
    }

    /// Notes that the state changed.
    pub(crate) fn mark(&mut self, now: Instant) {
        self.due.get_or_insert(now + WRITE_INTERVAL);
    }

    /// True if the state changed since the last successful write.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.due.is_some()
    }

    /// When to write at the latest.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Why the last write failed, if it did.
    pub(crate) const fn problem(&self) -> Option<&AppError> {
        self.problem.as_ref()
    }

    /// Replaces the file atomically. After a failure, another write is due in five seconds.
    pub(crate) async fn write(&mut self, now: Instant, state: Vec<u8>) -> Result<(), AppError> {
        let (path, copy, bytes) = (self.path.clone(), self.path.with_file_name(COPY), state.len());
        let written = tokio::task::spawn_blocking(move || replace_and_keep(&path, &state, &copy)).await;
        let result = match written {
            Ok(result) => result.map_err(AppError::from),
            Err(_) => Err(AppError::new(
                ErrorCode::Internal,
                "The state could not be written because of a defect.",
                "Please report it with the log.",
            )),
        };
        match &result {
            Ok(()) => tracing::debug!(bytes, "saved the state"),
            Err(error) => {
                let retry_ms = RETRY_INTERVAL.as_millis();
                tracing::error!(%error, retry_ms, "the state could not be saved");
            }
        }
        metrics::increment(&NODE_STATE_WRITES, &[if result.is_ok() { "written" } else { "failed" }]);
        self.due = result.is_err().then(|| now + RETRY_INTERVAL);
        self.problem = result.clone().err();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    async fn a_failed_write_is_remembered_and_due_again_until_one_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let (state, now) = (directory.path().join("state"), Instant::now());
        let mut store = Store::new(&state);
        assert!(store.is_new().unwrap() && store.deadline().is_none());
        store.mark(now);
        store.mark(now + WRITE_INTERVAL);
        assert_eq!(
            store.deadline(),
            Some(now + WRITE_INTERVAL),
            "a second change does not postpone the write"
        );
        let error = store.write(now, b"{}".to_vec()).await.unwrap_err();
        assert_eq!((store.problem(), store.deadline()), (Some(&error), Some(now + RETRY_INTERVAL)));
        std::fs::create_dir(&state).unwrap();
        store.write(now, b"{}".to_vec()).await.unwrap();
        assert!(store.problem().is_none() && !store.is_dirty() && !store.is_new().unwrap());
        assert_eq!(store.load().unwrap().as_deref(), Some(&b"{}"[..]));
    }
}
