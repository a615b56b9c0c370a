//! A member stores an item, another one replaces it, and a third one reads it.

use std::time::{Duration, Instant};

use partyline_dht::{Config, Dht, Item, SigningKey};

use super::{
    network::DhtNetwork,
    run::{Run, run_lookup},
};

/// The nodes from which each client starts.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Cached nodes of the network, as many dead as others are.
    pub cached: usize,
    /// Cached nodes that have gone.
    pub gone: usize,
    /// Nodes that certainly answer, such as bootstrap routers.
    pub routers: usize,
}

/// An experiment.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// The nodes from which each client starts.
    pub start: Start,
    /// The share of nodes around the target that leave between writing and reading.
    pub leave: f64,
}

/// One operation of a trial.
#[derive(Debug, Clone, Copy)]
pub struct TrialResult {
    /// True if it succeeded.
    pub success: bool,
    /// The time until everything was stored, or until the newest item arrived.
    pub took: Duration,
    /// Datagrams sent until the operation ended.
    pub packets: usize,
}

impl Trial {
    /// Runs the trial: two writes, of which the second replaces the first, and a read of the newest item, all by clients of
    /// their own.
    #[must_use]
    pub fn run(&self, network: &mut DhtNetwork, now: Instant) -> ([TrialResult; 2], TrialResult) {
        let key = SigningKey::from_bytes(&network.random());
        let [first, second] = [1, 2].map(|seq| Item::sign(&key, Vec::new(), seq, vec![seq as u8; 600]));
        let target = first.target();
        network.attack(target);
        let first_run = self.put(network, now, first, None);
        let second_run = self.put(network, first_run.ended_at, second.clone(), Some(1));
        network.leave(&target, self.leave);
        let read = self.get(network, second_run.ended_at, &second);
        ([first_run, second_run].map(|run| written(&run)), read)
    }

    fn put(&self, network: &mut DhtNetwork, now: Instant, item: Item, cas: Option<i64>) -> Run {
        let mut dht = self.client(network, now);
        let lookup = dht.put(now, item, cas);
        run_lookup(network, &mut dht, now, lookup)
    }

    fn get(&self, network: &mut DhtNetwork, now: Instant, newest: &Item) -> TrialResult {
        let mut dht = self.client(network, now);
        let lookup = dht.get(now, newest.key, newest.salt.clone());
        let run = run_lookup(network, &mut dht, now, lookup);
        let found = run.items.iter().find(|(_, item)| item == newest).map(|(at, _)| *at);
        TrialResult {
            success: found.is_some(),
            took: found.unwrap_or(run.outcome.took),
            packets: run.packets,
        }
    }

    fn client(&self, network: &mut DhtNetwork, now: Instant) -> Dht {
        let mut dht = Dht::new(network.random(), Config::default());
        let Start { cached, gone, routers } = self.start;
        let mut nodes: Vec<_> = (0..cached).map(|_| network.any_node()).collect();
        nodes.extend((0..gone).map(|_| network.no_node()));
        nodes.extend((0..routers).map(|_| network.any_live_node()));
        dht.add_nodes(now, nodes);
        dht
    }
}

const fn written(run: &Run) -> TrialResult {
    TrialResult { success: run.outcome.stored > 0, took: run.outcome.took, packets: run.packets }
}
