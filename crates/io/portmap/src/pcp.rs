//! PCP (RFC 6887), over IPv4 for a mapping and over IPv6 for a pinhole in the firewall.
//!
//! A MAP request that repeats the nonce of an earlier one renews it, so a mapping is checked by the same request: the
//! response contains the router's epoch and the external address, and a router that has restarted makes the mapping
//! again.

mod exchange;

use std::{
    net::{SocketAddr, SocketAddrV6},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tracing::{debug, info};

use self::exchange::{Nonce, Request, Response, exchange};
use crate::{
    Flow, MappingRecord, Options, Protocol,
    epoch::Epoch,
    error::MappingError,
    grant::{Grant, MappingStatus},
    journal::Journal,
};

const PORT: u16 = 5351;
/// The most flows that are requested at a time.
const MAX_FLOWS: usize = 4;

/// The PCP client for one port.
pub(crate) struct Client {
    method: Protocol,
    options: Options,
    journal: Journal,
    nonce: Nonce,
    /// The port granted last, else the internal port.
    external_port: u16,
    granted: Option<SocketAddr>,
    requested: bool,
    epoch: Epoch,
}

impl Client {
    pub(crate) fn new(method: Protocol, options: &Options, journal: &Journal) -> Self {
        let mut client = Self {
            method,
            options: options.clone(),
            journal: journal.clone(),
            nonce: nonce(options.seed),
            external_port: 0,
            granted: None,
            requested: false,
            epoch: Epoch::default(),
        };
        client.adopt_nonce();
        client.external_port = client.internal().port();
        client
    }

    /// Adopts the nonce of a mapping that an earlier run left for the same port, so that it is renewed.
    fn adopt_nonce(&mut self) {
        let own = self.record();
        let same = |old: &&MappingRecord| MappingRecord { nonce: own.nonce, ..(*old).clone() } == own;
        if let Some(old) = self.options.previous_records.iter().find(same) {
            self.nonce = old.nonce;
        }
    }

    /// Requests a mapping, or renews the one there is.
    pub(crate) async fn map(&mut self) -> Result<Grant, MappingError> {
        let (router, internal) = (self.router()?, self.internal());
        if internal.port() == 0 {
            // It would mean all ports (RFC 6887 section 11.1).
            return Err(MappingError::refused("port 0 cannot be mapped"));
        }
        let request = Request {
            nonce: self.nonce,
            internal_port: internal.port(),
            external_port: self.external_port,
            lifetime: self.options.lease(),
            remote: None,
        };
        self.requested = true;
        self.journal.insert(&self.record()).await;
        let response = exchange(router, internal.ip(), request).await?;
        let external = response.external;
        if external.is_ipv6() != self.method.is_ipv6() {
            return Err(MappingError::InvalidResponse(format!("{external} is of the other IP version")));
        }
        self.external_port = external.port();
        if self.epoch.has_restarted(response.epoch, Instant::now()) {
            info!(reason = "the router lost its state", "port mapping was made again");
        }
        self.granted = Some(external);
        Ok(Grant { external, lifetime: Some(Duration::from_secs(response.lifetime.into())) })
    }

    /// Repeats the request, and compares the external address.
    pub(crate) async fn check(&mut self) -> Result<MappingStatus, MappingError> {
        let before = self.granted;
        let now = self.map().await?.external;
        if before == Some(now) {
            return Ok(MappingStatus::Unchanged);
        }
        debug!(?before, %now, "the external address changed");
        Ok(MappingStatus::Changed)
    }

    /// Deletes a mapping of this or an earlier run.
    pub(crate) async fn delete(&mut self, record: &MappingRecord) -> Result<(), MappingError> {
        // A router only deletes mappings of the address that asks, and takes port 0 for all of them. The lease will end.
        let (own, internal_port) = (self.internal().ip(), record.internal.port());
        if record.internal.ip() != own || internal_port == 0 {
            debug!(internal = %record.internal, reason = "made from another address", "mapping is left to expire");
            return Ok(());
        }
        let request =
            Request { nonce: record.nonce, internal_port, external_port: 0, lifetime: 0, remote: None };
        exchange(self.router()?, own, request).await.map(drop)
    }

    /// Requests the socket's flows to these remotes, all at once. Returns those granted; the others go on as the NAT
    /// treats them. A flow needs no record for the case of a crash: it ends with its lease.
    pub(crate) async fn map_flows(&mut self, remotes: &[SocketAddr]) -> Vec<Flow> {
        let (Ok(router), internal) = (self.router(), self.internal()) else { return Vec::new() };
        let mut requests = JoinSet::new();
        let ours = remotes.iter().filter(|remote| remote.is_ipv6() == self.method.is_ipv6());
        for remote in ours.take(MAX_FLOWS).copied() {
            let request = Request {
                nonce: self.nonce,
                internal_port: internal.port(),
                external_port: 0,
                lifetime: self.options.lease(),
                remote: Some(remote),
            };
            requests.spawn(async move { (remote, exchange(router, internal.ip(), request).await) });
        }
        let mut flows = Vec::new();
        while let Some(finished) = requests.join_next().await {
            let Ok((remote, result)) = finished else { continue };
            match result.and_then(|response| self.flow(remote, response)) {
                Ok(flow) => flows.push(flow),
                Err(error) => {
                    debug!(%remote, reason = %error.summary(), code = error.code(), "flow not granted");
                }
            }
        }
        flows.sort_by_key(|flow| flow.remote);
        flows
    }

    fn flow(&mut self, remote: SocketAddr, response: Response) -> Result<Flow, MappingError> {
        let lifetime = Duration::from_secs(response.lifetime.min(self.options.lease()).into());
        let external = response.external;
        Grant { external, lifetime: Some(lifetime) }.validated()?;
        if external.is_ipv6() != remote.is_ipv6() {
            return Err(MappingError::InvalidResponse(format!("{external} is of the other IP version")));
        }
        if self.epoch.has_restarted(response.epoch, Instant::now()) {
            info!(reason = "the router lost its state", %remote, "flow was granted again");
        }
        Ok(Flow { remote, external, lifetime })
    }

    /// Returns the record of the mapping requested last.
    pub(crate) fn current_record(&self) -> Option<MappingRecord> {
        self.requested.then(|| self.record())
    }

    /// The external port is left out: it is not needed to delete.
    fn record(&self) -> MappingRecord {
        MappingRecord {
            method: self.method,
            network: self.options.network(self.method),
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

    fn router(&self) -> Result<SocketAddr, MappingError> {
        if self.method.is_ipv6() {
            let v6 = self.options.v6.ok_or(MappingError::NoIpv6Address)?;
            let gateway = v6.gateway.ok_or(MappingError::NoGateway)?;
            let scope = if gateway.is_unicast_link_local() { v6.interface } else { 0 };
            return Ok(SocketAddrV6::new(gateway, PORT, 0, scope).into());
        }
        self.options.gateway.map(|gateway| (gateway, PORT).into()).ok_or(MappingError::NoGateway)
    }
}

fn nonce(seed: u64) -> Nonce {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(mixed >> 32) as u32, mixed as u32, (seed >> 16) as u32 ^ 0x5043_5031]
}
