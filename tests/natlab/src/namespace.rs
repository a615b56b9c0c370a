//! One network namespace: made, configured, entered, removed.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::checked;

/// A named network namespace. Removed, with every process in it, by [`Namespace::remove`].
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace and sets what every kind of node here needs.
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
            // Addresses are used the moment they are set.
            ("net/ipv6/conf/default/accept_dad", "0"),
        ])
    }

    /// The namespace of that name, made elsewhere.
    pub fn existing(name: String) -> Self {
        Self { name }
    }

    /// Its name as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// No name server exists in a lab; asking 127.0.0.1 fails at once where the machine's own would time out.
    fn answer_names_locally(&self) {
        let directory = self.configuration();
        if fs::create_dir_all(&directory).is_ok() {
            let _ = fs::write(directory.join("resolv.conf"), "nameserver 127.0.0.1\n");
        }
    }

    /// Programs started from now on know these names, in the format of /etc/hosts.
    pub fn know_names(&self, names: &str) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(self.configuration())?;
        Ok(fs::write(self.configuration().join("hosts"), format!("127.0.0.1 localhost\n{names}"))?)
    }

    fn configuration(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    /// Runs `ip` commands, one a line, in the namespace.
    pub fn ip(&self, lines: &str) -> Result<()> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
            .with_context(|| format!("ip in {}", self.name))
    }

    /// Takes an interface up; a first question to a neighbour that gets lost then costs 0.1 s instead of 1 s.
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

    /// Writes kernel parameters, named by their path below /proc/sys.
    pub fn sysctl(&self, values: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            values.iter().try_for_each(|(key, value)| {
                fs::write(format!("/proc/sys/{key}"), value).with_context(|| format!("set {key} to {value}"))
            })
        })?
    }

    /// Keeps the router's rules off what its bridge passes between neighbours, on kernels that would apply them.
    pub fn bridge_past_router(&self) -> Result<()> {
        if !Path::new("/proc/sys/net/bridge").exists() {
            return Ok(());
        }
        self.sysctl(&[
            ("net/bridge/bridge-nf-call-iptables", "0"),
            ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ])
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Calls `work` on a thread that is in the namespace: sockets made there belong to it for ever.
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

    /// Whether the interface has carrier on both ends.
    pub fn has_carrier(&self, interface: &str) -> Result<bool> {
        let shown =
            checked(Command::new("ip").args(["-n", &self.name, "-o", "link", "show", "dev", interface]))?;
        Ok(shown.contains("LOWER_UP"))
    }

    /// Kills every process in the namespace and removes it; its interfaces go with it.
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

/// Runs a command with text on its standard input.
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
