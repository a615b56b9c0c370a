//! The internet of one lab, with the servers, routers and LANs connected to it.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    Host, Line, Nat, RouterOptions,
    cable::{self, Quality},
    device::Carried,
    host::Link,
    namespace::Namespace,
    nat,
    nat64::Nat64,
    sweep::PREFIX,
    trace::Trace,
    wait::{that, until},
};

/// Time limit for an interface to come up.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// Last octet of the first host's address on a LAN. The router has 1.
const FIRST_HOST: u8 = 10;

static LABS: AtomicUsize = AtomicUsize::new(0);

/// A small internet. Dropping it kills the programs and removes the namespaces and files.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    directory: PathBuf,
    inet: Namespace,
    customers: AtomicU8,
    lans: AtomicU8,
    namespaces: Mutex<Vec<Namespace>>,
    carried: Mutex<Vec<Carried>>,
    traces: Mutex<Vec<(String, Trace)>>,
    names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    translators: Mutex<Vec<Nat64>>,
}

/// A LAN, with or without a router.
#[derive(Debug)]
pub struct Site<'lab> {
    lab: &'lab Lab,
    name: String,
    namespace: Namespace,
    customer: Option<u8>,
    ipv4: bool,
    ipv6: bool,
    lan: [u8; 3],
    outside: Option<Ipv4Addr>,
    /// The cable to the LAN that the site's router is on, if any.
    uplink: Option<Link>,
    /// The name server that hosts ask, if the router has one.
    dns64: Option<Ipv6Addr>,
    hosts: AtomicU8,
}

