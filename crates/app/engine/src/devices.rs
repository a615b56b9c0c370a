//! The parties' network devices: made when the node asks, read by a task each, written in batches.
//!
//! A device that cannot be made is tried again until it can or is no longer wanted: a conflicting network may go away,
//! or the right be given.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use partyline_model::{AppError, ErrorCode, PartyId};
use partyline_node::{DeviceConfig, DeviceInput};
use partyline_platform::{DeviceRecord, StorageError, TunConfig, TunDevice, TunReads, TunWrites};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::metrics::{self, TUNNEL_DEVICE_FAILURES};

/// How long after a failure a device is made again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Buffers that go back and forth between a reader and the loop.
const BUFFERS: usize = 2;

/// What devices report to the loop.
#[derive(Debug)]
pub(crate) enum DeviceEvent {
    Up { party: PartyId, generation: u64, device: Arc<Device> },
    Failed { party: PartyId, generation: u64, error: AppError },
}

/// Packets read from a device; the buffer goes back to the reader when they are sent.
pub(crate) struct Batch {
    pub party: PartyId,
    pub reads: TunReads,
    back: mpsc::Sender<TunReads>,
}

impl Batch {
    /// Gives the buffer back to the reader.
    pub(crate) fn give_back(self) {
        let _ = self.back.try_send(self.reads);
    }
}

/// Where devices come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DeviceSource {
    /// The operating system.
    System,
    /// Devices without packets, for tests that may not change the system.
    #[cfg(test)]
    Idle,
}

impl DeviceSource {
    async fn create(self, config: &TunConfig) -> Result<Device, AppError> {
        match self {
            Self::System => Ok(Device::Tun(Box::new(TunDevice::create(config).await?))),
            #[cfg(test)]
            Self::Idle => Ok(Device::Idle),
        }
    }
}

/// A network device.
#[derive(Debug)]
pub(crate) enum Device {
    Tun(Box<TunDevice>),
    #[cfg(test)]
    Idle,
}

impl Device {
    fn name(&self) -> &str {
        match self {
            Self::Tun(tun) => tun.name(),
            #[cfg(test)]
            Self::Idle => "idle",
        }
    }

    async fn recv(&self, reads: &mut TunReads) -> io::Result<()> {
        match self {
            Self::Tun(tun) => tun.recv(reads).await,
            #[cfg(test)]
            Self::Idle => std::future::pending().await,
        }
    }

    async fn send(&self, writes: &mut TunWrites) -> io::Result<()> {
        match self {
            Self::Tun(tun) => tun.send(writes).await,
            #[cfg(test)]
            Self::Idle => {
                *writes = TunWrites::new();
                Ok(())
            }
        }
    }
}

/// All devices of one engine.
pub(crate) struct Devices {
    source: DeviceSource,
    slots: HashMap<PartyId, Slot>,
    /// Devices asked for so far: events of one that was replaced are recognised by its generation.
    generations: u64,
    record: DeviceRecord,
    events: mpsc::Sender<DeviceEvent>,
    packets: mpsc::Sender<Batch>,
}

/// One party's device, from when it is asked for.
struct Slot {
    generation: u64,
    maker: JoinHandle<()>,
    device: Option<Arc<Device>>,
    writes: TunWrites,
    /// Packets that did not fit `writes`: a chunk of a stream may hold more of them than one write takes.
    overflow: VecDeque<Vec<u8>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.maker.abort();
    }
}

impl Devices {
    /// No devices yet. Those to come are noted in the state directory, so that the next run removes what a crash of
    /// this one leaves.
    pub(crate) fn new(
        source: DeviceSource,
        state: &Path,
        events: mpsc::Sender<DeviceEvent>,
        packets: mpsc::Sender<Batch>,
    ) -> Self {
        let record = DeviceRecord::new(state);
        Self { source, slots: HashMap::new(), generations: 0, record, events, packets }
    }

