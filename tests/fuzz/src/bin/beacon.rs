//! LAN beacon datagrams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_model::Topic;
use partyline_wire::beacon;

fuzz_target!(|bytes: &[u8]| {
    if let Some((tag, sealed)) = beacon::decode(bytes) {
        let mut topic = [0; 32];
        topic[..tag.0.len()].copy_from_slice(&tag.0);
        let encoded = beacon::encode(&Topic(topic), sealed);
        assert_eq!(encoded.as_deref(), Some(bytes));
    }
});
