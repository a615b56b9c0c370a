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
    keys::{DeviceKey, sign},
    seal::seal,
    topic_keys::TopicKeys,
};

/// What this device sends in one party.
pub(crate) struct Outbound {
    device: DeviceKey,
}

impl Outbound {
    pub(crate) const fn new(device: DeviceKey) -> Self {
        Self { device }
    }

    pub(crate) const fn device(&self) -> &DeviceKey {
        &self.device
    }

    /// Returns true if the state has to be stored, since only half of the reserved sequence numbers are left.
    pub(crate) fn is_reservation_due(&self) -> bool {
        self.device.numbers().is_reservation_due()
    }

    /// Signs and seals a message with the keys of a topic; `None` if it would be longer than any receiver accepts.
    pub(crate) fn seal(
        &self,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        keys: &TopicKeys,
        recipient: Option<DeviceId>,
        body: Body,
    ) -> Option<Vec<u8>> {
        let (kind, sequence, topic) = (kind(&body), self.device.numbers().next(), keys.topic());
        let message =
            Exact::new(Message { sender: self.device.id(), recipient, sequence, sent_at: now, body });
        let signature = sign(self.device.signing(), &subject(topic, &message));
        let plaintext = Zeroizing::new(encode_plaintext(&message, &signature));
        let sealed = seal(keys.seal_key(), &topic.0, &plaintext, rng);
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
        Body::Leave { .. } => "leave",
        Body::Run(_) => "run",
        Body::JoinRequest(_) => "join request",
        Body::JoinRejection(_) => "join rejection",
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::PartyId;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::fixtures::{NOW, device};

    #[test]
    fn message_that_exceeds_every_limit_is_not_sent() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let keys = TopicKeys::new(&PartyId([1; 32]), &[1; 32]);
        let body = Body::Signal(vec![0; MAX_SEALED]);
        assert_eq!(Outbound::new(device(1)).seal(NOW, &mut rng, &keys, None, body), None);
    }
}
