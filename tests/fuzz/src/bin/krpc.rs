//! Messages of the BitTorrent DHT.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::krpc::{Body, Message, signed_bytes};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else { return };
    if let Body::Response(response) = message.body {
        assert!(response.contacts.iter().count() <= bytes.len() / 26);
        let _ = signed_bytes(b"", response.seq.unwrap_or_default(), response.value.unwrap_or_default());
    }
    // An address beside a query is read, but makes no sense and is not written.
    let ip = message.ip.filter(|_| !matches!(message.body, Body::Query(_)));
    let expected = Message { ip, ..message };
    assert_eq!(Message::decode(&expected.encode()), Ok(expected), "the encoded message decodes to itself");
});
