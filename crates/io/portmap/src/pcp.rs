//! PCP (RFC 6887), over IPv4 for a mapping and over IPv6 for a hole in the firewall.
//!
//! A MAP request that repeats the nonce of an earlier one renews it, so a look at a mapping is the same request again:
//! the answer tells the router's clock and the address outside, and where the router has restarted, the mapping is
//! there anew.

mod exchange;

use std::{
    net::{SocketAddr, SocketAddrV6},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use self::exchange::{Mapped, Nonce, Wish, ask};
use crate::{
    Flow, MappingRecord, Options, Protocol,
    epoch::Epoch,
    keeper::network,
    notebook::Notebook,
    problem::{Grant, Look, Problem},
};

const PORT: u16 = 5351;
/// Flows that are asked for at a time.
const MOST_FLOWS: usize = 4;

pub(crate) struct Client {
    method: Protocol,
    options: Options,
    notebook: Notebook,
    nonce: Nonce,
    /// What was granted last, else the port inside.
    external_port: u16,
    granted: Option<SocketAddr>,
    asked: bool,
    epoch: Epoch,
}

impl Client {
    pub(crate) fn new(method: Protocol, options: &Options, notebook: &Notebook) -> Self {
        let mut client = Self {
            method,
            options: options.clone(),
            notebook: notebook.clone(),
            nonce: nonce(options.seed),
            external_port: 0,
            granted: None,
            asked: false,
            epoch: Epoch::default(),
        };
        client.adopt_nonce();
        client.external_port = client.internal().port();
        client
    }

    /// A mapping that an earlier run left for the same port is renewed, which needs its nonce.
    fn adopt_nonce(&mut self) {
        let own = self.record();
        let same = |old: &&MappingRecord| MappingRecord { nonce: own.nonce, ..(*old).clone() } == own;
        if let Some(old) = self.options.previous_records.iter().find(same) {
            self.nonce = old.nonce;
        }
    }

    pub(crate) async fn map(&mut self) -> Result<Grant, Problem> {
        let (router, internal) = (self.router()?, self.internal());
        if internal.port() == 0 {
            // It would mean all ports.
            return Err(Problem::Refused("port 0 cannot be mapped".into()));
        }
        let wish = Wish {
            nonce: self.nonce,
            internal_port: internal.port(),
            external_port: self.external_port,
            lifetime: self.options.lease(),
            remote: None,
        };
        self.asked = true;
        self.notebook.add(&self.record()).await;
        let mapped = ask(router, internal.ip(), wish).await?;
        let external = mapped.external;
        if external.is_ipv6() != self.method.is_ipv6() {
            return Err(Problem::Nonsense(format!("{external} is of the other IP version")));
        }
        self.external_port = external.port();
        if self.epoch.has_restarted(mapped.epoch, Instant::now()) {
            tracing::info!(method = %self.method, "the router has lost its state; the mapping was made anew");
        }
        self.granted = Some(external);
        Ok(Grant { external, lifetime: Some(Duration::from_secs(mapped.lifetime.into())) })
    }

    pub(crate) async fn look(&mut self) -> Result<Look, Problem> {
        let before = self.granted;
        let now = self.map().await?.external;
        Ok(if before == Some(now) { Look::Stands } else { Look::Changed })
    }

    pub(crate) async fn forget(&mut self, record: &MappingRecord) -> Result<(), Problem> {
        // The router only deletes what leads to who asks, and takes port 0 for all of them. The lease runs out.
        let (own, internal_port) = (self.internal().ip(), record.internal.port());
        if record.internal.ip() != own || internal_port == 0 {
            return Ok(());
        }
        let wish = Wish { nonce: record.nonce, internal_port, external_port: 0, lifetime: 0, remote: None };
        ask(self.router()?, own, wish).await.map(drop)
    }

    /// Asks for the socket's flows to these remotes, all at once. What is refused, or answered with nonsense, is left out:
    /// it goes on as the NAT treats it. A flow needs no note for the case of a crash: it ends with its lease.
    pub(crate) async fn promises(&mut self, remotes: &[SocketAddr]) -> Vec<Flow> {
        let (Ok(router), internal) = (self.router(), self.internal()) else { return Vec::new() };
        let mut asking = JoinSet::new();
        let ours = remotes.iter().filter(|remote| remote.is_ipv6() == self.method.is_ipv6());
        for remote in ours.take(MOST_FLOWS).copied() {
            let wish = Wish {
                nonce: self.nonce,
                internal_port: internal.port(),
                external_port: 0,
                lifetime: self.options.lease(),
                remote: Some(remote),
            };
            asking.spawn(async move { (remote, ask(router, internal.ip(), wish).await) });
        }
        let mut flows = Vec::new();
        while let Some(answered) = asking.join_next().await {
            let Ok((remote, answer)) = answered else { continue };
            match answer.and_then(|mapped| self.promised(remote, mapped)) {
                Ok(flow) => flows.push(flow),
                Err(problem) => tracing::debug!(method = %self.method, %remote, %problem, "no promise"),
            }
        }
        flows.sort_by_key(|flow| flow.remote);
        flows
    }

    fn promised(&mut self, remote: SocketAddr, mapped: Mapped) -> Result<Flow, Problem> {
        let lifetime = Duration::from_secs(mapped.lifetime.min(self.options.lease()).into());
        let external = mapped.external;
        Grant { external, lifetime: Some(lifetime) }.sensible()?;
        if external.is_ipv6() != remote.is_ipv6() {
            return Err(Problem::Nonsense(format!("{external} is of the other IP version")));
        }
        if self.epoch.has_restarted(mapped.epoch, Instant::now()) {
            tracing::info!(method = %self.method, "the router has lost its state; the flow was promised anew");
        }
        Ok(Flow { remote, external, lifetime })
    }

    pub(crate) fn standing(&self) -> Option<MappingRecord> {
        self.asked.then(|| self.record())
    }

    /// The port outside is left out: it is not needed to delete.
    fn record(&self) -> MappingRecord {
        MappingRecord {
            method: self.method,
            network: network(self.method, &self.options),
            internal: self.internal(),
            number: 0,
            nonce: self.nonce,
        }
    }

    fn internal(&self) -> SocketAddr {
        match self.options.v6.filter(|_| self.method.is_ipv6()) {
            Some(v6) => (v6.address, v6.port).into(),
            None => (self.options.local_ip, self.options.internal_port).into(),
        }
    }

    fn router(&self) -> Result<SocketAddr, Problem> {
        if self.method.is_ipv6() {
            let v6 = self.options.v6.ok_or(Problem::NoIpv6)?;
            let gateway = v6.gateway.ok_or(Problem::NoGateway)?;
            let scope = if gateway.is_unicast_link_local() { v6.interface } else { 0 };
            return Ok(SocketAddrV6::new(gateway, PORT, 0, scope).into());
        }
        self.options.gateway.map(|gateway| (gateway, PORT).into()).ok_or(Problem::NoGateway)
    }
}

fn nonce(seed: u64) -> Nonce {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(mixed >> 32) as u32, mixed as u32, (seed >> 16) as u32 ^ 0x5043_5031]
}
