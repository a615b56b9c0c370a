//! Keeps one mapping by one protocol: requests, checks, renews, retries, deletes.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, trace};

use crate::{
    Counters, Mapping, MappingRecord, Options, Protocol,
    board::StatusBoard,
    breaker::CircuitBreaker,
    client::Client,
    error::MappingError,
    grant::{Grant, MappingStatus},
    journal::Journal,
};

/// A lease is renewed at half of its lifetime, but within these bounds. The lower one also keeps a router whose clock is
/// wrong from being asked without pause.
const MIN_RENEWAL_DELAY: Duration = Duration::from_secs(1);
const MAX_RENEWAL_DELAY: Duration = Duration::from_secs(1800);
/// Checks in a row that may fail before the mapping is requested again.
const MAX_FAILED_CHECKS: u32 = 2;

/// What the keepers of all protocols share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) board: StatusBoard,
    pub(crate) journal: Journal,
    /// Changes when the router announces that it has restarted.
    pub(crate) restarts: watch::Receiver<u64>,
    /// The remotes whose flows the router shall keep.
    pub(crate) remotes: watch::Receiver<Vec<SocketAddr>>,
}

/// Keeps the mapping of one protocol.
pub(crate) struct Keeper {
    method: Protocol,
    shared: Shared,
    breaker: CircuitBreaker,
    counters: Counters,
    /// When the lease of the current mapping ends. `None` if it is permanent, lost, or there is no mapping: then a
    /// failed request withdraws it at once.
    lease_end: Option<Instant>,
}

impl Keeper {
    pub(crate) fn new(method: Protocol, shared: Shared) -> Self {
        let seed = shared.options.seed ^ (method as u64 + 1).wrapping_mul(0x9e37_79b9);
        let breaker = CircuitBreaker::new(seed);
        Self { method, shared, breaker, counters: Counters::default(), lease_end: None }
    }

    /// Keeps the mapping until `stop` changes or its sender is gone, and deletes it then.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<()>) {
        let mut client = Client::new(self.method, &self.shared.options, &self.shared.journal);
        tokio::select! {
            _ = stop.changed() => {}
            () = self.maintain(&mut client) => {}
        }
        debug!(reason = "stopped", "port mapping ends");
        self.shared.board.set_mapping(self.method, None);
        if let Some(record) = client.current_record() {
            self.delete(&mut client, &record).await;
        }
    }

    async fn maintain(&mut self, client: &mut Client) {
        loop {
            let requested_at = Instant::now();
            debug!(port = self.shared.options.internal_port, "port mapping requested");
            match client.map().await {
                Ok(grant) => self.on_granted(client, grant, requested_at).await,
                Err(error) => self.on_failed(client, error).await,
            }
        }
    }

    /// Publishes a mapping and monitors it until it has to be requested again.
    async fn on_granted(&mut self, client: &mut Client, grant: Grant, requested_at: Instant) {
        if self.breaker.is_open() {
            debug!(count = self.breaker.failures(), reason = "the router answered", "circuit breaker closed");
        }
        self.breaker.on_success();
        self.publish(grant);
        self.delete_previous(client).await;
        self.lease_end = grant.lifetime.map(|lifetime| requested_at + lifetime);
        if self.monitor(client, requested_at + renewal_delay(grant)).await == MappingStatus::Changed {
            self.lease_end = None;
        }
    }

    /// Publishes a failure, and waits until the request is to be repeated.
    async fn on_failed(&mut self, client: &mut Client, error: MappingError) {
        let was_open = self.breaker.is_open();
        let delay = self.breaker.on_failure();
        self.counters.on_error(&error);
        let (code, count, retry_ms) = (error.code(), self.breaker.failures(), delay.as_millis());
        debug!(reason = %error.summary(), code, count, retry_ms, "no port mapping");
        if self.breaker.is_open() && !was_open {
            self.counters.circuit_opened += 1;
            debug!(reason = %error.summary(), count, retry_ms, "circuit breaker opened");
        }
        let Shared { board, .. } = &self.shared;
        board.set_failed(self.method, &self.breaker, (&error, delay), self.counters);
        let lease_ended = self.lease_end.is_none_or(|end| end <= Instant::now());
        if lease_ended && board.set_mapping(self.method, None).is_some() {
            debug!(reason = "not renewed in time", "port mapping withdrawn");
        }
        let end = Instant::now() + delay;
        if matches!(error, MappingError::Denied { .. }) {
            self.keep_flows(client, end).await;
        } else {
            board.set_flows(self.method, Vec::new());
            self.wait_until(end).await;
        }
    }

    fn publish(&mut self, grant: Grant) {
        let (method, double_nat) = (self.method, grant.is_double_nat());
        let mapping = Mapping { method, external: grant.external, lifetime: grant.lifetime, double_nat };
        let lease_s = grant.lifetime.map(|lifetime| lifetime.as_secs());
        let previous = self.shared.board.set_mapping(method, Some(mapping));
        if previous.is_some_and(|previous| previous.external == grant.external) {
            self.counters.renewed += 1;
            debug!(external = %grant.external, lease_s, "port mapping renewed");
        } else {
            self.counters.granted += 1;
            debug!(external = %grant.external, lease_s, double_nat, "port mapping granted");
        }
        self.shared.board.set_mapped(method, self.counters);
    }

    /// Waits until `end`. Until then, a router that maps no ports is asked to keep the flows to the remotes, again at
    /// half of the shortest lease, and when the remotes change.
    async fn keep_flows(&mut self, client: &mut Client, end: Instant) {
        loop {
            let remotes = self.shared.remotes.borrow_and_update().clone();
            let requested_at = Instant::now();
            let flows = client.map_flows(&remotes).await;
            debug!(count = flows.len(), remotes = remotes.len(), "flows requested instead of a port mapping");
            let shortest = flows.iter().map(|flow| flow.lifetime).min();
            self.shared.board.set_flows(self.method, flows);
            let renewal = |lifetime: Duration| requested_at + (lifetime / 2).max(MIN_RENEWAL_DELAY);
            let next = shortest.map_or(end, renewal).min(end);
            tokio::select! {
                () = sleep_until(next) => if next == end { return },
                Ok(()) = self.shared.restarts.changed() => return,
                Ok(()) = self.shared.remotes.changed() => sleep_until(requested_at + MIN_RENEWAL_DELAY).await,
            }
        }
    }

    /// Checks a mapping at intervals until it is time to renew it, it has changed, or the router does not answer.
    async fn monitor(&mut self, client: &mut Client, renewal: Instant) -> MappingStatus {
        let mut failed_checks = 0;
        let earliest = Instant::now() + MIN_RENEWAL_DELAY;
        loop {
            let next = (Instant::now() + self.shared.options.check_interval).min(renewal);
            if self.wait_until(next).await {
                debug!(reason = "the router announced a restart", "port mapping is renewed early");
                sleep_until(earliest).await;
                return MappingStatus::Unchanged;
            }
            if next == renewal {
                return MappingStatus::Unchanged;
            }
            match client.check().await {
                Ok(MappingStatus::Unchanged) => {
                    trace!("port mapping checked");
                    failed_checks = 0;
                }
                Ok(MappingStatus::Changed) => {
                    self.on_lost("the router has lost or changed it");
                    sleep_until(earliest).await;
                    return MappingStatus::Changed;
                }
                Err(error) => {
                    failed_checks += 1;
                    debug!(reason = %error.summary(), count = failed_checks, "check of the port mapping failed");
                    if failed_checks >= MAX_FAILED_CHECKS {
                        self.on_lost("the router does not answer checks");
                        return MappingStatus::Changed;
                    }
                }
            }
        }
    }

    fn on_lost(&mut self, reason: &'static str) {
        self.counters.lost += 1;
        debug!(reason, "port mapping lost");
    }

    /// Waits until `at`. Returns true early if the router announces a restart.
    async fn wait_until(&mut self, at: Instant) -> bool {
        tokio::select! {
            () = sleep_until(at) => false,
            Ok(()) = self.shared.restarts.changed() => true,
        }
    }

    /// Deletes what earlier runs have left in this network. What cannot be deleted now is tried at the next renewal.
    async fn delete_previous(&mut self, client: &mut Client) {
        let (current, network) = (client.current_record(), self.shared.options.network(self.method));
        let mut remaining = Vec::new();
        for record in std::mem::take(&mut self.shared.options.previous_records) {
            if record.method != self.method || current.as_ref() == Some(&record) {
                continue;
            }
            let reachable = record.network == network;
            if !reachable || !self.delete(client, &record).await {
                remaining.push(record);
            }
        }
        self.shared.options.previous_records = remaining;
    }

    /// Returns true if the mapping is gone.
    async fn delete(&mut self, client: &mut Client, record: &MappingRecord) -> bool {
        match client.delete(record).await {
            Ok(()) => {
                self.counters.deleted += 1;
                debug!(internal = %record.internal, number = record.number, "port mapping deleted");
                self.shared.journal.remove(record).await;
                true
            }
            Err(error) => {
                debug!(reason = %error.summary(), code = error.code(), "port mapping could not be deleted");
                false
            }
        }
    }
}

