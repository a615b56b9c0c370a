//! Where the service listens: a socket file in its runtime directory, or on Windows a pipe named after it.

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
    /// The endpoint of the service with this runtime directory.
    #[must_use]
    pub fn in_dir(runtime_dir: &Path) -> Self {
        Self(platform::path(runtime_dir))
    }

    /// The socket's path, or the pipe's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Starts to listen. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if another process listens here.
    pub(crate) fn listen(&self) -> io::Result<Listener> {
        platform::prepare(&self.0)?;
        let listener = match self.bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && platform::is_stale(&self.0) => {
                std::fs::remove_file(&self.0)?;
                self.bind()
            }
            other => other,
        }?;
        platform::open_to_all(&self.0)?;
        Ok(listener)
    }

    /// Connects to whoever listens.
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
    //! The directory can be searched and the socket connected to by everybody; who may go on is decided by the
    //! peer's credentials ([`crate::Access`]), which say more than file modes can.

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

    pub fn path(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("partyline.sock")
    }

    pub fn prepare(socket: &Path) -> io::Result<()> {
        let Some(directory) = socket.parent() else { return Ok(()) };
        if directory.exists() {
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))
    }

    /// Whether the file is a socket that nobody listens on.
    pub fn is_stale(socket: &Path) -> bool {
        let refuses = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        fs::symlink_metadata(socket).is_ok_and(|file| file.file_type().is_socket())
            && UnixStream::connect(socket).is_err_and(refuses)
    }

    pub const fn secured(options: ListenerOptions<'_>) -> io::Result<ListenerOptions<'_>> {
        Ok(options)
    }

    pub fn open_to_all(socket: &Path) -> io::Result<()> {
        fs::set_permissions(socket, Permissions::from_mode(0o666))
    }
}

#[cfg(windows)]
mod platform {
    //! Pipes live in one namespace of their own, vanish with their process, and carry their own access list.

    use std::{
        io,
        path::{Path, PathBuf},
    };

    use interprocess::{
        local_socket::ListenerOptions,
        os::windows::{local_socket::ListenerOptionsExt, security_descriptor::SecurityDescriptor},
    };
    use widestring::u16cstr;

    pub fn path(runtime_dir: &Path) -> PathBuf {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let place: String = runtime_dir.to_string_lossy().chars().map(plain).collect();
        PathBuf::from(format!(r"\\.\pipe\partyline-{place}"))
    }

    pub const fn prepare(_pipe: &Path) -> io::Result<()> {
        Ok(())
    }

    pub const fn is_stale(_pipe: &Path) -> bool {
        false
    }

    /// Network logons are denied first; then the system, administrators, the owner, and users sitting at the
    /// computer may connect.
    pub fn secured(options: ListenerOptions<'_>) -> io::Result<ListenerOptions<'_>> {
        let access = u16cstr!("D:(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;OW)(A;;GRGW;;;IU)");
        Ok(options.security_descriptor(SecurityDescriptor::deserialize(access)?))
    }

    pub const fn open_to_all(_pipe: &Path) -> io::Result<()> {
        Ok(())
    }
}
