//! Opens a sealed message and checks who sent it.
//!
//! The holder of the topic's key sealed the message, the device whose key verifies the signature is its sender. Whether
//! the message is new and what it counts for is decided by [`Membership`](crate::Membership).

use partyline_model::DeviceId;
use partyline_wire::{
    exact::Exact,
    sealed::{MAX_SEALED, Message, decode_plaintext, subject},
};

use crate::{error::Refusal, keys::is_signed_by, seal::open, topic_keys::TopicKeys};

/// Opens a message that was sealed with the keys of a topic; `me` is this device. The message may be of this device's own
/// key: its own, or one of a copy.
///
/// # Errors
/// Returns why the message must be dropped.
pub(crate) fn open_message(
    keys: &TopicKeys,
    me: &DeviceId,
    sealed: &[u8],
) -> Result<Exact<Message>, Refusal> {
    if sealed.len() > MAX_SEALED {
        return Err(Refusal::Malformed);
    }
    let topic = keys.topic();
    let plaintext = open(keys.seal_key(), &topic.0, sealed).ok_or(Refusal::Unreadable)?;
    let (message, signature) = decode_plaintext(&plaintext).map_err(|_| Refusal::Malformed)?;
    let Message { sender, recipient, .. } = message.value();
    if recipient.is_some_and(|recipient| recipient != *me) {
        return Err(if sender == me { Refusal::Own } else { Refusal::NotForMe });
    }
    // The signature covers the topic, so that a message cannot be moved to another one.
    if !is_signed_by(&sender.0, &subject(topic, &message), &signature) {
        return Err(Refusal::BadSignature);
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use partyline_model::PartyId;
    use partyline_wire::sealed::Body;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::{
        fixtures::{NOW, device, id},
        outbound::Outbound,
        seal::seal,
    };

    fn keys(n: u8) -> TopicKeys {
        TopicKeys::new(&PartyId([1; 32]), &[n; 32])
    }

    fn sealed(recipient: Option<DeviceId>) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        Outbound::new(device(1))
            .seal(NOW, &mut rng, &keys(1), recipient, Body::Leave { certificate: [7; 32] })
            .unwrap()
    }

    #[test]
    fn message_is_accepted_by_its_recipients_only() {
        let open =
            |me, sealed: &[u8]| open_message(&keys(1), &me, sealed).map(|message| message.value().sender);
        assert_eq!(open(id(2), &sealed(None)), Ok(id(1)));
        assert_eq!(open(id(2), &sealed(Some(id(2)))), Ok(id(1)));
        assert_eq!(open(id(2), &sealed(Some(id(3)))), Err(Refusal::NotForMe));
        assert_eq!(open(id(1), &sealed(None)), Ok(id(1)), "its own, or a copy's");
    }

    #[test]
    fn message_that_is_sealed_again_for_another_topic_has_no_valid_signature() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (from, to) = (keys(1), keys(2));
        let plaintext = open(from.seal_key(), &from.topic().0, &sealed(None)).unwrap();
        let moved = seal(to.seal_key(), &to.topic().0, &plaintext, &mut rng);
        assert_eq!(open_message(&to, &id(2), &moved), Err(Refusal::BadSignature));
        assert_eq!(open_message(&to, &id(2), &sealed(None)), Err(Refusal::Unreadable));
    }

    #[test]
    fn oversized_messages_are_not_even_opened() {
        let long = vec![0; MAX_SEALED + 1];
        assert_eq!(open_message(&keys(1), &id(2), &long), Err(Refusal::Malformed));
    }
}
