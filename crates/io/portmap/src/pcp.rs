//! PCP MAP requests (RFC 6887), by `crab_nat`, over IPv4 for a mapping and over IPv6 for a hole in the firewall.
//!
//! A MAP request that repeats the nonce of an earlier one renews it, so a look at a mapping is the same request again:
//! the answer tells the router's clock and the address outside, and where the router has restarted, the mapping is
//! there anew.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMappingOptions, PortMappingType, TimeoutConfig,
    pcp::{BaseMapRequest, DropMappingRange, Failure, Nonce, port_mapping, try_drop_mapping},
};
use tokio::time::Instant;

use crate::{
    Options, Protocol, Record,
    epoch::Epoch,
    keeper::network,
    notebook::Notebook,
    problem::{Grant, Look, Problem},
};

/// Four requests in under eight seconds; the keeper's own pauses do the rest.
const TIMING: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(500),
    max_retries: 3,
    max_retry_timeout: Some(Duration::from_secs(4)),
};

pub(crate) struct Client {
    method: Protocol,
    options: Options,
    notebook: Notebook,
    /// Shows the router that renewals and the deletion come from who made the mapping.
    nonce: Nonce,
    external_port: Option<NonZeroU16>,
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
            external_port: None,
            granted: None,
            asked: false,
            epoch: Epoch::default(),
        };
        client.adopt_nonce();
        client.external_port = NonZeroU16::new(client.internal().port());
        client
    }

    /// A mapping that an earlier run left for the same port is renewed, which needs its nonce.
    fn adopt_nonce(&mut self) {
        let own = self.record();
        let same = |old: &&Record| Record { nonce: own.nonce, ..(*old).clone() } == own;
        if let Some(old) = self.options.leftovers.iter().find(same) {
            self.nonce = old.nonce;
        }
    }

    pub(crate) async fn map(&mut self) -> Result<Grant, Problem> {
        let wishes = PortMappingOptions {
            external_port: self.external_port,
            lifetime_seconds: Some(self.options.lease()),
            timeout_config: Some(TIMING),
        };
        let request = self.request()?;
        self.asked = true;
        self.notebook.add(&self.record()).await;
        let mapping = port_mapping(request, Some(self.nonce), None, wishes).await.map_err(problem)?;
        let PortMappingType::Pcp { external_ip, .. } = mapping.mapping_type() else {
            return Err(Problem::Nonsense("another protocol's mapping".into()));
        };
        if external_ip.is_ipv6() != self.method.is_ipv6() {
            return Err(Problem::Nonsense(format!("{external_ip} is of the other IP version")));
        }
        self.external_port = Some(mapping.external_port());
        if self.epoch.has_restarted(mapping.gateway_epoch(), Instant::now()) {
            tracing::info!(method = %self.method, "the router has lost its state; the mapping was made anew");
        }
        let external = SocketAddr::new(external_ip, mapping.external_port().get());
        self.granted = Some(external);
        Ok(Grant { external, lifetime: Some(Duration::from_secs(mapping.lifetime().into())) })
    }

    pub(crate) async fn look(&mut self) -> Result<Look, Problem> {
        let before = self.granted;
        let now = self.map().await?.external;
        Ok(if before == Some(now) { Look::Stands } else { Look::Changed })
    }

    pub(crate) async fn forget(&mut self, record: &Record) -> Result<(), Problem> {
        let Some(internal_port) = NonZeroU16::new(record.internal.port()) else { return Ok(()) };
        if record.internal.ip() != self.internal().ip() {
            // The router only deletes what leads to who asks. The lease runs out.
            return Ok(());
        }
        let range = DropMappingRange::Single { internal_port, protocol: InternetProtocol::Udp };
        let (gateway, client) = (self.gateway()?, record.internal.ip());
        try_drop_mapping(gateway, client, record.nonce, range, Some(TIMING)).await.map_err(problem)
    }

    pub(crate) fn standing(&self) -> Option<Record> {
        self.asked.then(|| self.record())
    }

    /// The port outside is left out: it is not needed to delete.
    fn record(&self) -> Record {
        Record {
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

    fn gateway(&self) -> Result<GatewayAddress, Problem> {
        if self.method.is_ipv6() {
            let v6 = self.options.v6.ok_or(Problem::NoIpv6)?;
            return Ok(GatewayAddress::IpV6(v6.gateway.ok_or(Problem::NoGateway)?, Some(v6.interface)));
        }
        self.options.gateway.map(GatewayAddress::IpV4).ok_or(Problem::NoGateway)
    }

    fn request(&self) -> Result<BaseMapRequest, Problem> {
        let internal = self.internal();
        let port = NonZeroU16::new(internal.port())
            .ok_or_else(|| Problem::Refused("port 0 cannot be mapped".into()))?;
        let client: IpAddr = internal.ip();
        Ok(BaseMapRequest::new(self.gateway()?, client, InternetProtocol::Udp, port))
    }
}

fn nonce(seed: u64) -> Nonce {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(mixed >> 32) as u32, mixed as u32, (seed >> 16) as u32 ^ 0x5043_5031]
}

fn problem(failure: Failure) -> Problem {
    match failure {
        Failure::Timeout => Problem::Silent,
        Failure::Socket(error) => Problem::Network(error),
        Failure::InvalidResponse(what) => Problem::Nonsense(what.to_string()),
        other => Problem::Refused(other.to_string()),
    }
}
