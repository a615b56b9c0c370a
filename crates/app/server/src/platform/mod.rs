//! What differs from system to system, with one signature for each thing: how packets enter and leave in batches, what
//! ends or reloads the program, and how many descriptors it may have.

#[cfg(target_os = "linux")]
#[path = "mmsg.rs"]
mod batches;
#[cfg(not(target_os = "linux"))]
#[path = "one_by_one.rs"]
mod batches;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "elsewhere.rs")]
mod process;

use std::{io::IoSliceMut, net::SocketAddr};

pub(crate) use batches::Batches;
pub(crate) use process::REUSE_ADDRESS;
pub use process::{Signals, raise_file_limit};

/// What the program is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// End.
    Stop,
    /// Read the certificate again.
    Reload,
}

/// Room for one datagram, as the calls that fill many at once want it.
pub(crate) type Room<'a> = [IoSliceMut<'a>; 1];

/// What a socket put into one [`Room`].
pub(crate) struct Arrival {
    /// Which room.
    pub index: usize,
    /// As many bytes as the datagram has or the room holds.
    pub length: usize,
    /// Who sent it; `None` if it was nothing that can be used.
    pub from: Option<SocketAddr>,
}
