//! Packet sizes from end to end: MSS clamping, Packet Too Big, fragments.

use super::Lan;
use crate::{
    DropReason, PathConfig,
    testing::{PARTY, checksum_holds, device_id, syn, u16_at, udp, v4, v6},
};

/// Two members of which the first has a path of this MTU.
fn narrow(mtu: u16) -> Lan {
    let mut lan = Lan::connected(2);
    let path = PathConfig { headroom: 0, mtu: Some(mtu) };
    lan.devices[0].tunnel.set_path(lan.now, PARTY, device_id(1), Some(path));
    lan
}

#[test]
fn syn_is_clamped_in_both_directions() {
    let mut lan = narrow(1300);
    lan.send(0, &syn(v4(0), v4(1), 1460, 0));
    lan.send(0, &syn(v6(0), v6(1), 1460, 0));
    lan.send(1, &syn(v4(1), v4(0), 1460, 0));
    lan.run();
    let received: Vec<_> =
        lan.devices.iter().flat_map(|device| &device.received).map(|(_, packet)| packet).collect();
    let sizes: Vec<_> =
        received.iter().map(|packet| u16_at(packet, if packet[0] >> 4 == 4 { 42 } else { 62 })).collect();
    assert_eq!(sizes, [1260, 1260, 1240]);
    assert!(received.iter().all(|packet| checksum_holds(packet)));
}

#[test]
fn mss_that_fits_is_left_alone() {
    let mut lan = narrow(1300);
    let packet = syn(v4(0), v4(1), 1260, 0);
    lan.send(0, &packet);
    lan.run();
    assert_eq!(lan.devices[1].received, [(device_id(0), packet)]);
}

#[test]
fn ipv4_packet_with_df_above_the_path_mtu_is_answered_with_icmp() {
    let mut lan = narrow(1300);
    let mut packet = udp(v4(0), v4(1), 7, 1300);
    packet[6] = 0x40;
    lan.send(0, &packet);
    lan.run();
    let reply = lan.devices[0].deliveries.pop().unwrap();
    assert_eq!((reply[20], reply[21], u16_at(&reply, 26)), (3, 4, 1300));
    assert_eq!(lan.session(0, 1).drops.get(DropReason::ExceedsMtu), 1);
    assert!(lan.devices[1].received.is_empty());
}

#[test]
fn ipv6_packet_above_the_path_mtu_is_answered_with_icmpv6() {
    let mut lan = narrow(1300);
    lan.send(0, &udp(v6(0), v6(1), 7, 1300));
    lan.run();
    let reply = lan.devices[0].deliveries.pop().unwrap();
    assert_eq!((reply[40], reply[41]), (2, 0));
    assert_eq!(u16_at(&reply, 46), 1300);
    assert!(checksum_holds(&reply));
}

#[test]
fn icmp_error_above_the_path_mtu_is_dropped_without_an_error() {
    let mut lan = narrow(1300);
    let mut packet = udp(v4(0), v4(1), 7, 1300);
    packet[6] = 0x40;
    packet[9] = 1;
    packet[20] = 3;
    lan.send(0, &packet);
    lan.run();
    assert!(lan.devices[0].deliveries.is_empty());
}

#[test]
fn ipv4_packets_above_the_path_mtu_are_fragmented() {
    let mut lan = narrow(1300);
    for (len, parts) in [(1299, 1), (1300, 1), (1301, 2), (1400, 2)] {
        lan.send(0, &udp(v4(0), v4(1), 7, len - 28));
        lan.run();
        let received = lan.devices[1].received.split_off(0);
        assert_eq!(received.len(), parts, "{len}");
        assert!(received.iter().all(|(_, packet)| packet.len() <= 1300));
    }
}
