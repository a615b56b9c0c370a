//! Removes what a crashed engine left behind.
//!
//! On Linux and macOS a TUN device, and with it its addresses and routes, vanishes with the last process that holds it.
//! What can remain is a device that was made persistent, or one that a stray child holds. So an engine notes the names
//! of its devices in its state directory; the next one, which has the lock, removes those that still exist.

use std::path::{Path, PathBuf};

use crate::{StorageError, storage};

const RECORD: &str = "devices";
const NAMES: usize = 64;

/// The note of the devices an engine has made.
#[derive(Debug)]
pub struct DeviceRecord {
    path: PathBuf,
    names: Vec<String>,
}

impl DeviceRecord {
    /// An empty note in a state directory. Call [`remove_stale_devices`] before: it reads what the last engine noted.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { path: state.join(RECORD), names: Vec::new() }
    }

    /// Notes a device.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn add(&mut self, name: &str) -> Result<(), StorageError> {
        self.names.push(name.to_owned());
        self.write()
    }

    /// Strikes a device out that was removed.
    ///
    /// # Errors
    /// If the note cannot be written.
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

/// Removes devices that an earlier engine with this state directory noted and that still exist. Needs the engine lock
/// and the right to make devices. Returns their names.
///
/// # Errors
/// If the note cannot be read or deleted. A device that cannot be removed is logged.
pub async fn remove_stale_devices(state: &Path) -> Result<Vec<String>, StorageError> {
    let path = state.join(RECORD);
    let Some(note) = storage::read(&path)? else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    for name in String::from_utf8_lossy(&note).lines().take(NAMES).filter(|name| crate::is_own_device(name)) {
        match system::remove_device(name).await {
            Ok(true) => removed.push(name.to_owned()),
            Ok(false) => {}
            Err(error) => tracing::warn!(name, %error, "a device of an earlier run could not be removed"),
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

    /// Deletes a device; false if there is none of this name.
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

    /// Devices cannot outlive their process here.
    pub(super) async fn remove_device(_name: &str) -> io::Result<bool> {
        Ok(false)
    }
}
