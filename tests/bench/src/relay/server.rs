//! The servers under test as child processes pinned to a core, with their processor time and memory.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Pid, SysconfVar, sysconf},
};
use partyline_model::Timestamp;
use partyline_relay::{Secret, time_limited_credentials};
use tempfile::TempDir;

/// Secret of the time-limited credentials, which both servers support.
const SECRET: &str = "bench-bench-bench-bench-bench-ok";
pub(super) const REALM: &str = "partyline";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// Returns a user name and its password, valid at both servers for a day.
pub(super) fn credentials() -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = Timestamp(0).plus(now + Duration::from_secs(86_400));
    time_limited_credentials(&Secret::new(SECRET), expires, "bench")
}

/// Returns a configuration without quotas, to match that of coturn.
fn configuration(port: u16) -> String {
    format!(
        "listen = [\"127.0.0.1:0\"]\n\
         [relay]\nsecret = \"{SECRET}\"\nrealm = \"{REALM}\"\nlisten = [\"127.0.0.1\"]\nport = {port}\n\
         alternate_port = 0\nports = [10000, 65535]\nallow_private_peers = true\nallocations = 60000\n\
         allocations_per_user = 60000\nallocations_per_address = 60000\nbandwidth_per_allocation = 0\nbandwidth_per_network = 0\n\
         bandwidth = 0\nforeign_payloads = true\n"
    )
}

/// The cores of the server and of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    server: usize,
    load: usize,
}

impl Cores {
    pub(super) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        let (Some(load), Some(server)) = (cores.next(), cores.next()) else {
            bail!("two processor cores are needed, one for the servers and one for the load");
        };
        Ok(Self { server, load })
    }

    pub(super) fn pin_this(self) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(self.load)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
    }
}

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    _directory: TempDir,
}

impl Server {
    pub(super) fn partyline(program: &Path, cores: Cores) -> Result<Self> {
        ensure!(
            program.exists(),
            "{} is missing: cargo build --release -p partyline-server",
            program.display()
        );
        Self::start(program, cores, |port, directory| {
            let config = directory.join("server.toml");
            fs::write(&config, configuration(port))?;
            Ok(vec!["--config".to_owned(), config.display().to_string()])
        })
    }

    pub(super) fn coturn(program: &Path, cores: Cores) -> Result<Self> {
        ensure!(program.exists(), "{} is missing: apt-get install coturn", program.display());
        Self::start(program, cores, |port, directory| {
            let file = |name: &str| directory.join(name).display().to_string();
            let mut arguments: Vec<String> = [
                "-n",
                "--listening-ip",
                "127.0.0.1",
                "--relay-ip",
                "127.0.0.1",
                "--use-auth-secret",
                "--static-auth-secret",
                SECRET,
                "--realm",
                REALM,
                "--allow-loopback-peers",
                "--cli-password",
                "unused",
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "--no-stdout-log",
                "--simple-log",
                "--no-rfc5780",
                "-m",
                "1",
                "--min-port=10000",
                "--max-port=65535",
            ]
            .map(str::to_owned)
            .into();
            arguments.extend([format!("--listening-port={port}"), format!("--log-file={}", file("log"))]);
            arguments.extend([format!("--pidfile={}", file("pid")), format!("--userdb={}", file("db"))]);
            Ok(arguments)
        })
    }

    fn start(
        program: &Path,
        cores: Cores,
        arguments: impl Fn(u16, &Path) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = UdpSocket::bind((ADDRESS, 0))?.local_addr()?.port();
        let child = Command::new("taskset")
            .args(["-c", &cores.server.to_string()])
            .arg(program)
            .args(arguments(port, directory.path())?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("taskset is missing: apt-get install util-linux")?;
        let server = Self { child, address: (ADDRESS, port).into(), _directory: directory };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Sends Binding requests until a response arrives.
    fn wait_until_it_answers(&self) -> Result<()> {
        let socket = UdpSocket::bind((ADDRESS, 0))?;
        socket.connect(self.address)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut request = [0; 20];
        request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
        for _ in 0..200 {
            // Sending fails with ECONNREFUSED until the server listens.
            let _ = socket.send(&request);
            match socket.recv(&mut [0; 512]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(_) => {}
            }
        }
        bail!("the server on {} does not answer", self.address)
    }

    /// Returns the user and system time so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The program's name in parentheses may contain spaces. utime and stime are the 12th and 13th fields after it.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = fields.get(11..13).context("read /proc/<pid>/stat")?;
        let total: u64 = ticks.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        Ok(total as f64 / per_second as f64)
    }

    /// Returns the resident memory in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: u64 = statm.split_whitespace().nth(1).context("read /proc/<pid>/statm")?.parse()?;
        Ok(pages * sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4096) as u64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Raises the limit of open files to the hard limit, for this process and the servers it starts. Returns the number of
/// allocations that it suffices for: this process needs one socket per client and server, and coturn two per
/// allocation.
pub(super) fn raise_file_limit() -> Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(usize::try_from(hard.saturating_sub(200) / 2)?)
}
