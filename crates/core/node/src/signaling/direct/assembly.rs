//! Messages put together from their parts.

use std::collections::{BTreeMap, VecDeque};

use partyline_wire::direct::{Nonce, Part};

/// How many messages of one source may be incomplete at a time.
const MAX_INCOMPLETE: usize = 4;
/// How many messages are remembered as complete, of which copies may still arrive.
const MAX_COMPLETE: usize = 16;

type MessageId = (Nonce, u32);

/// The messages that arrive from one source, at most [`MAX_INCOMPLETE`] at a time; a further one drops the oldest.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    incomplete: VecDeque<(MessageId, u8, BTreeMap<u8, Vec<u8>>)>,
    complete: VecDeque<MessageId>,
}

impl Assembly {
    /// Adds a part; returns the message that it completes.
    pub(super) fn add(&mut self, part: &Part<'_>) -> Option<Vec<u8>> {
        let id = (part.nonce, part.message);
        if self.complete.contains(&id) {
            return None;
        }
        let message = if part.parts == 1 { part.bytes.to_vec() } else { self.collect(id, part)? };
        self.complete.truncate(MAX_COMPLETE - 1);
        self.complete.push_front(id);
        Some(message)
    }

    fn collect(&mut self, id: MessageId, part: &Part<'_>) -> Option<Vec<u8>> {
        let same = |(known, parts, _): &(MessageId, u8, _)| (*known, *parts) == (id, part.parts);
        let index = self.incomplete.iter().position(same).unwrap_or_else(|| {
            self.incomplete.truncate(MAX_INCOMPLETE - 1);
            self.incomplete.push_front((id, part.parts, BTreeMap::new()));
            0
        });
        let (.., pieces) = self.incomplete.get_mut(index)?;
        pieces.entry(part.part).or_insert_with(|| part.bytes.to_vec());
        if pieces.len() < usize::from(part.parts) {
            return None;
        }
        let (.., pieces) = self.incomplete.remove(index)?;
        Some(pieces.into_values().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use partyline_wire::direct::{Direct, MAX_PART, parts};

    use super::*;

    fn add(assembly: &mut Assembly, datagram: &[u8]) -> Option<Vec<u8>> {
        match Direct::decode(datagram) {
            Some(Direct::Part(part)) => assembly.add(&part),
            other => panic!("no part: {other:?}"),
        }
    }

    #[test]
    fn messages_are_complete_once_in_any_order() {
        let mut assembly = Assembly::default();
        let message: Vec<u8> = (0..3 * MAX_PART - 7).map(|byte| byte as u8).collect();
        let datagrams = parts(Nonce([1; 8]), 5, &message);
        assert_eq!(add(&mut assembly, &datagrams[2]), None);
        assert_eq!(add(&mut assembly, &datagrams[0]), None);
        assert_eq!(add(&mut assembly, &datagrams[0]), None);
        assert_eq!(add(&mut assembly, &datagrams[1]), Some(message));
        assert!(datagrams.iter().all(|datagram| add(&mut assembly, datagram).is_none()), "copies");
    }

    #[test]
    fn messages_that_are_never_complete_take_no_more_than_their_room() {
        let mut assembly = Assembly::default();
        for id in 0..1000 {
            let datagrams = parts(Nonce([1; 8]), id, &[0; 2 * MAX_PART]);
            assert_eq!(add(&mut assembly, &datagrams[0]), None);
        }
        assert_eq!(assembly.incomplete.len(), MAX_INCOMPLETE);
        for id in 0..100 {
            assert!(add(&mut assembly, &parts(Nonce([2; 8]), id, b"short")[0]).is_some());
        }
        assert_eq!((assembly.incomplete.len(), assembly.complete.len()), (MAX_INCOMPLETE, MAX_COMPLETE));
    }
}
