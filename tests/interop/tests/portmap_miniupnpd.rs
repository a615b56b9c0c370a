//! Port mapping with a real miniupnpd on a router in a namespace.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use partyline_portmap::{Mapping, MethodState, Options, PortMapper, Protocol};
use partyline_tests_interop::netns::{Netns, Running, Street};
use tokio::{sync::watch, time::timeout};

const PORT: u16 = 41641;
const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const RESULT_TIMEOUT: Duration = Duration::from_secs(40);

/// A running miniupnpd with its configuration file, which is removed with it.
struct Igd {
    _process: Running,
    configuration: String,
}

impl Igd {
    fn start(router: &Netns) -> Result<Self> {
        let configuration = format!("/tmp/{}.conf", router.name());
        let text = "ext_ifname=wan0\nlistening_ip=lan0\nenable_natpmp=yes\nenable_upnp=yes\nmin_lifetime=2\nsecure_mode=yes\n\
             upnp_table_name=filter\nupnp_nat_table_name=filter\nminissdpdsocket=/nonexistent\nport=0\n\
             uuid=00000000-0000-0000-0000-000000000000\nallow 1024-65535 192.168.77.0/24 1024-65535\n\
             deny 0-65535 0.0.0.0/0 0-65535\n";
        std::fs::write(&configuration, text)?;
        let pid = format!("/tmp/{}.pid", router.name());
        let arguments = ["-d", "-f", &configuration, "-P", &pid];
        let process = router.start("miniupnpd-nftables", "miniupnpd", &arguments)?;
        let igd = Self { _process: process, configuration };
        router.wait_for_udp(1900)?;
        router.wait_for_udp(5351)?;
        Ok(igd)
    }
}

impl Drop for Igd {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.configuration);
        let _ = std::fs::remove_file(self.configuration.replace(".conf", ".pid"));
    }
}

/// Runs a future on a thread inside a namespace.
fn inside<T: Send>(namespace: &Netns, future: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(future())
    })
}

async fn granted(mappings: &mut watch::Receiver<Vec<Mapping>>, count: usize) -> Result<Vec<Mapping>> {
    let wanted = mappings.wait_for(|mappings| mappings.len() >= count);
    Ok(timeout(RESULT_TIMEOUT, wanted).await.context("no mapping was granted")??.clone())
}

/// Sends a packet from outside to the mapped port, and checks that it arrives.
async fn assert_reachable(
    street: &Street,
    socket: &tokio::net::UdpSocket,
    external: SocketAddr,
) -> Result<()> {
    let payload = b"are you there?";
    street.outside.enter(|| {
        UdpSocket::bind("11.0.1.1:0")?.send_to(payload, external)?;
        Ok(())
    })?;
    let mut buffer = [0; 64];
    let (length, from) =
        timeout(RESULT_TIMEOUT, socket.recv_from(&mut buffer)).await.context("nothing arrived")??;
    ensure!(
        &buffer[..length] == payload && from.ip() == Ipv4Addr::new(11, 0, 1, 1),
        "something else came from {from}"
    );
    Ok(())
}

fn is_mapped(router: &Netns) -> Result<bool> {
    Ok(router.run("nft", &["list", "table", "inet", "filter"])?.contains(&PORT.to_string()))
}

fn grants_renews_and_deletes(method: Protocol) -> Result<()> {
    let street = Street::build()?;
    let _igd = Igd::start(&street.router)?;
    inside(&street.home, async || {
        let socket = tokio::net::UdpSocket::bind((HOME, PORT)).await?;
        let lifetime = Duration::from_secs(4);
        let options =
            Options { methods: vec![method], lifetime, ..Options::new(PORT, HOME, Some(GATEWAY), 7) };
        let mapper = PortMapper::start(options);
        let mut mappings = mapper.mappings();
        let first = granted(&mut mappings, 1).await?.remove(0);
        assert_eq!((first.method, first.double_nat), (method, false));
        assert_eq!(first.external, (Ipv4Addr::new(11, 0, 0, 1), PORT).into());
        assert_eq!(first.lifetime, Some(lifetime));
        assert!(is_mapped(&street.router)?);
        assert_reachable(&street, &socket, first.external).await?;
        // Three renewals, each at half of the lease, take longer than one lease. Without them the mapping would expire.
        for _ in 0..3 {
            timeout(RESULT_TIMEOUT, mappings.changed()).await.context("not renewed")??;
            assert_eq!(mappings.borrow_and_update().as_slice(), std::slice::from_ref(&first));
        }
        assert_reachable(&street, &socket, first.external).await?;
        mapper.stop().await;
        assert!(mappings.borrow().is_empty());
        assert!(!is_mapped(&street.router)?, "the mapping is still there");
        Ok(())
    })
}

