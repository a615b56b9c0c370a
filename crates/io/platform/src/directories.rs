//! The directories of the service.
//!
//! | | Linux | macOS | Windows |
//! |---|---|---|---|
//! | state | /var/lib/partyline | /Library/Application Support/Partyline | %ProgramData%\Partyline |
//! | runtime | /run/partyline | /var/run/partyline | %ProgramData%\Partyline\run |
//! | log | /var/log/partyline | /Library/Logs/Partyline | %ProgramData%\Partyline\log |
//! | config | /etc/partyline | /Library/Application Support/Partyline | %ProgramData%\Partyline |
//!
//! `PARTYLINE_STATE_DIR` and `PARTYLINE_RUNTIME_DIR` override the first two, for tests and for containers; with a state
//! directory given, logs and configuration live below it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use crate::StorageError;

/// The directories of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Keys and parties; readable by the service alone.
    pub state: PathBuf,
    /// The local socket, and files without use after a restart.
    pub runtime: PathBuf,
    /// Log files.
    pub log: PathBuf,
    /// Settings that an administrator may write.
    pub config: PathBuf,
}

impl Directories {
    /// Returns the directories of the system service, as overridden by the environment.
    #[must_use]
    pub fn system() -> Self {
        let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self::choose(given("PARTYLINE_STATE_DIR"), given("PARTYLINE_RUNTIME_DIR"))
    }

    fn choose(state: Option<PathBuf>, runtime: Option<PathBuf>) -> Self {
        let mut directories = Self::defaults();
        if let Some(state) = state {
            directories = Self {
                runtime: state.join("run"),
                log: state.join("log"),
                config: state.join("config"),
                state,
            };
        }
        Self { runtime: runtime.unwrap_or(directories.runtime), ..directories }
    }

    #[cfg(target_os = "linux")]
    fn defaults() -> Self {
        Self {
            state: "/var/lib/partyline".into(),
            runtime: "/run/partyline".into(),
            log: "/var/log/partyline".into(),
            config: "/etc/partyline".into(),
        }
    }

    #[cfg(target_os = "macos")]
    fn defaults() -> Self {
        let support = PathBuf::from("/Library/Application Support/Partyline");
        Self {
            config: support.clone(),
            state: support,
            runtime: "/var/run/partyline".into(),
            log: "/Library/Logs/Partyline".into(),
        }
    }

    #[cfg(windows)]
    fn defaults() -> Self {
        let data = env::var_os("ProgramData").map_or_else(|| PathBuf::from(r"C:\ProgramData"), PathBuf::from);
        let state = data.join("Partyline");
        Self { config: state.clone(), runtime: state.join("run"), log: state.join("log"), state }
    }

    /// Creates the directories that the engine writes to: state and logs for the owner alone, runtime searchable by all,
    /// since clients connect there. Existing directories are left as they are.
    ///
    /// # Errors
    /// If a directory cannot be created; the error contains its path.
    pub fn create(&self) -> Result<(), StorageError> {
        for (path, mode) in [(&self.state, 0o700), (&self.runtime, 0o755), (&self.log, 0o750)] {
            create_directory(path, mode)
                .map_err(|error| StorageError::new("make the directory", path, error))?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    // The mode above is reduced by the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    tracing::debug!(directory = %path.display(), mode = format_args!("{mode:o}"), "directory created");
    Ok(())
}

#[cfg(not(unix))]
fn create_directory(path: &Path, _mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_overrides_the_defaults() {
        let plain = Directories::choose(None, None);
        assert_eq!(plain, Directories::defaults());
        let moved = Directories::choose(Some("/a".into()), None);
        assert_eq!((moved.state, moved.runtime), ("/a".into(), PathBuf::from("/a").join("run")));
        let both = Directories::choose(Some("/a".into()), Some("/b".into()));
        assert_eq!(both.runtime, PathBuf::from("/b"));
    }

    #[cfg(unix)]
    #[test]
    fn state_directory_is_private_and_runtime_directory_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let directories = Directories::choose(Some(home.path().join("state")), None);
        directories.create().unwrap();
        directories.create().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directories.state), mode(&directories.runtime)), (0o700, 0o755));
    }
}
