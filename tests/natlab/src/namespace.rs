//! Creating, configuring, entering and removing a network namespace.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    iter,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::checked;

/// A named network namespace. [`Namespace::remove`] deletes it and kills every process in it.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace and applies the settings that every node of a lab needs.
    pub fn create(name: String) -> Result<Self> {
        checked(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.prepare().inspect_err(|_| drop(namespace.remove()))?;
        Ok(namespace)
    }

    fn prepare(&self) -> Result<()> {
        self.answer_names_locally();
        self.ip("link set lo up")?;
        self.sysctl(&[
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            // Without duplicate address detection an address can be used as soon as it is assigned.
            ("net/ipv6/conf/default/accept_dad", "0"),
        ])
    }

    /// Refers to a namespace that was created elsewhere.
    pub fn existing(name: String) -> Self {
        Self { name }
    }

    /// Returns the name that `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes name lookups fail at once: a lab has no name server, and the host's own would time out.
    fn answer_names_locally(&self) {
        let directory = self.configuration();
        if fs::create_dir_all(&directory).is_ok() {
            let _ = fs::write(directory.join("resolv.conf"), "nameserver 127.0.0.1\n");
        }
    }

    /// Lets programs in the namespace ask this name server for what is not in the hosts file.
    pub fn ask_names_at(&self, server: IpAddr) -> Result<()> {
        fs::create_dir_all(self.configuration())?;
        Ok(fs::write(self.configuration().join("resolv.conf"), format!("nameserver {server}\n"))?)
    }

    /// Sets the namespace's hosts file. Programs that were started when there was none do not read it.
    pub fn know_names(&self, names: &BTreeMap<String, Vec<IpAddr>>) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let lines = names
            .iter()
            .flat_map(|(name, addresses)| addresses.iter().map(move |address| format!("{address} {name}\n")));
        let text: String = iter::once("127.0.0.1 localhost\n".to_owned()).chain(lines).collect();
        fs::create_dir_all(self.configuration())?;
        Ok(fs::write(self.configuration().join("hosts"), text)?)
    }

    fn configuration(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    /// Runs `ip` commands in the namespace, one per line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
            .with_context(|| format!("ip in {}", self.name))
    }

    /// Brings an interface up, with a neighbor retransmission time of 0.1 s instead of 1 s, so that a lost ARP or NDP
    /// request costs little.
    pub fn up(&self, interface: &str) -> Result<()> {
        self.ip(&format!(
            "link set {interface} up\nntable change name arp_cache dev {interface} retrans 100\n\
             ntable change name ndisc_cache dev {interface} retrans 100"
        ))
    }

    /// Loads nftables rules into the namespace.
    pub fn nft(&self, rules: &str) -> Result<()> {
        feed(self.command("nft").args(["-f", "-"]), rules).with_context(|| format!("nft in {}", self.name))
    }

    /// Writes kernel parameters. Each is named by its path below /proc/sys.
    pub fn sysctl(&self, values: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            values.iter().try_for_each(|(key, value)| {
                fs::write(format!("/proc/sys/{key}"), value).with_context(|| format!("set {key} to {value}"))
            })
        })?
    }

    /// Keeps bridged frames between hosts of a LAN out of the router's rules, on kernels with bridge netfilter.
    pub fn bridge_past_router(&self) -> Result<()> {
        if !Path::new("/proc/sys/net/bridge").exists() {
            return Ok(());
        }
        self.sysctl(&[
            ("net/bridge/bridge-nf-call-iptables", "0"),
            ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ])
    }

    /// Returns a command that runs a program in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Calls `work` on a thread inside the namespace. Sockets opened there stay in the namespace after the call.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(format!("/run/netns/{}", self.name))
            .with_context(|| format!("open namespace {}", self.name))?;
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(file, CloneFlags::CLONE_NEWNET).context("enter namespace (needs root)")?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("work in namespace {} panicked", self.name))?
        })
    }

    /// Returns true if both ends of the interface are up.
    pub fn has_carrier(&self, interface: &str) -> Result<bool> {
        let shown =
            checked(Command::new("ip").args(["-n", &self.name, "-o", "link", "show", "dev", interface]))?;
        Ok(shown.contains("LOWER_UP"))
    }

    /// Kills every process in the namespace and removes it together with its interfaces.
    pub fn remove(&self) -> Result<()> {
        let pids = checked(Command::new("ip").args(["netns", "pids", &self.name]))?;
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        checked(Command::new("ip").args(["netns", "del", &self.name]))?;
        let _ = fs::remove_dir_all(self.configuration());
        Ok(())
    }
}

/// Runs a command with `text` on its standard input.
fn feed(command: &mut Command, text: &str) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(anyhow!("{}\nin:\n{text}", String::from_utf8_lossy(&output.stderr).trim()))
}