#[test]
fn nat_pmp_maps_and_releases_a_port() -> Result<()> {
    grants_renews_and_deletes(Protocol::NatPmp)
}

#[test]
fn pcp_maps_and_releases_a_port() -> Result<()> {
    grants_renews_and_deletes(Protocol::Pcp)
}

#[test]
fn upnp_maps_and_releases_a_port() -> Result<()> {
    grants_renews_and_deletes(Protocol::Upnp)
}

#[test]
fn all_protocols_together_release_their_mappings() -> Result<()> {
    let street = Street::build()?;
    let _igd = Igd::start(&street.router)?;
    inside(&street.home, async || {
        let socket = tokio::net::UdpSocket::bind((HOME, PORT)).await?;
        let mapper = PortMapper::start(Options::new(PORT, HOME, Some(GATEWAY), 7));
        let mut mappings = mapper.mappings();
        let granted = granted(&mut mappings, 2).await?;
        for mapping in granted {
            assert_reachable(&street, &socket, mapping.external).await?;
        }
        mapper.stop().await;
        assert!(!is_mapped(&street.router)?, "a mapping is still there");
        Ok(())
    })
}

/// Answers requests on UDP port 5351 of the router while a test runs at home.
fn with_router(
    street: &Street,
    answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send,
    test: impl AsyncFnOnce() -> Result<()> + Send,
) -> Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let router = scope.spawn(|| street.router.enter(|| serve(&over, answer)));
        let outcome = street.router.wait_for_udp(5351).and_then(|()| inside(&street.home, test));
        over.store(true, Ordering::Relaxed);
        router.join().map_err(|_| anyhow::anyhow!("the router panicked"))??;
        outcome
    })
}

fn serve(over: &AtomicBool, mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> Result<()> {
    let socket = UdpSocket::bind((GATEWAY, 5351))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut buffer = [0; 1100];
    while !over.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for bytes in answer(&buffer[..length]) {
                socket.send_to(&bytes, from)?;
            }
        }
    }
    Ok(())
}

/// Unlike miniupnpd, some routers map ports even though their outside address is private. This one also loses two of
/// three requests, sends garbage before each response, and grants another port than the requested one.
#[test]
fn carrier_address_is_reported_and_lost_requests_are_retransmitted() -> Result<()> {
    let street = Street::build()?;
    let mut received = 0;
    let answer = move |request: &[u8]| {
        received += 1;
        let mut answer = vec![0, request[1] | 0x80, 0, 0, 0, 0, 0, 9];
        match request.get(4..6) {
            None => answer.extend_from_slice(&[100, 64, 3, 1]),
            Some(inside) => {
                answer.extend_from_slice(inside);
                answer.extend_from_slice(&[0x12, 0x34, 0, 0, 2, 0]);
            }
        }
        if received % 3 == 0 {
            vec![vec![0, 200], vec![0, 129, 0, 0, 0, 0, 0, 9, 1, 1, 1, 1, 0, 0, 1, 1], answer]
        } else {
            Vec::new()
        }
    };
    with_router(&street, answer, async || {
        let methods = vec![Protocol::NatPmp];
        let mapper = PortMapper::start(Options { methods, ..Options::new(PORT, HOME, Some(GATEWAY), 7) });
        let mapping = granted(&mut mapper.mappings(), 1).await?.remove(0);
        assert!(mapping.double_nat, "{mapping:?}");
        assert_eq!(mapping.external, (Ipv4Addr::new(100, 64, 3, 1), 0x1234).into());
        assert_eq!(mapping.lifetime, Some(Duration::from_secs(512)));
        mapper.stop().await;
        Ok(())
    })
}

#[test]
fn malformed_or_missing_responses_map_nothing_and_are_reported() -> Result<()> {
    let street = Street::build()?;
    let garbage = |_: &[u8]| vec![vec![0], vec![0, 129, 0, 0], vec![255; 1100]];
    with_router(&street, garbage, async || {
        let mapper = PortMapper::start(Options::new(PORT, HOME, Some(GATEWAY), 7));
        let failed = |states: &Vec<MethodState>| states.iter().all(|state| state.failures >= 1);
        let mut states = mapper.states();
        let states =
            timeout(RESULT_TIMEOUT, states.wait_for(failed)).await.context("no protocol failed")??.clone();
        assert!(states.len() == 3 && states.iter().all(|state| state.problem.is_some()), "{states:?}");
        assert!(mapper.mappings().borrow().is_empty());
        mapper.stop().await;
        Ok(())
    })
}
