//! Keeps one mapping by one method: asks, looks after it, renews, tries again, deletes.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    Flow, Health, Mapping, MappingRecord, MethodState, Options, Protocol,
    backoff::{Backoff, PATIENCE},
    natpmp,
    notebook::Notebook,
    pcp, pinhole,
    problem::{Grant, Look, Problem},
    upnp,
};

/// How long one attempt may take, whatever the router does.
const ATTEMPT: Duration = Duration::from_secs(15);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(5);
/// How long deleting may take.
const FAREWELL: Duration = Duration::from_millis(1500);
/// A lease is renewed at half its life, but within these bounds.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(1800);

/// A method with what it must remember.
enum Client {
    Pcp(pcp::Client),
    NatPmp(natpmp::Client),
    Upnp(Box<upnp::Client>),
    Pinhole(pinhole::Client),
}

impl Client {
    fn new(method: Protocol, options: &Options, notebook: &Notebook) -> Self {
        match method {
            Protocol::Pcp | Protocol::PcpV6 => Self::Pcp(pcp::Client::new(method, options, notebook)),
            Protocol::NatPmp => Self::NatPmp(natpmp::Client::new(options, notebook)),
            Protocol::Upnp => Self::Upnp(Box::new(upnp::Client::new(options, notebook))),
            Protocol::Pinhole => Self::Pinhole(pinhole::Client::new(options, notebook)),
        }
    }

    async fn map(&mut self) -> Result<Grant, Problem> {
        let asking = async {
            match self {
                Self::Pcp(client) => client.map().await,
                Self::NatPmp(client) => client.map().await,
                Self::Upnp(client) => client.map().await,
                Self::Pinhole(client) => client.map().await,
            }
        };
        timeout(ATTEMPT, asking).await.unwrap_or(Err(Problem::Silent))?.sensible()
    }

    async fn look(&mut self) -> Result<Look, Problem> {
        let looking = async {
            match self {
                Self::Pcp(client) => client.look().await,
                Self::NatPmp(client) => client.look().await,
                Self::Upnp(client) => client.look().await,
                Self::Pinhole(client) => client.look().await,
            }
        };
        timeout(LOOK, looking).await.unwrap_or(Err(Problem::Silent))
    }

    /// Deletes what was mapped, by us or by an earlier run.
    async fn forget(&mut self, record: &MappingRecord) -> Result<(), Problem> {
        let deleting = async {
            match self {
                Self::Pcp(client) => client.forget(record).await,
                Self::NatPmp(client) => client.forget(record).await,
                Self::Upnp(client) => client.forget(record).await,
                Self::Pinhole(client) => client.forget(record).await,
            }
        };
        timeout(FAREWELL, deleting).await.unwrap_or(Err(Problem::Silent))
    }

    /// What the router promises for single flows; nothing, where the method has no words for that.
    async fn promises(&mut self, remotes: &[SocketAddr]) -> Vec<Flow> {
        match self {
            Self::Pcp(client) => timeout(ATTEMPT, client.promises(remotes)).await.unwrap_or_default(),
            Self::NatPmp(_) | Self::Upnp(_) | Self::Pinhole(_) => Vec::new(),
        }
    }

    /// What it has mapped, or may have by an attempt that was cut short.
    fn standing(&self) -> Option<MappingRecord> {
        match self {
            Self::Pcp(client) => client.standing(),
            Self::NatPmp(client) => client.standing(),
            Self::Upnp(client) => client.standing(),
            Self::Pinhole(client) => client.standing(),
        }
    }
}

/// Where a keeper tells what it has.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    pub(crate) mappings: watch::Sender<Vec<Mapping>>,
    pub(crate) states: watch::Sender<Vec<MethodState>>,
}

