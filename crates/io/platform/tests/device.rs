//! Real devices, each test in a network namespace of its own thread. Needs root, as the device itself does.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::Future,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use nix::sched::{CloneFlags, unshare};
use partyline_platform::{
    DeviceRecord, LocalNetworks, NetworkWatch, TunConfig, TunDevice, TunError, TunReads, TunWrites,
    default_gateways, local_addresses, remove_stale_devices,
};
use tokio::net::UdpSocket;

/// Runs a test on a thread in a network namespace of its own, which ends with the thread.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests make network namespaces: run them as root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        ip("link set lo up");
        runtime.block_on(test());
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` (Debian package iproute2) and returns its output.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("`ip` of package iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn config(party: u8) -> TunConfig {
    TunConfig {
        name: None,
        v4: format!("10.77.{party}.1/24").parse().unwrap(),
        v6: format!("fd00:77:{party}::1/64").parse().unwrap(),
        mtu: 1400,
    }
}

/// Returns the destination and payload of the next UDP packet to this port that the device reads.
async fn next_to_port(device: &TunDevice, port: u16) -> (Ipv4Addr, Vec<u8>) {
    let mut reads = TunReads::new(1400);
    loop {
        device.recv(&mut reads).await.unwrap();
        for packet in reads.packets() {
            if packet[0] == 0x45 && packet[9] == 17 && packet[22..24] == port.to_be_bytes() {
                let to: [u8; 4] = packet[16..20].try_into().unwrap();
                return (to.into(), packet[28..].to_vec());
            }
        }
    }
}

fn udp_packet(from: [u8; 4], to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let words = packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0x30, 0x39]);
    packet.extend(port.to_be_bytes());
    packet.extend((len - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

#[test]
fn device_has_addresses_and_routes_and_removes_them_when_dropped() {
    in_namespace(|| async {
        let device = TunDevice::create(&config(1)).await.unwrap();
        assert_eq!(device.name(), "partyline0");
        let addresses = ip("-o addr show dev partyline0");
        for address in ["10.77.1.1/24", "fd00:77:1::1/64", "fe80::1/64"] {
            assert!(addresses.contains(address), "{address} in {addresses}");
        }
        assert_eq!(addresses.matches("fe80").count(), 1, "{addresses}");
        let routes = ip("route show dev partyline0");
        for route in ["10.77.1.0/24", "224.0.0.0/4", "255.255.255.255"] {
            assert!(routes.contains(route), "{route} in {routes}");
        }
        assert!(ip("-6 route show table local dev partyline0").contains("ff02::/16"));
        assert!(ip("link show partyline0").contains("mtu 1400"));
        assert_eq!(local_addresses().unwrap(), [], "own devices are no candidates");
        assert_eq!(LocalNetworks::read().await.unwrap(), LocalNetworks::default());
        drop(device);
        // Another test's child may hold the device between its fork and its exec.
        let gone = (0..100).any(|_| !ip("route show table all").contains("partyline0"));
        assert!(gone);
    });
}

#[test]
fn unbound_broadcasts_and_multicasts_enter_the_party() {
    in_namespace(|| async {
        let device = TunDevice::create(&config(1)).await.unwrap();
        let game = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        game.set_broadcast(true).unwrap();
        for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 77, 1, 255), Ipv4Addr::new(239, 1, 2, 3)] {
            game.send_to(b"who plays?", (to, 4445)).await.unwrap();
            assert_eq!(next_to_port(&device, 4445).await, (to, b"who plays?".to_vec()));
        }
    });
}

#[test]
fn broadcasts_of_members_reach_local_programs() {
    in_namespace(|| async {
        let device = TunDevice::create(&config(1)).await.unwrap();
        let game = UdpSocket::bind("0.0.0.0:4445").await.unwrap();
        game.join_multicast_v4(Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(10, 77, 1, 1)).unwrap();
        let mut writes = TunWrites::new();
        for (i, to) in
            [[255, 255, 255, 255], [10, 77, 1, 255], [239, 1, 2, 3], [10, 77, 1, 1]].into_iter().enumerate()
        {
            assert!(writes.push(&udp_packet([10, 77, 1, 2], to, 4445, &[i as u8; 5])));
        }
        device.send(&mut writes).await.unwrap();
        assert!(writes.is_empty());
        let mut buffer = [0; 64];
        for i in 0..4 {
            let (len, from) = game.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], [i; 5]);
            assert_eq!(from, SocketAddr::from(([10, 77, 1, 2], 12345)));
        }
    });
}

#[test]
fn newer_of_two_devices_gets_unbound_broadcasts_and_each_gets_bound_ones() {
    in_namespace(|| async {
        let first = TunDevice::create(&config(1)).await.unwrap();
        let second = TunDevice::create(&config(2)).await.unwrap();
        assert_eq!(second.name(), "partyline1");
        let game = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        game.set_broadcast(true).unwrap();
        game.send_to(b"new", (Ipv4Addr::BROADCAST, 4445)).await.unwrap();
        assert_eq!(next_to_port(&second, 4445).await.1, b"new");
        game.bind_device(Some(b"partyline0")).unwrap();
        game.send_to(b"old", (Ipv4Addr::BROADCAST, 4445)).await.unwrap();
        assert_eq!(next_to_port(&first, 4445).await.1, b"old");
        drop(second);
        let game = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        game.set_broadcast(true).unwrap();
        game.send_to(b"left", (Ipv4Addr::BROADCAST, 4445)).await.unwrap();
        assert_eq!(next_to_port(&first, 4445).await.1, b"left");
    });
}

#[test]
fn ipv6_multicast_enters_the_party_from_a_virtual_address() {
    in_namespace(|| async {
        let device = TunDevice::create(&config(1)).await.unwrap();
        let program = UdpSocket::bind("[::]:0").await.unwrap();
        let group: Ipv6Addr = "ff02::fb".parse().unwrap();
        // The kernel takes a moment to call a new address of IPv6 its own.
        while let Err(error) = program.send_to(b"mdns", (group, 5353)).await {
            assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
            tokio::task::yield_now().await;
        }
        let mut reads = TunReads::new(1400);
        loop {
            device.recv(&mut reads).await.unwrap();
            let packet =
                reads.packets().find(|packet| packet[0] >> 4 == 6 && packet[24..40] == group.octets());
            if let Some(packet) = packet {
                let from: [u8; 16] = packet[8..24].try_into().unwrap();
                let ours = ["fe80::1", "fd00:77:1::1"].map(|address| address.parse::<Ipv6Addr>().unwrap());
                assert!(ours.contains(&from.into()), "{:?}", Ipv6Addr::from(from));
                return;
            }
        }
    });
}

#[test]
fn taken_name_and_taken_range_are_different_errors() {
    in_namespace(|| async {
        ip("link add eth0 type veth peer name eth1");
        ip("link set eth1 up");
        ip("addr add 10.77.2.9/24 dev eth0");
        ip("link set eth0 up");
        let named = |party| TunConfig { name: Some("partyline7".into()), ..config(party) };
        let _device = TunDevice::create(&named(1)).await.unwrap();
        let error = TunDevice::create(&named(3)).await.unwrap_err();
        assert!(matches!(&error, TunError::NameTaken { name } if name == "partyline7"), "{error}");
        let error = TunDevice::create(&config(2)).await.unwrap_err();
        assert!(matches!(&error, TunError::AddressClash { interface, .. } if interface == "eth0"), "{error}");
    });
}

#[test]
fn network_changes_are_reported_and_own_devices_are_not() {
    in_namespace(|| async {
        let mut watch = NetworkWatch::new().await.unwrap();
        let _device = TunDevice::create(&config(1)).await.unwrap();
        ip("link add eth0 type veth peer name eth1");
        ip("link set eth1 up");
        ip("link set eth0 up");
        ip("addr add 192.168.5.2/24 dev eth0");
        ip("route add default via 192.168.5.1");
        let state = watch.changed().await.unwrap().clone();
        assert!(state.addresses.iter().any(|local| local.address == Ipv4Addr::new(192, 168, 5, 2)));
        assert!(state.addresses.iter().all(|local| local.interface == "eth0"));
        assert_eq!(state.gateways, default_gateways().await.unwrap());
        assert_eq!(state.gateways[0].address, Ipv4Addr::new(192, 168, 5, 1));
        ip("link del eth0");
        while !watch.changed().await.unwrap().addresses.is_empty() {}
        assert!(watch.state().gateways.is_empty());
    });
}

#[test]
fn recorded_stale_device_is_removed_and_others_are_not() {
    in_namespace(|| async {
        let state = tempfile::tempdir().unwrap();
        let mut record = DeviceRecord::new(state.path());
        ip("tuntap add partyline4 mode tun");
        ip("tuntap add partyline5 mode tun");
        record.add("partyline4").unwrap();
        record.add("partyline6").unwrap();
        assert_eq!(remove_stale_devices(state.path()).await.unwrap(), ["partyline4"]);
        assert!(!ip("link show").contains("partyline4"));
        assert!(ip("link show").contains("partyline5"));
        assert_eq!(remove_stale_devices(state.path()).await.unwrap(), [""; 0]);
    });
}
