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
mod stale_devices;
mod storage;
mod tun;
mod watch;

pub use clock::{Clock, SleepDetector};
pub use directories::Directories;
pub use lock::{EngineLock, LockError};
pub use network::{Gateway, LocalAddress, default_gateways, is_own_device, local_addresses, local_prefixes};
pub use rights::check_device_permission;
pub use stale_devices::{DeviceRecord, remove_stale_devices};
pub use storage::{StorageError, read, remove, replace};
pub use tun::{TunConfig, TunDevice, TunError, TunReads, TunWrites};
pub use watch::{NetworkState, NetworkWatch};

/// Every device of ours is named so, with a number behind it, where the system lets us choose.
pub const DEVICE_PREFIX: &str = "partyline";

/// What went wrong as a sentence, without the system's number for it, which tells people nothing.
fn sentence(error: &str) -> String {
    let words = error.split_once(" (os error ").map_or(error, |(words, _)| words);
    let mut letters = words.chars();
    letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn errors_become_sentences() {
        let error = std::io::Error::from_raw_os_error(28);
        let said = super::sentence(&format!("could not write x: {error}"));
        assert!(
            said.starts_with("Could not write x: ") && said.ends_with('.') && !said.contains("28"),
            "{said}"
        );
    }
}
