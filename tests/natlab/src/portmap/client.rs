//! A player's computer that keeps a port open: a process of its own, so that it can be killed.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use partyline_portmap::{Health, Ipv6Endpoint, Options, PortMapper, Protocol};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Host, Process, until, wait::that};

/// How long something may take to happen.
pub(super) const RESULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments of the process on the member's computer.
#[derive(Debug, Clone, Args)]
pub struct ClientArguments {
    /// The UDP port to open.
    #[arg(long)]
    port: u16,
    /// This computer's address.
    #[arg(long)]
    local: Ipv4Addr,
    /// The router.
    #[arg(long)]
    gateway: Ipv4Addr,
    /// This computer's IPv6 address, if any.
    #[arg(long)]
    local_v6: Option<Ipv6Addr>,
    /// The methods, by name; none means all.
    #[arg(long)]
    method: Vec<String>,
    /// Whom the port talks to.
    #[arg(long)]
    remote: Vec<SocketAddr>,
    /// Seconds.
    #[arg(long, default_value_t = 1200)]
    lease: u64,
    /// Milliseconds between looks.
    #[arg(long, default_value_t = 500)]
    check: u64,
    /// Where it notes what it has mapped.
    #[arg(long)]
    notes: PathBuf,
}

/// What the process says, a line each time something changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) mappings: Vec<SaidMapping>,
    pub(super) states: Vec<SaidState>,
    /// Mappings and renewals so far.
    pub(super) changes: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SaidMapping {
    pub(super) method: Protocol,
    pub(super) external: SocketAddr,
    pub(super) permanent: bool,
    pub(super) double_nat: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SaidState {
    pub(super) method: Protocol,
    pub(super) broken: bool,
    pub(super) failures: u32,
    pub(super) problem: Option<String>,
    pub(super) flows: Vec<SaidFlow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SaidFlow {
    pub(super) remote: SocketAddr,
    pub(super) external: SocketAddr,
    /// Seconds.
    pub(super) lifetime: u64,
}

/// Runs as the process on the member's computer until it is stopped.
///
/// # Errors
/// It cannot.
pub fn run(arguments: &ClientArguments) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(keep(arguments))
}

async fn keep(arguments: &ClientArguments) -> Result<()> {
    let notes = arguments.notes.clone();
    let methods = arguments.method.iter().map(|name| serde_json::from_value(name.as_str().into()));
    let methods: Vec<Protocol> = methods.collect::<Result<_, _>>()?;
    let place = |address| Ipv6Endpoint {
        address,
        port: arguments.port,
        gateway: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
        interface: nix::net::if_::if_nametoindex("eth0").unwrap_or_default(),
    };
    let wanted =
        Options::new(arguments.port, arguments.local, Some(arguments.gateway), u64::from(arguments.port));
    let mapper = PortMapper::start(Options {
        v6: arguments.local_v6.map(place),
        methods: if methods.is_empty() { Protocol::ALL.to_vec() } else { methods },
        lifetime: Duration::from_secs(arguments.lease),
        check_interval: Duration::from_millis(arguments.check),
        previous_records: fs::read(&notes)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default(),
        record_sink: Some(Arc::new(move |records| {
            let _ = serde_json::to_vec(records).map(|bytes| fs::write(&notes, bytes));
        })),
        ..wanted
    });
    mapper.set_remotes(arguments.remote.clone());
    let (mut mappings, mut states) = (mapper.mappings(), mapper.states());
    let (mut end, mut changes) = (signal(SignalKind::terminate())?, 0);
    loop {
        tokio::select! {
            Ok(()) = mappings.changed() => changes += 1,
            Ok(()) = states.changed() => {}
            _ = end.recv() => break,
        }
        print_state(&mappings.borrow_and_update(), &states.borrow_and_update(), changes)?;
    }
    mapper.stop().await;
    Ok(())
}

fn print_state(
    mappings: &[partyline_portmap::Mapping],
    states: &[partyline_portmap::MethodState],
    changes: u32,
) -> Result<()> {
    let mapping = |mapping: &partyline_portmap::Mapping| SaidMapping {
        method: mapping.method,
        external: mapping.external,
        permanent: mapping.lifetime.is_none(),
        double_nat: mapping.double_nat,
    };
    let flow = |flow: &partyline_portmap::Flow| SaidFlow {
        remote: flow.remote,
        external: flow.external,
        lifetime: flow.lifetime.as_secs(),
    };
    let state = |state: &partyline_portmap::MethodState| SaidState {
        method: state.method,
        broken: state.health == Health::CircuitOpen,
        failures: state.failures,
        problem: state.problem.clone(),
        flows: state.flows.iter().map(flow).collect(),
    };
    let said = Said {
        mappings: mappings.iter().map(mapping).collect(),
        states: states.iter().map(state).collect(),
        changes,
    };
    println!("{}", serde_json::to_string(&said)?);
    Ok(())
}

/// The process, from outside.
pub(super) struct Client {
    process: Process,
}

impl Client {
    /// Starts it on a host, to open `port` by `methods`.
    pub(super) fn start(
        host: &Host,
        port: u16,
        methods: &[Protocol],
        lease: u64,
        notes: &Path,
    ) -> Result<Self> {
        Self::talking(host, port, methods, lease, notes, &[])
    }

    /// The same, with remotes that the port talks to.
    pub(super) fn talking(
        host: &Host,
        port: u16,
        methods: &[Protocol],
        lease: u64,
        notes: &Path,
        remotes: &[SocketAddr],
    ) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let [a, b, c, _] = host.v4().octets();
        let (local, gateway) = (host.v4().to_string(), Ipv4Addr::new(a, b, c, 1).to_string());
        let mut command = host.command(&std::env::current_exe()?.to_string_lossy());
        command.args(["portmap-client", "--local", &local, "--gateway", &gateway]);
        command.args(["--port", &port.to_string(), "--lease", &lease.to_string()]).arg("--notes").arg(notes);
        if let Some(v6) = host.v6() {
            command.args(["--local-v6", &v6.to_string()]);
        }
        remotes.iter().for_each(|remote| {
            command.args(["--remote", &remote.to_string()]);
        });
        for method in methods {
            command.args(["--method", serde_json::to_value(method)?.as_str().unwrap_or_default()]);
        }
        let name = format!("client-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Ok(Self { process: host.spawn(&name, command)? })
    }

    /// The last it has said.
    pub(super) fn said(&self) -> Said {
        let log = self.process.log();
        let whole = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }

    /// Waits for a mapping by that method.
    pub(super) fn mapping(&mut self, method: Protocol) -> Result<SaidMapping> {
        self.wait(&format!("a mapping by {method}"), |said| {
            let found = said.mappings.iter().find(|mapping| mapping.method == method).cloned();
            found.with_context(|| format!("there is none: {said:?}"))
        })
    }

    /// Waits until the router has promised to keep a flow; gives what.
    pub(super) fn flow(&mut self, remote: SocketAddr) -> Result<SaidFlow> {
        self.wait(&format!("a promise for {remote}"), |said| {
            let mut flows = said.states.iter().flat_map(|state| &state.flows);
            flows
                .find(|flow| flow.remote == remote)
                .cloned()
                .with_context(|| format!("there is none: {said:?}"))
        })
    }

    /// Waits until that method has failed so often; gives why.
    pub(super) fn refusal(&mut self, method: Protocol, failures: u32) -> Result<String> {
        self.wait(&format!("{method} to fail"), |said| {
            let failed =
                said.states.iter().find(|state| state.method == method && state.failures >= failures);
            let state = failed.with_context(|| format!("it has not: {said:?}"))?;
            that(state.broken == (state.failures >= 3), || format!("its breaker is wrong: {state:?}"))?;
            state.problem.clone().context("no reason is given")
        })
    }

    /// Waits for as many renewals as make more than one lease.
    pub(super) fn renewals(&mut self) -> Result<()> {
        let before = self.said().changes;
        self.wait("three renewals", |said| that(said.changes >= before + 3, || format!("{said:?}")))
    }

    /// Waits until what it says fits.
    pub(super) fn wait<T>(&mut self, what: &str, mut fits: impl FnMut(&Said) -> Result<T>) -> Result<T> {
        until(what, RESULT_TIMEOUT, || {
            self.process.alive()?;
            fits(&self.said())
        })
    }

    /// The most memory it has had at a time, in KiB.
    pub(super) fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Asks it to end and waits.
    pub(super) fn stop(self) -> Result<()> {
        self.process.stop()
    }

    /// Kills it without warning.
    pub(super) fn kill(self) -> Result<()> {
        self.process.kill()
    }
}
