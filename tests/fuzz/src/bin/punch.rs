//! Signals between the path machines of two members.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_fuzz::round_trip;
use partyline_wire::punch::Signal;

fuzz_target!(|bytes: &[u8]| {
    round_trip(bytes, |bytes| Signal::decode(bytes).ok(), |signal| Ok::<_, ()>(signal.encode()));
});
