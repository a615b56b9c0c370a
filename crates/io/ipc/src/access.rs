//! Who may drive the engine.
//!
//! On Unix the kernel tells the user id of whoever connected. Let in are root, the user the service runs as, users
//! and groups named when it was installed, and whoever sits at the computer. On Windows the pipe's access list has
//! decided before a connection is seen.

use std::{collections::BTreeSet, path::PathBuf};

use interprocess::local_socket::tokio::Stream;
use partyline_model::AppError;

use crate::Endpoint;

/// Who may connect besides root and the service's own user.
#[derive(Debug, Clone, Default)]
pub struct Access {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    seats: Option<PathBuf>,
}

impl Access {
    /// Lets in one more user.
    #[must_use]
    pub fn allow_user(mut self, uid: u32) -> Self {
        self.users.insert(uid);
        self
    }

    /// Lets in users whose primary group this is.
    #[must_use]
    pub fn allow_group(mut self, gid: u32) -> Self {
        self.groups.insert(gid);
        self
    }

    /// Lets in the user whose session is in front at a seat of this computer.
    #[must_use]
    pub fn allow_active_session(mut self) -> Self {
        self.seats = Some(PathBuf::from("/run/systemd/seats"));
        self
    }

    /// Lets in the user who owns the socket, which is the one the service runs as.
    pub(crate) fn allow_owner(self, endpoint: &Endpoint) -> Self {
        platform::owner(endpoint.path()).into_iter().fold(self, Self::allow_user)
    }

    /// Checks the other end of a connection.
    pub(crate) fn check(&self, stream: &Stream) -> Result<(), AppError> {
        platform::check(self, stream)
    }

    #[cfg(unix)]
    fn admits(&self, uid: u32, gid: u32) -> bool {
        uid == 0
            || self.users.contains(&uid)
            || self.groups.contains(&gid)
            || self.seats.as_deref().is_some_and(|seats| platform::is_seated(seats, uid))
    }
}

#[cfg(unix)]
mod platform {
    use std::{fs, os::unix::fs::MetadataExt, path::Path};

    use interprocess::local_socket::traits::StreamCommon as _;
    use partyline_model::ErrorCode;

    use super::{Access, AppError, Stream};

    pub fn check(access: &Access, stream: &Stream) -> Result<(), AppError> {
        let peer = stream.peer_creds().map_err(|_| refused(None))?;
        let (Some(uid), Some(gid)) = (peer.euid(), peer.egid()) else { return Err(refused(None)) };
        if access.admits(uid, gid) { Ok(()) } else { Err(refused(Some(uid))) }
    }

    fn refused(uid: Option<u32>) -> AppError {
        let (who, id) = match uid {
            Some(uid) => (format!("user {uid}"), uid.to_string()),
            None => ("an unknown user".to_owned(), "<user id>".to_owned()),
        };
        AppError::new(
            ErrorCode::PermissionDenied,
            format!("The Partyline service does not take commands from {who}."),
            format!(
                "Run the command with sudo, or let the user in: `sudo partyline service install --allow-user {id}`."
            ),
        )
    }

    pub fn owner(socket: &Path) -> Option<u32> {
        fs::metadata(socket).ok().map(|socket| socket.uid())
    }

    /// Whether the user's session is in front at a seat, as logind writes it down, or owns the console of a Mac.
    pub fn is_seated(seats: &Path, uid: u32) -> bool {
        if cfg!(target_os = "macos") {
            return fs::metadata("/dev/console").is_ok_and(|console| console.uid() == uid);
        }
        let Ok(seats) = fs::read_dir(seats) else { return false };
        let line = format!("ACTIVE_UID={uid}");
        seats
            .flatten()
            .filter_map(|seat| fs::read_to_string(seat.path()).ok())
            .any(|text| text.lines().any(|own| own == line))
    }
}

#[cfg(windows)]
mod platform {
    use std::path::Path;

    use super::{Access, AppError, Stream};

    pub const fn owner(_pipe: &Path) -> Option<u32> {
        None
    }

    pub const fn check(_access: &Access, _stream: &Stream) -> Result<(), AppError> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn root_and_oneself_pass_and_strangers_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_dir(directory.path());
        std::fs::write(endpoint.path(), "").unwrap();
        // Root can make it somebody else's; for others it is their own.
        let _ = std::os::unix::fs::chown(endpoint.path(), Some(998), None);
        let owner = platform::owner(endpoint.path()).unwrap();
        let access = Access::default().allow_owner(&endpoint);
        assert!(access.admits(0, 0));
        assert!(access.admits(owner, 998));
        assert!(!access.admits(1000, 0));
    }

    #[test]
    fn named_users_and_groups_pass() {
        let access = Access::default().allow_user(1000).allow_group(50);
        assert!(access.admits(1000, 1000));
        assert!(access.admits(1001, 50));
        assert!(!access.admits(1001, 51));
    }

    #[test]
    fn whoever_sits_at_the_computer_passes() {
        let seats = tempfile::tempdir().unwrap();
        std::fs::write(seats.path().join("seat0"), "IS_SEAT0=1\nACTIVE=2\nACTIVE_UID=1000\nSESSIONS=2 5\n")
            .unwrap();
        let access = Access { seats: Some(seats.path().to_owned()), ..Access::default() };
        assert!(access.admits(1000, 1000));
        assert!(!access.admits(100, 100));
        assert!(!access.admits(10, 10));
    }
}
