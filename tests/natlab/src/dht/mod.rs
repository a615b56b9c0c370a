//! A BitTorrent Mainline DHT (BEP 5, BEP 44) on the internet of a lab, of real nodes: libtorrent, and the crate `mainline`.
//!
//! Each node has a public address of its own in a network of its own, so that limits per subnet hold as on the internet.
//! User-space cables keep each node at its own distance from everybody else. The nodes of one kind share a namespace.

mod distances;
mod python;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Builder;

use self::distances::Distances;
use crate::{Host, Lab, Process, checked, parallel::run_parallel, until, wait::that};

/// The UDP port of all nodes.
const PORT: u16 = 6881;

/// Number of nodes whose addresses programs know from the start. They are no worse than the others.
const ROUTERS: usize = 2;

/// Time limit for the nodes to find each other.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The program that runs the nodes of libtorrent.
const LIBTORRENT_NODES: Script = ("libtorrent_nodes.py", include_str!("libtorrent_nodes.py"));

/// The program that runs hostile nodes.
const HOSTILE_NODES: Script = ("hostile_nodes.py", include_str!("hostile_nodes.py"));

/// The name and the text of a program in Python.
type Script = (&'static str, &'static str);

/// The nodes of a DHT.
#[derive(Debug, Clone, Copy)]
pub struct Makeup {
    /// Number of nodes that libtorrent runs.
    pub libtorrent: usize,
    /// Number of nodes that the crate `mainline` runs.
    pub mainline: usize,
    /// Seed of the distances.
    pub seed: u64,
}

impl Makeup {
    /// 32 nodes of libtorrent, which most nodes of the internet's DHT are, and 8 others.
    pub const USUAL: Self = Self { libtorrent: 32, mainline: 8, seed: 1 };
}

/// A running DHT. Dropping it ends all nodes.
pub struct Dht<'lab> {
    lab: &'lab Lab,
    libtorrent: Vec<Ipv4Addr>,
    mainline: Vec<Ipv4Addr>,
    _process: Process,
    _nodes: Vec<mainline::Dht>,
}

/// Running hostile nodes.
#[derive(Debug)]
pub struct Hostile {
    process: Process,
    nodes: Vec<Ipv4Addr>,
}

impl Hostile {
    /// What the nodes answer with, in turn.
    const BEHAVIORS: [&str; 4] = ["garbage", "flood", "invent", "replay"];

    /// Returns the addresses of the nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Ipv4Addr] {
        &self.nodes
    }

    /// Checks that somebody has asked nodes of every kind for an item.
    ///
    /// # Errors
    /// Returns an error with what they have logged otherwise.
    pub fn all_asked(&self) -> Result<()> {
        let log = self.process.log();
        let asked = |kind: &&str| log.contains(&format!("asked: {kind}"));
        that(Self::BEHAVIORS.iter().all(asked), || log.clone())
    }
}

impl<'lab> Dht<'lab> {
    /// The UDP port of all nodes.
    pub const PORT: u16 = PORT;

    /// Starts the nodes, and waits until they know each other. Computers that are added to the lab later know the
    /// routers by their names.
    ///
    /// # Errors
    /// Returns an error if Python has no libtorrent, or the nodes do not find each other.
    pub fn start(lab: &'lab Lab, makeup: Makeup) -> Result<Self> {
        ensure!(makeup.libtorrent > ROUTERS, "a DHT of {} nodes", makeup.libtorrent);
        let addresses: Vec<_> = (0..makeup.libtorrent + makeup.mainline).map(address).collect();
        let (libtorrent, mainline) = addresses.split_at(makeup.libtorrent);
        for (name, router) in router_names().zip(&addresses) {
            lab.name(&name, &[IpAddr::from(*router)])?;
        }
        let crowd = |name, nodes| lab.crowd(name, nodes, Distances::new(makeup.seed, nodes));
        let process = serve(&crowd("dht-libtorrent", libtorrent)?, libtorrent)?;
        let nodes = mainline_nodes(&crowd("dht-mainline", mainline)?, mainline)?;
        let (libtorrent, mainline) = (libtorrent.to_vec(), mainline.to_vec());
        Ok(Self { lab, libtorrent, mainline, _process: process, _nodes: nodes })
    }

    /// Adds nodes that answer with garbage, floods, invented nodes and old items. They end when the returned value is
    /// dropped.
    ///
    /// # Errors
    /// Returns an error if they do not start.
    pub fn add_hostile(&self, count: usize) -> Result<Hostile> {
        let nodes: Vec<_> = (self.nodes().count()..).map(address).take(count).collect();
        let host = self.lab.crowd("dht-hostile", &nodes, Distances::new(0, &nodes))?;
        let mut command = python(&host, HOSTILE_NODES)?;
        for node in &self.libtorrent {
            command.args(["--introduce", &format!("{node}:{PORT}")]);
        }
        command.args(nodes.iter().map(Ipv4Addr::to_string));
        Ok(Hostile { process: start(&host, command)?, nodes })
    }

    /// Returns the routers as `host:port`, the first by its name and the others by their addresses.
    #[must_use]
    pub fn routers(&self) -> Vec<String> {
        let hosts = router_names().take(1).chain(self.libtorrent[1..ROUTERS].iter().map(Ipv4Addr::to_string));
        hosts.map(|host| format!("{host}:{PORT}")).collect()
    }

