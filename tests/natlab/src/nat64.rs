//! A router's NAT64 and DNS64, for customers without IPv4.
//!
//! tayga translates between IPv6 and IPv4 one to one, and the router's masquerading makes one public address of all: what
//! together is a stateful NAT64 (RFC 6146) with the mapping and filtering of the kernel's NAT.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{Process, namespace::Namespace, process::checked};

/// The device of the translator.
pub(crate) const DEVICE: &str = "nat64";

/// The well-known prefix (RFC 6052, section 2.1).
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// Addresses that the translator uses inside the router.
const POOL: &str = "192.168.255.0/24";

/// The name whose answer tells the prefix, as a DNS question has it, and its addresses (RFC 7050, section 2.2).
const IPV4_ONLY: &[u8] = b"\x08ipv4only\x04arpa\0";
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How often the name server looks whether it is to end.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A running NAT64 with its DNS64. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct Nat64 {
    _translator: Process,
    stop: Arc<AtomicBool>,
    names: Option<JoinHandle<()>>,
}

impl Nat64 {
    /// Starts both on a router whose address on the LAN is `router`. Files go to `directory`.
    pub(crate) fn start(namespace: &Namespace, router: Ipv6Addr, directory: &Path) -> Result<Self> {
        let translator = translate(namespace, router, directory)?;
        let socket = namespace.enter(|| UdpSocket::bind((router, 53)))?.context("the DNS64's port")?;
        socket.set_read_timeout(Some(POLL_INTERVAL))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let names = thread::spawn(move || answer_names(&socket, &stopped));
        Ok(Self { _translator: translator, stop, names: Some(names) })
    }
}

impl Drop for Nat64 {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.names.take().map(JoinHandle::join);
    }
}

fn translate(namespace: &Namespace, router: Ipv6Addr, directory: &Path) -> Result<Process> {
    let data = directory.with_extension("nat64");
    fs::create_dir_all(&data)?;
    let file = data.join("tayga.conf");
    // Its own IPv6 address must not be on the router's LAN, nor made from the well-known prefix and a private address.
    let own = Ipv6Addr::from(u128::from(router) | 0xff64 << 16);
    fs::write(
        &file,
        format!(
            "tun-device {DEVICE}\nipv4-addr 192.168.255.1\nipv6-addr {own}\nprefix {PREFIX}/96\n\
             dynamic-pool {POOL}\ndata-dir {}\n",
            data.display()
        ),
    )?;
    let tayga = |arguments: &[&str]| {
        let mut command = namespace.command("tayga");
        command.arg("--config").arg(&file).args(arguments);
        command
    };
    checked(&mut tayga(&["--mktun"]))?;
    namespace.up(DEVICE)?;
    namespace.ip(&format!("route add {POOL} dev {DEVICE}\nroute add {PREFIX}/96 dev {DEVICE}"))?;
    Process::spawn("tayga", tayga(&["--nodetach"]), &data)
}

fn answer_names(socket: &UdpSocket, stopped: &AtomicBool) {
    let mut question = [0; 512];
    while !stopped.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut question)
            && let Some(answer) = answer(&question[..length])
        {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Answers a question (RFC 1035, section 4.1) for the one name that the lab has not in its hosts files: addresses of its
/// own for A, and made-up ones for AAAA (RFC 6147). Other names do not exist.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let id = question.get(..2)?;
    let name_length = question.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let (name, kind) =
        (question.get(12..12 + name_length)?, question.get(12 + name_length..16 + name_length)?);
    let known = name.eq_ignore_ascii_case(IPV4_ONLY);
    let addresses: Vec<IpAddr> = match (known, kind) {
        (true, [0, 1, 0, 1]) => WELL_KNOWN.map(IpAddr::from).to_vec(),
        (true, [0, 28, 0, 1]) => WELL_KNOWN.map(|ip| synthesize(ip).into()).to_vec(),
        _ => Vec::new(),
    };
    let code = if known { 0 } else { 3 };
    let mut answer =
        [id, &[0x84, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0], name, kind].concat();
    for address in addresses {
        let octets = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        // The name is the question's, at offset 12; the answer holds for a minute.
        answer.extend([&[0xc0, 12], kind, &[0, 0, 0, 60, 0, octets.len() as u8], &octets].concat());
    }
    Some(answer)
}

/// Returns the address at which the NAT64 reaches an IPv4 address.
pub(crate) fn synthesize(ip: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(PREFIX) | u128::from(u32::from(ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &[u8], kind: u8) -> Vec<u8> {
        [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, kind, 0, 1]].concat()
    }

    #[test]
    fn prefix_shows_in_the_answer_for_the_well_known_name() {
        let answered = answer(&question(IPV4_ONLY, 28)).unwrap();
        assert_eq!((&answered[..2], answered[3] & 15, answered[7]), (&[7, 7][..], 0, 2));
        let first: Ipv6Addr = "64:ff9b::192.0.0.170".parse().unwrap();
        assert!(answered.windows(16).any(|bytes| bytes == first.octets()));
    }

    #[test]
    fn other_names_do_not_exist_and_fragments_get_no_answer() {
        let answered = answer(&question(b"\x05party\x04test\0", 28)).unwrap();
        assert_eq!((answered[3] & 15, answered[7]), (3, 0));
        assert_eq!(answer(&[7; 12]), None);
        assert_eq!(answer(&question(IPV4_ONLY, 28)[..20]), None);
    }
}
