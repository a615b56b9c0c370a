//! Datagrams of direct signaling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::direct::{self, Direct};

fuzz_target!(|bytes: &[u8]| {
    let key = [7; 32];
    match Direct::decode(bytes) {
        Some(Direct::Request(read)) => {
            assert_eq!(read.is_under(&key), bytes == direct::request(&key, read.nonce));
        }
        Some(Direct::Response(read)) => {
            assert_eq!(read.is_under(&key), bytes == direct::response(&key, read.nonce));
        }
        Some(Direct::Part(part)) => {
            assert!(part.part < part.parts && usize::from(part.parts) <= direct::MAX_PARTS);
            assert!((1..=direct::MAX_PART).contains(&part.bytes.len()));
        }
        None => {}
    }
});
