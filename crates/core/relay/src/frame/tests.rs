use proptest::prelude::*;

use super::*;

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| (ip, port).into()),
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| (ip, port).into()),
    ]
}

/// A payload in a buffer with room around it.
fn buffer(payload: &[u8]) -> (Vec<u8>, Range<usize>) {
    let mut buffer = vec![0xEE; HEADROOM];
    buffer.extend_from_slice(payload);
    let range = HEADROOM..buffer.len();
    buffer.extend_from_slice(&[0xEE; TAILROOM]);
    (buffer, range)
}

proptest! {
    #[test]
    fn codec_decodes_data_indications(payload in prop::collection::vec(any::<u8>(), 0..1500), peer in address(), id: [u8; 12]) {
        let (mut bytes, range) = buffer(&payload);
        let framed = Packet::new(&mut bytes, range.clone()).unwrap().frame_data(range, peer, id);
        let (message, size) = stun_rs::MessageDecoder::default().decode(&bytes[framed.clone()]).unwrap();
        prop_assert_eq!(size, framed.len());
        prop_assert_eq!(message.method(), stun_rs::methods::DATA);
        let data = message.get::<stun_rs::attributes::turn::Data>().unwrap().expect_data();
        let from = message.get::<stun_rs::attributes::turn::XorPeerAddress>().unwrap().expect_xor_peer_address();
        prop_assert_eq!(data.as_bytes(), &payload[..]);
        prop_assert_eq!(*from.socket_address(), peer);
    }

    #[test]
    fn send_indications_of_the_codec_are_decoded(payload in prop::collection::vec(any::<u8>(), 0..1500), peer in address()) {
        let message = stun_rs::StunMessageBuilder::new(stun_rs::methods::SEND, stun_rs::MessageClass::Indication)
            .with_attribute(stun_rs::attributes::turn::XorPeerAddress::from(peer))
            .with_attribute(stun_rs::attributes::turn::Data::new(&payload))
            .build();
        let mut bytes = vec![0; 2000];
        let size = stun_rs::MessageEncoder::default().encode(&mut bytes, &message).unwrap();
        prop_assert_eq!(classify(&bytes[..size]), Class::SendIndication);
        let (to, range) = read_send(&bytes[..size]).unwrap();
        prop_assert_eq!(to, peer);
        prop_assert_eq!(&bytes[range], &payload[..]);
    }

    #[test]
    fn channel_data_round_trips_and_is_padded_on_streams_only(payload in prop::collection::vec(any::<u8>(), 0..1500), channel in 0x4000u16..0x5000, stream: bool) {
        let (mut bytes, range) = buffer(&payload);
        let framed = Packet::new(&mut bytes, range.clone()).unwrap().frame_channel(range, channel, stream);
        let out = &bytes[framed];
        prop_assert_eq!(out.len(), 4 + if stream { payload.len().next_multiple_of(4) } else { payload.len() });
        let (read, at) = read_channel(out).unwrap();
        prop_assert_eq!(read, channel);
        prop_assert_eq!(&out[at], &payload[..]);
        if stream {
            prop_assert_eq!(next_frame(out), Frame::Complete { length: 4 + payload.len(), advance: out.len() });
        }
    }

    #[test]
    fn malformed_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (classify(&bytes), read_channel(&bytes), read_send(&bytes), next_frame(&bytes));
        let mut disguised = bytes.clone();
        if disguised.len() >= 8 {
            disguised[..2].copy_from_slice(&SEND_INDICATION.to_be_bytes());
            disguised[2..4].copy_from_slice(&((bytes.len() as u16).saturating_sub(20)).to_be_bytes());
            disguised[4..8].copy_from_slice(&COOKIE);
        }
        let _ = read_send(&disguised);
    }
}

#[test]
fn packet_needs_room_around_it() {
    let mut bytes = [0; HEADROOM + 10 + TAILROOM];
    assert!(Packet::new(&mut bytes, HEADROOM..HEADROOM + 10).is_some());
    assert!(Packet::new(&mut bytes, HEADROOM - 1..HEADROOM + 10).is_none());
    assert!(Packet::new(&mut bytes, HEADROOM..HEADROOM + 11).is_none());
}

#[test]
fn send_indication_with_dont_fragment_is_discarded() {
    let message = stun_rs::StunMessageBuilder::new(stun_rs::methods::SEND, stun_rs::MessageClass::Indication)
        .with_attribute(stun_rs::attributes::turn::XorPeerAddress::from(SocketAddr::from((
            [192, 0, 2, 1],
            1,
        ))))
        .with_attribute(stun_rs::attributes::turn::DontFragment::default())
        .with_attribute(stun_rs::attributes::turn::Data::new([1]))
        .build();
    let mut bytes = vec![0; 200];
    let size = stun_rs::MessageEncoder::default().encode(&mut bytes, &message).unwrap();
    assert_eq!(read_send(&bytes[..size]), None);
}

#[test]
fn streams_other_than_turn_are_invalid() {
    assert_eq!(next_frame(b"\x80 other"), Frame::Invalid);
    assert_eq!(next_frame(&[0, 1, 0, 3]), Frame::Invalid);
    assert_eq!(next_frame(&[0, 1, 0]), Frame::Partial);
}
