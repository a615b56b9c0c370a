//! The program that the service runs.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use partyline_model::{AppError, ErrorCode};

use super::replaceable::weakness;

/// Where a program is copied that could be replaced where it is.
pub(super) const COPY: &str = "/usr/local/sbin/partyline-service";

/// What systemd is to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    arguments: &'static [&'static str],
}

impl Program {
    /// Returns `partyline-service` beside this program, else this program itself, by its path without symbolic links.
    pub(super) fn find() -> Result<Self, AppError> {
        let this = std::env::current_exe().map_err(|error| not_found(&error))?;
        let service = this.with_file_name("partyline-service");
        let (path, arguments): (_, &[_]) =
            if service.exists() { (service, &["run"]) } else { (this, &["service", "run"]) };
        let path = path.canonicalize().map_err(|error| not_found(&error))?;
        Ok(Self { path, arguments })
    }

    /// Returns the program's command line.
    pub(super) fn words(&self) -> Vec<String> {
        let path = self.path.to_string_lossy().into_owned();
        [path].into_iter().chain(self.arguments.iter().map(|&word| word.to_owned())).collect()
    }

    /// Returns a program that only root can replace: this one, or its copy if there may be one.
    ///
    /// # Errors
    /// If another user could replace the program, and it may not or cannot be copied.
    pub(super) fn protected(self, may_copy: bool, copy: &Path) -> Result<Self, AppError> {
        let Some(weakness) = weakness(&self.path).map_err(|error| not_found(&error))? else {
            return Ok(self);
        };
        tracing::debug!(program = %self.path.display(), ?weakness, may_copy, "another user could replace the program");
        if !may_copy {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                format!(
                    "The service would run {} as root, but other users could replace that program: {} {}.",
                    self.path.display(),
                    weakness.path.display(),
                    weakness.reason
                ),
                format!(
                    "Move it to a directory of root's such as /usr/local/bin, or have it copied to {}: \
                     `sudo partyline service install --copy`.",
                    copy.display()
                ),
            ));
        }
        self.copied(copy)
    }

    fn copied(self, copy: &Path) -> Result<Self, AppError> {
        let directory = copy.parent().unwrap_or(copy);
        let result = fs::create_dir_all(directory).and_then(|()| directory.canonicalize());
        let directory = result.map_err(|error| cannot_copy(copy, &error))?;
        if let Some(weakness) = weakness(&directory).map_err(|error| cannot_copy(copy, &error))? {
            let reason = format!("{} {}", weakness.path.display(), weakness.reason);
            return Err(cannot_copy(copy, &io::Error::other(reason)));
        }
        replace_file(&self.path, copy).map_err(|error| cannot_copy(copy, &error))?;
        println!("Copied {} to {}. After an update, install it again.", self.path.display(), copy.display());
        Ok(Self { path: copy.to_owned(), arguments: self.arguments })
    }
}

/// Removes a copy, if there is one.
pub(super) fn remove_copy(copy: &Path) -> Result<(), AppError> {
    match fs::remove_file(copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(AppError::new(
            ErrorCode::Storage,
            format!("Cannot remove {}: {error}.", copy.display()),
            "Run it as root: `sudo partyline service uninstall`.",
        )),
        _ => Ok(()),
    }
}

/// Copies a program beside its place and then moves it there, since the one that is there may be running.
fn replace_file(from: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    let mut source = File::open(from)?;
    if !source.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Never through what somebody else has put there.
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&new)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()?;
    fs::rename(&new, to)
}

fn not_found(error: &io::Error) -> AppError {
    AppError::new(
        ErrorCode::Internal,
        format!("Cannot tell where this program is: {error}."),
        "Install Partyline where root can read it.",
    )
}

fn cannot_copy(copy: &Path, error: &io::Error) -> AppError {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        _ => ErrorCode::Storage,
    };
    AppError::new(
        code,
        format!("Cannot copy the program to {}: {error}.", copy.display()),
        "Run it as root, or move the program to a directory of root's such as /usr/local/bin.",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program in a directory to which every user may write.
    fn exposed(directory: &Path) -> Program {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
        let path = directory.canonicalize().unwrap().join("partyline");
        fs::write(&path, "program").unwrap();
        Program { path, arguments: &["service", "run"] }
    }

    #[test]
    fn program_that_other_users_can_replace_is_not_installed() {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        let error = exposed(directory.path()).protected(false, &copy).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidInput);
        assert!(error.message.contains("other users could replace"), "{error:?}");
        assert!(error.hint.contains("--copy"), "{error:?}");
        assert!(!copy.exists());
    }

    #[test]
    fn program_is_not_copied_to_where_other_users_can_replace_it() {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        let error = exposed(directory.path()).protected(true, &copy).unwrap_err();
        assert!(error.message.contains("Cannot copy the program"), "{error:?}");
        assert!(!copy.exists());
    }

    #[test]
    fn copy_replaces_the_one_before_and_is_nobody_elses_to_write() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        for text in ["first", "second"] {
            fs::write(&from, text).unwrap();
            // What a hostile user might have prepared there must not be written through.
            std::os::unix::fs::symlink(&from, to.with_extension("new")).unwrap();
            replace_file(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(&to).unwrap(), text);
        }
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o022, 0);
        remove_copy(&to).unwrap();
        remove_copy(&to).unwrap();
        assert!(!to.exists());
        assert!(replace_file(directory.path(), &to).is_err());
    }
}
