//! The ports of system services, which members do not reach under [`crate::IncomingLevel::Games`].
//!
//! The list has what an operating system or its administrator offers to a trusted network: logins, files, the desktop,
//! printers, databases, administration, remote procedure calls, and the names and devices of the network. A game needs none
//! of them from another player. All System Ports (0 to 1023, RFC 6335, section 6) are among them, since only the system
//! assigns them, and games listen above. Ports that common games use stay out, also where a service uses them too.

use std::ops::RangeInclusive;

use crate::{PortProtocol, ServicePort};

/// A service and where it listens.
struct SystemService {
    name: &'static str,
    tcp: &'static [RangeInclusive<u16>],
    udp: &'static [RangeInclusive<u16>],
}

const fn service(
    name: &'static str,
    tcp: &'static [RangeInclusive<u16>],
    udp: &'static [RangeInclusive<u16>],
) -> SystemService {
    SystemService { name, tcp, udp }
}

/// The services by purpose. The first one that has a port gives it its name.
const SERVICES: &[SystemService] = &[
    // Remote login: a guessed password, or a defect of the server, gives the whole account away.
    service("Remote login (SSH)", &[22..=22, 2222..=2222], &[]),
    service("Remote login (Telnet, rlogin)", &[23..=23, 512..=514], &[]),
    service("Apple remote events", &[3031..=3031], &[]),
    // File sharing: home directories are often shared with the local network without a password.
    service("File sharing (SMB)", &[139..=139, 445..=445], &[445..=445]),
    service("File sharing (NFS)", &[2049..=2049, 20_048..=20_048], &[2049..=2049, 20_048..=20_048]),
    service("File sharing (AFP)", &[548..=548], &[]),
    service("File transfer (FTP, TFTP, rsync)", &[20..=21, 873..=873, 989..=990], &[69..=69]),
    service("Disks over the network (iSCSI)", &[860..=860, 3260..=3260], &[]),
    service("Media sharing", &[2869..=2869, 8200..=8200, 10_243..=10_243], &[]),
    // Remote desktop: screen, keyboard and mouse of whoever sits here.
    service("Remote desktop (RDP)", &[3389..=3389], &[3389..=3389]),
    service("Remote desktop (VNC)", &[5800..=5809, 5900..=5909], &[]),
    service("Remote desktop (X11)", &[6000..=6063], &[177..=177]),
    service("Apple Remote Desktop", &[3283..=3283], &[3283..=3283]),
    service(
        "Remote support",
        &[4899..=4899, 5938..=5938, 6568..=6568, 7070..=7070],
        &[5938..=5938, 50_001..=50_003],
    ),
    // Printing: paper, and drivers with the rights of the system.
    service("Printing", &[515..=515, 631..=631, 9100..=9102], &[631..=631]),
    // Administration: made for the network of an administrator, and often without a password on a home computer.
    service("Windows Remote Management", &[5985..=5986, 47_001..=47_001], &[]),
    service(
        "Containers and virtual machines",
        &[2375..=2376, 6443..=6443, 8006..=8006, 10_250..=10_250],
        &[],
    ),
    service("Virtual machines (libvirt)", &[16_509..=16_509, 16_514..=16_514], &[]),
    service("Web administration", &[9090..=9090, 10_000..=10_000], &[]),
    service("Android debugging", &[5555..=5555], &[]),
    service("Device management (SNMP, IPMI)", &[161..=162, 623..=623], &[161..=162, 623..=623]),
    // Databases and caches: many have no password as they come.
    service("Database (SQL Server)", &[1433..=1434], &[1434..=1434]),
    service("Database (Oracle)", &[1521..=1521], &[]),
    service("Database (MySQL)", &[3306..=3306, 33_060..=33_060], &[]),
    service("Database (PostgreSQL)", &[5432..=5432], &[]),
    service("Database (MongoDB)", &[27_017..=27_019], &[]),
    service("Database (Cassandra, CouchDB, InfluxDB)", &[5984..=5984, 8086..=8086, 9042..=9042], &[]),
    service(
        "Database (Redis, etcd, memcached)",
        &[2379..=2380, 6379..=6379, 11_211..=11_211],
        &[11_211..=11_211],
    ),
    service("Search engine (Elasticsearch)", &[9200..=9200, 9300..=9300], &[]),
    // Proxies: they would let friends use this computer's connection, and reach what listens on it locally.
    service("Proxy", &[1080..=1080, 3128..=3128], &[]),
    // Remote procedure calls: the way to most services of Windows. Its services start at the first dynamic port.
    service("Remote procedure calls", &[111..=111, 135..=135, 593..=593], &[111..=111, 135..=135]),
    service("Remote procedure calls (Windows)", &[49_664..=49_679], &[]),
    service("Remote procedure calls (Java, Erlang)", &[1099..=1099, 4369..=4369], &[]),
    service("Windows device platform", &[5040..=5040], &[5050..=5050]),
    service("Windows update sharing", &[7680..=7680], &[]),
    // Names and devices of the local network: they tell the computer's name and everything that it offers.
    service("Names (NetBIOS)", &[137..=138], &[137..=138]),
    service("Names (DNS)", &[53..=53, 853..=853], &[53..=53, 853..=853]),
    service("Names (mDNS)", &[], &[5353..=5353]),
    service("Names (LLMNR)", &[5355..=5355], &[5355..=5355]),
    service("Device discovery", &[3702..=3702, 5357..=5358], &[1900..=1900, 3702..=3702]),
    service("Router administration (NAT-PMP, PCP)", &[], &[5351..=5351]),
    service("Web server", &[80..=80, 443..=443], &[443..=443]),
    service("Mail", &[25..=25, 110..=110, 143..=143, 465..=465, 587..=587, 993..=993, 995..=995], &[]),
    service(
        "Directory (LDAP, Kerberos)",
        &[88..=88, 389..=389, 464..=464, 636..=636],
        &[88..=88, 389..=389, 464..=464],
    ),
    service("Time (NTP)", &[], &[123..=123]),
    service("VPN (IPsec)", &[], &[500..=500, 4500..=4500]),
    // The rest of the System Ports.
    service("System service", &[0..=1023], &[0..=1023]),
];

