//! What wakes the loop.

use std::{io, net::SocketAddr};

use partyline_platform::NetworkState;
use tokio::sync::mpsc;

use crate::{
    connections::ConnectionEvent,
    controller::Call,
    devices::{Batch, DeviceEvent},
    sockets::Arrivals,
};

/// The queues by which the engine's other tasks reach the loop.
pub(crate) struct Inbox {
    pub connections: mpsc::Receiver<ConnectionEvent>,
    pub devices: mpsc::Receiver<DeviceEvent>,
    pub packets: mpsc::Receiver<Batch>,
    pub network: mpsc::Receiver<NetworkState>,
    pub arrivals: mpsc::Receiver<Arrivals>,
}

/// One reason for the loop to run.
pub(crate) enum Wakeup {
    /// A command, or `None` when every controller is gone.
    Call(Option<Call>),
    /// The main socket has filled the receive batch, or failed.
    Datagrams(io::Result<()>),
    /// Another socket received datagrams.
    Arrivals(Arrivals),
    /// A device has packets to send.
    Packets(Batch),
    Connection(ConnectionEvent),
    Device(DeviceEvent),
    Network(NetworkState),
    /// The router does something else than before.
    Router,
    Beacon(io::Result<(Vec<u8>, SocketAddr)>),
    /// A deadline has come.
    Deadline,
}
