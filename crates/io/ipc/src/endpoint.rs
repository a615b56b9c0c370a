//! The address of the service: a socket file in its runtime directory, or on Windows a pipe named after the directory.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use interprocess::local_socket::{
    ConnectOptions, GenericFilePath, ListenerOptions, Name, ToFsName,
    tokio::{Listener, Stream},
};

/// The local socket of the service that uses one runtime directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Endpoint {
    /// Returns the endpoint of the service with this runtime directory.
    #[must_use]
    pub fn in_dir(runtime_dir: &Path) -> Self {
        Self(platform::path(runtime_dir))
    }

    /// Returns the socket's path, or the pipe's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Starts to listen. Replaces a socket file that no process listens on any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if another process listens here.
    pub(crate) fn listen(&self) -> io::Result<Listener> {
        platform::prepare(&self.0)?;
        let listener = match self.bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && platform::is_stale(&self.0) => {
                tracing::debug!(endpoint = %self, reason = "no process listens on it", "socket file replaced");
                std::fs::remove_file(&self.0)?;
                self.bind()
            }
            other => other,
        }?;
        platform::open_to_all(&self.0)?;
        Ok(listener)
    }

    /// Connects to the listening service.
    pub(crate) async fn connect(&self) -> io::Result<Stream> {
        ConnectOptions::new().name(self.name()?).connect_tokio().await
    }

    fn bind(&self) -> io::Result<Listener> {
        platform::secured(ListenerOptions::new().name(self.name()?))?.create_tokio()
    }

    fn name(&self) -> io::Result<Name<'_>> {
        self.0.as_path().to_fs_name::<GenericFilePath>()
    }
}

#[cfg(unix)]
mod platform {
    //! Every user can search the directory and connect to the socket; [`crate::Access`] then decides by the peer's
    //! credentials, which are more precise than file modes.

    use std::{
        fs::{self, Permissions},
        io,
        os::unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixStream,
        },
        path::{Path, PathBuf},
    };

    use interprocess::local_socket::ListenerOptions;

    pub(super) fn path(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("partyline.sock")
    }

    pub(super) fn prepare(socket: &Path) -> io::Result<()> {
        let Some(directory) = socket.parent() else { return Ok(()) };
        if directory.exists() {
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))
    }

    /// Returns true if the file is a socket that no process listens on.
    pub(super) fn is_stale(socket: &Path) -> bool {
        let refuses = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        fs::symlink_metadata(socket).is_ok_and(|file| file.file_type().is_socket())
            && UnixStream::connect(socket).is_err_and(refuses)
    }

    pub(super) const fn secured(options: ListenerOptions<'_>) -> io::Result<ListenerOptions<'_>> {
        Ok(options)
    }

    pub(super) fn open_to_all(socket: &Path) -> io::Result<()> {
        fs::set_permissions(socket, Permissions::from_mode(0o666))
    }
}

#[cfg(windows)]
mod platform {
    //! Pipes live in a namespace of their own, vanish with their process, and have an access list.

    use std::{
        io,
        path::{Path, PathBuf},
    };

    use interprocess::{
        local_socket::ListenerOptions,
        os::windows::{local_socket::ListenerOptionsExt, security_descriptor::SecurityDescriptor},
    };
    use widestring::u16cstr;

    pub(super) fn path(runtime_dir: &Path) -> PathBuf {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let name: String = runtime_dir.to_string_lossy().chars().map(plain).collect();
        PathBuf::from(format!(r"\\.\pipe\partyline-{name}"))
    }

    pub(super) const fn prepare(_pipe: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) const fn is_stale(_pipe: &Path) -> bool {
        false
    }

    /// Denies network logons first; then admits the system, administrators, the owner, and interactive users.
    pub(super) fn secured(options: ListenerOptions<'_>) -> io::Result<ListenerOptions<'_>> {
        let access = u16cstr!("D:(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;OW)(A;;GRGW;;;IU)");
        Ok(options.security_descriptor(SecurityDescriptor::deserialize(access)?))
    }

    pub(super) const fn open_to_all(_pipe: &Path) -> io::Result<()> {
        Ok(())
    }
}
