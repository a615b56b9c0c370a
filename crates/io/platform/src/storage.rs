//! Replaces small files atomically and durably: after a crash, a file has the old contents or the new, never a mixture.
//!
//! The new contents are written to a temporary file beside the old one and synchronised with the disk; then the file is
//! renamed and the directory synchronised, so that the name survives too. Files are readable by their owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use partyline_model::{AppError, ErrorCode};

use crate::sentence;

/// The longest file that [`read`] accepts, in bytes.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {}: {error}", path.display())]
pub struct StorageError {
    action: &'static str,
    path: PathBuf,
    #[source]
    error: io::Error,
}

impl StorageError {
    pub(crate) fn new(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self { action, path: path.to_path_buf(), error }
    }

    /// Returns what the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free some disk space.",
            io::ErrorKind::ReadOnlyFilesystem => {
                "Make the file system writable, or choose another state directory."
            }
            io::ErrorKind::PermissionDenied => "Run it with sudo, or as the user who owns the directory.",
            io::ErrorKind::FileTooLarge => "Move the file away; it was not written by Partyline.",
            _ => "Check the disk, and that the directory exists.",
        }
    }

    /// Returns the kind of the underlying error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }
}

impl From<StorageError> for AppError {
    fn from(error: StorageError) -> Self {
        Self::new(ErrorCode::Storage, sentence(&error.to_string()), error.hint())
    }
}

/// Writes a file, replacing its contents.
///
/// # Errors
/// If the contents could not be made durable; the old contents are then still there.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), StorageError> {
    let temporary = temporary(path);
    let result = write_durably(&temporary, contents).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // Best effort: the next attempt overwrites it anyway.
        let _ = fs::remove_file(&temporary);
    }
    tracing::trace!(file = %path.display(), bytes = contents.len(), success = result.is_ok(), "file replaced");
    result.and_then(|()| sync_directory(path)).map_err(|error| StorageError::new("write", path, error))
}

/// Writes a file as [`replace`] does, and keeps its last contents as `copy`. Without last contents, an older copy is
/// deleted.
///
/// # Errors
/// If the contents could not be made durable; the old contents are then still there.
pub fn replace_and_keep(path: &Path, contents: &[u8], copy: &Path) -> Result<(), StorageError> {
    let linked = temporary(copy);
    // Left there by a crash.
    remove(&linked)?;
    let kept = match fs::hard_link(path, &linked) {
        // A file system without links.
        Err(error) if error.kind() != io::ErrorKind::NotFound => fs::copy(path, &linked).map(|_| ()),
        result => result,
    };
    match kept {
        Ok(()) => fs::rename(&linked, copy).map_err(|error| StorageError::new("write", copy, error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            replace(path, contents)?;
            return remove(copy);
        }
        Err(error) => return Err(StorageError::new("write", copy, error)),
    }
    replace(path, contents)
}

/// Gives a file a second name, where it replaces what is there, so that replacing the file loses nothing. Where files
/// cannot have two names, it is renamed.
///
/// # Errors
/// If the file can neither be linked nor renamed.
pub fn keep(path: &Path, as_well: &Path) -> Result<(), StorageError> {
    remove(as_well)?;
    match fs::hard_link(path, as_well).and_then(|()| sync_directory(as_well)) {
        Ok(()) => Ok(()),
        Err(_) => rename(path, as_well),
    }
}

/// Gives a file another name, where it replaces what is there.
///
/// # Errors
/// If the file cannot be renamed.
pub fn rename(path: &Path, to: &Path) -> Result<(), StorageError> {
    let renamed = fs::rename(path, to).and_then(|()| sync_directory(path));
    renamed.map_err(|error| StorageError::new("rename", path, error))
}

/// Reads a file; returns `None` if it does not exist.
///
/// # Errors
/// If it exists but cannot be read, or is longer than 16 MiB.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let wrap = |error| StorageError::new("read", path, error);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrap(error)),
        Ok(file) if file.len() > MAX_FILE_SIZE => return Err(wrap(io::ErrorKind::FileTooLarge.into())),
        Ok(_) => {}
    }
    fs::read(path).map(Some).map_err(wrap)
}

/// Deletes a file durably. Succeeds if it does not exist.
///
/// # Errors
/// If the file cannot be deleted.
pub fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|error| StorageError::new("delete", path, error))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

fn write_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = private().create(true).truncate(true).write(true).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(unix)]
fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
fn private() -> OpenOptions {
    // The installer creates the state directory below %ProgramData% for SYSTEM and administrators.
    OpenOptions::new()
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    // NTFS journals names itself, and directories cannot be opened as files.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_the_new_contents_and_no_temporary_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"first").unwrap();
        replace(&path, b"2nd").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"2nd");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file is left");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn last_contents_are_kept_as_a_copy() {
        let home = tempfile::tempdir().unwrap();
        let (path, copy) = (home.path().join("state.json"), home.path().join("state.json.last"));
        fs::write(temporary(&copy), b"left by a crash").unwrap();
        fs::write(&copy, b"of somebody who started afresh").unwrap();
        replace_and_keep(&path, b"first", &copy).unwrap();
        assert_eq!((read(&path).unwrap(), read(&copy).unwrap()), (Some(b"first".to_vec()), None));
        for (before, after) in [(b"first", b"2nd.."), (b"2nd..", b"third")] {
            replace_and_keep(&path, after, &copy).unwrap();
            let files = (read(&path).unwrap().unwrap(), read(&copy).unwrap().unwrap());
            assert_eq!(files, (after.to_vec(), before.to_vec()));
        }
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[cfg(unix)]
    #[test]
    fn file_is_readable_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        replace(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn failed_write_leaves_the_old_contents() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        replace(&path, b"old").unwrap();
        // The temporary file cannot be made where a directory has its name.
        fs::create_dir(temporary(&path)).unwrap();
        let error = replace(&path, b"new").unwrap_err();
        assert!(error.to_string().contains("state.json"), "{error}");
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
    }

    #[test]
    fn full_disk_is_explained_with_a_hint() {
        let full = StorageError::new("write", Path::new("x"), io::ErrorKind::StorageFull.into());
        assert_eq!(AppError::from(full).hint, "Free some disk space.");
    }
}
