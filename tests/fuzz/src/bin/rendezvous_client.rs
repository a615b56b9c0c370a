//! Frames that a rendezvous server receives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_fuzz::round_trip;
use partyline_wire::rendezvous::ClientFrame;

fuzz_target!(|bytes: &[u8]| {
    round_trip(bytes, |bytes| ClientFrame::decode(bytes).ok(), ClientFrame::encode);
});