    /// Makes a party's device, in place of one it may have.
    pub(crate) fn open(&mut self, party: PartyId, config: DeviceConfig) {
        let before = self.take(party);
        self.generations += 1;
        let maker = Maker {
            party,
            generation: self.generations,
            source: self.source,
            mtu: config.mtu,
            config: TunConfig { name: None, v4: config.v4, v6: config.v6, mtu: config.mtu },
            events: self.events.clone(),
            packets: self.packets.clone(),
        };
        let slot = Slot {
            generation: self.generations,
            maker: tokio::spawn(maker.run(before)),
            device: None,
            writes: TunWrites::new(),
            overflow: VecDeque::new(),
        };
        self.slots.insert(party, slot);
    }

    pub(crate) fn close(&mut self, party: PartyId) {
        if self.take(party).is_some() {
            tracing::debug!(party = %party.short(), "closed the network device");
        }
    }

    fn take(&mut self, party: PartyId) -> Option<Slot> {
        let slot = self.slots.remove(&party)?;
        if let Some(device) = &slot.device {
            log_record(self.record.remove(device.name()));
        }
        Some(slot)
    }

    /// Takes what became of a device, unless it was replaced or closed meanwhile.
    pub(crate) fn handle(&mut self, event: DeviceEvent) -> Option<(PartyId, DeviceInput)> {
        let (party, generation, result) = match event {
            DeviceEvent::Failed { party, generation, error } => (party, generation, Err(error)),
            DeviceEvent::Up { party, generation, device } => (party, generation, Ok(device)),
        };
        let slot = self.slots.get_mut(&party).filter(|slot| slot.generation == generation)?;
        if let Some(gone) = slot.device.take() {
            log_record(self.record.remove(gone.name()));
        }
        let input = match result {
            Ok(device) => {
                tracing::info!(party = %party.short(), device = device.name(), "the network device is up");
                log_record(self.record.add(device.name()));
                let input = DeviceInput::Up(device.name().to_owned());
                slot.device = Some(device);
                input
            }
            Err(error) => {
                metrics::increment(&TUNNEL_DEVICE_FAILURES, &[]);
                DeviceInput::Failed(error)
            }
        };
        Some((party, input))
    }

    /// Queues a packet for a party's device. Without a device, the packet is dropped.
    pub(crate) fn push(&mut self, party: PartyId, packet: &[u8]) {
        let Some(Slot { device: Some(_), writes, overflow, .. }) = self.slots.get_mut(&party) else {
            return tracing::trace!(party = %party.short(), reason = "no device", "dropped a received packet");
        };
        // Packets must not overtake those that overflowed before.
        if !overflow.is_empty() || !writes.push(packet) {
            overflow.push_back(packet.to_vec());
        }
    }

    /// True if another packet for any device fits without being copied twice.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.values().all(|slot| !slot.writes.is_full())
    }

    /// Writes what is queued.
    pub(crate) async fn flush(&mut self) {
        for (party, slot) in &mut self.slots {
            slot.flush(*party).await;
        }
    }
}

impl Slot {
    async fn flush(&mut self, party: PartyId) {
        let Some(device) = &self.device else { return };
        loop {
            while !self.writes.is_full()
                && let Some(packet) = self.overflow.pop_front()
            {
                // A packet longer than 64 KiB fits no device and is dropped.
                self.writes.push(&packet);
            }
            if self.writes.is_empty() {
                return;
            }
            if let Err(error) = device.send(&mut self.writes).await {
                tracing::warn!(party = %party.short(), %error, "the network device does not take packets");
                return self.overflow.clear();
            }
        }
    }
}

/// The record only serves to tidy up after a crash: without it, play goes on.
fn log_record(result: Result<(), StorageError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the record of network devices in use could not be written");
    }
}

/// The task that makes a party's device and then reads it, again and again after failures.
struct Maker {
    party: PartyId,
    generation: u64,
    source: DeviceSource,
    mtu: u16,
    config: TunConfig,
    events: mpsc::Sender<DeviceEvent>,
    packets: mpsc::Sender<Batch>,
}

