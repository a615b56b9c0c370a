//! The names under which peers appear in logs.

use std::collections::BTreeMap;

use partyline_model::{DeviceId, PartyId};
use tracing::{Span, info_span};

use crate::path::PeerId;

/// Short ids of a peer's party and device.
#[derive(Debug)]
struct PeerName {
    party: String,
    device: String,
}

/// The named peers. A [`PeerId`] is a number of this process alone, which says nothing to the reader of a log.
#[derive(Debug, Default)]
pub(crate) struct PeerNames(BTreeMap<PeerId, PeerName>);

impl PeerNames {
    pub(crate) fn set(&mut self, id: PeerId, party: PartyId, device: DeviceId) {
        self.0.insert(id, PeerName { party: party.short(), device: device.short() });
    }

    pub(crate) fn remove(&mut self, id: PeerId) {
        self.0.remove(&id);
    }

    /// Returns the span of everything that concerns a peer, with the number of a peer that has no name.
    pub(crate) fn span(&self, id: PeerId) -> Span {
        match self.0.get(&id) {
            Some(PeerName { party, device }) => info_span!("peer", %party, peer = %device),
            None => info_span!("peer", peer = id.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn log_lines_name_the_party_and_the_member() {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let mut names = PeerNames::default();
        names.set(PeerId(7), PartyId([0xab; 32]), DeviceId([0x1f; 32]));
        tracing::subscriber::with_default(lines, || {
            names.span(PeerId(7)).in_scope(|| tracing::info!("named"));
            names.remove(PeerId(7));
            names.span(PeerId(7)).in_scope(|| tracing::info!("unnamed"));
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let [named, unnamed] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(named.contains("party=abababab peer=1f1f1f1f") && named.contains("named"), "{named}");
        assert!(unnamed.contains("peer=7"), "{unnamed}");
    }
}
