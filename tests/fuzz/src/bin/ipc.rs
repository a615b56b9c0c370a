//! Frames of the local socket, from clients and from the service.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::ipc::{ClientFrame, Decoder, Frame, ServerFrame, encode};

fuzz_target!(|bytes: &[u8]| {
    stream::<ClientFrame>(bytes);
    stream::<ServerFrame>(bytes);
    one::<ClientFrame>(bytes);
});

/// Decodes bytes as a stream from the socket.
fn stream<F: Frame>(bytes: &[u8]) {
    let mut decoder = Decoder::<F>::default();
    decoder.buffer().extend_from_slice(bytes);
    while let Ok(Some(_)) = decoder.next_frame() {}
}

/// Decodes bytes as the JSON of one frame, which must round-trip.
fn one<F: Frame + PartialEq + std::fmt::Debug>(json: &[u8]) {
    let Ok(frame) = F::from_json(json) else { return };
    let Ok(bytes) = encode(&frame) else { return };
    let mut decoder = Decoder::<F>::default();
    decoder.buffer().extend_from_slice(&bytes);
    assert_eq!(decoder.next_frame(), Ok(Some(frame)));
}