impl ServicePort {
    /// Returns the system service that usually listens on this port, or `None` for a port of programs and games.
    #[must_use]
    pub fn system_service(self) -> Option<&'static str> {
        let holds = |service: &&SystemService| {
            ranges(service, self.protocol).iter().any(|range| range.contains(&self.port))
        };
        SERVICES.iter().find(holds).map(|service| service.name)
    }

    /// Returns the ports of a protocol at which [`Self::system_service`] may change: the first one of each range, and the
    /// first one after it.
    pub fn system_service_borders(protocol: PortProtocol) -> impl Iterator<Item = u16> {
        let all = SERVICES.iter().flat_map(move |service| ranges(service, protocol));
        all.flat_map(|range| [Some(*range.start()), range.end().checked_add(1)]).flatten()
    }
}

const fn ranges(service: &SystemService, protocol: PortProtocol) -> &'static [RangeInclusive<u16>] {
    match protocol {
        PortProtocol::Tcp => service.tcp,
        PortProtocol::Udp => service.udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_the_system_have_names() {
        for (port, name) in [
            (ServicePort::tcp(22), "Remote login (SSH)"),
            (ServicePort::tcp(445), "File sharing (SMB)"),
            (ServicePort::tcp(3389), "Remote desktop (RDP)"),
            (ServicePort::udp(5353), "Names (mDNS)"),
            (ServicePort::tcp(1), "System service"),
            (ServicePort::udp(1023), "System service"),
        ] {
            assert_eq!(port.system_service(), Some(name), "{port}");
        }
        assert_eq!(ServicePort::tcp(1024).system_service(), None);
        assert_eq!(ServicePort::tcp(5353).system_service(), None);
    }

    /// Where common games listen, by their makers' own lists of ports to forward.
    #[test]
    fn ports_of_games_are_no_system_services() {
        let tcp = [
            2300, 2302, 2346, 3074, 3724, 4000, 4445, 6112, 6113, 6119, 7777, 7778, 8303, 8766, 10_578,
            19_132, 25_565, 25_575, 26_000, 27_015, 27_020, 27_036, 28_910, 34_197, 47_624,
        ];
        let udp = [
            1234, 1237, 2302, 2350, 2456, 3074, 3478, 4445, 5056, 6073, 6112, 6500, 7777, 7778, 8303, 8766,
            8767, 9987, 9877, 14_567, 15_777, 16_261, 19_132, 22_126, 23_000, 24_642, 25_565, 26_000, 26_900,
            27_005, 27_015, 27_016, 27_036, 27_910, 27_960, 28_000, 28_910, 28_960, 29_070, 29_900, 34_197,
            47_624, 64_090,
        ];
        for port in tcp.map(ServicePort::tcp).into_iter().chain(udp.map(ServicePort::udp)) {
            assert_eq!(port.system_service(), None, "{port}");
        }
    }

    #[test]
    fn services_change_at_their_borders_only() {
        for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
            let borders: Vec<u16> = ServicePort::system_service_borders(protocol).collect();
            for port in 1..=u16::MAX {
                let here = ServicePort { protocol, port }.system_service();
                let before = ServicePort { protocol, port: port - 1 }.system_service();
                assert!(here == before || borders.contains(&port), "{protocol}/{port}");
            }
        }
    }
}