fn renewal_delay(grant: Grant) -> Duration {
    let half = |lifetime: Duration| (lifetime / 2).clamp(MIN_RENEWAL_DELAY, MAX_RENEWAL_DELAY);
    grant.lifetime.map_or(MAX_RENEWAL_DELAY, half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_is_renewed_at_half_its_lifetime_within_bounds() {
        for (lifetime, expected) in [(Some(1200), 600), (Some(1), 1), (Some(86_400), 1800), (None, 1800)] {
            let lifetime = lifetime.map(Duration::from_secs);
            let grant = Grant { external: ([11, 0, 0, 1], 41_641).into(), lifetime };
            assert_eq!(renewal_delay(grant), Duration::from_secs(expected), "{lifetime:?}");
        }
    }

    fn keeper(options: Options) -> Keeper {
        let board = StatusBoard::new(&[Protocol::NatPmp]);
        let journal = Journal::new(&options);
        let (restarts, remotes) = (watch::channel(0).1, watch::channel(Vec::new()).1);
        Keeper::new(Protocol::NatPmp, Shared { options, board, journal, restarts, remotes })
    }

    #[test]
    fn same_external_address_is_a_renewal_and_another_one_a_grant() {
        let mut keeper = keeper(Options::new(41_641, [192, 168, 1, 2].into(), None, 1));
        let lifetime = Some(Duration::from_secs(600));
        for port in [41_641, 41_641, 5000] {
            keeper.publish(Grant { external: ([11, 0, 0, 1], port).into(), lifetime });
        }
        assert_eq!((keeper.counters.granted, keeper.counters.renewed), (2, 1));
        assert_eq!(keeper.shared.board.states().borrow()[0].counters, keeper.counters);
    }

    #[tokio::test]
    async fn stopped_keeper_without_a_mapping_withdraws_nothing_and_ends() {
        let keeper = keeper(Options::new(41_641, [127, 0, 0, 1].into(), None, 1));
        let board = keeper.shared.board.clone();
        let (stop, stopped) = watch::channel(());
        drop(stop);
        keeper.run(stopped).await;
        assert!(board.mappings().borrow().is_empty());
    }
}
