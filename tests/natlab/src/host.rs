//! A computer in the lab.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{Process, namespace::Namespace, process::checked};

/// A computer in the lab: a network namespace with one interface. Clones refer to the same computer.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: Namespace,
    link: Link,
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
    customer: Option<u8>,
    directory: PathBuf,
}

/// The far end of a computer's cable, with the commands that configure it when it comes up.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    namespace: Namespace,
    port: String,
    configuration: String,
}

impl Link {
    pub fn new(namespace: Namespace, port: String, configuration: String) -> Self {
        Self { namespace, port, configuration }
    }

    /// Cuts the cable. The far end goes down, so that the computer's interface loses carrier but keeps addresses and
    /// routes.
    pub fn cut(&self) -> Result<()> {
        self.namespace.ip(&format!("link set {} down", self.port))
    }

    /// Keeps the computer apart from others that are isolated on the same LAN, or lets it reach them again.
    pub fn isolate(&self, isolated: bool) -> Result<()> {
        let state = if isolated { "on" } else { "off" };
        self.namespace.ip(&format!("link set {} type bridge_slave isolated {state}", self.port))
    }

    /// Brings the cable up again.
    pub fn restore(&self) -> Result<()> {
        self.namespace.up(&self.port)?;
        self.namespace.ip(&self.configuration)
    }
}

impl Host {
    pub(crate) fn new(
        name: &str,
        namespace: Namespace,
        link: Link,
        v4: Ipv4Addr,
        v6: Option<Ipv6Addr>,
        customer: Option<u8>,
        directory: &Path,
    ) -> Self {
        Self { name: name.to_owned(), namespace, link, v4, v6, customer, directory: directory.to_owned() }
    }

    /// Returns the name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the IPv4 address of the interface.
    #[must_use]
    pub const fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// Returns the global IPv6 address of the interface, if it has one.
    #[must_use]
    pub const fn v6(&self) -> Option<Ipv6Addr> {
        self.v6
    }

    pub(crate) const fn customer(&self) -> Option<u8> {
        self.customer
    }

    pub(crate) const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the directory for the logs of the lab's programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a command that runs a program on this computer.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Runs a program to its end and returns its standard output.
    ///
    /// # Errors
    /// Returns an error with the program's output if it does not exit with 0.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        checked(self.command(program).args(arguments))
    }

    /// Starts a [command](Self::command). Its output goes to `<name>.log` in the lab's directory.
    ///
    /// # Errors
    /// Returns an error if it cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(name, command, &self.directory)
    }

    /// Calls `work` on a thread in this computer's namespace. Sockets opened there stay in the namespace after the
    /// call.
    ///
    /// # Errors
    /// Returns an error if the namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// Cuts the computer's network cable.
    ///
    /// # Errors
    /// Returns an error if the interface is gone.
    pub fn cut(&self) -> Result<()> {
        self.link.cut()
    }

    /// Lets the LAN keep the computer apart from others for which it does the same, as the client isolation of an access
    /// point does, or ends that.
    ///
    /// # Errors
    /// Returns an error if the computer is on no LAN.
    pub fn isolate(&self, isolated: bool) -> Result<()> {
        self.link.isolate(isolated)
    }

    /// Connects the computer's network cable again.
    ///
    /// # Errors
    /// Returns an error if the interface is gone.
    pub fn restore(&self) -> Result<()> {
        self.link.restore()
    }
}
