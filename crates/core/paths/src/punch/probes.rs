//! The probes of one punch attempt, so that a response can be matched with the path it validates.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use partyline_wire::probe::TransactionId;

use crate::{context::Context, path::Path, remote::Remote};

/// The priority of a peer-reflexive candidate (RFC 8445, section 5.1.2.2), which every probe would discover.
const PROBE_PRIORITY: u32 = (110 << 24) | (0xffff << 8) | 0xff;
/// If more ports than this were sent to, they were tried at random rather than predicted.
const MAX_PREDICTED_PORTS: usize = 8;

/// Probes that were sent and by which paths.
#[derive(Debug, Default)]
pub(super) struct SentProbes {
    sent: BTreeMap<TransactionId, (Path, Instant)>,
}

impl SentProbes {
    /// Sends a probe along a path that is no candidate pair yet.
    pub(super) fn send(&mut self, remote: &Remote, ctx: &mut Context<'_>, path: Path) {
        let id = ctx.transactions.next_id();
        remote.send_check(ctx, path, id, PROBE_PRIORITY, false);
        self.sent.insert(id, (path, ctx.now));
    }

    /// Returns the path of a probe and when it was sent.
    pub(super) fn get(&self, id: TransactionId) -> Option<(Path, Instant)> {
        self.sent.get(&id).copied()
    }

    /// Returns the number of probes sent.
    pub(super) fn count(&self) -> usize {
        self.sent.len()
    }

    /// Returns true if a probe was sent along a path.
    pub(super) fn contains(&self, path: Path) -> bool {
        self.sent.values().any(|(sent, _)| *sent == path)
    }

    /// Returns the ids of all probes.
    pub(super) fn ids(&self) -> impl Iterator<Item = TransactionId> {
        self.sent.keys().copied()
    }

    /// Returns the ports of the peer that were sent to by the near end of a path, if they were predicted.
    pub(super) fn predicted_ports(&self, path: Path) -> BTreeSet<SocketAddr> {
        let beside = self.sent.values().map(|(sent, _)| *sent).filter(|sent| sent.is_beside(&path));
        let ports: BTreeSet<SocketAddr> = beside.map(|sent| sent.remote).collect();
        if ports.len() > MAX_PREDICTED_PORTS { BTreeSet::new() } else { ports }
    }
}
