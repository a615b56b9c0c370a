//! Who is at the other end of a connection, as the operating system reports it.

#[cfg(unix)]
pub(crate) use unix::{has_active_session, of_peer, owner};
#[cfg(not(unix))]
pub(crate) use windows::owner;

#[cfg(unix)]
mod unix {
    use std::{fs, os::unix::fs::MetadataExt, path::Path};

    use interprocess::local_socket::{tokio::Stream, traits::StreamCommon as _};

    /// Returns the effective user and group id of the process at the other end.
    pub(crate) fn of_peer(stream: &Stream) -> Option<(u32, u32)> {
        let peer = stream
            .peer_creds()
            .inspect_err(|error| tracing::debug!(reason = %error, "credentials of a client cannot be read"))
            .ok()?;
        peer.euid().zip(peer.egid())
    }

    /// Returns the user id of a socket file's owner.
    pub(crate) fn owner(socket: &Path) -> Option<u32> {
        fs::metadata(socket).ok().map(|socket| socket.uid())
    }

    /// Returns true if the user's session is active at a seat, as logind records it in the directory `seats`, or if the
    /// user owns the console of a Mac.
    pub(crate) fn has_active_session(seats: &Path, uid: u32) -> bool {
        if cfg!(target_os = "macos") {
            return fs::metadata("/dev/console").is_ok_and(|console| console.uid() == uid);
        }
        let Ok(seats) = fs::read_dir(seats) else { return false };
        let active = format!("ACTIVE_UID={uid}");
        seats
            .flatten()
            .filter_map(|seat| fs::read_to_string(seat.path()).ok())
            .any(|text| text.lines().any(|line| line == active))
    }
}

#[cfg(not(unix))]
mod windows {
    use std::path::Path;

    /// Pipes have an access list instead of an owner.
    pub(crate) const fn owner(_pipe: &Path) -> Option<u32> {
        None
    }
}
