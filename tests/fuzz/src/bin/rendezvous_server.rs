//! Frames that a member receives from a rendezvous server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_fuzz::round_trip;
use partyline_wire::rendezvous::ServerFrame;

fuzz_target!(|bytes: &[u8]| {
    round_trip(bytes, |bytes| ServerFrame::decode(bytes).ok(), ServerFrame::encode);
});
