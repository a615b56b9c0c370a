//! The parties' network devices: made when the node asks, read by a task each, written in batches.
//!
//! A device that cannot be made is tried again until it can or is no longer wanted: another network may go away, or the
//! right be given.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use partyline_model::{AppError, ErrorCode, PartyId};
use partyline_node::{DeviceConfig, DeviceInput};
use partyline_platform::{DeviceRecord, StorageError, TunConfig, TunDevice, TunReads, TunWrites};
use tokio::{sync::mpsc, task::JoinHandle};

const RETRY: Duration = Duration::from_secs(5);
/// Buffers that go back and forth between a reader and the loop.
const BUFFERS: usize = 2;

/// What devices tell the loop.
#[derive(Debug)]
pub(crate) enum DeviceEvent {
    Up { party: PartyId, number: u64, device: Arc<TunDevice> },
    Failed { party: PartyId, number: u64, error: AppError },
}

/// Packets read from a device; the buffer goes back when they are dealt with.
pub(crate) struct Batch {
    pub party: PartyId,
    pub reads: TunReads,
    back: mpsc::Sender<TunReads>,
}

impl Batch {
    /// Gives the buffer back to the reader.
    pub(crate) fn done(self) {
        let _ = self.back.try_send(self.reads);
    }
}

/// All devices of one engine.
pub(crate) struct Devices {
    devices: HashMap<PartyId, Device>,
    /// How many were asked for; what is still told of one that was replaced is recognised by its number.
    made: u64,
    record: DeviceRecord,
    events: mpsc::Sender<DeviceEvent>,
    packets: mpsc::Sender<Batch>,
}

struct Device {
    number: u64,
    maker: JoinHandle<()>,
    tun: Option<Arc<TunDevice>>,
    writes: TunWrites,
    /// Packets that did not fit `writes`: a chunk of a stream may hold more of them than one write takes.
    overflow: VecDeque<Vec<u8>>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.maker.abort();
    }
}

impl Devices {
    /// No devices yet. Those to come are noted in the state directory, so that the next run removes what a crash of
    /// this one leaves.
    pub(crate) fn new(state: &Path, events: mpsc::Sender<DeviceEvent>, packets: mpsc::Sender<Batch>) -> Self {
        Self { devices: HashMap::new(), made: 0, record: DeviceRecord::new(state), events, packets }
    }

    /// Makes a party's device, in place of one it may have.
    pub(crate) fn open(&mut self, party: PartyId, config: DeviceConfig) {
        let before = self.take(party);
        self.made += 1;
        let number = self.made;
        let maker = make((party, number), config, before, self.events.clone(), self.packets.clone());
        let device = Device {
            number,
            maker: tokio::spawn(maker),
            tun: None,
            writes: TunWrites::new(),
            overflow: VecDeque::new(),
        };
        self.devices.insert(party, device);
    }

    pub(crate) fn close(&mut self, party: PartyId) {
        self.take(party);
    }

    fn take(&mut self, party: PartyId) -> Option<Device> {
        let device = self.devices.remove(&party)?;
        if let Some(tun) = &device.tun {
            noted(self.record.remove(tun.name()));
        }
        Some(device)
    }

    /// Takes what became of a device, unless another was asked for since.
    pub(crate) fn handle(&mut self, event: DeviceEvent) -> Option<(PartyId, DeviceInput)> {
        let (party, number, result) = match event {
            DeviceEvent::Failed { party, number, error } => (party, number, Err(error)),
            DeviceEvent::Up { party, number, device } => (party, number, Ok(device)),
        };
        let slot = self.devices.get_mut(&party).filter(|slot| slot.number == number)?;
        if let Some(gone) = slot.tun.take() {
            noted(self.record.remove(gone.name()));
        }
        if let Ok(device) = &result {
            noted(self.record.add(device.name()));
            slot.tun = Some(Arc::clone(device));
        }
        let input = match result {
            Ok(device) => DeviceInput::Up(device.name().to_owned()),
            Err(error) => DeviceInput::Failed(error),
        };
        Some((party, input))
    }

    /// Queues a packet for a party's device. Without a device, the packet is dropped.
    pub(crate) fn push(&mut self, party: PartyId, packet: &[u8]) {
        let Some(Device { tun: Some(_), writes, overflow, .. }) = self.devices.get_mut(&party) else {
            return tracing::trace!(party = %party.short(), reason = "no device", "dropped a received packet");
        };
        // Whatever overflowed once has to keep its place.
        if !overflow.is_empty() || !writes.push(packet) {
            overflow.push_back(packet.to_vec());
        }
    }

    /// True if another packet for any device fits without [`Self::flush`] or copying it twice.
    pub(crate) fn has_room(&self) -> bool {
        self.devices.values().all(|device| !device.writes.is_full())
    }

    /// Writes what is queued.
    pub(crate) async fn flush(&mut self) {
        for (party, device) in &mut self.devices {
            device.flush(*party).await;
        }
    }
}

impl Device {
    async fn flush(&mut self, party: PartyId) {
        let Some(tun) = &self.tun else { return };
        loop {
            if let Err(error) = tun.send(&mut self.writes).await {
                tracing::warn!(party = %party.short(), %error, "the network device does not take packets");
                return self.overflow.clear();
            }
            while !self.writes.is_full()
                && let Some(packet) = self.overflow.pop_front()
            {
                // A packet longer than 64 KiB fits no device and is dropped.
                self.writes.push(&packet);
            }
            if self.writes.is_empty() {
                return;
            }
        }
    }
}

/// The note only serves to tidy up after a crash: without it, play goes on.
fn noted(result: Result<(), StorageError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the network devices in use could not be noted");
    }
}

async fn make(
    (party, number): (PartyId, u64),
    config: DeviceConfig,
    before: Option<Device>,
    events: mpsc::Sender<DeviceEvent>,
    packets: mpsc::Sender<Batch>,
) {
    let DeviceConfig { v4, v6, mtu } = config;
    let config = TunConfig { name: None, v4, v6, mtu };
    if let Some(mut before) = before {
        // Its addresses must be gone before they are given to the next.
        before.maker.abort();
        let _ = (&mut before.maker).await;
    }
    loop {
        let error = match TunDevice::create(&config).await {
            Ok(device) => {
                let device = Arc::new(device);
                let event = DeviceEvent::Up { party, number, device: Arc::clone(&device) };
                if events.send(event).await.is_err() {
                    return;
                }
                let Some(error) = read(party, &device, mtu, &packets).await else { return };
                lost(&error)
            }
            Err(error) => error.into(),
        };
        tracing::warn!(party = %party.short(), %error, "no network device");
        if events.send(DeviceEvent::Failed { party, number, error }).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn lost(error: &std::io::Error) -> AppError {
    AppError::new(
        ErrorCode::Device,
        format!("The party's network device is gone: {error}."),
        "Partyline makes it anew; another program may have removed it.",
    )
}

/// Reads until the device fails; `None` if nobody takes its packets any more.
async fn read(
    party: PartyId,
    device: &TunDevice,
    mtu: u16,
    packets: &mpsc::Sender<Batch>,
) -> Option<std::io::Error> {
    let (back, mut buffers) = mpsc::channel(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = back.try_send(TunReads::new(mtu));
    }
    while let Some(mut reads) = buffers.recv().await {
        if let Err(error) = device.recv(&mut reads).await {
            return Some(error);
        }
        if packets.send(Batch { party, reads, back: back.clone() }).await.is_err() {
            return None;
        }
    }
    None
}
