use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::integrity::Integrity;

fn allocation() -> Allocation {
    let client = Client { transport: ClientTransport::Udp(0), address: ([192, 0, 2, 1], 1).into() };
    let pending = Pending {
        signature: Signature { kind: Integrity::Sha1, key: Vec::new() },
        fingerprint: false,
        even_port: false,
        waiting: 0,
        attempts: 0,
    };
    Allocation::new(client, "user", TransactionId::from([0; 12]), 0, &FixedState::with_seed(1), pending)
}

fn peer(number: u8) -> SocketAddr {
    ([203, 0, 113, number], 1000).into()
}

#[test]
fn a_permission_lasts_five_minutes_and_a_channel_ten() {
    let mut allocation = allocation();
    allocation.bind(0x4000, peer(1), 8, 0).unwrap();
    assert!(allocation.permits(peer(1).ip(), PERMISSION_NS - 1));
    assert!(!allocation.permits(peer(1).ip(), PERMISSION_NS));
    assert_eq!(allocation.channel_to(peer(1), CHANNEL_NS - 1), Some(0x4000));
    assert_eq!(allocation.channel_to(peer(1), CHANNEL_NS), None);
    assert_eq!(allocation.peer_of(0x4000, CHANNEL_NS), None);
}

#[test]
fn a_channel_has_one_peer_and_a_peer_one_channel() {
    let mut allocation = allocation();
    allocation.bind(0x4000, peer(1), 8, 0).unwrap();
    assert_eq!(allocation.bind(0x4000, peer(2), 8, 0), Err(Denied::Contradiction));
    assert_eq!(allocation.bind(0x4001, peer(1), 8, 0), Err(Denied::Contradiction));
    assert_eq!(allocation.bind(0x4000, peer(1), 8, 0), Ok(()));
    assert_eq!(allocation.bind(0x4001, peer(1), 8, CHANNEL_NS), Ok(()));
}

#[test]
fn places_are_limited_and_become_free_again() {
    let mut allocation = allocation();
    for number in 0..4 {
        allocation.bind(0x4000 + u16::from(number), peer(number), 4, 0).unwrap();
    }
    assert_eq!(allocation.bind(0x4004, peer(4), 4, 0), Err(Denied::Full));
    assert!(!allocation.has_room_for(&[peer(4)], 4, 0));
    assert_eq!(allocation.bind(0x4004, peer(4), 4, CHANNEL_NS), Ok(()));
}

proptest! {
    /// Whatever is bound when, the two tables answer like a list of live bindings would.
    #[test]
    fn bindings_agree_with_a_list(steps in prop::collection::vec((0u16..4, 0u8..4, 0u64..400), 0..60)) {
        let (mut allocation, mut now, mut list) = (allocation(), 0, BTreeMap::<u16, (SocketAddr, u64)>::new());
        for (number, other, wait) in steps {
            now += wait * 1_000_000_000;
            list.retain(|_, (_, expires)| *expires > now);
            let clash = list.iter().any(|(n, (p, _))| (*n == number) != (*p == peer(other)));
            prop_assert_eq!(allocation.bind(number, peer(other), 8, now).is_err(), clash);
            if !clash {
                list.insert(number, (peer(other), now + CHANNEL_NS));
            }
            for n in 0..4 {
                prop_assert_eq!(allocation.peer_of(n, now), list.get(&n).map(|(p, _)| *p));
                let bound = list.iter().find(|(_, (p, _))| *p == peer(n as u8)).map(|(n, _)| *n);
                prop_assert_eq!(allocation.channel_to(peer(n as u8), now), bound);
            }
        }
    }
}
