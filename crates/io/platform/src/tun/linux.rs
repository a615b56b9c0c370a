//! The device on Linux: TUN with virtio headers.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Mutex,
};

use nix::net::if_::if_nametoindex;
use route_manager::{AsyncRouteManager, Route};
use tokio::sync::Mutex as AsyncMutex;
use tracing::{debug, trace, warn};
use tun_rs::{AsyncDevice, DeviceBuilder, GROTable};

use super::{TunConfig, TunError, TunReads, TunWrites, batch::WRITE_OFFSET, check_range};
use crate::{DEVICE_PREFIX, check_device_permission, network::configured_addresses};

/// The most packets that the kernel queues for this process. The default of 500 can add half a second of delay.
const TX_QUEUE_LEN: u32 = 128;
/// The metric of the broadcast routes is this minus the interface index, so that the newest device has the lowest.
const BASE_METRIC: u32 = 10_000;
/// The kernel keeps multicast routes of IPv6 in the local table.
const LOCAL_TABLE: u8 = 255;
const MAIN_TABLE: u8 = 254;
/// The most devices of this computer.
const MAX_DEVICES: usize = 256;

/// A party's network device. Dropping it removes it.
pub struct TunDevice {
    device: AsyncDevice,
    name: String,
    index: u32,
    coalescing: AsyncMutex<GROTable>,
}

impl fmt::Debug for TunDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunDevice")
            .field("name", &self.name)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Drop for TunDevice {
    fn drop(&mut self) {
        debug!(device = self.name, index = self.index, reason = "dropped", "device removed");
    }
}

