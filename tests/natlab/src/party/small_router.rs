//! A router with few places in its table: a spray must leave some of them to other programs.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use partyline_model::{Allocation, Filtering, Mapping, PathKind};
use partyline_nat::Rules;

use super::{
    World,
    world::{CONNECT_TIMEOUT, connected},
};
use crate::{Host, Line, Nat, RouterOptions, until, wait::that, worker::Worker};

/// How many mappings the router has room for; it refuses further ones.
const TABLE: usize = 256;
/// How long its idle mappings live.
const LIFETIME: Duration = Duration::from_secs(30);
/// Interval between two new flows of the other program.
const FLOW_INTERVAL: Duration = Duration::from_millis(400);
/// How long a new flow may take until it counts as refused.
const FLOW_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the other program runs before the members meet, so that its mappings are as many as they will be.
const FLOWS_BEFORE: u32 = 60;
/// How many flows it opens after the members have met.
const FLOWS_AFTER: u32 = 40;
const DISTANCE: Line = Line { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0 };

/// Two members whose NATs need a spray meet, while another program behind the small router opens new flows all the
/// time, of which none fails.
pub(super) fn small_table(world: &World) -> Result<()> {
    let server = world.far_server("server", DISTANCE)?;
    let address: Ipv4Addr = server.name().parse()?;
    let cone =
        Rules::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, Allocation::Preserving);
    let symmetric =
        Rules { mapping: Mapping::AddressAndPortDependent, allocation: Allocation::Random, ..cone };
    let small = Rules { table: TABLE, lifetime: LIFETIME, ..symmetric };
    let options =
        |rules| RouterOptions { nat: Nat::Modelled(rules), line: Some(DISTANCE), ..RouterOptions::HOME };
    let site = world.lab.site("ben", options(small))?;
    let (ben, console) = (site.host("ben")?, site.host("console")?);
    let program = OtherProgram::start(&console, address)?;
    program.wait_for(FLOWS_BEFORE)?;
    let began = Instant::now();
    let members = world.party(Some(&server), vec![world.lab.home("anna", options(cone))?, ben])?;
    let direct = until("a direct path", CONNECT_TIMEOUT, || {
        let seen = members[1].sees(members[0].name())?;
        let kind = seen.path.map(|path| path.kind);
        that(kind == Some(PathKind::Direct), || format!("{kind:?}"))
    });
    world.note("direct", direct.is_ok());
    world.note("direct_ms", u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    program.wait_for(program.opened() + FLOWS_AFTER)?;
    connected(&members)?;
    let (opened, refused) = program.stop()?;
    world.note("flows", opened);
    world.note("refused", refused);
    ensure!(refused == 0, "{refused} of {opened} new flows of another program failed");
    Ok(())
}

/// A program that opens one new flow after another, by UDP and by TCP in turn, and counts those that do not work.
struct OtherProgram {
    opened: Arc<AtomicU32>,
    worker: Worker<u32>,
}

impl OtherProgram {
    fn start(host: &Host, server: Ipv4Addr) -> Result<Self> {
        let opened = Arc::new(AtomicU32::new(0));
        let (count, host) = (Arc::clone(&opened), host.clone());
        let worker = Worker::start(move |stop| host.enter(|| open_flows(server, &count, stop))?);
        Ok(Self { opened, worker })
    }

    fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }

    fn wait_for(&self, count: u32) -> Result<()> {
        until("flows of another program", CONNECT_TIMEOUT, || {
            let opened = self.opened();
            that(opened >= count, || format!("{opened} flows"))
        })
    }

    /// Returns how many flows were opened, and how many of them failed.
    fn stop(self) -> Result<(u32, u32)> {
        let refused = self.worker.stop()?;
        Ok((self.opened.load(Ordering::Relaxed), refused))
    }
}

fn open_flows(server: Ipv4Addr, opened: &AtomicU32, stop: &AtomicBool) -> Result<u32> {
    let mut waiting: Vec<thread::JoinHandle<bool>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = opened.fetch_add(1, Ordering::Relaxed);
        let flow = move || if number % 4 == 3 { connects(server) } else { is_answered(server) };
        // Threads stay in the namespace in which they were started.
        waiting.push(thread::spawn(flow));
        // The pace of the program.
        thread::sleep(FLOW_INTERVAL);
    }
    let results = waiting.into_iter().map(|flow| flow.join().ok().context("a flow panicked"));
    let works = results.collect::<Result<Vec<_>>>()?;
    Ok(works.iter().filter(|works| !**works).count() as u32)
}

/// Sends one Binding request (RFC 8489) from a new socket. Returns true if it is answered.
fn is_answered(server: Ipv4Addr) -> bool {
    let ask = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(FLOW_TIMEOUT))?;
        let mut request = [7; 20];
        request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        socket.send_to(&request, (server, 3478))?;
        socket.recv(&mut [0; 512])
    };
    ask().is_ok()
}

fn connects(server: Ipv4Addr) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((server, 443)), FLOW_TIMEOUT).is_ok()
}
