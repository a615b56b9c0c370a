//! Numbers, signs and seals every message that this device sends.

use partyline_model::{DeviceId, Timestamp};
use partyline_wire::{
    exact::Exact,
    sealed::{Body, MAX_SEALED, Message, encode_plaintext, subject},
};
use rand_core::{CryptoRng, RngCore};
use tracing::{debug, trace};
use zeroize::Zeroizing;

use crate::{
    epoch::Epoch,
    keys::{DeviceKey, sign},
    seal::seal,
};

/// Sequence numbers, which follow the clock in milliseconds, that may be used beyond the persisted one: ten minutes of
/// a device that never stops talking. A smaller value would write the state more often.
const PERSIST_SLACK: u64 = 600_000;
/// How far, in milliseconds, a burst of messages takes the sequence numbers ahead of the clock at most.
const MAX_LEAD: u64 = 1_000;

/// The device key and the sequence number of the newest message.
///
/// Sequence numbers grow from message to message, also across restarts, since receivers refuse a number they have seen.
/// A restored device goes on with the clock if that is past the persisted number. Otherwise the clock was set back, and
/// it skips twice [`PERSIST_SLACK`], more than it can have used after the state was written. It must not skip more often
/// than that: a device that leaves and joins again starts with the clock and is ignored while its old numbers are higher.
pub(crate) struct Outbound {
    device: DeviceKey,
    sequence: u64,
    persisted: u64,
}

impl Outbound {
    pub(crate) const fn new(device: DeviceKey) -> Self {
        Self { device, sequence: 0, persisted: 0 }
    }

    pub(crate) const fn restore(now: Timestamp, device: DeviceKey, persisted: u64) -> Self {
        let clock_went_on = now.0 > persisted.saturating_add(MAX_LEAD);
        let skipped = if clock_went_on { 0 } else { 2 * PERSIST_SLACK };
        Self { device, sequence: persisted.saturating_add(skipped), persisted }
    }

    pub(crate) const fn device(&self) -> &DeviceKey {
        &self.device
    }

    /// Returns the sequence number to persist.
    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns true once so many numbers were used that the newest must be persisted.
    pub(crate) const fn persist_due(&self) -> bool {
        self.sequence > self.persisted.saturating_add(PERSIST_SLACK)
    }

    /// Notes that the caller persists the state.
    pub(crate) const fn on_persist(&mut self) {
        self.persisted = self.sequence;
    }

    /// Signs and seals a message on the topic of an epoch; `None` if it would be longer than any receiver accepts.
    pub(crate) fn seal(
        &mut self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        epoch: &Epoch,
        recipient: Option<DeviceId>,
        body: Body,
    ) -> Option<Vec<u8>> {
        // At least the clock, so that a device restored from an old copy of its state is accepted again.
        self.sequence = self.sequence.saturating_add(1).max(now.0);
        let (kind, sequence, topic) = (kind(&body), self.sequence, epoch.topic());
        let message =
            Exact::new(Message { sender: self.device.id(), recipient, sequence, sent_at: now, body });
        let signature = sign(self.device.signing(), &subject(topic, &message));
        let plaintext = Zeroizing::new(encode_plaintext(&message, &signature));
        let sealed = seal(epoch.seal_key(), &topic.0, &plaintext, rng);
        let peer = || recipient.map(|recipient| recipient.short());
        if sealed.len() > MAX_SEALED {
            debug!(peer = peer(), kind, bytes = sealed.len(), reason = "too long", "message not sent");
            return None;
        }
        trace!(peer = peer(), kind, sequence, topic = %topic.short(), bytes = sealed.len(), "message sealed");
        Some(sealed)
    }
}

/// Returns the name of a message's kind for logs.
pub(crate) const fn kind(body: &Body) -> &'static str {
    match body {
        Body::Announce(_) => "announcement",
        Body::Charter(_) => "charter",
        Body::Rekey(_) => "rekey",
        Body::Signal(_) => "signal",
        Body::Leave => "leave",
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::PartyId;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::{
        fixtures::{NOW, device, id},
        inbound::open_message,
        keys::Secret,
    };

    fn send(outbound: &mut Outbound, now: Timestamp) -> u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let epoch = Epoch::new(&PartyId([1; 32]), Secret::new([1; 32]));
        let sealed = outbound.seal(now, &mut rng, &epoch, None, Body::Leave).unwrap();
        open_message(&epoch, &id(2), &sealed).unwrap().value().sequence
    }

    #[test]
    fn sequence_follows_the_clock_and_never_repeats() {
        let mut outbound = Outbound::new(device(1));
        assert_eq!(send(&mut outbound, NOW), NOW.0);
        assert_eq!(send(&mut outbound, NOW), NOW.0 + 1);
        assert_eq!(send(&mut outbound, Timestamp(NOW.0 - 5000)), NOW.0 + 2, "the clock was set back");
        assert_eq!(send(&mut outbound, Timestamp(NOW.0 + 5000)), NOW.0 + 5000);
    }

    #[test]
    fn sequence_is_persisted_before_a_restart_could_repeat_it() {
        let mut outbound = Outbound::new(device(1));
        send(&mut outbound, NOW);
        assert!(outbound.persist_due());
        outbound.on_persist();
        let persisted = outbound.sequence();
        let last = send(&mut outbound, Timestamp(persisted + PERSIST_SLACK));
        assert!(!outbound.persist_due());
        let mut restored = Outbound::restore(Timestamp(0), device(1), persisted);
        assert!(send(&mut restored, Timestamp(0)) > last, "even with a clock that was set back");
        assert!(restored.persist_due());
        send(&mut outbound, Timestamp(persisted + PERSIST_SLACK + 1));
        assert!(outbound.persist_due());
    }

    #[test]
    fn restarts_do_not_take_the_sequence_ahead_of_the_clock() {
        let mut persisted = NOW.0;
        for minute in 1..=5 {
            let now = Timestamp(NOW.0 + minute * 60_000);
            let mut restored = Outbound::restore(now, device(1), persisted);
            assert_eq!(send(&mut restored, now), now.0);
            persisted = restored.sequence();
        }
    }

    #[test]
    fn message_that_exceeds_every_limit_is_not_sent() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let epoch = Epoch::new(&PartyId([1; 32]), Secret::new([1; 32]));
        let body = Body::Signal(vec![0; MAX_SEALED]);
        assert_eq!(Outbound::new(device(1)).seal(NOW, &mut rng, &epoch, None, body), None);
    }
}
