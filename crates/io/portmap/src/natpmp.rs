//! NAT-PMP (RFC 6886) by the crate `natpmp`, with the timeouts and retransmissions which that crate leaves to its caller.
//!
//! Its reader waits without bound, does not check a datagram's length and may return the response to an earlier request.
//! So every request is retransmitted on the schedule of RFC 6886 section 3.1, every response is checked against the
//! request, and one that does not match is ignored.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use natpmp::{Error, GatewayResponse, NatpmpAsync, Protocol as Transport, Response, new_tokio_natpmp_with};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};
use tracing::{debug, trace};

use crate::{
    MappingRecord, Options, Protocol,
    epoch::Epoch,
    error::MappingError,
    grant::{Grant, MappingStatus},
    journal::Journal,
};

/// The time to wait for a response after each transmission. The RFC goes on to 64 s; the keeper's retries take over
/// earlier.
const RESPONSE_TIMEOUTS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// The NAT-PMP client for one port.
pub(crate) struct Client {
    options: Options,
    journal: Journal,
    external_port: u16,
    /// The router's external address, once a mapping was requested.
    address: Option<Ipv4Addr>,
    epoch: Epoch,
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Address,
    Mapping { internal: u16, external: u16, lifetime: u32 },
}

impl Client {
    pub(crate) fn new(options: &Options, journal: &Journal) -> Self {
        let (external_port, epoch) = (options.internal_port, Epoch::default());
        Self { options: options.clone(), journal: journal.clone(), external_port, address: None, epoch }
    }

    /// Requests a mapping, or renews the one there is.
    pub(crate) async fn map(&mut self) -> Result<Grant, MappingError> {
        let mut router = self.connect().await?;
        let gateway = request_address(&mut router).await?;
        self.address = Some(*gateway.public_address());
        self.journal.insert(&self.record()).await;
        let (internal, external) = (self.options.internal_port, self.external_port);
        let request = Request::Mapping { internal, external, lifetime: self.options.lease() };
        let Response::UDP(mapping) = send_request(&mut router, request).await? else {
            return Err(MappingError::InvalidResponse("no mapping".into()));
        };
        self.epoch.has_restarted(mapping.epoch(), Instant::now());
        self.external_port = mapping.public_port();
        let external = SocketAddr::new(IpAddr::V4(*gateway.public_address()), mapping.public_port());
        Ok(Grant { external, lifetime: Some(*mapping.lifetime()) })
    }

    /// Requests the external address, which comes with the router's epoch (RFC 6886 section 3.6).
    pub(crate) async fn check(&mut self) -> Result<MappingStatus, MappingError> {
        let gateway = request_address(&mut self.connect().await?).await?;
        let restarted = self.epoch.has_restarted(gateway.epoch(), Instant::now());
        let moved = self.address != Some(*gateway.public_address());
        if restarted || moved {
            debug!(restarted, moved, "the router's epoch or address changed");
            return Ok(MappingStatus::Changed);
        }
        Ok(MappingStatus::Unchanged)
    }

    /// Deletes a mapping of this or an earlier run.
    pub(crate) async fn delete(&mut self, record: &MappingRecord) -> Result<(), MappingError> {
        if record.internal.ip() != self.options.local_ip {
            // A router only deletes mappings of the address that asks. The lease will end.
            debug!(internal = %record.internal, reason = "made from another address", "mapping is left to expire");
            return Ok(());
        }
        let request = Request::Mapping { internal: record.internal.port(), external: 0, lifetime: 0 };
        send_request(&mut self.connect().await?, request).await.map(drop)
    }

    /// Returns the record of the mapping requested last.
    pub(crate) fn current_record(&self) -> Option<MappingRecord> {
        self.address.map(|_| self.record())
    }

    /// The external port is left out: it is not needed to delete.
    fn record(&self) -> MappingRecord {
        MappingRecord {
            method: Protocol::NatPmp,
            network: self.options.network(Protocol::NatPmp),
            internal: (self.options.local_ip, self.options.internal_port).into(),
            number: 0,
            nonce: [0; 3],
        }
    }

    async fn connect(&self) -> Result<NatpmpAsync<UdpSocket>, MappingError> {
        let gateway = self.options.gateway.ok_or(MappingError::NoGateway)?;
        new_tokio_natpmp_with(gateway).await.map_err(|error| MappingError::refused(error.to_string()))
    }
}

async fn request_address(router: &mut NatpmpAsync<UdpSocket>) -> Result<GatewayResponse, MappingError> {
    match send_request(router, Request::Address).await? {
        Response::Gateway(gateway) => Ok(gateway),
        _ => Err(MappingError::InvalidResponse("no address".into())),
    }
}

async fn send_request(
    router: &mut NatpmpAsync<UdpSocket>,
    request: Request,
) -> Result<Response, MappingError> {
    for wait in RESPONSE_TIMEOUTS {
        // It fails only with the ICMP error to the one before: nothing listens, or not yet.
        let _ = send(router, request).await;
        let deadline = Instant::now() + wait;
        trace!(?request, wait_ms = wait.as_millis(), "request sent");
        while let Ok(read) = timeout_at(deadline, router.read_response_or_retry()).await {
            match read {
                Ok(response) if is_response_to(&response, request) => return Ok(response),
                // Garbage, the response to another request, or an ICMP error: the right one may follow.
                Ok(_) => {
                    trace!(reason = "not to this request", "response ignored");
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    if let Some(code) = result_code(&error) {
                        return Err(MappingError::refused_with(code, error.to_string()));
                    }
                    trace!(reason = %error, "response ignored");
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    Err(MappingError::NoResponse)
}

async fn send(router: &mut NatpmpAsync<UdpSocket>, request: Request) -> Result<(), Error> {
    match request {
        Request::Address => router.send_public_address_request().await,
        Request::Mapping { internal, external, lifetime } => {
            router.send_port_mapping_request(Transport::UDP, internal, external, lifetime).await
        }
    }
}

fn is_response_to(response: &Response, request: Request) -> bool {
    match (response, request) {
        // A truncated response reads as zeros.
        (Response::Gateway(gateway), Request::Address) => !gateway.public_address().is_unspecified(),
        (Response::UDP(mapping), Request::Mapping { internal, .. }) => mapping.private_port() == internal,
        _ => false,
    }
}

/// Returns the result code of a refusal (RFC 6886 section 3.5).
const fn result_code(error: &Error) -> Option<u16> {
    match error {
        Error::NATPMP_ERR_NOTAUTHORIZED => Some(2),
        Error::NATPMP_ERR_NETWORKFAILURE => Some(3),
        Error::NATPMP_ERR_OUTOFRESOURCES => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_by_the_router_have_a_result_code() {
        assert_eq!(result_code(&Error::NATPMP_ERR_NOTAUTHORIZED), Some(2));
        assert_eq!(result_code(&Error::NATPMP_ERR_OUTOFRESOURCES), Some(4));
        assert_eq!(result_code(&Error::NATPMP_TRYAGAIN), None);
    }

    #[tokio::test]
    async fn mapping_made_from_another_address_is_left_to_expire() {
        let options = Options::new(41_641, [192, 168, 1, 2].into(), None, 1);
        let mut client = Client::new(&options, &Journal::new(&options));
        let own = client.record();
        let other = MappingRecord { internal: ([192, 168, 1, 3], 41_641).into(), ..own.clone() };
        assert!(client.delete(&other).await.is_ok());
        assert!(matches!(client.delete(&own).await, Err(MappingError::NoGateway)));
    }
}
