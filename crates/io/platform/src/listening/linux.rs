//! Linux lists sockets in /proc/net (proc_pid_net(5)), and names their programs by the files that processes have open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use partyline_model::{PortProtocol, ServicePort};
use tracing::debug;

use crate::listening_socket::ListeningSocket;

const TABLES: [(&str, PortProtocol); 4] = [
    ("tcp", PortProtocol::Tcp),
    ("tcp6", PortProtocol::Tcp),
    ("udp", PortProtocol::Udp),
    ("udp6", PortProtocol::Udp),
];
/// States of sockets in the kernel (include/net/tcp_states.h): a UDP socket that is not connected has that of a closed one.
const CLOSE: &str = "07";
const LISTEN: &str = "0A";
/// The most sockets that are listed; a computer has some tens.
const MAX_SOCKETS: usize = 4096;
/// The longest name of a program, in characters. The kernel's own names have 15.
const MAX_NAME: usize = 64;

/// A socket as the table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    port: ServicePort,
    address: IpAddr,
    inode: u64,
}

pub(super) fn read(proc: &Path) -> io::Result<Vec<ListeningSocket>> {
    let mut rows = Vec::new();
    for (name, protocol) in TABLES {
        match fs::read_to_string(proc.join("net").join(name)) {
            Ok(table) => rows.extend(table.lines().filter_map(|line| parse(line, protocol))),
            // A kernel without IPv6 has no tables for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    rows.truncate(MAX_SOCKETS);
    let wanted: BTreeSet<u64> = rows.iter().map(|row| row.inode).collect();
    let own = sockets_of(&proc.join("self"), &wanted);
    let programs = programs(proc, &wanted);
    let socket = |row: Row| ListeningSocket {
        port: row.port,
        address: row.address,
        program: programs.get(&row.inode).cloned(),
        own: own.contains(&row.inode),
    };
    Ok(rows.into_iter().map(socket).collect())
}

/// Reads a line of a table; `None` for its title, for sockets that do not listen, and for what is no line of a table.
fn parse(line: &str, protocol: PortProtocol) -> Option<Row> {
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let inode = words.nth(5)?.parse().ok()?;
    let listening = match protocol {
        PortProtocol::Tcp => LISTEN,
        PortProtocol::Udp => CLOSE,
    };
    let (address, port) = local.split_once(':')?;
    let (address, port) = (parse_address(address)?, u16::from_str_radix(port, 16).ok()?);
    (state == listening && port != 0).then_some(Row { port: ServicePort { protocol, port }, address, inode })
}

/// Reads an address: words of 32 bits in hexadecimal, each as the computer's memory has it.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let octets: [u8; 16] = words.try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

/// Names the programs that have sockets open, as far as this process may look into others.
fn programs(proc: &Path, wanted: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut programs = BTreeMap::new();
    let processes = match fs::read_dir(proc) {
        Ok(processes) => processes,
        Err(error) => {
            debug!(%error, "processes cannot be listed");
            return programs;
        }
    };
    for process in processes.flatten() {
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        let sockets = sockets_of(&process.path(), wanted);
        let Some(name) = Some(&sockets).filter(|found| !found.is_empty()).and_then(|_| name(&process.path()))
        else {
            continue;
        };
        for inode in sockets {
            programs.entry(inode).or_insert_with(|| name.clone());
        }
    }
    programs
}

/// Returns which of the sockets a process has open. A process that ended meanwhile, or that is another user's, has none.
fn sockets_of(process: &Path, wanted: &BTreeSet<u64>) -> BTreeSet<u64> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let inode = |link: &Path| {
        let digits = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        digits.parse().ok().filter(|inode| wanted.contains(inode))
    };
    files.filter_map(|file| inode(&fs::read_link(file.path()).ok()?)).collect()
}

/// Returns the name that a process gives itself, without what a terminal would obey.
fn name(process: &Path) -> Option<String> {
    let name = fs::read(process.join("comm")).ok()?;
    let name: String =
        String::from_utf8_lossy(&name).trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21731 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24377 1 0000000000000000 100 0 0 10 0
   2: 0201A8C0:9C40 0301A8C0:01BB 01 00000000:00000000 02:0000070B 00000000  1000        0 99001 2 0000000000000000 20 4 30 10 -1";
    const TCP6: &str = "\
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21733 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 50001 1 0000000000000000 100 0 0 10 0";
    const UDP: &str = "\
 1021: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000   104        0 18302 2 0000000000000000 0
 2044: 0201A8C0:0044 0101A8C0:0043 01 00000000:00000000 00:00000000 00000000     0        0 20333 2 0000000000000000 0";

    fn rows(table: &str, protocol: PortProtocol) -> Vec<(ServicePort, String, u64)> {
        let rows = table.lines().filter_map(|line| parse(line, protocol));
        rows.map(|row| (row.port, row.address.to_string(), row.inode)).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_read_and_connections_are_not() {
        let tcp = ServicePort::tcp;
        assert_eq!(
            rows(TCP, PortProtocol::Tcp),
            [(tcp(22), "0.0.0.0".into(), 21_731), (tcp(631), "127.0.0.1".into(), 24_377)]
        );
        assert_eq!(
            rows(TCP6, PortProtocol::Tcp),
            [(tcp(22), "::".into(), 21_733), (tcp(8080), "127.0.0.1".into(), 50_001)]
        );
        assert_eq!(rows(UDP, PortProtocol::Udp), [(ServicePort::udp(5353), "0.0.0.0".into(), 18_302)]);
    }

    #[test]
    fn odd_lines_are_skipped() {
        let good = TCP.lines().nth(1).unwrap();
        for (from, to) in [
            ("00000000:0016", "00000000"),
            ("00000000:0016", "0000000:0016"),
            ("00000000:0016", "0000000\u{e9}:0016"),
            ("00000000:0016", "00000000:10016"),
            ("00000000:0016", "00000000:0000"),
            ("00000000:0016", ":"),
            ("21731", "-1"),
            ("21731", "99999999999999999999999"),
            (" 0A ", " ZZ "),
        ] {
            assert_eq!(parse(&good.replacen(from, to, 1), PortProtocol::Tcp), None, "{to}");
        }
        for end in 0..good.find("21731").unwrap() {
            assert_eq!(parse(&good[..end], PortProtocol::Tcp), None, "cut at {end}");
        }
        assert_eq!(parse("\u{0}\u{1b}[2J", PortProtocol::Udp), None);
    }

    #[test]
    fn own_listener_is_found_with_its_program() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = ServicePort::tcp(listener.local_addr().unwrap().port());
        let sockets = read(Path::new("/proc")).unwrap();
        let found = sockets.iter().find(|socket| socket.port == port).unwrap();
        assert!(found.own && found.address.is_loopback() && found.program.is_some(), "{found:?}");
        drop(listener);
    }

    #[test]
    fn names_of_processes_are_harmless() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::write(proc.path().join("comm"), "a\u{1b}[2Jb\n").unwrap();
        assert_eq!(name(proc.path()).as_deref(), Some("a[2Jb"));
        std::fs::write(proc.path().join("comm"), [0xff, 0xfe, b'\n']).unwrap();
        assert!(name(proc.path()).is_some());
        std::fs::write(proc.path().join("comm"), "\n").unwrap();
        assert_eq!(name(proc.path()), None);
    }
}
