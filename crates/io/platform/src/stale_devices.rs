//! Removes the devices that a crashed engine left behind.
//!
//! On Linux and macOS a TUN device, and with it its addresses and routes, vanishes with the last process that holds it.
//! What can remain is a device that was made persistent, or one that a stray child process holds. So an engine records the
//! names of its devices in its state directory; the next one, which has the lock, removes those that still exist.

use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use crate::{StorageError, storage};

const RECORD: &str = "devices";
/// The most recorded devices that are considered.
const MAX_DEVICES: usize = 64;

/// The persistent record of the devices that an engine has created.
#[derive(Debug)]
pub struct DeviceRecord {
    path: PathBuf,
    names: Vec<String>,
}

impl DeviceRecord {
    /// Returns an empty record in a state directory. Call [`remove_stale_devices`] before: it reads the record of the last
    /// engine.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { path: state.join(RECORD), names: Vec::new() }
    }

    /// Adds a device.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn add(&mut self, name: &str) -> Result<(), StorageError> {
        self.names.push(name.to_owned());
        self.write()
    }

    /// Removes a device that does not exist any more.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        self.names.retain(|other| other != name);
        self.write()
    }

    fn write(&self) -> Result<(), StorageError> {
        if self.names.is_empty() {
            return storage::remove(&self.path);
        }
        storage::replace(&self.path, self.names.join("\n").as_bytes())
    }
}

/// Removes devices that an earlier engine with this state directory recorded and that still exist. Requires the engine
/// lock and the permission to create devices. Returns their names.
///
/// # Errors
/// If the record cannot be read or deleted. A device that cannot be removed is logged.
pub async fn remove_stale_devices(state: &Path) -> Result<Vec<String>, StorageError> {
    let path = state.join(RECORD);
    let Some(record) = storage::read(&path)? else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    for name in
        String::from_utf8_lossy(&record).lines().take(MAX_DEVICES).filter(|name| crate::is_own_device(name))
    {
        match system::remove_device(name).await {
            Ok(true) => {
                debug!(device = name, reason = "left by an earlier run", "device removed");
                removed.push(name.to_owned());
            }
            Ok(false) => debug!(device = name, "recorded device does not exist any more"),
            Err(error) => {
                warn!(device = name, reason = %error, "device of an earlier run could not be removed")
            }
        }
    }
    storage::remove(&path)?;
    Ok(removed)
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;

    use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
    use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
    use nix::{errno::Errno, net::if_::if_nametoindex};

    /// Deletes a device; returns false if there is none of this name.
    pub(super) async fn remove_device(name: &str) -> io::Result<bool> {
        match if_nametoindex(name) {
            Ok(index) => delete_link(index).await.map(|()| true),
            Err(Errno::ENODEV) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete_link(index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::DelLink(link));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);

        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
        let mut answer = Vec::with_capacity(4096);
        socket.recv(&mut answer).await?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    /// Returns false: devices cannot outlive their process on this system.
    pub(super) async fn remove_device(_name: &str) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_lists_the_existing_devices_and_vanishes_with_the_last() {
        let state = tempfile::tempdir().unwrap();
        let mut record = DeviceRecord::new(state.path());
        record.add("partyline0").unwrap();
        record.add("partyline1").unwrap();
        record.remove("partyline0").unwrap();
        let path = state.path().join(RECORD);
        assert_eq!(storage::read(&path).unwrap().unwrap(), b"partyline1");
        record.remove("partyline1").unwrap();
        assert_eq!(storage::read(&path).unwrap(), None);
    }

    #[tokio::test]
    async fn recorded_names_that_are_no_party_devices_are_ignored() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(RECORD);
        storage::replace(&path, b"lo\neth0\npartyline-test").unwrap();
        assert!(remove_stale_devices(state.path()).await.unwrap().is_empty());
        assert_eq!(storage::read(&path).unwrap(), None, "the record is deleted");
    }
}
