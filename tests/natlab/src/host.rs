//! A computer in the lab.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{Process, namespace::Namespace, process::checked};

/// A computer in the lab: a namespace of its own with one interface. Clones mean the same computer.
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

/// The far end of a computer's cable, and how to bring it up (again).
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

    /// Pulls the cable. Done at the far end, so that the near one loses carrier but keeps its addresses and routes.
    pub fn cut(&self) -> Result<()> {
        self.namespace.ip(&format!("link set {} down", self.port))
    }

    /// Plugs it in.
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

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of its interface.
    #[must_use]
    pub const fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// The global IPv6 address of its interface, if it has one.
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

    /// Where logs of the lab's programs go.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command that will run on this computer.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Runs a program to its end and gives its standard output.
    ///
    /// # Errors
    /// It does not exit with 0; the message carries what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        checked(self.command(program).args(arguments))
    }

    /// Starts a [command](Self::command); its output goes to `<name>.log` in the lab's directory.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(name, command, &self.directory)
    }

    /// Calls `work` on a thread of this computer: sockets made there belong to it for ever.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// Pulls its network cable.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn cut(&self) -> Result<()> {
        self.link.cut()
    }

    /// Plugs its network cable in again.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn restore(&self) -> Result<()> {
        self.link.restore()
    }
}