impl Maker {
    async fn run(self, before: Option<Slot>) {
        if let Some(mut before) = before {
            // Its addresses must be gone before they are given to the next.
            before.maker.abort();
            let _ = (&mut before.maker).await;
        }
        let Self { party, generation, .. } = self;
        while let Some(error) = self.make_and_read().await {
            let retry_ms = RETRY_INTERVAL.as_millis();
            tracing::warn!(party = %party.short(), %error, retry_ms, "no network device");
            if self.events.send(DeviceEvent::Failed { party, generation, error }).await.is_err() {
                return;
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Returns why the device could not be made or was lost; `None` when the engine has ended.
    async fn make_and_read(&self) -> Option<AppError> {
        let device = match self.source.create(&self.config).await {
            Ok(device) => Arc::new(device),
            Err(error) => return Some(error),
        };
        let (party, generation) = (self.party, self.generation);
        let event = DeviceEvent::Up { party, generation, device: Arc::clone(&device) };
        self.events.send(event).await.ok()?;
        self.read(&device).await.map(|error| lost(&error))
    }

    /// Reads until the device fails; returns `None` when nothing takes its packets any more.
    async fn read(&self, device: &Device) -> Option<io::Error> {
        let (back, mut buffers) = mpsc::channel(BUFFERS);
        for _ in 0..BUFFERS {
            let _ = back.try_send(TunReads::new(self.mtu));
        }
        while let Some(mut reads) = buffers.recv().await {
            if let Err(error) = device.recv(&mut reads).await {
                return Some(error);
            }
            self.packets.send(Batch { party: self.party, reads, back: back.clone() }).await.ok()?;
        }
        None
    }
}

fn lost(error: &io::Error) -> AppError {
    AppError::new(
        ErrorCode::Device,
        format!("The party's network device is gone: {error}."),
        "Partyline makes another one; a program may have removed it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: PartyId = PartyId([1; 32]);

    fn devices(state: &Path) -> (Devices, mpsc::Receiver<DeviceEvent>) {
        let (events, inbox) = mpsc::channel(4);
        let (packets, _) = mpsc::channel(1);
        (Devices::new(DeviceSource::Idle, state, events, packets), inbox)
    }

    fn config() -> DeviceConfig {
        let (v4, v6) = ("10.77.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap());
        DeviceConfig { v4, v6, mtu: 1400 }
    }

    #[tokio::test]
    async fn events_of_a_replaced_device_are_ignored() {
        let state = tempfile::tempdir().unwrap();
        let (mut devices, mut inbox) = devices(state.path());
        devices.open(PARTY, config());
        let first = inbox.recv().await.unwrap();
        devices.open(PARTY, config());
        let second = inbox.recv().await.unwrap();
        assert!(devices.handle(first).is_none());
        assert!(matches!(devices.handle(second), Some((PARTY, DeviceInput::Up(name))) if name == "idle"));
        devices.close(PARTY);
        assert!(devices.slots.is_empty());
    }

    #[tokio::test]
    async fn packets_beyond_one_write_are_kept_in_order_until_they_are_flushed() {
        let state = tempfile::tempdir().unwrap();
        let (mut devices, mut inbox) = devices(state.path());
        devices.push(PARTY, b"no device yet");
        devices.open(PARTY, config());
        let up = inbox.recv().await.unwrap();
        devices.handle(up);
        let mut count = 0;
        while devices.has_room() {
            devices.push(PARTY, b"fits");
            count += 1;
        }
        (0..3 * count).for_each(|_| devices.push(PARTY, b"overflows"));
        assert_eq!(devices.slots[&PARTY].overflow.len(), 3 * count);
        devices.flush().await;
        let slot = &devices.slots[&PARTY];
        assert!(slot.overflow.is_empty() && slot.writes.is_empty());
    }

    #[tokio::test]
    async fn a_failed_device_is_reported_to_the_node() {
        let state = tempfile::tempdir().unwrap();
        let (mut devices, mut inbox) = devices(state.path());
        devices.open(PARTY, config());
        let up = inbox.recv().await.unwrap();
        devices.handle(up);
        let error = AppError::new(ErrorCode::Device, "gone", "wait");
        let failed = DeviceEvent::Failed { party: PARTY, generation: 1, error: error.clone() };
        assert!(matches!(devices.handle(failed), Some((PARTY, DeviceInput::Failed(told))) if told == error));
        assert!(devices.slots[&PARTY].device.is_none());
    }
}
