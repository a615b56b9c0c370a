//! Packet sizes: maximum segment size, Packet Too Big, fragments.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{Lan, PARTY, checksum_holds, device_id, syn, udp, v4, v6};
use crate::{DropReason, PathConfig, checksum, mss, packet::Header};

fn narrow(mtu: u16) -> Lan {
    let mut lan = Lan::connected(2);
    let path = PathConfig { headroom: 0, mtu: Some(mtu) };
    lan.devices[0].tunnel.set_path(lan.now, PARTY, device_id(1), Some(path));
    lan
}

fn announced(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

#[test]
fn a_syn_is_clamped_on_its_way_out_and_in() {
    let mut lan = narrow(1300);
    lan.send(0, &syn(v4(0), v4(1), 1460, 0));
    lan.send(0, &syn(v6(0), v6(1), 1460, 0));
    lan.send(1, &syn(v4(1), v4(0), 1460, 0));
    lan.run();
    let received: Vec<_> =
        lan.devices.iter().flat_map(|device| &device.received).map(|(_, packet)| packet).collect();
    let sizes: Vec<_> =
        received.iter().map(|packet| announced(packet, if packet[0] >> 4 == 4 { 42 } else { 62 })).collect();
    assert_eq!(sizes, [1260, 1260, 1240]);
    assert!(received.iter().all(|packet| checksum_holds(packet)));
}

#[test]
fn a_small_enough_segment_size_is_left_alone() {
    let mut lan = narrow(1300);
    let packet = syn(v4(0), v4(1), 1260, 0);
    lan.send(0, &packet);
    lan.run();
    assert_eq!(lan.devices[1].received, [(device_id(0), packet)]);
}

#[test]
fn too_big_with_df_is_told_to_the_sender() {
    let mut lan = narrow(1300);
    let mut packet = udp(v4(0), v4(1), 7, 1300);
    packet[6] = 0x40;
    lan.send(0, &packet);
    lan.run();
    let reply = lan.devices[0].returned.pop().unwrap();
    let header = Header::parse(&reply).unwrap();
    assert_eq!((header.source, header.destination), (v4(1).into(), v4(0).into()));
    assert_eq!((reply[20], reply[21]), (3, 4));
    assert_eq!(announced(&reply, 26), 1300);
    assert_eq!(reply[28..56], packet[..28]);
    assert_eq!(checksum::finish(checksum::sum(&reply[..20])), 0);
    assert_eq!(checksum::finish(checksum::sum(&reply[20..])), 0);
    assert_eq!(lan.session(0, 1).drops.get(DropReason::TooBig), 1);
    assert!(lan.devices[1].received.is_empty());
}

#[test]
fn too_big_over_ipv6_is_told_to_the_sender() {
    let mut lan = narrow(1300);
    lan.send(0, &udp(v6(0), v6(1), 7, 1300));
    lan.run();
    let reply = lan.devices[0].returned.pop().unwrap();
    assert_eq!((reply[40], reply[41]), (2, 0));
    assert_eq!(announced(&reply, 46), 1300);
    assert!(checksum_holds(&reply));
}

#[test]
fn no_error_is_sent_about_an_error() {
    let mut lan = narrow(1300);
    let mut packet = udp(v4(0), v4(1), 7, 1300);
    packet[6] = 0x40;
    packet[9] = 1;
    packet[20] = 3;
    lan.send(0, &packet);
    lan.run();
    assert!(lan.devices[0].returned.is_empty());
}

#[test]
fn lengths_around_the_packet_size_pass_whole_or_in_fragments() {
    let mut lan = narrow(1300);
    for (len, parts) in [(1299, 1), (1300, 1), (1301, 2), (1400, 2)] {
        lan.send(0, &udp(v4(0), v4(1), 7, len - 28));
        lan.run();
        let received = lan.devices[1].received.split_off(0);
        assert_eq!(received.len(), parts, "{len}");
        assert!(received.iter().all(|(_, packet)| packet.len() <= 1300));
    }
}

proptest! {
    #[test]
    fn fragments_make_the_packet_again(len in 1301usize..8000, mtu in 576u16..1300) {
        let packet = udp(v4(0), v4(1), 7, len);
        let header = Header::parse(&packet).unwrap();
        let mut payload = Vec::new();
        let parts: Vec<_> = crate::fragment::split(&packet, &header, mtu.into()).collect();
        for (i, part) in parts.iter().enumerate() {
            let flags = u16::from_be_bytes([part[6], part[7]]);
            prop_assert!(part.len() <= mtu.into() && Header::parse(part).unwrap().len == part.len());
            prop_assert_eq!(usize::from(flags & 0x1fff) * 8, payload.len());
            prop_assert_eq!(flags & 0x2000 != 0, i + 1 < parts.len());
            prop_assert_eq!(checksum::finish(checksum::sum(&part[..20])), 0);
            payload.extend_from_slice(&part[20..]);
        }
        prop_assert_eq!(&payload[..], &packet[20..]);
    }

    #[test]
    fn clamping_keeps_checksums_right(size in 0u16.., padding in 0usize..8, mtu in 576usize..1500, six: bool) {
        let (from, to): (IpAddr, IpAddr) = if six { (v6(0).into(), v6(1).into()) } else { (v4(0).into(), v4(1).into()) };
        let mut packet = syn(from, to, size, padding);
        let header = Header::parse(&packet).unwrap();
        mss::clamp(&mut packet, &header, mtu);
        let limit = (mtu - header.payload - 20) as u16;
        prop_assert_eq!(announced(&packet, header.payload + 22 + padding), size.min(limit));
        prop_assert!(checksum_holds(&packet));
    }

    #[test]
    fn clamping_survives_garbage(mut packet in proptest::collection::vec(any::<u8>(), 20..120), six: bool) {
        packet[0] = if six { 0x60 } else { 0x45 };
        packet[if six { 6 } else { 9 }] = 6;
        if let Some(header) = Header::parse(&packet) {
            mss::clamp(&mut packet, &header, 1400);
        }
    }
}
