//! What differs by operating system: network devices, addresses and routes, a clock that counts sleep, directories,
//! durable files, permissions, the command line.
//!
//! Each concern is one module with the same signatures on every system. Linux is complete. On macOS the device has no
//! routes for broadcast; on Windows [`TunDevice::create`] returns [`TunError::Unsupported`].

mod arguments;
mod cards;
mod clock;
mod departure;
mod directories;
mod listening;
mod listening_socket;
mod lock;
#[cfg(target_os = "linux")]
mod netlink;
mod network;
mod permission;
mod routes;
mod stale_devices;
mod storage;
mod tun;
mod watch;

pub use arguments::hide_arguments;
pub use clock::{Clock, SleepDetector};
pub use departure::{Departure, departure};
pub use directories::Directories;
pub use listening::{ListeningSocket, listening_sockets};
pub use lock::{EngineLock, LockError};
pub use network::{
    Gateway, LocalAddress, LocalNetworks, OwnDevices, default_gateways, is_own_device, local_addresses,
};
pub use permission::check_device_permission;
pub use routes::card_routes;
pub use stale_devices::{DeviceRecord, remove_stale_devices};
pub use storage::{StorageError, keep, read, remove, rename, replace, replace_and_keep};
pub use tun::{TunConfig, TunDevice, TunError, TunReads, TunWrites};
pub use watch::{NetworkState, NetworkWatch};

/// The prefix of the device names, followed by a number, where the system allows a choice.
pub const DEVICE_PREFIX: &str = "partyline";

/// Returns an error as a sentence, without the system's number for it, which users cannot interpret.
fn sentence(error: &str) -> String {
    let words = error.split_once(" (os error ").map_or(error, |(words, _)| words);
    let mut letters = words.chars();
    letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn error_becomes_a_sentence_without_a_number() {
        let error = std::io::Error::from_raw_os_error(28);
        let sentence = super::sentence(&format!("could not write x: {error}"));
        assert!(
            sentence.starts_with("Could not write x: ")
                && sentence.ends_with('.')
                && !sentence.contains("28"),
            "{sentence}"
        );
    }
}
