//! Connectivity checks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_fuzz::round_trip;
use partyline_wire::probe::{ProbeKey, Request, Response, peek};

fuzz_target!(|bytes: &[u8]| {
    let key = ProbeKey::new(&[7; 32]);
    let _ = peek(bytes);
    round_trip(bytes, |bytes| Request::open(bytes, &key).ok(), |request| request.encode(&key));
    round_trip(bytes, |bytes| Response::open(bytes, &key).ok(), |response| response.encode(&key));
});
