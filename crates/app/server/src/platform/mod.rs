//! What differs from system to system, with the same signatures everywhere: receiving and sending packets in batches,
//! the addresses of network interfaces, signals, and the limit of open files.

#[cfg(target_os = "linux")]
#[path = "mmsg.rs"]
mod batches;
#[cfg(not(target_os = "linux"))]
#[path = "one_by_one.rs"]
mod batches;
mod interfaces;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "elsewhere.rs")]
mod process;
mod types;

pub(crate) use batches::Batches;
pub(crate) use interfaces::interface_addresses;
pub(crate) use process::REUSE_ADDRESS;
pub use process::{Signals, raise_file_limit};
pub use types::ProcessSignal;
