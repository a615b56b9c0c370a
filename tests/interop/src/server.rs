//! partyline-server as a child process on loopback with TLS, and a peer to relay to.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::tool::Running;

/// Secret of the time-limited credentials.
pub const SECRET: &str = "interop-interop-interop-interop-";
/// Addresses that the server listens and relays on. Two of one family make RFC 5780 discovery possible.
pub const ADDRESSES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "::1"];

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Running,
    directory: TempDir,
    /// UDP and TCP port of STUN and TURN.
    pub port: u16,
    /// TLS port on 127.0.0.1.
    pub tls_port: u16,
}

impl Server {
    /// Builds the server if necessary, starts it on free ports and waits until it reports that it listens.
    ///
    /// # Errors
    /// Returns an error if it does not build or start.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts the server with additional environment variables.
    ///
    /// # Errors
    /// Returns an error if it does not build or start.
    pub fn start_with(environment: &[(&str, &str)]) -> Result<Self> {
        let program = program()?;
        // Another program may take a port between the check and the bind.
        let mut last = None;
        for _ in 0..5 {
            match Self::try_start(program, environment) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("never tried")?)
    }

    /// Returns the path of the server's certificate, which clients have to trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// Asks the server to shut down and waits until it has ended.
    ///
    /// # Errors
    /// Returns an error if it cannot be signalled or does not exit with 0.
    pub fn shut_down(mut self) -> Result<()> {
        let child = self.process.child();
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let status = child.wait()?;
        ensure!(status.success(), "partyline-server ended with {status}");
        Ok(())
    }

    fn try_start(program: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (port, alternate) = (free_port()?, free_port()?);
        let config = directory.path().join("server.toml");
        write_certificate(directory.path())?;
        fs::write(&config, configuration(directory.path(), port, alternate))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).envs(environment.iter().copied());
        let mut process = Running::start(&mut command)?;
        let output = process.child().stdout.take().context("no standard output")?;
        let tls_port = announced(BufReader::new(output))?;
        Ok(Self { process, directory, port, tls_port })
    }
}

/// Returns the port of `listening on wss://127.0.0.1:` once all relay addresses are reported too.
fn announced(output: impl BufRead) -> Result<u16> {
    let (mut tls_port, mut relaying) = (None, 0);
    for line in output.lines() {
        let line = line?;
        if let Some(port) = line.strip_prefix("listening on wss://127.0.0.1:") {
            tls_port = Some(port.parse()?);
        }
        relaying += usize::from(line.starts_with("relaying on udp://"));
        if let (Some(port), true) = (tls_port, relaying == 2 * ADDRESSES.len()) {
            return Ok(port);
        }
    }
    bail!("partyline-server ended before it listened")
}

fn configuration(directory: &Path, port: u16, alternate: u16) -> String {
    let directory = directory.display();
    format!(
        "listen = [\"127.0.0.1:0\"]\n\
         [tls]\ncertificate = \"{directory}/certificate.pem\"\nkey = \"{directory}/key.pem\"\n\
         [relay]\nsecret = \"{SECRET}\"\nlisten = {ADDRESSES:?}\nport = {port}\nalternate_port = {alternate}\n\
         allow_private_peers = true\nforeign_payloads = true\n"
    )
}

fn write_certificate(directory: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    fs::write(directory.join("certificate.pem"), made.cert.pem())?;
    Ok(fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?)
}

/// Returns the program of `PARTYLINE_SERVER`, or the workspace's own, which is built once per test process.
fn program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| build().map_err(|error| error.to_string()));
    program.as_deref().map_err(|error| anyhow!(error.clone()))
}

fn build() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("PARTYLINE_SERVER") {
        return Ok(program.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // With the whole workspace, since a package alone has other features and its dependencies would be built again.
    build.args(["build", "--quiet", "--workspace", "--bin", "partyline-server"]);
    // With Cargo's variables for this package, ring's build script would run again and everything would be rebuilt.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    let built = build.current_dir(&workspace).status()?;
    ensure!(built.success(), "partyline-server does not build");
    Ok(workspace.join("target/debug/partyline-server"))
}

/// Returns a port that is free for UDP and TCP on all of [`ADDRESSES`].
fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let free =
            |address| UdpSocket::bind((address, port)).is_ok() && TcpListener::bind((address, port)).is_ok();
        if ADDRESSES.into_iter().all(free) {
            return Ok(port);
        }
    }
    bail!("no port is free on {ADDRESSES:?}")
}

/// A peer that echoes every datagram.
#[derive(Debug)]
pub struct Peer {
    /// UDP port of the peer.
    pub port: u16,
    address: IpAddr,
    echo: Option<JoinHandle<()>>,
}

/// An empty datagram ends the peer. Clients never send one.
const END: &[u8] = &[];

impl Peer {
    /// Starts the peer.
    ///
    /// # Errors
    /// Returns an error if the address cannot be bound.
    pub fn start(address: IpAddr) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        let port = socket.local_addr()?.port();
        let echo = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length @ 1.., from)) = socket.recv_from(&mut buffer) {
                // The test notices a missing echo.
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        Ok(Self { port, address, echo: Some(echo) })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let ended = UdpSocket::bind((self.address, 0))
            .and_then(|socket| socket.send_to(END, (self.address, self.port)));
        if let (Ok(_), Some(echo)) = (ended, self.echo.take()) {
            // A panic of the thread has been reported already.
            let _ = echo.join();
        }
    }
}
