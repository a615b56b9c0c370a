//! LAN beacon datagrams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_model::Topic;
use partyline_wire::beacon;

fuzz_target!(|bytes: &[u8]| {
    if let Some(received) = beacon::decode(bytes) {
        let topic = Topic([7; 32]);
        let encoded = beacon::encode(&topic, received.sealed()).expect("as long as the one received");
        let again = beacon::decode(&encoded).expect("a beacon");
        assert!(again.is_on(&topic) && again.sealed() == received.sealed());
    }
});
