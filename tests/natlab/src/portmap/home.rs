//! A home with a router that maps ports, with a real miniupnpd if requested.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::client::RESULT_TIMEOUT;
use crate::{Host, Lab, Process, RouterOptions, Site, namespace::Namespace, until, wait::that};

/// The protocols that miniupnpd offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Daemon {
    /// Only UPnP IGD version 1.
    Igd1,
    /// UPnP IGD version 2, PCP and NAT-PMP.
    Igd2,
}

/// The chains that miniupnpd fills, in the table of the router's own rules.
const CHAINS: &str = "
    add chain inet router miniupnpd
    add chain inet router prerouting_miniupnpd
    add chain inet router postrouting_miniupnpd
    add chain inet router upnp { type nat hook prerouting priority dstnat; }
    add rule inet router forward jump miniupnpd
    add rule inet router upnp jump prerouting_miniupnpd
    insert rule inet router postrouting jump postrouting_miniupnpd";

/// A home in a lab with a member's computer, and a host outside.
pub(super) struct Home<'lab> {
    pub(super) site: Site<'lab>,
    pub(super) player: Host,
    pub(super) outside: Host,
    daemon: Option<Process>,
}

impl<'lab> Home<'lab> {
    pub(super) fn new(lab: &'lab Lab, options: RouterOptions) -> Result<Self> {
        let site = lab.site("home", options)?;
        let player = site.host("player")?;
        Ok(Self { player, outside: lab.server("outside")?, site, daemon: None })
    }

    pub(super) fn with(lab: &'lab Lab, options: RouterOptions, daemon: Daemon) -> Result<Self> {
        let mut home = Self::new(lab, options)?;
        install(&home.site)?;
        home.start(daemon)?;
        Ok(home)
    }

    /// Starts miniupnpd, for the first time or again.
    pub(super) fn start(&mut self, daemon: Daemon) -> Result<()> {
        self.daemon = Some(start(&self.site, &self.player, daemon)?);
        Ok(())
    }

    /// Cuts the router's power, which loses its mappings.
    pub(super) fn power_off(&mut self) -> Result<()> {
        self.daemon.take().context("no miniupnpd runs")?.kill()?;
        self.router().nft(
            "flush chain inet router miniupnpd\nflush chain inet router prerouting_miniupnpd\n\
             flush chain inet router postrouting_miniupnpd",
        )
    }

    pub(super) fn router(&self) -> &Namespace {
        self.site.router()
    }

    pub(super) fn notes(&self) -> PathBuf {
        self.player.directory().join("notes.json")
    }

    /// Returns true if the router's rules mention the port.
    pub(super) fn maps(&self, port: u16) -> Result<bool> {
        maps(&self.site, port)
    }

    /// Waits until the router's rules no longer mention the port.
    pub(super) fn wait_until_unmapped(&self, port: u16) -> Result<()> {
        until(&format!("port {port} to be closed"), RESULT_TIMEOUT, || {
            that(!self.maps(port)?, || "it is open".into())
        })
    }

    /// Waits until a packet sent from outside to `external` arrives at `port` of `host`.
    pub(super) fn arrives(&self, host: &Host, port: u16, external: SocketAddr) -> Result<()> {
        let inside: IpAddr = match external {
            SocketAddr::V4(_) => host.v4().into(),
            SocketAddr::V6(_) => host.v6().context("no IPv6 address")?.into(),
        };
        let socket = host.enter(|| UdpSocket::bind((inside, port)))??;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let from: IpAddr = match external {
            SocketAddr::V4(_) => self.outside.v4().into(),
            SocketAddr::V6(_) => self.outside.v6().context("no IPv6 address")?.into(),
        };
        let sender = self.outside.enter(|| UdpSocket::bind((from, 0)))??;
        until(&format!("a packet to {external} to arrive"), Duration::from_secs(10), || {
            sender.send_to(b"hello", external)?;
            let mut bytes = [0; 16];
            match socket.recv_from(&mut bytes) {
                Ok((5, source)) if source.ip() == from => Ok(()),
                Ok((_, source)) => bail!("something else came from {source}"),
                Err(error) => bail!("nothing came: {error}"),
            }
        })
    }
}

/// Adds the chains of miniupnpd to a site's router.
pub(super) fn install(site: &Site<'_>) -> Result<()> {
    site.router().nft(CHAINS)
}

/// Removes the chain for port mappings, and keeps the one for flows that begin inside.
pub(super) fn open_no_ports(site: &Site<'_>) -> Result<()> {
    site.router().nft("flush chain inet router upnp\ndelete chain inet router prerouting_miniupnpd")
}

/// Starts miniupnpd on a site's router, and waits until it listens.
pub(super) fn start(site: &Site<'_>, host: &Host, daemon: Daemon) -> Result<Process> {
    let (path, pid) = (host.directory().join("miniupnpd.conf"), host.directory().join("miniupnpd.pid"));
    let [a, b, c, _] = host.v4().octets();
    let (v1, natpmp) = if daemon == Daemon::Igd1 { ("yes", "no") } else { ("no", "yes") };
    fs::write(
        &path,
        format!(
            "ext_ifname=wan0\nlistening_ip=lan0\nenable_upnp=yes\nenable_natpmp={natpmp}\nforce_igd_desc_v1={v1}\n\
             min_lifetime=2\nsecure_mode=yes\nupnp_table_name=router\nupnp_nat_table_name=router\n\
             minissdpdsocket=/nonexistent\nport=0\nuuid=00000000-0000-0000-0000-000000000000\n\
             ipv6_disable=no\nallow 1024-65535 {a}.{b}.{c}.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        ),
    )?;
    let mut command = site.router().command("miniupnpd");
    command.arg("-d").arg("-f").arg(&path).arg("-P").arg(&pid);
    let mut process = host.spawn("miniupnpd", command)?;
    let ports: &[u16] = if daemon == Daemon::Igd1 { &[1900] } else { &[1900, 5351] };
    until("miniupnpd to listen", RESULT_TIMEOUT, || {
        process.alive()?;
        let sockets = site.router().enter(|| fs::read_to_string("/proc/thread-self/net/udp"))??;
        that(ports.iter().all(|port| sockets.contains(&format!(":{port:04X} "))), || "it does not".into())
    })?;
    Ok(process)
}

/// Returns true if the router's rules mention the port.
pub(super) fn maps(site: &Site<'_>, port: u16) -> Result<bool> {
    let rules = crate::checked(site.router().command("nft").args(["list", "table", "inet", "router"]))?;
    Ok(rules.split(|c: char| !c.is_ascii_digit()).any(|number| number == port.to_string()))
}
