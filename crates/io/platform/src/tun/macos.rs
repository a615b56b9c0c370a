//! The device on macOS: utun, one packet per system call, without routes for broadcast.

use std::{fmt, io};

use tun_rs::{AsyncDevice, DeviceBuilder};

use super::{TunConfig, TunError, TunReads, TunWrites, batch::WRITE_OFFSET, check_range};
use crate::{check_device_permission, network::configured_addresses};

/// A party's network device. Dropping it removes it.
pub struct TunDevice {
    device: AsyncDevice,
    name: String,
    index: u32,
}

impl fmt::Debug for TunDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunDevice")
            .field("name", &self.name)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl TunDevice {
    /// Creates a device with its addresses, and brings it up. The system chooses its name.
    ///
    /// # Errors
    /// See [`TunError`]; no device is left behind.
    pub async fn create(config: &TunConfig) -> Result<Self, TunError> {
        check_device_permission()?;
        check_range(config.v4, &configured_addresses().map_err(TunError::Other)?)?;
        let device = DeviceBuilder::new()
            .mtu(config.mtu)
            .ipv4(config.v4.addr(), config.v4.prefix_len(), None)
            .ipv6(config.v6.addr(), config.v6.prefix_len())
            .build_async()
            .map_err(TunError::Other)?;
        let name = device.name().map_err(TunError::Other)?;
        let index = device.if_index().map_err(TunError::Other)?;
        tracing::debug!(device = name, index, mtu = config.mtu, v4 = %config.v4, v6 = %config.v6, "device created");
        Ok(Self { device, name, index })
    }

    /// Returns the device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the device's interface index.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Waits for a packet from local programs.
    ///
    /// # Errors
    /// If the device is gone.
    pub async fn recv(&self, reads: &mut TunReads) -> io::Result<()> {
        reads.count = 0;
        reads.sizes[0] = self.device.recv(&mut reads.packets[0]).await?;
        reads.count = 1;
        Ok(())
    }

    /// Writes packets to local programs, and empties the batch. A packet that the kernel refuses is dropped.
    ///
    /// # Errors
    /// Never; the result matches the other systems.
    pub async fn send(&self, writes: &mut TunWrites) -> io::Result<()> {
        for packet in &writes.packets[..writes.count] {
            if let Err(error) = self.device.send(&packet[WRITE_OFFSET..]).await {
                tracing::trace!(device = self.name, reason = %error, "packet refused by the kernel");
            }
        }
        writes.clear();
        Ok(())
    }
}
