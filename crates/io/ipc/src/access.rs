//! Which users may control the engine.
//!
//! On Unix the kernel reports the user id of the process at the other end of a connection. Admitted are root, the user
//! the service runs as, users and groups named when it was installed, and the user whose session is active at the
//! computer. On Windows the pipe's access list has decided before a connection is seen.

use std::{collections::BTreeSet, path::PathBuf};

use interprocess::local_socket::tokio::Stream;
use partyline_model::AppError;
#[cfg(unix)]
use partyline_model::ErrorCode;

use crate::{Endpoint, credentials};

/// The users that may connect besides root and the service's own user.
#[derive(Debug, Clone, Default)]
pub struct Access {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    /// Where logind describes the computer's seats, if their active users are admitted.
    seats: Option<PathBuf>,
}

impl Access {
    /// Admits one more user.
    #[must_use]
    pub fn allow_user(mut self, uid: u32) -> Self {
        self.users.insert(uid);
        self
    }

    /// Admits users with this primary group.
    #[must_use]
    pub fn allow_group(mut self, gid: u32) -> Self {
        self.groups.insert(gid);
        self
    }

    /// Admits the user whose session is active at a seat of this computer.
    #[must_use]
    pub fn allow_active_session(mut self) -> Self {
        self.seats = Some(PathBuf::from("/run/systemd/seats"));
        self
    }

    /// Admits the user who owns the socket, which is the one the service runs as.
    pub(crate) fn allow_owner(self, endpoint: &Endpoint) -> Self {
        credentials::owner(endpoint.path()).into_iter().fold(self, Self::allow_user)
    }

    /// Checks the process at the other end of a connection.
    ///
    /// # Errors
    /// [`ErrorCode::PermissionDenied`] if its user is not admitted or not known.
    #[cfg(unix)]
    pub(crate) fn check(&self, stream: &Stream) -> Result<(), AppError> {
        let (uid, gid) = credentials::of_peer(stream).ok_or_else(|| refused(None))?;
        let reason = self.admits(uid, gid).ok_or_else(|| refused(Some(uid)))?;
        tracing::debug!(uid, gid, reason, "client admitted");
        Ok(())
    }

    /// Admits every connection: the pipe's access list has decided.
    #[cfg(not(unix))]
    pub(crate) fn check(&self, _stream: &Stream) -> Result<(), AppError> {
        tracing::debug!(reason = "access list of the pipe", "client admitted");
        Ok(())
    }

    /// Returns the rule that admits a user, if any.
    #[cfg(unix)]
    fn admits(&self, uid: u32, gid: u32) -> Option<&'static str> {
        if uid == 0 {
            Some("root")
        } else if self.users.contains(&uid) {
            Some("allowed user")
        } else if self.groups.contains(&gid) {
            Some("allowed group")
        } else {
            let active =
                self.seats.as_deref().is_some_and(|seats| credentials::has_active_session(seats, uid));
            active.then_some("active session")
        }
    }
}

#[cfg(unix)]
fn refused(uid: Option<u32>) -> AppError {
    let (user, id) = match uid {
        Some(uid) => (format!("user {uid}"), uid.to_string()),
        None => ("an unknown user".to_owned(), "<user id>".to_owned()),
    };
    AppError::new(
        ErrorCode::PermissionDenied,
        format!("The Partyline service does not take commands from {user}."),
        format!(
            "Run the command with sudo, or let the user in: `sudo partyline service install --allow-user {id}`."
        ),
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_sockets_owner_are_admitted_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_dir(directory.path());
        std::fs::write(endpoint.path(), "").unwrap();
        // Root can give the file away; for other users it stays their own.
        let _ = std::os::unix::fs::chown(endpoint.path(), Some(998), None);
        let owner = credentials::owner(endpoint.path()).unwrap();
        let access = Access::default().allow_owner(&endpoint);
        assert_eq!(access.admits(0, 0), Some("root"));
        assert!(access.admits(owner, 998).is_some());
        assert_eq!(access.admits(1000, 0), None);
    }

    #[test]
    fn named_users_and_groups_are_admitted() {
        let access = Access::default().allow_user(1000).allow_group(50);
        assert_eq!(access.admits(1000, 1000), Some("allowed user"));
        assert_eq!(access.admits(1001, 50), Some("allowed group"));
        assert_eq!(access.admits(1001, 51), None);
    }

    #[test]
    fn only_the_user_of_the_active_session_is_admitted() {
        let seats = tempfile::tempdir().unwrap();
        std::fs::write(seats.path().join("seat0"), "IS_SEAT0=1\nACTIVE=2\nACTIVE_UID=1000\nSESSIONS=2 5\n")
            .unwrap();
        let access = Access { seats: Some(seats.path().to_owned()), ..Access::default() };
        assert_eq!(access.admits(1000, 1000), Some("active session"));
        assert_eq!(access.admits(100, 100), None);
        assert_eq!(access.admits(10, 10), None);
    }

    #[test]
    fn refusal_names_the_user_and_the_command_that_admits_it() {
        let error = refused(Some(1234));
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert!(error.message.contains("user 1234") && error.hint.contains("--allow-user 1234"), "{error:?}");
    }
}
