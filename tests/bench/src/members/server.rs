//! The server as a child process.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use partyline_net::{Roots, TlsClient};
use tempfile::TempDir;

/// A running server without per-address limits, since all members have the same address.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: TlsClient,
    _folder: TempDir,
}

const LIMITS: &str = "
listen = [\"127.0.0.1:0\"]
[limits]
connections_per_address = 1000000
frames_per_address = { burst = 10000000, per_second = 1000000 }
bytes_per_connection = { burst = 4000000000, per_second = 4000000000 }
bytes_per_address = { burst = 4000000000, per_second = 4000000000 }
entry_seconds = 1000000
frames_per_topic = { burst = 10000000, per_second = 1000000 }
";

impl Server {
    /// Starts the server. `relay` is the relay section of its configuration.
    pub(crate) fn start(program: &Path, secure: bool, relay: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut config = format!("{LIMITS}{relay}");
        let mut roots = Roots::default();
        if secure {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
            let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
            fs::write(&certificate, made.cert.pem())?;
            fs::write(&key, made.signing_key.serialize_pem())?;
            config += &format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
            roots.extra_ca = Some(certificate);
        }
        let file = folder.path().join("server.toml");
        fs::write(&file, config)?;
        let mut child = Command::new(program)
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server")?;
        let stdout = child.stdout.take().context("the server's output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").context("where the server listens")?;
        let url = url.replace("127.0.0.1", "localhost");
        Ok(Self { child, url, client: TlsClient::new(&roots)?, _folder: folder })
    }

    /// Returns the resident memory in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
