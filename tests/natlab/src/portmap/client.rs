//! A port mapper in a process of its own on a member's computer, so that it can be killed.

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

/// Time limit for an expected result.
pub(super) const RESULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments of the process on the member's computer.
#[derive(Debug, Clone, Args)]
pub struct ClientArguments {
    /// UDP port to map.
    #[arg(long)]
    port: u16,
    /// IPv4 address of this computer.
    #[arg(long)]
    local: Ipv4Addr,
    /// IPv4 address of the router.
    #[arg(long)]
    gateway: Ipv4Addr,
    /// IPv6 address of this computer, if any.
    #[arg(long)]
    local_v6: Option<Ipv6Addr>,
    /// Names of the methods to use; all if none is given.
    #[arg(long)]
    method: Vec<String>,
    /// Remote endpoints that the port exchanges packets with.
    #[arg(long)]
    remote: Vec<SocketAddr>,
    /// Lifetime of mappings to request, in seconds.
    #[arg(long, default_value_t = 1200)]
    lease: u64,
    /// Interval between checks of the mappings, in milliseconds.
    #[arg(long, default_value_t = 500)]
    check: u64,
    /// File with the records of the mappings made, for the next start.
    #[arg(long)]
    notes: PathBuf,
}

/// The state that the process prints, one line for each change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) mappings: Vec<SaidMapping>,
    pub(super) states: Vec<SaidState>,
    /// Number of mappings and renewals so far.
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
    /// In seconds.
    pub(super) lifetime: u64,
}

/// Runs the port mapper on the member's computer until it gets SIGTERM.
///
/// # Errors
/// Returns an error if the runtime cannot start or an argument is wrong.
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

/// Handle of the process.
pub(super) struct Client {
    process: Process,
}

impl Client {
    /// Starts the process on a host to map `port` by `methods`.
    pub(super) fn start(
        host: &Host,
        port: u16,
        methods: &[Protocol],
        lease: u64,
        notes: &Path,
    ) -> Result<Self> {
        Self::talking(host, port, methods, lease, notes, &[])
    }

    /// Starts the process with remotes that the port exchanges packets with.
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

    /// Returns the last state printed.
    pub(super) fn said(&self) -> Said {
        let log = self.process.log();
        let whole = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }

    /// Waits for a mapping by `method`.
    pub(super) fn mapping(&mut self, method: Protocol) -> Result<SaidMapping> {
        self.wait(&format!("a mapping by {method}"), |said| {
            let found = said.mappings.iter().find(|mapping| mapping.method == method).cloned();
            found.with_context(|| format!("there is none: {said:?}"))
        })
    }

    /// Waits until the router has granted a lifetime for the flow to `remote`, and returns the flow.
    pub(super) fn flow(&mut self, remote: SocketAddr) -> Result<SaidFlow> {
        self.wait(&format!("a promise for {remote}"), |said| {
            let mut flows = said.states.iter().flat_map(|state| &state.flows);
            flows
                .find(|flow| flow.remote == remote)
                .cloned()
                .with_context(|| format!("there is none: {said:?}"))
        })
    }

    /// Waits until `method` has failed this many times, and returns the reason.
    pub(super) fn refusal(&mut self, method: Protocol, failures: u32) -> Result<String> {
        self.wait(&format!("{method} to fail"), |said| {
            let failed =
                said.states.iter().find(|state| state.method == method && state.failures >= failures);
            let state = failed.with_context(|| format!("it has not: {said:?}"))?;
            that(state.broken == (state.failures >= 3), || format!("its breaker is wrong: {state:?}"))?;
            state.problem.clone().context("no reason is given")
        })
    }

    /// Waits for three renewals, which take longer than one lease.
    pub(super) fn renewals(&mut self) -> Result<()> {
        let before = self.said().changes;
        self.wait("three renewals", |said| that(said.changes >= before + 3, || format!("{said:?}")))
    }

    /// Waits until the state printed satisfies a condition.
    pub(super) fn wait<T>(&mut self, what: &str, mut fits: impl FnMut(&Said) -> Result<T>) -> Result<T> {
        until(what, RESULT_TIMEOUT, || {
            self.process.alive()?;
            fits(&self.said())
        })
    }

    /// Returns the peak of the process's resident memory in KiB.
    pub(super) fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Stops the process and waits for its end.
    pub(super) fn stop(self) -> Result<()> {
        self.process.stop()
    }

    /// Kills the process with SIGKILL.
    pub(super) fn kill(self) -> Result<()> {
        self.process.kill()
    }
}
