//! What differs by operating system: network devices, addresses and routes, a clock that counts sleep, directories,
//! durable files, rights.
//!
//! Each concern is one module with the same signatures everywhere. Linux is complete. On macOS the device is what
//! tun-rs gives without routes for broadcast; on Windows [`TunDevice::create`] returns [`TunError::Unsupported`].

mod clock;
mod directories;
mod lock;
mod network;
mod rights;
mod storage;
mod sweep;
mod tun;
mod watch;

pub use clock::{Clock, SleepWatch};
pub use directories::Directories;
pub use lock::{EngineLock, LockError};
pub use network::{Gateway, LocalAddress, default_gateways, is_own_device, local_addresses, local_prefixes};
pub use rights::may_create_devices;
pub use storage::{StorageError, read, remove, replace};
pub use sweep::{DeviceRecord, sweep};
pub use tun::{TunConfig, TunDevice, TunError, TunReads, TunWrites};
pub use watch::{NetworkState, NetworkWatch};

/// Every device of ours is named so, with a number behind it, where the system lets us choose.
pub const DEVICE_PREFIX: &str = "partyline";
