//! Allows one engine per state directory: two would conflict over its keys and devices.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use partyline_model::{AppError, ErrorCode};

use crate::{StorageError, sentence};

const LOCK: &str = "engine.lock";
/// A file of its own, because a locked file cannot be read by others on Windows.
const PID: &str = "engine.pid";

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another engine holds the lock.
    #[error("Partyline runs already{}, with the same parties", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// The id of its process, if known.
        pid: Option<u32>,
    },
    /// The lock file cannot be created or locked.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<LockError> for AppError {
    fn from(error: LockError) -> Self {
        let hint = "Use the running one, or stop it first: `partyline service stop`.";
        match error {
            LockError::Held { .. } => {
                Self::new(ErrorCode::AlreadyRunning, sentence(&error.to_string()), hint)
            }
            LockError::Storage(error) => error.into(),
        }
    }
}

/// The lock of an engine, held as long as it runs. The system releases it however the process ends.
#[derive(Debug)]
pub struct EngineLock {
    _file: File,
}

impl EngineLock {
    /// Takes the lock of a state directory.
    ///
    /// # Errors
    /// If another engine holds it, or it cannot be created.
    pub fn acquire(state: &Path) -> Result<Self, LockError> {
        let path = state.join(LOCK);
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|error| StorageError::new("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { pid: holder(state) }),
            Err(TryLockError::Error(error)) => return Err(StorageError::new("lock", &path, error).into()),
        }
        // Only for the error message of a second engine: with a full disk, the engine runs all the same.
        if let Err(error) = crate::replace(&state.join(PID), std::process::id().to_string().as_bytes()) {
            tracing::warn!(reason = %error, "process id could not be recorded");
        }
        tracing::debug!(file = %path.display(), "engine lock taken");
        Ok(Self { _file: file })
    }
}

fn holder(state: &Path) -> Option<u32> {
    let bytes = crate::read(&state.join(PID)).ok()??;
    str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_engine_is_refused_with_the_process_id_of_the_first() {
        let home = tempfile::tempdir().unwrap();
        let first = EngineLock::acquire(home.path()).unwrap();
        let error = EngineLock::acquire(home.path()).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid) } if pid == std::process::id()));
        assert_eq!(AppError::from(error).code, ErrorCode::AlreadyRunning);
        drop(first);
        EngineLock::acquire(home.path()).unwrap();
    }
}