impl Board {
    /// Puts up or takes down one method's mapping. A renewal is a change as well.
    fn post(&self, method: Protocol, mapping: Option<Mapping>) {
        let stands = self.mappings.borrow().iter().any(|m| m.method == method);
        if stands || mapping.is_some() {
            self.mappings.send_modify(|mappings| {
                mappings.retain(|m| m.method != method);
                mappings.extend(mapping);
                mappings.sort_by_key(|m| (m.double_nat, m.method));
            });
        }
    }

    fn works(&self, method: Protocol) {
        let (health, failures, problem, retry_after, flows) = (Health::Mapped, 0, None, None, Vec::new());
        self.note(MethodState { method, health, failures, problem, retry_after, flows });
    }

    /// The flows stay until the router was asked about them.
    fn fails(&self, method: Protocol, failures: u32, problem: &Problem, pause: Duration) {
        let health = if failures < PATIENCE { Health::Retrying } else { Health::CircuitOpen };
        let (problem, retry_after, flows) = (Some(problem.line()), Some(pause), self.flows(method));
        self.note(MethodState { method, health, failures, problem, retry_after, flows });
    }

    fn flows(&self, method: Protocol) -> Vec<Flow> {
        let states = self.states.borrow();
        states
            .iter()
            .find(|state| state.method == method)
            .map(|state| state.flows.clone())
            .unwrap_or_default()
    }

    fn promises(&self, method: Protocol, flows: Vec<Flow>) {
        let known = self.states.borrow().iter().find(|state| state.method == method).cloned();
        known.into_iter().for_each(|known| self.note(MethodState { flows: flows.clone(), ..known }));
    }

    fn note(&self, new: MethodState) {
        self.states.send_if_modified(|states| match states.iter_mut().find(|old| old.method == new.method) {
            Some(old) if *old != new => {
                *old = new;
                true
            }
            _ => false,
        });
    }
}

/// One method's task.
pub(crate) struct Keeper {
    pub(crate) method: Protocol,
    pub(crate) options: Options,
    pub(crate) board: Board,
    pub(crate) notebook: Notebook,
    /// Changes when the router announces that it has restarted.
    pub(crate) restarts: watch::Receiver<u64>,
    /// Whom the socket talks to.
    pub(crate) remotes: watch::Receiver<Vec<SocketAddr>>,
}

impl Keeper {
    /// Keeps the mapping until `stop` changes or its sender is gone.
    pub(crate) async fn keep(mut self, mut stop: watch::Receiver<()>) {
        let mut client = Client::new(self.method, &self.options, &self.notebook);
        tokio::select! {
            _ = stop.changed() => {}
            () = self.renew_for_ever(&mut client) => {}
        }
        self.board.post(self.method, None);
        if let Some(record) = client.standing() {
            self.delete(&mut client, &record).await;
        }
    }

