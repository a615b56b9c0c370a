//! Which users may do what.
//!
//! On Unix the kernel reports the user id of the process at the other end of a connection. Root, the user the service runs
//! as, users and groups named when it was installed, and the user whose session is active at the computer control the
//! engine; observers named when it was installed may read. What a user may do is judged for each command, since the
//! session at the computer changes while connections last. On Windows the pipe's access list has decided before a
//! connection is seen.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use interprocess::local_socket::tokio::Stream;
use partyline_model::AppError;
#[cfg(unix)]
use partyline_model::ErrorCode;

use crate::{Endpoint, Right, credentials};

/// The users that may connect besides root and the service's own user, and what they may do.
#[derive(Debug, Clone, Default)]
pub struct Access {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    observers: BTreeSet<u32>,
    /// Where logind describes the computer's seats, if their active users are admitted.
    seats: Option<PathBuf>,
}

impl Access {
    /// Lets one more user control the engine.
    #[must_use]
    pub fn allow_user(mut self, uid: u32) -> Self {
        self.users.insert(uid);
        self
    }

    /// Lets users with this primary group control the engine.
    #[must_use]
    pub fn allow_group(mut self, gid: u32) -> Self {
        self.groups.insert(gid);
        self
    }

    /// Lets one more user read the state, and nothing else.
    #[must_use]
    pub fn allow_observer(mut self, uid: u32) -> Self {
        self.observers.insert(uid);
        self
    }

    /// Lets the user whose session is active at a seat of this computer control the engine.
    #[must_use]
    pub fn allow_active_session(mut self) -> Self {
        self.seats = Some(PathBuf::from("/run/systemd/seats"));
        self
    }

    /// Lets the user control the engine who owns the socket, which is the one the service runs as.
    pub(crate) fn allow_owner(self, endpoint: &Endpoint) -> Self {
        credentials::owner(endpoint.path()).into_iter().fold(self, Self::allow_user)
    }

    /// Returns the right of a user and the rule that gives it, if any.
    #[cfg(unix)]
    fn right_of(&self, Peer { uid, gid }: Peer) -> Option<(Right, &'static str)> {
        if uid == 0 {
            Some((Right::Control, "root"))
        } else if self.users.contains(&uid) {
            Some((Right::Control, "allowed user"))
        } else if self.groups.contains(&gid) {
            Some((Right::Control, "allowed group"))
        } else if self.seats.as_deref().is_some_and(|seats| credentials::has_active_session(seats, uid)) {
            Some((Right::Control, "active session"))
        } else {
            self.observers.contains(&uid).then_some((Right::Observe, "observer"))
        }
    }
}

/// The user of the process at the other end of a connection, as the kernel reported it when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    #[cfg(unix)]
    uid: u32,
    #[cfg(unix)]
    gid: u32,
}

/// The process at the other end of a connection, and the rules for it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    access: Arc<Access>,
    peer: Peer,
}

impl Client {
    /// Identifies the process at the other end of a connection.
    ///
    /// # Errors
    /// [`ErrorCode::PermissionDenied`] if its user may do nothing, or is not known.
    #[cfg(unix)]
    pub(crate) fn identify(access: &Arc<Access>, stream: &Stream) -> Result<Self, AppError> {
        let (uid, gid) = credentials::of_peer(stream).ok_or_else(|| refused(None))?;
        let client = Self { access: access.clone(), peer: Peer { uid, gid } };
        client.check(Right::Observe)?;
        tracing::debug!(uid, gid, rule = ?access.right_of(client.peer), "client admitted");
        Ok(client)
    }

    /// Admits every connection: the pipe's access list has decided.
    #[cfg(not(unix))]
    pub(crate) fn identify(access: &Arc<Access>, _stream: &Stream) -> Result<Self, AppError> {
        tracing::debug!(rule = "access list of the pipe", "client admitted");
        Ok(Self { access: access.clone(), peer: Peer {} })
    }