    /// Returns the addresses of the routers.
    #[must_use]
    pub fn router_addresses(&self) -> &[Ipv4Addr] {
        &self.libtorrent[..ROUTERS]
    }

    /// Returns the addresses of the nodes of libtorrent, the routers first.
    #[must_use]
    pub fn libtorrent(&self) -> &[Ipv4Addr] {
        &self.libtorrent
    }

    /// Returns the addresses of the nodes of the crate `mainline`.
    #[must_use]
    pub fn mainline(&self) -> &[Ipv4Addr] {
        &self.mainline
    }

    /// Returns the addresses of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.libtorrent.iter().chain(&self.mainline).copied()
    }

    /// Lets these nodes receive nothing any more from afar, as if they were off, and all others again. Nodes of the same
    /// kind still have them in their tables.
    ///
    /// # Errors
    /// Returns an error if the rules are refused.
    pub fn silence(&self, nodes: &[Ipv4Addr]) -> Result<()> {
        self.lab.silence(nodes)
    }

    /// Stores an item by a node of libtorrent on `host`, and returns how many nodes accepted it.
    ///
    /// # Errors
    /// Returns an error if that node finds no other.
    pub fn put(&self, host: &Host, private: &str, public: &str, value: &str) -> Result<usize> {
        let said = self.ask(host, &["put", &host.v4().to_string(), private, public, value])?;
        said.trim().parse().with_context(|| format!("put said {said:?}"))
    }

    /// Fetches an item by a node of libtorrent on `host`, and returns what it prints: the sequence number and the value.
    ///
    /// # Errors
    /// Returns an error if that node finds no other.
    pub fn get(&self, host: &Host, public: &str) -> Result<String> {
        self.ask(host, &["get", &host.v4().to_string(), public])
    }

    fn ask(&self, host: &Host, task: &[&str]) -> Result<String> {
        let mut command = python(host, LIBTORRENT_NODES)?;
        for router in self.router_addresses() {
            command.args(["--router", &format!("{router}:{PORT}")]);
        }
        checked(command.args(task))
    }
}

/// Returns the names of the routers.
fn router_names() -> impl Iterator<Item = String> {
    (1..=ROUTERS).map(|number| format!("router{number}.dht.test"))
}

/// Returns the address of a node by its number. No two of the first 60 have the first octet in common.
fn address(number: usize) -> Ipv4Addr {
    let octet = |factor: usize, modulus: usize, first: usize| {
        u8::try_from(first + number * factor % modulus).unwrap_or(u8::MAX)
    };
    Ipv4Addr::new(octet(7, 60, 20), octet(37, 250, 1), octet(91, 250, 1), octet(1, 250, 1))
}

/// Returns a command that runs a program in Python on a host.
fn python(host: &Host, (name, text): Script) -> Result<Command> {
    let program: PathBuf = host.directory().join(name);
    fs::write(&program, text)?;
    let mut command = host.command(&python::interpreter()?);
    command.arg("-u").arg(program).args(["--port", &PORT.to_string()]);
    Ok(command)
}

fn serve(host: &Host, nodes: &[Ipv4Addr]) -> Result<Process> {
    let mut command = python(host, LIBTORRENT_NODES)?;
    for router in &nodes[..ROUTERS] {
        command.args(["--router", &format!("{router}:{PORT}")]);
    }
    command.arg("serve").args(nodes.iter().map(Ipv4Addr::to_string));
    start(host, command)
}

/// Starts a program, and waits until its nodes are ready.
fn start(host: &Host, command: Command) -> Result<Process> {
    let mut process = host.spawn(host.name(), command)?;
    process.wait_for_log("ready", START_TIMEOUT)?;
    Ok(process)
}

/// Starts nodes of the crate `mainline`. Their threads stay in the host's namespace.
fn mainline_nodes(host: &Host, addresses: &[Ipv4Addr]) -> Result<Vec<mainline::Dht>> {
    // They name others only once they have asked them, which the look-ups below do when all are there.
    let others: Vec<_> = addresses.iter().chain([&address(0)]).map(|address| (*address, PORT)).collect();
    let start = |address: &Ipv4Addr| {
        let mut builder = mainline::Dht::builder();
        builder.server_mode().bootstrap(&others).bind_address(*address).public_ip(*address).port(PORT);
        builder.build()
    };
    let nodes: Vec<_> = host.enter(|| addresses.iter().map(start).collect::<Result<_, _>>())??;
    run_parallel(nodes.len(), &nodes, |_, node| {
        let (runtime, node) = (Builder::new_current_thread().build()?, node.clone().as_async());
        until("a node of the crate to know others", START_TIMEOUT, || {
            that(runtime.block_on(node.bootstrapped()), || "it knows none".into())
        })
    })
    .into_iter()
    .collect::<Result<()>>()?;
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Makeup, address};

    #[test]
    fn nodes_have_networks_of_their_own() {
        let nodes = Makeup::USUAL.libtorrent + Makeup::USUAL.mainline;
        let networks: BTreeSet<u8> = (0..nodes).map(|number| address(number).octets()[0]).collect();
        assert_eq!(networks.len(), nodes);
    }
}