impl Lab {
    /// Creates an internet without customers.
    ///
    /// # Errors
    /// Returns an error if namespaces cannot be created, most likely because the process does not run as root.
    pub fn new() -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a NAT lab needs root: network namespaces are made");
        let prefix = format!("{PREFIX}{}-{}", process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&prefix);
        fs::create_dir_all(&directory)?;
        let inet = Namespace::create(format!("{prefix}-inet"))?;
        let lab = Self {
            prefix,
            directory,
            namespaces: Mutex::new(vec![inet.clone()]),
            carried: Mutex::default(),
            traces: Mutex::default(),
            names: Mutex::default(),
            translators: Mutex::default(),
            inet,
            customers: AtomicU8::new(0),
            lans: AtomicU8::new(0),
        };
        lab.inet.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
        lab.inet.ip("addr add 11.255.255.254/32 dev lo\naddr add 169.254.0.1/32 dev lo")?;
        lab.inet.nft(
            "add table inet blocked\nadd chain inet blocked forward { type filter hook forward priority filter; }\n\
             table inet dead { set addresses { type ipv4_addr; }; \
             chain forward { type filter hook forward priority filter; ip daddr @addresses drop; }; }",
        )?;
        Ok(lab)
    }

    /// Returns the directory for logs and state of the lab's programs. It is removed with the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds a host with public addresses.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn server(&self, name: &str) -> Result<Host> {
        let namespace = self.namespace(name)?;
        let (customer, link) = self.connect(&namespace, None::<Line>)?;
        let v6 = Some(public_v6(customer));
        Ok(Host::new(name, namespace, link, public_v4(customer), v6, Some(customer), &self.directory))
    }

    /// Adds a router with a LAN behind it.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn site(&self, name: &str, options: RouterOptions) -> Result<Site<'_>> {
        let namespace = self.router(name, options)?;
        let (customer, _) = self.connect(&namespace, options.line)?;
        let site = self.lan_behind(name, namespace, options, public_v4(customer))?;
        if options.ipv6 {
            let prefix =
                format!("addr add {}/64 dev lan0\naddr add fe80::1/64 dev lan0", lan_v6(customer, 1));
            site.namespace.ip(&prefix)?;
        }
        if options.nat64 {
            self.translators.lock().unwrap_or_else(PoisonError::into_inner).push(Nat64::start(
                &site.namespace,
                lan_v6(customer, 1),
                &self.directory.join(name),
            )?);
        }
        Ok(Site { customer: Some(customer), dns64: options.nat64.then(|| lan_v6(customer, 1)), ..site })
    }

    /// Adds a host with a public address and without a router, at the end of a `line`.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn open_host(&self, name: &str, line: Line) -> Result<Host> {
        let namespace = self.namespace(name)?;
        let (customer, link) = self.connect(&namespace, Some(line))?;
        let v6 = Some(public_v6(customer));
        Ok(Host::new(name, namespace, link, public_v4(customer), v6, Some(customer), &self.directory))
    }

    /// Adds a computer that has all of these public addresses too, each as far away as `quality` has it. They are on the
    /// card, since some programs bind their sockets to the card that has the address.
    pub(crate) fn crowd(&self, name: &str, addresses: &[Ipv4Addr], quality: impl Quality) -> Result<Host> {
        let namespace = self.namespace(name)?;
        let (customer, link) = self.connect(&namespace, Some(quality))?;
        let lines = |line: &dyn Fn(&Ipv4Addr) -> String| addresses.iter().map(line).collect::<String>();
        namespace.ip(&lines(&|address| format!("addr add {address}/32 dev wan0\n")))?;
        self.inet.ip(&lines(&|address| format!("route replace {address}/32 dev c{customer}\n")))?;
        Ok(Host::new(name, namespace, link, public_v4(customer), None, Some(customer), &self.directory))
    }

    /// Adds a second IPv4 and a second IPv6 address to a host with public addresses.
    ///
    /// # Errors
    /// Returns an error if the host has no public address, or the addresses cannot be set.
    pub fn second_addresses(&self, server: &Host) -> Result<(Ipv4Addr, Ipv6Addr)> {
        let customer = server.customer().context("no public address")?;
        let (v4, v6) = (Ipv4Addr::new(11, 0, 1, customer), site_v6(customer, 2));
        server.namespace().ip(&format!("addr add {v4}/32 dev wan0\naddr add {v6}/128 dev wan0"))?;
        self.inet.ip(&format!("route replace {v4}/32 dev c{customer}"))?;
        Ok((v4, v6))
    }

    /// Adds a site with `options`, and one host of the same name on its LAN.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn home(&self, name: &str, options: RouterOptions) -> Result<Host> {
        self.site(name, options)?.host(name)
    }

    /// Adds a LAN without a router and without internet.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn lonely_lan(&self, name: &str) -> Result<Site<'_>> {
        let namespace = self.namespace(&format!("{name}-switch"))?;
        self.lan_in(name, namespace, RouterOptions::HOME)
    }

    /// Blocks direct UDP between the sites of two hosts, in both directions.
    ///
    /// # Errors
    /// Returns an error if one of them has no internet, or the rules are refused.
    pub fn block_udp(&self, one: &Host, other: &Host) -> Result<()> {
        let (Some(one), Some(other)) = (one.customer(), other.customer()) else {
            bail!("only sites with internet can be kept apart");
        };
        let rule = |from: u8, to: u8| {
            let (v4, v6) = ((public_v4(from), public_v4(to)), (site_prefix(from), site_prefix(to)));
            format!(
                "add rule inet blocked forward ip saddr {} ip daddr {} meta l4proto udp drop\n\
                 add rule inet blocked forward ip6 saddr {} ip6 daddr {} meta l4proto udp drop\n",
                v4.0, v4.1, v6.0, v6.1
            )
        };
        self.inet.nft(&(rule(one, other) + &rule(other, one)))
    }

    /// Loses all packets to these public addresses, and no longer those to others that were given before.
    pub(crate) fn silence(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        let drops =
            addresses.iter().map(|address| format!("add element inet dead addresses {{ {address} }}\n"));
        self.inet
            .nft(&["flush set inet dead addresses\n".to_owned()].into_iter().chain(drops).collect::<String>())
    }

    /// Removes all rules added by [`Lab::block_udp`].
    ///
    /// # Errors
    /// Returns an error if the rules are refused.
    pub fn unblock(&self) -> Result<()> {
        self.inet.nft("flush chain inet blocked forward")
    }

    /// Gives a host name these addresses instead of those it had, for all present and future computers of the lab. With
    /// none, it cannot be resolved.
    ///
    /// # Errors
    /// Returns an error if a hosts file cannot be written.
    pub fn name(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), addresses.to_vec());
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.iter().try_for_each(|namespace| namespace.know_names(&names))
    }

    fn trace(&self, of: &str) -> Trace {
        let name = of.strip_prefix(&self.prefix).unwrap_or(of).trim_start_matches('-');
        let trace = Trace::new();
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        traces.push((name.to_owned(), trace.clone()));
        trace
    }

    /// Writes the last packets of every cable to `<name>.packets.log` in the lab's directory.
    pub(crate) fn write_traces(&self) {
        for (name, trace) in self.traces.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = fs::write(self.directory.join(format!("{name}.packets.log")), trace.text());
        }
    }

    fn namespace(&self, name: &str) -> Result<Namespace> {
        let namespace = Namespace::create(format!("{}-{name}", self.prefix))?;
        namespace.know_names(&self.names.lock().unwrap_or_else(PoisonError::into_inner))?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.clone());
        Ok(namespace)
    }

    fn router(&self, name: &str, options: RouterOptions) -> Result<Namespace> {
        let namespace = self.namespace(&format!("{name}-router"))?;
        namespace.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
        namespace.nft(&options.rules())?;
        Ok(namespace)
    }

    /// Connects a namespace to the internet as the next customer, by a point-to-point link without a subnet.
    fn connect(&self, namespace: &Namespace, quality: Option<impl Quality>) -> Result<(u8, Link)> {
        let customer = self.customers.fetch_add(1, Ordering::Relaxed) + 1;
        let port = format!("c{customer}");
        if let Some(quality) = quality {
            let ends = [(&self.inet, port.as_str()), (namespace, "wan0")];
            self.keep(cable::lay(quality, customer.into(), self.trace(namespace.name()), ends)?);
        } else {
            let wire = format!("link add {port} type veth peer name wan0 netns {}", namespace.name());
            self.inet.ip(&wire)?;
        }
        namespace.up("wan0")?;
        namespace.ip(&format!(
            "addr add {}/32 dev wan0\naddr add {}/128 dev wan0\naddr add fe80::2/64 dev wan0\n\
             route add default via 169.254.0.1 dev wan0 onlink\nroute add default via fe80::1 dev wan0",
            public_v4(customer),
            public_v6(customer),
        ))?;
        let link = Link::new(
            self.inet.clone(),
            port.clone(),
            format!(
                "addr replace fe80::1/64 dev {port}\nroute replace {}/32 dev {port}\n\
                 route replace {} via fe80::2 dev {port}",
                public_v4(customer),
                site_prefix(customer),
            ),
        );
        link.restore()?;
        wait_for_carrier(namespace, "wan0")?;
        Ok((customer, link))
    }

    /// Creates the LAN of a router with the given `outside` address, and starts its NAT if the kernel does not provide
    /// it.
    fn lan_behind(
        &self,
        name: &str,
        router: Namespace,
        options: RouterOptions,
        outside: Ipv4Addr,
    ) -> Result<Site<'_>> {
        let site = self.lan_in(name, router, options)?;
        let [a, b, c] = site.lan;
        site.namespace.ip(&format!("addr add {a}.{b}.{c}.1/24 dev lan0"))?;
        if let Nat::Modelled(rules) = options.nat {
            self.keep(nat::start(&site.namespace, rules, outside, site.lan)?);
        }
        Ok(Site { outside: Some(outside), ..site })
    }

    fn lan_in(&self, name: &str, namespace: Namespace, options: RouterOptions) -> Result<Site<'_>> {
        namespace.ip("link add lan0 type bridge forward_delay 0")?;
        namespace.bridge_past_router()?;
        namespace.up("lan0")?;
        let subnet = options.subnet.unwrap_or_else(|| self.lans.fetch_add(1, Ordering::Relaxed) + 1);
        let lan = if options.carrier { [100, 64, subnet] } else { [192, 168, subnet] };
        let (name, hosts) = (name.to_owned(), AtomicU8::new(FIRST_HOST));
        Ok(Site {
            lab: self,
            name,
            namespace,
            customer: None,
            ipv4: options.ipv4,
            ipv6: options.ipv6,
            lan,
            outside: None,
            uplink: None,
            dns64: None,
            hosts,
        })
    }

    fn keep(&self, carried: Carried) {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).push(carried);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.translators.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for namespace in self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Err(error) = namespace.remove() {
                eprintln!("natlab: {} stays behind: {error:#}", namespace.name());
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Site<'_> {
    /// Returns the namespace of the site's router, or of its switch if it has none.
    pub(crate) const fn router(&self) -> &Namespace {
        &self.namespace
    }

    /// Adds a router on this LAN, with a LAN of its own behind it.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn site(&self, name: &str, options: RouterOptions) -> Result<Site<'_>> {
        let namespace = self.lab.router(name, options)?;
        let (outside, uplink) = self.plug_in(&namespace, "wan0")?;
        let site = self.lab.lan_behind(name, namespace, options, outside)?;
        Ok(Site { customer: self.customer, ipv6: false, uplink: Some(uplink), ..site })
    }

    /// Lets the LAN that this site's router is on keep it apart from others that are isolated there, or ends that.
    ///
    /// # Errors
    /// Returns an error if the router is on no LAN.
    pub fn isolate(&self, isolated: bool) -> Result<()> {
        self.uplink.as_ref().context("the router is on no LAN")?.isolate(isolated)
    }

    /// Adds a host on this LAN.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn host(&self, name: &str) -> Result<Host> {
        let namespace = self.lab.namespace(name)?;
        let (v4, link) = self.plug_in(&namespace, "eth0")?;
        let v6 = self.configure_v6(&namespace, "eth0", v4.octets()[3])?;
        Ok(Host::new(name, namespace, link, v4, v6, self.customer, &self.lab.directory))
    }

    /// Gives a computer on this LAN its IPv6 address and name server, if there are any. Returns the address.
    fn configure_v6(&self, namespace: &Namespace, interface: &str, number: u8) -> Result<Option<Ipv6Addr>> {
        let v6 = self.customer.filter(|_| self.ipv6).map(|customer| lan_v6(customer, number));
        if let Some(v6) = v6 {
            namespace.ip(&format!(
                "addr add {v6}/64 dev {interface}\nroute add default via fe80::1 dev {interface}"
            ))?;
        }
        if let Some(server) = self.dns64 {
            namespace.ask_names_at(server.into())?;
        }
        Ok(v6)
    }

    /// Connects a namespace to this LAN.
    fn plug_in(&self, namespace: &Namespace, interface: &str) -> Result<(Ipv4Addr, Link)> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let port = format!("h{number}");
        let wire = format!("link add {port} type veth peer name {interface} netns {}", namespace.name());
        self.namespace.ip(&wire)?;
        let link = Link::new(self.namespace.clone(), port.clone(), format!("link set {port} master lan0"));
        link.restore()?;
        let [a, b, c] = self.lan;
        let v4 = Ipv4Addr::new(a, b, c, number);
        namespace.up(interface)?;
        if self.ipv4 {
            namespace.ip(&format!("addr add {v4}/24 brd + dev {interface}"))?;
        }
        if self.ipv4 && self.customer.is_some() {
            namespace.ip(&format!("route add default via {a}.{b}.{c}.1"))?;
        }
        wait_for_carrier(namespace, interface).with_context(|| format!("a link of {}", self.name))?;
        Ok((v4, link))
    }

    /// Moves a computer from its LAN to this one: its cable is cut, its addresses are flushed, and a new interface
    /// joins this LAN.
    ///
    /// # Errors
    /// Returns an error if its interfaces cannot be changed.
    pub fn adopt(&self, host: &Host) -> Result<()> {
        host.cut()?;
        host.namespace().ip("addr flush dev eth0")?;
        let (v4, _) = self.plug_in(host.namespace(), "wlan0")?;
        self.configure_v6(host.namespace(), "wlan0", v4.octets()[3]).map(drop)
    }

    /// Takes the router's line to the internet down. The kernel's NAT loses its mappings with the address.
    ///
    /// # Errors
    /// Returns an error if the router has no line.
    pub fn go_down(&self) -> Result<()> {
        self.namespace.ip("link set wan0 down\naddr flush dev wan0")
    }

    /// Brings the line up again with the same public address.
    ///
    /// # Errors
    /// Returns an error if the router has no line.
    pub fn come_up_again(&self) -> Result<()> {
        let customer = self.customer.context("no internet")?;
        self.namespace.up("wan0")?;
        self.namespace.ip(&format!(
            "addr replace {}/32 dev wan0\naddr replace {}/128 dev wan0\naddr replace fe80::2/64 dev wan0\n\
             route replace default via 169.254.0.1 dev wan0 onlink\nroute replace default via fe80::1 dev wan0",
            public_v4(customer),
            public_v6(customer),
        ))
    }

    /// Brings the line up again with the customer's second public address, and returns that address.
    ///
    /// # Errors
    /// Returns an error if the router has no line.
    pub fn come_up_elsewhere(&self) -> Result<Ipv4Addr> {
        let customer = self.customer.context("no internet")?;
        let v4 = Ipv4Addr::new(11, 0, 1, customer);
        self.lab.inet.ip(&format!("route replace {v4}/32 dev c{customer}"))?;
        self.namespace.up("wan0")?;
        self.namespace
            .ip(&format!("addr add {v4}/32 dev wan0\nroute add default via 169.254.0.1 dev wan0 onlink"))?;
        Ok(v4)
    }

    /// Returns the outside address of the router, if there is one.
    #[must_use]
    pub const fn outside(&self) -> Option<Ipv4Addr> {
        self.outside
    }

    /// Returns the public address of the site, if it has internet.
    #[must_use]
    pub fn public_v4(&self) -> Option<Ipv4Addr> {
        self.customer.map(public_v4)
    }
}

/// Waits until both ends are up, since packets sent earlier are lost silently.
fn wait_for_carrier(namespace: &Namespace, interface: &str) -> Result<()> {
    until(&format!("carrier on {interface}"), CARRIER_TIMEOUT, || {
        that(namespace.has_carrier(interface)?, || "no carrier".into())
    })
}

fn public_v4(customer: u8) -> Ipv4Addr {
    Ipv4Addr::new(11, 0, 0, customer)
}

fn public_v6(customer: u8) -> Ipv6Addr {
    site_v6(customer, 1)
}

fn lan_v6(customer: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2a11, customer.into(), 1, 0, 0, 0, 0, host.into())
}

/// Returns the IPv6 prefix that is routed to a customer.
fn site_prefix(customer: u8) -> String {
    format!("{}/32", site_v6(customer, 0))
}

fn site_v6(customer: u8, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2a11, customer.into(), 0, 0, 0, 0, 0, last)
}
