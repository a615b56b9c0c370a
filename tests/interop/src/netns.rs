//! Networks of namespaces, which the test creates and removes: a home, its router and the internet, or a computer
//! that needs no router. Needs root.

use std::{
    fs::File,
    io::ErrorKind,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// Prefix of the names of our namespaces, followed by the process id.
const PREFIX: &str = "plinterop";
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace. It is removed when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Creates a namespace and brings its loopback interface up.
    ///
    /// # Errors
    /// Returns an error without root, or if `ip` (package iproute2) is missing.
    pub fn new(what: &str) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}-{what}", std::process::id());
        run("ip", &["netns", "add", &name]).context("make a network namespace (needs root and iproute2)")?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Returns the name that `ip netns` shows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    /// Returns an error with the output if the command fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        run("ip", &[&["-n", &self.name], arguments].concat()).map(drop)
    }

    /// Runs a program in the namespace to its end, and returns its output.
    ///
    /// # Errors
    /// Returns an error with the output if the command fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run("ip", &[&["netns", "exec", &self.name, program], arguments].concat())
    }

    /// Starts a program in the namespace. It is killed when the returned value is dropped.
    ///
    /// # Errors
    /// Returns an error that names `package` if the program is not installed.
    pub fn start(&self, package: &str, program: &str, arguments: &[&str]) -> Result<Running> {
        Running::start(
            package,
            "ip",
            &[&["netns", "exec", &self.name, program], arguments].concat(),
            Some(program),
        )
    }

    /// Calls a function on a thread inside the namespace, and returns its result. Sockets opened there stay in the
    /// namespace.
    ///
    /// # Errors
    /// Returns an error if the namespace cannot be entered, or if the function panics or fails.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(File::open(path)?, CloneFlags::CLONE_NEWNET)
                    .context("enter a namespace (needs root)")?;
                function()
            });
            inside.join().map_err(|_| anyhow::anyhow!("panic inside the namespace"))?
        })
    }

    /// Waits until a program listens on a UDP port in the namespace.
    ///
    /// # Errors
    /// Returns an error after ten seconds.
    pub fn wait_for_udp(&self, port: u16) -> Result<()> {
        let listening = format!(":{port:04X} ");
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/udp")?))?.contains(&listening)
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("nothing listens on UDP port {port} in {}", self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts a program. `real` names the program to look for if `program` only wraps it.
    ///
    /// # Errors
    /// Returns an error that names `package` if the program is not installed.
    pub fn start(package: &str, program: &str, arguments: &[&str], real: Option<&str>) -> Result<Self> {
        let wanted = real.unwrap_or(program);
        let found = Command::new("which").arg(wanted).stdout(Stdio::null()).status()?.success();
        ensure!(found, "{wanted} is not installed: install the package {package}");
        let child =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home network (192.168.77.0/24), a masquerading router (11.0.0.1 outside), and hosts outside (11.0.1.1 and
/// 11.0.1.2).
#[derive(Debug)]
pub struct Street {
    /// The computer at home, 192.168.77.2.
    pub home: Netns,
    /// The router, 192.168.77.1 on `lan0` and 11.0.0.1 on `wan0`.
    pub router: Netns,
    /// The hosts outside.
    pub outside: Netns,
}

/// Masquerade that drops unsolicited packets, with the chains that miniupnpd fills.
const RULES: &str = r#"
table inet filter {
    chain input { type filter hook input priority 0; policy accept; iifname "wan0" ct state new drop; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        iifname "lan0" accept
        ct state established,related accept
        jump miniupnpd
    }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; oifname "wan0" masquerade; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
"#;

impl Street {
    /// Creates and connects the namespaces.
    ///
    /// # Errors
    /// Returns an error without root, iproute2 or nftables.
    pub fn build() -> Result<Self> {
        sweep()?;
        let street = Self {
            home: Netns::new("home")?,
            router: Netns::new("router")?,
            outside: Netns::new("outside")?,
        };
        let Self { home, router, outside } = &street;
        connect((home, "eth0", "192.168.77.2/24"), (router, "lan0", "192.168.77.1/24"))?;
        connect_outside((router, "wan0"), outside)?;
        home.ip(&["route", "add", "default", "via", "192.168.77.1"])?;
        router.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
        router.run("nft", &[RULES]).context("load the router's rules (package nftables)")?;
        Ok(street)
    }
}

/// A computer with a public address of its own (11.0.0.1), and hosts outside (11.0.1.1 and 11.0.1.2).
#[derive(Debug)]
pub struct PublicHost {
    /// The computer, without a router before it.
    pub host: Netns,
    /// The hosts outside.
    pub outside: Netns,
}

impl PublicHost {
    /// Creates and connects the namespaces.
    ///
    /// # Errors
    /// Returns an error without root or iproute2.
    pub fn build() -> Result<Self> {
        sweep()?;
        let network = Self { host: Netns::new("host")?, outside: Netns::new("outside")? };
        connect_outside((&network.host, "eth0"), &network.outside)?;
        Ok(network)
    }
}

/// Gives a namespace the address 11.0.0.1 on a link to the hosts outside.
fn connect_outside((namespace, link): (&Netns, &str), outside: &Netns) -> Result<()> {
    connect((namespace, link, "11.0.0.1/16"), (outside, "eth0", "11.0.1.1/16"))?;
    outside.ip(&["address", "add", "11.0.1.2/16", "dev", "eth0"])
}

fn connect(a: (&Netns, &str, &str), b: (&Netns, &str, &str)) -> Result<()> {
    run("ip", &["link", "add", a.1, "netns", a.0.name(), "type", "veth", "peer", b.1, "netns", b.0.name()])?;
    for (namespace, link, address) in [a, b] {
        namespace.ip(&["address", "add", address, "dev", link])?;
        namespace.ip(&["link", "set", link, "up"])?;
    }
    Ok(())
}

/// Removes what killed tests left behind.
fn sweep() -> Result<()> {
    let entries = match std::fs::read_dir("/run/netns") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {printed}{complaint}", arguments.join(" "));
    Ok(printed)
}
