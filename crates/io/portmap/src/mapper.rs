//! The handle to the tasks that keep the mappings.

use std::{net::SocketAddr, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    Health, Mapping, MethodState, Options,
    announcements::listen,
    keeper::{Board, Keeper},
    notebook::Notebook,
};

/// Keeps a port mapped by every method that answers, until stopped. Dropped without being stopped, it still asks the
/// router to delete the mappings, but nobody waits for it.
#[derive(Debug)]
pub struct PortMapper {
    board: Board,
    remotes: watch::Sender<Vec<SocketAddr>>,
    stop: watch::Sender<()>,
    keepers: JoinSet<()>,
}

impl PortMapper {
    /// Starts one task per method on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let mut methods = options.methods.clone();
        methods.retain(|method| options.v6.is_some() || !method.is_ipv6());
        methods.sort_unstable();
        methods.dedup();
        let state = |&method| MethodState {
            method,
            health: Health::Pending,
            failures: 0,
            problem: None,
            retry_after: None,
            flows: Vec::new(),
        };
        let states = methods.iter().map(state).collect();
        let board = Board { mappings: watch::Sender::new(Vec::new()), states: watch::Sender::new(states) };
        let (stop, remotes) = (watch::Sender::new(()), watch::Sender::new(Vec::new()));
        let notebook = Notebook::new(&options);
        let mut keepers = JoinSet::new();
        let restarts = listen(options.gateway, options.local_ip, &mut keepers, stop.subscribe());
        for method in methods {
            let (options, board) = (options.clone(), board.clone());
            let (notebook, restarts) = (notebook.clone(), restarts.clone());
            let keeper = Keeper { method, options, board, notebook, restarts, remotes: remotes.subscribe() };
            keepers.spawn(keeper.keep(stop.subscribe()));
        }
        Self { board, remotes, stop, keepers }
    }

    /// Says whom the socket talks to and wants to be reached by at any time, its servers above all; the whole list every
    /// time, the first 4 of each address family count.
    pub fn set_remotes(&self, remotes: Vec<SocketAddr>) {
        self.remotes.send_if_modified(|known| {
            let news = *known != remotes;
            *known = remotes;
            news
        });
    }

    /// The mappings that stand, best first; changes and renewals are announced.
    #[must_use]
    pub fn mappings(&self) -> watch::Receiver<Vec<Mapping>> {
        self.board.mappings.subscribe()
    }

    /// How each method fares.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Vec<MethodState>> {
        self.board.states.subscribe()
    }

    /// Deletes the mappings and ends; takes at most 2 seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(());
        let all_gone = async { while self.keepers.join_next().await.is_some() {} };
        if timeout(Duration::from_secs(2), all_gone).await.is_err() {
            tracing::debug!("a port mapping task did not end in time");
        }
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        self.stop.send_replace(());
        self.keepers.detach_all();
    }
}
