//! What wakes the loop.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use crate::{
    Call,
    connections::ConnectionEvent,
    devices::{Batch, DeviceEvent},
    sockets::Arrivals,
    surroundings::Surrounding,
};

/// What other tasks send to the loop.
pub(crate) struct Inbox {
    pub connections: mpsc::Receiver<ConnectionEvent>,
    pub devices: mpsc::Receiver<DeviceEvent>,
    pub packets: mpsc::Receiver<Batch>,
    pub surroundings: mpsc::Receiver<Surrounding>,
    pub arrivals: mpsc::Receiver<Arrivals>,
}

/// What woke the loop.
pub(crate) enum Wake {
    Call(Option<Call>),
    Datagrams(std::io::Result<()>),
    Packets(Batch),
    Connection(ConnectionEvent),
    Device(DeviceEvent),
    Surrounding(Surrounding),
    Arrivals(Arrivals),
    Beacon(std::io::Result<(Vec<u8>, SocketAddr)>),
    Time,
}