    /// Checks whether the client has a right now.
    ///
    /// # Errors
    /// [`ErrorCode::PermissionDenied`] if it has not, or not any more.
    #[cfg(unix)]
    pub(crate) fn check(&self, needed: Right) -> Result<(), AppError> {
        match self.access.right_of(self.peer) {
            Some((right, _)) if right >= needed => Ok(()),
            Some(_) => Err(only_observes(self.peer.uid)),
            None => Err(refused(Some(self.peer.uid))),
        }
    }

    /// Allows everything: the pipe's access list has decided.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub(crate) fn check(&self, needed: Right) -> Result<(), AppError> {
        tracing::trace!(access = ?self.access, peer = ?self.peer, ?needed, "client allowed");
        Ok(())
    }
}

#[cfg(unix)]
fn only_observes(uid: u32) -> AppError {
    AppError::new(
        ErrorCode::PermissionDenied,
        format!("User {uid} may see the state of the Partyline service, but change nothing."),
        format!(
            "Run the command with sudo, or give the user the right to: `sudo partyline service install --allow-user {uid}`."
        ),
    )
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
impl Client {
    /// Returns a client of a user, independent of the user that runs the test.
    pub(crate) fn of_user(access: &Arc<Access>, uid: u32) -> Self {
        Self { access: access.clone(), peer: Peer { uid, gid: uid } }
    }
}

#[cfg(all(test, unix))]
impl Access {
    /// Reads the active sessions from another directory than logind's.
    pub(crate) fn with_seats(mut self, seats: &std::path::Path) -> Self {
        self.seats = Some(seats.to_owned());
        self
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn rule(access: &Access, uid: u32, gid: u32) -> Option<&'static str> {
        access.right_of(Peer { uid, gid }).map(|(_, rule)| rule)
    }

    #[test]
    fn root_and_the_sockets_owner_are_admitted_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_dir(directory.path());
        std::fs::write(endpoint.path(), "").unwrap();
        // Root can give the file away; for other users it stays their own.
        let _ = std::os::unix::fs::chown(endpoint.path(), Some(998), None);
        let owner = credentials::owner(endpoint.path()).unwrap();
        let access = Access::default().allow_owner(&endpoint);
        assert_eq!(rule(&access, 0, 0), Some("root"));
        assert!(rule(&access, owner, 998).is_some());
        assert_eq!(rule(&access, 1000, 0), None);
    }

    #[test]
    fn named_users_and_groups_are_admitted() {
        let access = Access::default().allow_user(1000).allow_group(50);
        assert_eq!(rule(&access, 1000, 1000), Some("allowed user"));
        assert_eq!(rule(&access, 1001, 50), Some("allowed group"));
        assert_eq!(rule(&access, 1001, 51), None);
    }

    #[test]
    fn only_the_user_of_the_active_session_is_admitted() {
        let seats = tempfile::tempdir().unwrap();
        std::fs::write(seats.path().join("seat0"), "IS_SEAT0=1\nACTIVE=2\nACTIVE_UID=1000\nSESSIONS=2 5\n")
            .unwrap();
        let access = Access::default().with_seats(seats.path());
        assert_eq!(rule(&access, 1000, 1000), Some("active session"));
        assert_eq!(rule(&access, 100, 100), None);
        assert_eq!(rule(&access, 10, 10), None);
    }

    #[test]
    fn observer_has_no_right_to_control() {
        let access = Arc::new(Access::default().allow_observer(1000).allow_user(1001));
        let observer = Client::of_user(&access, 1000);
        assert_eq!(observer.check(Right::Observe), Ok(()));
        let error = observer.check(Right::Control).unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert!(
            error.message.contains("change nothing") && error.hint.contains("--allow-user 1000"),
            "{error:?}"
        );
        assert_eq!(Client::of_user(&access, 1001).check(Right::Control), Ok(()));
        assert!(Client::of_user(&access, 1002).check(Right::Observe).is_err());
    }

    #[test]
    fn refusal_names_the_user_and_the_command_that_admits_it() {
        let error = refused(Some(1234));
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert!(error.message.contains("user 1234") && error.hint.contains("--allow-user 1234"), "{error:?}");
    }
}
