//! NAT-PMP (RFC 6886), by `natpmp`, with the time-outs and retransmissions that crate leaves to its caller.
//!
//! Its reader waits for ever, does not look at a datagram's length and may hand out an answer to an earlier question.
//! So every question is repeated on RFC 6886's schedule, every answer is checked against the question, and what does
//! not fit is passed over until time is up.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use natpmp::{Error, GatewayResponse, NatpmpAsync, Protocol as Transport, Response, new_tokio_natpmp_with};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use crate::{
    MappingRecord, Options, Protocol,
    epoch::Epoch,
    keeper::network,
    notebook::Notebook,
    problem::{Grant, Look, Problem},
};

/// Waits after each transmission. The RFC goes on to 64 s; the keeper's own pauses take over earlier.
const WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

pub(crate) struct Client {
    options: Options,
    notebook: Notebook,
    external_port: u16,
    /// The router's own address outside, once something is mapped there.
    address: Option<Ipv4Addr>,
    epoch: Epoch,
}

#[derive(Debug, Clone, Copy)]
enum Question {
    Address,
    Mapping { internal: u16, external: u16, lifetime: u32 },
}

impl Client {
    pub(crate) fn new(options: &Options, notebook: &Notebook) -> Self {
        let (external_port, epoch) = (options.internal_port, Epoch::default());
        Self { options: options.clone(), notebook: notebook.clone(), external_port, address: None, epoch }
    }

    pub(crate) async fn map(&mut self) -> Result<Grant, Problem> {
        let mut router = self.connect().await?;
        let gateway = ask_address(&mut router).await?;
        self.address = Some(*gateway.public_address());
        self.notebook.add(&self.record()).await;
        let (internal, external) = (self.options.internal_port, self.external_port);
        let question = Question::Mapping { internal, external, lifetime: self.options.lease() };
        let Response::UDP(mapping) = ask(&mut router, question).await? else {
            return Err(Problem::Nonsense("no mapping".into()));
        };
        self.epoch.has_restarted(mapping.epoch(), Instant::now());
        self.external_port = mapping.public_port();
        let external = SocketAddr::new(IpAddr::V4(*gateway.public_address()), mapping.public_port());
        Ok(Grant { external, lifetime: Some(*mapping.lifetime()) })
    }

    /// Asks for the address: it comes with the clock of the router.
    pub(crate) async fn look(&mut self) -> Result<Look, Problem> {
        let gateway = ask_address(&mut self.connect().await?).await?;
        let restarted = self.epoch.has_restarted(gateway.epoch(), Instant::now());
        let moved = self.address != Some(*gateway.public_address());
        Ok(if restarted || moved { Look::Changed } else { Look::Stands })
    }

    pub(crate) async fn forget(&mut self, record: &MappingRecord) -> Result<(), Problem> {
        if record.internal.ip() != self.options.local_ip {
            // The router only deletes what leads to who asks. The lease runs out.
            return Ok(());
        }
        let question = Question::Mapping { internal: record.internal.port(), external: 0, lifetime: 0 };
        ask(&mut self.connect().await?, question).await.map(drop)
    }

    pub(crate) fn standing(&self) -> Option<MappingRecord> {
        self.address.map(|_| self.record())
    }

    /// The port outside is left out: it is not needed to delete.
    fn record(&self) -> MappingRecord {
        MappingRecord {
            method: Protocol::NatPmp,
            network: network(Protocol::NatPmp, &self.options),
            internal: (self.options.local_ip, self.options.internal_port).into(),
            number: 0,
            nonce: [0; 3],
        }
    }

    async fn connect(&self) -> Result<NatpmpAsync<UdpSocket>, Problem> {
        let gateway = self.options.gateway.ok_or(Problem::NoGateway)?;
        new_tokio_natpmp_with(gateway).await.map_err(|error| Problem::Refused(error.to_string()))
    }
}

async fn ask_address(router: &mut NatpmpAsync<UdpSocket>) -> Result<GatewayResponse, Problem> {
    match ask(router, Question::Address).await? {
        Response::Gateway(gateway) => Ok(gateway),
        _ => Err(Problem::Nonsense("no address".into())),
    }
}

async fn ask(router: &mut NatpmpAsync<UdpSocket>, question: Question) -> Result<Response, Problem> {
    for wait in WAITS {
        // It fails only with the ICMP error to the one before: nobody listens, or not yet.
        let _ = send(router, question).await;
        let deadline = Instant::now() + wait;
        while let Ok(read) = timeout_at(deadline, router.read_response_or_retry()).await {
            match read {
                Ok(response) if answers(&response, question) => return Ok(response),
                Err(error) if is_refusal(&error) => return Err(Problem::Refused(error.to_string())),
                // Garbage, somebody else's answer, or an ICMP error: the true answer may follow.
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    }
    Err(Problem::Silent)
}

async fn send(router: &mut NatpmpAsync<UdpSocket>, question: Question) -> Result<(), Error> {
    match question {
        Question::Address => router.send_public_address_request().await,
        Question::Mapping { internal, external, lifetime } => {
            router.send_port_mapping_request(Transport::UDP, internal, external, lifetime).await
        }
    }
}

fn answers(response: &Response, question: Question) -> bool {
    match (response, question) {
        // An answer cut short reads as zeros.
        (Response::Gateway(gateway), Question::Address) => !gateway.public_address().is_unspecified(),
        (Response::UDP(mapping), Question::Mapping { internal, .. }) => mapping.private_port() == internal,
        _ => false,
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::NATPMP_ERR_NOTAUTHORIZED | Error::NATPMP_ERR_NETWORKFAILURE | Error::NATPMP_ERR_OUTOFRESOURCES
    )
}
