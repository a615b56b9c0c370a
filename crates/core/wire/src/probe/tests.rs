use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> ProbeKey {
    ProbeKey::new(&[byte; 32])
}

fn request() -> Request {
    Request {
        id: TransactionId::new(7, 0xdead_beef),
        recipient: Tag([1; 8]),
        sender: Tag([0xab; 8]),
        priority: 1_845_501_695,
        nominate: true,
    }
}

#[test]
fn requests_and_responses_round_trip() {
    for nominate in [false, true] {
        let request = Request { nominate, ..request() };
        let bytes = request.encode(&key(1)).unwrap();
        assert_eq!(crate::datagram::classify(&bytes), crate::datagram::Kind::Stun);
        assert_eq!(
            peek(&bytes),
            Some(Claim::Request { recipient: request.recipient, sender: request.sender })
        );
        assert_eq!(Request::open(&bytes, &key(1)), Ok(request));
        assert_eq!(Response::open(&bytes, &key(1)), Err(ProbeError::Malformed));
    }
    for mapped in ["192.0.2.9:4242", "[2001:db8::1]:9"] {
        let response = Response { id: request().id, mapped: mapped.parse().unwrap() };
        let bytes = response.encode(&key(1)).unwrap();
        assert_eq!(peek(&bytes), Some(Claim::Response(response.id)));
        assert_eq!(Response::open(&bytes, &key(1)), Ok(response));
    }
}

#[test]
fn probe_with_another_key_or_none_is_rejected() {
    let bytes = request().encode(&key(1)).unwrap();
    assert_eq!(Request::open(&bytes, &key(2)), Err(ProbeError::Forged));

    let name = UserName::new(format!("{}:{}", "01".repeat(8), "ab".repeat(8))).unwrap();
    let bare = StunMessageBuilder::new(BINDING, MessageClass::Request)
        .with_attribute(name)
        .with_attribute(Priority::from(1))
        .build();
    let mut bytes = vec![0; MAX_LEN];
    let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &bare).unwrap();
    assert!(peek(&bytes[..len]).is_some());
    assert_eq!(Request::open(&bytes[..len], &key(1)), Err(ProbeError::Forged));
}

#[test]
fn trailing_bytes_are_rejected() {
    let mut bytes = request().encode(&key(1)).unwrap();
    bytes.extend([0; 4]);
    assert_eq!(Request::open(&bytes, &key(1)), Err(ProbeError::Malformed));
}

#[test]
fn replay_window_accepts_each_counter_once() {
    let mut window = ReplayWindow::default();
    assert!(window.accept(5));
    assert!(!window.accept(5));
    assert!(window.accept(0));
    assert!(window.accept(1028));
    assert!(!window.accept(4), "fell out of the window");
    assert!(!window.accept(5));
    assert!(window.accept(6));
    assert!(!window.accept(u64::MAX));
    assert!(window.accept(u64::MAX - 1));
}

proptest! {
    #[test]
    fn flipped_bit_before_the_fingerprint_is_detected(bit in 0usize..8 * 96) {
        let good = request().encode(&key(1)).unwrap();
        let mut bytes = good.clone();
        let last = (bytes.len() - 8) * 8;
        let bit = bit % last;
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Request::open(&bytes, &key(1)).is_err());
    }

    #[test]
    fn hostile_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), stun in any::<bool>()) {
        if stun && bytes.len() >= 20 {
            let len = (bytes.len() - 20) as u16 & !3;
            bytes[0] = 0;
            bytes[1] = 1;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&crate::datagram::MAGIC_COOKIE);
        }
        let _ = peek(&bytes);
        prop_assert!(Request::open(&bytes, &key(1)).is_err());
        prop_assert!(Response::open(&bytes, &key(1)).is_err());
    }

    #[test]
    fn truncated_or_mutated_probes_never_panic(at in 0usize..200, value in any::<u8>(), cut in 0usize..200) {
        let mut bytes = request().encode(&key(1)).unwrap();
        if let Some(byte) = bytes.get_mut(at) { *byte = value; }
        bytes.truncate(cut);
        let _ = peek(&bytes);
        let _ = Request::open(&bytes, &key(1));
    }

    #[test]
    fn replay_window_agrees_with_a_set(counters in prop::collection::vec(0u64..3000, 0..400)) {
        let mut window = ReplayWindow::default();
        let mut seen = BTreeSet::new();
        let mut highest = 0;
        for counter in counters {
            let expected = counter + ReplayWindow::WIDTH > highest && !seen.contains(&counter);
            prop_assert_eq!(window.accept(counter), expected);
            seen.insert(counter);
            highest = highest.max(counter);
        }
    }
}