impl TunDevice {
    /// Creates a device with its addresses and routes, and brings it up.
    ///
    /// # Errors
    /// See [`TunError`]; no device is left behind.
    pub async fn create(config: &TunConfig) -> Result<Self, TunError> {
        check_device_permission()?;
        check_range(config.v4, &configured_addresses().map_err(TunError::Other)?)?;
        let (device, name) = open(config)?;
        configure(&device, &name, config).map_err(TunError::Other)?;
        let index = device.if_index().map_err(TunError::Other)?;
        add_routes(&name, index).await.map_err(TunError::Other)?;
        debug!(device = name, index, mtu = config.mtu, v4 = %config.v4, v6 = %config.v6, "device created");
        Ok(Self { device, name, index, coalescing: AsyncMutex::new(GROTable::default()) })
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

    /// Waits for packets from local programs. A coalesced segment of one flow arrives already split.
    ///
    /// # Errors
    /// If the device is gone. A packet that cannot be parsed is dropped.
    pub async fn recv(&self, reads: &mut TunReads) -> io::Result<()> {
        reads.count = 0;
        loop {
            self.device.readable().await?;
            let TunReads { segment, packets, sizes, .. } = reads;
            match self.device.try_recv_multiple(segment, packets, sizes, 0) {
                Ok(count) => {
                    reads.count = count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(error) => trace!(device = self.name, reason = %error, "packet from the kernel dropped"),
            }
        }
    }

    /// Writes packets to local programs, those of one flow coalesced, and empties the batch.
    ///
    /// # Errors
    /// If the device is gone. A packet that the kernel refuses is dropped.
    pub async fn send(&self, writes: &mut TunWrites) -> io::Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let mut coalescing = self.coalescing.lock().await;
        let packets = &mut writes.packets[..writes.count];
        let result = self.device.send_multiple(&mut coalescing, packets, WRITE_OFFSET).await;
        writes.clear();
        match result {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBADFD as i32) => Err(error),
            Err(error) => {
                trace!(device = self.name, reason = %error, "packet refused by the kernel");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}

/// Settings of the device, made before it comes up. The kernel generates no link-local address, since members accept only
/// the one derived from the virtual address. Nobody in the party configures this computer: no router advertisements and
/// redirects. (The tunnel drops them as well; IPv4 redirects are accepted if either this or the setting for all devices
/// says so.)
const SETTINGS: [(&str, &str); 6] = [
    ("ipv6/conf/{}/addr_gen_mode", "1"),
    ("ipv6/conf/{}/accept_ra", "0"),
    ("ipv6/conf/{}/autoconf", "0"),
    ("ipv6/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/send_redirects", "0"),
];

/// Held while a free name is searched and taken, so that two parties switched on at once do not choose the same.
static NAMING: Mutex<()> = Mutex::new(());

fn open(config: &TunConfig) -> Result<(AsyncDevice, String), TunError> {
    let _naming = NAMING.lock();
    // By system call, since /sys shows the network namespace in which it was mounted.
    let exists = |name: &str| if_nametoindex(name).is_ok();
    let name = match &config.name {
        Some(name) if exists(name) => return Err(TunError::NameTaken { name: name.clone() }),
        Some(name) => name.clone(),
        None => (0..MAX_DEVICES)
            .map(|number| format!("{DEVICE_PREFIX}{number}"))
            .find(|name| !exists(name))
            .ok_or_else(|| TunError::NameTaken { name: DEVICE_PREFIX.to_owned() })?,
    };
    let device = DeviceBuilder::new()
        .name(&name)
        .mtu(config.mtu)
        .ipv4(config.v4.addr(), config.v4.prefix_len(), None)
        .enable(false)
        .offload(true)
        .tx_queue_len(TX_QUEUE_LEN)
        .build_async()
        .map_err(|error| open_error(error, &name))?;
    Ok((device, name))
}

fn open_error(error: io::Error, name: &str) -> TunError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => TunError::Permission,
        io::ErrorKind::NotFound => TunError::NoTunDriver,
        io::ErrorKind::ResourceBusy => TunError::NameTaken { name: name.to_owned() },
        _ if error.raw_os_error() == Some(nix::errno::Errno::EPERM as i32) => TunError::Permission,
        _ => TunError::Other(error),
    }
}

fn configure(device: &AsyncDevice, name: &str, config: &TunConfig) -> io::Result<()> {
    for (setting, value) in SETTINGS {
        if let Err(error) = fs::write(format!("/proc/sys/net/{setting}").replace("{}", name), value) {
            debug!(device = name, setting, reason = %error, "a setting of the device stays as it is");
        }
    }
    device.enabled(true)?;
    let v6 = config.v6.addr();
    for (address, prefix) in [(v6, config.v6.prefix_len()), (link_local(v6), 64)] {
        match device.add_address_v6(address, prefix) {
            Ok(()) => debug!(device = name, %address, prefix, "address set"),
            Err(error) => {
                warn!(device = name, reason = %error, "no IPv6 on the device; is it disabled on this computer?");
                debug!(device = name, %address, prefix, "address not set");
            }
        }
    }
    Ok(())
}

/// Returns the link-local address with the interface identifier of an address.
fn link_local(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c, d] = address.segments();
    Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, c, d)
}

async fn add_routes(name: &str, index: u32) -> io::Result<()> {
    let mut routes = AsyncRouteManager::new()?;
    let metric = BASE_METRIC.saturating_sub(index).max(1);
    let groups: [(IpAddr, u8, u8); 3] = [
        (Ipv4Addr::BROADCAST.into(), 32, MAIN_TABLE),
        (Ipv4Addr::new(224, 0, 0, 0).into(), 4, MAIN_TABLE),
        (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0).into(), 16, LOCAL_TABLE),
    ];
    for (destination, prefix, table) in groups {
        let route =
            Route::new(destination, prefix).with_if_index(index).with_metric(metric).with_table(table);
        match routes.add(&route).await {
            Ok(()) => debug!(device = name, %destination, prefix, metric, table, "route set"),
            Err(error) if destination.is_ipv6() => {
                warn!(device = name, reason = %error, "no IPv6 multicast on the device");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
