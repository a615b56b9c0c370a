//! Demultiplexing of the shared UDP socket, ChannelData, and the framing of TURN streams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::datagram::{Deframer, Kind, channel_data, classify};

fuzz_target!(|bytes: &[u8]| {
    if let Some((_, place)) = channel_data(bytes) {
        assert_eq!(classify(bytes), Kind::ChannelData);
        assert!(bytes.get(place).is_some());
    }
    assert_eq!(
        messages(&[bytes]),
        messages(&bytes.chunks(3).collect::<Vec<_>>()),
        "however the stream is chunked"
    );
});

fn messages(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut deframer, mut found) = (Deframer::default(), Vec::new());
    for piece in pieces {
        deframer.push(piece);
        loop {
            match deframer.next_message() {
                Ok(Some(message)) => found.push(message.to_vec()),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}
