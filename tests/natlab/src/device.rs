//! TUN devices whose packets pass through this process, and the thread that forwards them.

use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::namespace::Namespace;

/// Maximum length of an IP packet in bytes.
pub(crate) const MAX_PACKET_LEN: usize = 65_535;

/// Creates a TUN device in a namespace. The device is removed when the returned value is dropped.
pub(crate) fn tun(namespace: &Namespace, name: &str, mtu: u16) -> Result<SyncDevice> {
    let build = || DeviceBuilder::new().name(name).layer(Layer::L3).mtu(mtu).build_sync();
    namespace.enter(build)?.with_context(|| format!("device {name} in {}", namespace.name()))
}

/// Forwards packets between TUN devices.
pub(crate) trait Carrier: Send + 'static {
    /// Returns the devices to read from.
    fn devices(&self) -> Vec<BorrowedFd<'_>>;

    /// Handles a device, given by its index, that has a packet to read.
    fn readable(&mut self, device: usize, buffer: &mut [u8]);

    /// Returns the time at which [`Carrier::due`] has to be called next.
    fn deadline(&self) -> Option<Instant>;

    /// Handles the expiry of the deadline.
    fn due(&mut self);
}

/// A thread that runs a [`Carrier`]. It ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Carried {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Carried {
    pub fn start(name: &str, carrier: impl Carrier) -> Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let work = move || carry(carrier, &stopped);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn carry(mut carrier: impl Carrier, stopped: &UnixStream) {
    let mut buffer = vec![0; MAX_PACKET_LEN];
    loop {
        let ready = match wait(&carrier, stopped) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        let Some((true, devices)) = ready.split_last().map(|(stop, devices)| (!*stop, devices)) else {
            return;
        };
        for (device, _) in devices.iter().enumerate().filter(|(_, ready)| **ready) {
            carrier.readable(device, &mut buffer);
        }
        if carrier.deadline().is_some_and(|at| at <= Instant::now()) {
            carrier.due();
        }
    }
}

/// Waits until a device is readable, `stopped` is closed or the deadline passes. Returns one flag per device, and last
/// the one of `stopped`.
fn wait(carrier: &impl Carrier, stopped: &UnixStream) -> Result<Vec<bool>, Errno> {
    let fds = carrier.devices().into_iter().chain([stopped.as_fd()]);
    let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let left = carrier.deadline().map(|at| at.saturating_duration_since(Instant::now()));
    ppoll(&mut polled, left.map(|span: Duration| TimeSpec::from_duration(span)), None)?;
    Ok(polled.iter().map(|fd| fd.any().unwrap_or(false)).collect())
}
