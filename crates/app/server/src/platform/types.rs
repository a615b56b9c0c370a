//! The types that all systems share.

use std::{io::IoSliceMut, net::SocketAddr};

/// What a signal asks of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessSignal {
    /// Shut down.
    Stop,
    /// Read the certificate again.
    Reload,
}

/// Room for one datagram, in the form that `recvmmsg` takes.
pub(crate) type Room<'a> = [IoSliceMut<'a>; 1];

/// A datagram that was received into a [`Room`].
pub(crate) struct Arrival {
    /// The index of the room.
    pub index: usize,
    /// The length of the datagram in bytes, or of the room if that is less.
    pub length: usize,
    /// The sender; `None` if the datagram is unusable.
    pub from: Option<SocketAddr>,
}
