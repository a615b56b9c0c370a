//! The handle to the tasks that keep the mappings.

use std::{net::SocketAddr, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};
use tracing::{Instrument as _, debug, debug_span};

use crate::{
    Mapping, MethodState, Options,
    announcements::listen,
    board::StatusBoard,
    journal::Journal,
    keeper::{Keeper, Shared},
};

/// Bounds the deletion of all mappings when the mapper is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps a port mapped by every protocol that the router speaks, until stopped. Dropped without being stopped, it still
/// asks the router to delete the mappings, but nobody waits for that.
#[derive(Debug)]
pub struct PortMapper {
    board: StatusBoard,
    remotes: watch::Sender<Vec<SocketAddr>>,
    stop: watch::Sender<()>,
    keepers: JoinSet<()>,
}

impl PortMapper {
    /// Starts one task per protocol on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let mut methods = options.methods.clone();
        methods.retain(|method| options.v6.is_some() || !method.is_ipv6());
        methods.sort_unstable();
        methods.dedup();
        debug!(?options, previous = options.previous_records.len(), "port mapping starts");
        let board = StatusBoard::new(&methods);
        let (stop, remotes) = (watch::Sender::new(()), watch::Sender::new(Vec::new()));
        let journal = Journal::new(&options);
        let mut keepers = JoinSet::new();
        let restarts = listen(options.gateway, options.local_ip, &mut keepers, stop.subscribe());
        let shared =
            Shared { options, board: board.clone(), journal, restarts, remotes: remotes.subscribe() };
        for method in methods {
            let keeper = Keeper::new(method, shared.clone()).run(stop.subscribe());
            keepers.spawn(keeper.instrument(debug_span!("port_mapping", %method)));
        }
        Self { board, remotes, stop, keepers }
    }

    /// Sets the remotes that need to reach the socket at any time, its servers above all: a router that maps no ports
    /// is asked to keep the flows to them. Each call replaces the list; the first 4 of each address family count.
    pub fn set_remotes(&self, remotes: Vec<SocketAddr>) {
        self.remotes.send_if_modified(|known| {
            let changed = *known != remotes;
            *known = remotes;
            changed
        });
    }

    /// Observes the mappings, best first; changes and renewals notify.
    #[must_use]
    pub fn mappings(&self) -> watch::Receiver<Vec<Mapping>> {
        self.board.mappings()
    }

    /// Observes the state of each protocol.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Vec<MethodState>> {
        self.board.states()
    }

    /// Deletes the mappings and ends; takes at most 2 seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(());
        let ended = async { while self.keepers.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, ended).await.is_err() {
            debug!(
                after_ms = STOP_TIMEOUT.as_millis(),
                reason = "a router does not answer",
                "port mapping ended without deleting everything"
            );
        }
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        self.stop.send_replace(());
        self.keepers.detach_all();
    }
}
