//! Routers that open no ports but keep existing flows alive (PCP PEER, RFC 6887 section 12).

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use partyline_model::NetworkView;
use partyline_portmap::Protocol;

use super::{
    client::{Client, RESULT_TIMEOUT},
    fake::{Behaviour, Fake, pcp},
    home::{Daemon, Home, install, open_no_ports, start},
    quirks::gateway,
};
use crate::{Lab, Line, RouterOptions, party::World, until};

const PORT: u16 = 41_641;
const METHODS: [Protocol; 1] = [Protocol::Pcp];
/// Lifetime to request, in seconds.
const LEASE: u64 = 600;
const NOT_AUTHORIZED: u8 = 2;

/// Uses a real miniupnpd that cannot map ports. The remote has to see the member at the external address that the
/// router granted.
pub(super) fn kept(lab: &Lab) -> Result<String> {
    let home = Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?;
    open_no_ports(&home.site)?;
    let remote = SocketAddr::from((home.outside.v4(), 3478));
    let mut client = Client::talking(&home.player, PORT, &METHODS, LEASE, &home.notes(), &[remote])?;
    let flow = client.flow(remote)?;
    ensure!(flow.lifetime == LEASE, "{flow:?}");
    let why = client.refusal(Protocol::Pcp, 3)?;
    ensure!(client.said().mappings.is_empty(), "it was to open nothing: {:?}", client.said());
    ensure!(client.flow(remote)? == flow, "the flow went with the circuit breaker");
    ensure!(seen_from(&home, remote)? == flow.external, "the remote does not see {}", flow.external);
    client.stop()?;
    Ok(format!("MAP: {why}; PEER: {remote} sees {}, promised for {LEASE} s", flow.external))
}

/// The real `partyline netcheck` reports the flow that such a router keeps, and learns from its external address that
/// there is no second NAT.
pub(super) fn told(_: &Lab) -> Result<String> {
    let world = World::new()?;
    let server = world.far_server("server", Line::FAR)?;
    let site = world.lab.site("home", RouterOptions::HOME)?;
    let host = site.host("anna")?;
    install(&site)?;
    open_no_ports(&site)?;
    let _daemon = start(&site, &host, Daemon::Igd2)?;
    let mut command = host.command(&world.program("partyline").to_string_lossy());
    command.args(["netcheck", "--here", "--watch", "--json", "--stun", &format!("{}:3478", server.name())]);
    let mut program = host.spawn("netcheck", command)?;
    let outside = site.public_v4().context("no internet")?;
    let kept = format!("keeps the way to {}:3478 open", server.name());
    let said = until("netcheck to report what the router keeps", RESULT_TIMEOUT, || {
        program.alive()?;
        let log = program.log();
        let report: NetworkView = serde_json::from_str(log.lines().last().context("nothing yet")?)?;
        let mut router = report.report.router.into_iter().filter_map(|check| check.problem);
        let said = router.find(|problem| problem.contains(&kept)).context(log)?;
        ensure!(report.nat.double_nat == Some(false), "{:?}", report.nat);
        Ok(said)
    })?;
    ensure!(said.contains(&outside.to_string()), "not at {outside}: {said}");
    program.stop()?;
    Ok(format!("PCP: {said}"))
}

/// Returns the address from which a remote receives packets of the member's port.
fn seen_from(home: &Home<'_>, remote: SocketAddr) -> Result<SocketAddr> {
    let ear = home.outside.enter(|| UdpSocket::bind(remote))??;
    ear.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mouth = home.player.enter(|| UdpSocket::bind((home.player.v4(), PORT)))??;
    until(&format!("{remote} to hear the player"), RESULT_TIMEOUT, || {
        mouth.send_to(b"hello", remote)?;
        Ok(ear.recv_from(&mut [0; 16])?.1)
    })
}

/// A forgery: its name, the change to a correct response, and the lifetime of the flow if the client has to accept it.
type Lie = (&'static str, fn(&mut Vec<u8>), Option<u64>);

const LIES: [Lie; 11] = [
    ("nothing", |_| {}, Some(LEASE)),
    ("nonce", |answer| answer[24] ^= 1, None),
    ("port inside", |answer| answer[41] ^= 1, None),
    ("port of the remote", |answer| answer[61] ^= 1, None),
    ("remote", |answer| answer[79] ^= 1, None),
    ("cut short", |answer| answer.truncate(60), None),
    ("outside 0.0.0.0", |answer| answer[56..60].fill(0), None),
    ("outside [::]", |answer| answer[44..60].fill(0), None),
    ("no time", |answer| answer[4..8].fill(0), None),
    ("for ever", |answer| answer[4..8].fill(0xff), Some(LEASE)),
    ("20 s", |answer| answer[4..8].copy_from_slice(&20_u32.to_be_bytes()), Some(20)),
];

/// Tests forged responses to PEER and all result codes, from a router that refuses MAP and whose epoch jumps.
pub(super) fn hostile(lab: &Lab) -> Result<String> {
    let home = Home::new(lab, RouterOptions::HOME)?;
    let fake = Fake::start(home.router(), gateway(&home), Behaviour::default())?;
    let outside = home.outside.v4();
    let remotes = [3478, 3479].map(|port| SocketAddr::from((outside, port)));
    for (name, lie, taken) in LIES {
        fake.behave(answering(move |request| {
            let mut answer = pcp(request, 0, mad_clock());
            // The second remote gets a correct response. Once its flow exists, the client has also processed the forged
            // one.
            if request[60..62] == 3478_u16.to_be_bytes() {
                lie(&mut answer);
            }
            vec![answer]
        }));
        let mut client = Client::talking(&home.player, PORT, &METHODS, LEASE, &home.notes(), &remotes)?;
        client.flow(remotes[1]).with_context(|| name.to_owned())?;
        let flows: Vec<_> = client.said().states.into_iter().flat_map(|state| state.flows).collect();
        let lied = flows.iter().find(|flow| flow.remote == remotes[0]).map(|flow| flow.lifetime);
        ensure!(lied == taken, "{name}: {flows:?}");
        client.kill()?;
    }
    for code in 1..=13 {
        fake.behave(answering(move |request| vec![pcp(request, code, mad_clock())]));
        let mut client = Client::talking(&home.player, PORT, &METHODS, LEASE, &home.notes(), &remotes)?;
        client.refusal(Protocol::Pcp, 2).with_context(|| format!("code {code}"))?;
        ensure!(client.said().states.iter().all(|state| state.flows.is_empty()), "code {code}");
        client.kill()?;
    }
    Ok(format!(
        "{} answers and 13 codes: only what was asked for is believed, no longer than asked",
        LIES.len()
    ))
}

fn mad_clock() -> u32 {
    static CLOCK: AtomicU32 = AtomicU32::new(1);
    CLOCK.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761)
}

/// Refuses MAP, and replies to PEER with `answer`.
fn answering(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Behaviour {
    let datagrams = move |request: &[u8]| match (request.get(1), request.len()) {
        (Some(1), 60) => vec![pcp(request, NOT_AUTHORIZED, mad_clock())],
        (Some(2), 80) => answer(request),
        _ => Vec::new(),
    };
    Behaviour { datagrams: Some(Box::new(datagrams)), ..Behaviour::default() }
}