    async fn renew_for_ever(&mut self, client: &mut Client) {
        let method = self.method;
        let mut backoff = Backoff::new(self.options.seed ^ (method as u64 + 1).wrapping_mul(0x9e37_79b9));
        let mut expires: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            match client.map().await {
                Ok(grant) => {
                    backoff.succeeded();
                    self.granted(grant);
                    self.clean_up(client).await;
                    expires = grant.lifetime.map(|lifetime| asked + lifetime);
                    if self.watch_over(client, asked + renewal(grant)).await == Look::Changed {
                        expires = None;
                    }
                }
                Err(problem) => {
                    let pause = backoff.failed();
                    tracing::debug!(%method, %problem, failures = backoff.failures, "no mapping");
                    self.board.fails(method, backoff.failures, &problem, pause);
                    if expires.is_none_or(|at| at <= Instant::now()) {
                        self.board.post(method, None);
                    }
                    let end = Instant::now() + pause;
                    match problem {
                        Problem::Declined(_) => self.keep_flows(client, end).await,
                        _ => {
                            self.board.promises(method, Vec::new());
                            self.pause_until(end).await;
                        }
                    }
                }
            }
        }
    }

    /// Waits. Until then a router that opens no ports is asked to keep the flows that there are, again at half of the
    /// shortest time that it promises, and when there are others.
    async fn keep_flows(&mut self, client: &mut Client, end: Instant) {
        loop {
            let remotes = self.remotes.borrow_and_update().clone();
            let asked = Instant::now();
            let flows = client.promises(&remotes).await;
            let shortest = flows.iter().map(|flow| flow.lifetime).min();
            self.board.promises(self.method, flows);
            let again = shortest.map_or(end, |lifetime| asked + (lifetime / 2).max(SOONEST)).min(end);
            tokio::select! {
                () = sleep_until(again) => if again == end { return },
                Ok(()) = self.restarts.changed() => return,
                Ok(()) = self.remotes.changed() => sleep_until(asked + SOONEST).await,
            }
        }
    }

    fn granted(&self, grant: Grant) {
        let (method, double_nat) = (self.method, grant.is_shared());
        tracing::debug!(%method, external = %grant.external, double_nat, "the router maps the port");
        self.board.works(method);
        let mapping = Mapping { method, external: grant.external, lifetime: grant.lifetime, double_nat };
        self.board.post(method, Some(mapping));
    }

    /// Looks after a mapping until it is time to renew, or it has changed, or the router is silent.
    async fn watch_over(&mut self, client: &mut Client, renewal: Instant) -> Look {
        let mut silences = 0;
        // A router whose clock is mad must not be asked more often than a sane one whose leases are short.
        let soonest = Instant::now() + SOONEST;
        loop {
            let next = (Instant::now() + self.options.check_interval).min(renewal);
            if self.pause_until(next).await {
                sleep_until(soonest).await;
                return Look::Stands;
            }
            if next == renewal {
                return Look::Stands;
            }
            match client.look().await {
                Ok(Look::Stands) => silences = 0,
                Ok(Look::Changed) => {
                    tracing::info!(method = %self.method, "the router has lost or changed the mapping");
                    sleep_until(soonest).await;
                    return Look::Changed;
                }
                Err(problem) => {
                    silences += 1;
                    tracing::debug!(method = %self.method, %problem, silences, "no sight of the mapping");
                    if silences >= 2 {
                        return Look::Changed;
                    }
                }
            }
        }
    }

    /// Waits; true if the router has announced a restart meanwhile.
    async fn pause_until(&mut self, at: Instant) -> bool {
        tokio::select! {
            () = sleep_until(at) => false,
            Ok(()) = self.restarts.changed() => true,
        }
    }

    /// Deletes what earlier runs have left in this network. What cannot be deleted now is tried at the next renewal.
    async fn clean_up(&mut self, client: &mut Client) {
        let (standing, network) = (client.standing(), network(self.method, &self.options));
        let mut left = Vec::new();
        for record in std::mem::take(&mut self.options.previous_records) {
            let current = standing.as_ref() == Some(&record);
            if record.method == self.method && !current {
                let here = record.network == network;
                if !here || !self.delete(client, &record).await {
                    left.push(record);
                }
            }
        }
        self.options.previous_records = left;
    }

    async fn delete(&self, client: &mut Client, record: &MappingRecord) -> bool {
        match client.forget(record).await {
            Ok(()) => {
                self.notebook.strike(record).await;
                true
            }
            Err(problem) => {
                tracing::debug!(method = %self.method, %problem, "the mapping could not be deleted");
                false
            }
        }
    }
}

fn renewal(grant: Grant) -> Duration {
    grant.lifetime.map_or(LATEST, |lifetime| (lifetime / 2).clamp(SOONEST, LATEST))
}

/// What tells networks apart in records: their router.
pub(crate) fn network(method: Protocol, options: &Options) -> Option<std::net::IpAddr> {
    if method.is_ipv6() {
        return options.v6.and_then(|v6| v6.gateway).map(Into::into);
    }
    options.gateway.map(Into::into)
}
