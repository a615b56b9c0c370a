//! The rendezvous and relay server of a lab, with a certificate of the lab's own authority.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{Host, Process, until, wait::that};

/// Time limit for the server to open its ports.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// A `partyline-server` on a host of the lab.
#[derive(Debug)]
pub struct Server {
    host: Host,
    program: PathBuf,
    relay: Vec<String>,
    name: String,
    /// Where its ports are expected to open.
    address: IpAddr,
    process: Option<Process>,
}

impl Server {
    /// Issues a certificate for the host's addresses, and starts the server.
    ///
    /// # Errors
    /// Returns an error if it does not open its ports.
    pub fn start(host: Host, program: PathBuf) -> Result<Self> {
        let relay = vec!["--relay-listen".to_owned(), host.v4().to_string()];
        Self::start_with(host, program, relay)
    }

    /// Starts the server with other arguments for its relay.
    ///
    /// # Errors
    /// Returns an error if it does not open its ports.
    pub fn start_with(host: Host, program: PathBuf, relay: Vec<String>) -> Result<Self> {
        let name = host.v4().to_string();
        Self::start_as(name, host, program, relay)
    }

    /// Starts the server under a name other than its IPv4 address.
    ///
    /// # Errors
    /// Returns an error if it does not open its ports.
    pub fn start_as(name: String, host: Host, program: PathBuf, relay: Vec<String>) -> Result<Self> {
        issue_certificate(&host, &name)?;
        let address = host.v4().into();
        let mut server = Self { host, program, relay, name, address, process: None };
        server.restart()?;
        Ok(server)
    }

    /// Returns the server's name in URLs and in relayed paths.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the URL for `--server`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("wss://{}", self.name)
    }

    /// Returns the path of the authority certificates that members of the lab trust.
    #[must_use]
    pub fn authority(directory: &Path) -> PathBuf {
        directory.join("authority.pem")
    }

    /// Starts the server, for the first time or again, and waits until its ports are open.
    ///
    /// # Errors
    /// Returns an error if they do not open.
    pub fn restart(&mut self) -> Result<()> {
        let directory = self.host.directory();
        let mut command = self.host.command(&self.program.to_string_lossy());
        command.args(["--listen", "[::]:443", "--host", &self.name]).args(&self.relay);
        command.arg("--tls-certificate").arg(directory.join(format!("{}.pem", self.host.name())));
        command.arg("--tls-key").arg(directory.join(format!("{}.key", self.host.name())));
        let mut process = self.host.spawn(self.host.name(), command)?;
        let address = (self.address, 443).into();
        until("the server to listen on TCP 443", START_TIMEOUT, || {
            process.alive()?;
            let tried = self.host.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)))?;
            that(tried.is_ok(), || format!("{tried:?}"))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Starts the server again with its relay on this address of its host.
    ///
    /// # Errors
    /// Returns an error if its ports do not open.
    pub fn move_to(&mut self, address: impl Into<IpAddr>) -> Result<()> {
        self.address = address.into();
        self.relay = vec!["--relay-listen".to_owned(), self.address.to_string()];
        self.restart()
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    /// Returns an error if it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the server does not run")?.kill()
    }
}

/// Writes `<name>.pem` and `<name>.key` to the lab's directory, and appends their authority to `authority.pem`.
fn issue_certificate(host: &Host, name: &str) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let names = [Some(name.to_owned()), host.v6().map(|v6| v6.to_string())];
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names.into_iter().flatten().collect::<Vec<_>>())?
        .signed_by(&key, &authority)?;
    let directory = host.directory();
    let mut known = File::options().create(true).append(true).open(Server::authority(directory))?;
    known.write_all(authority.pem().as_bytes())?;
    fs::write(directory.join(format!("{}.pem", host.name())), certificate.pem())?;
    fs::write(directory.join(format!("{}.key", host.name())), key.serialize_pem())?;
    Ok(())
}
