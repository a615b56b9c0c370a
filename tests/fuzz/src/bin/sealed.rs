//! The plaintext of sealed messages, and the contents of a rekey and of a join rejection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::sealed::{JoinRejection, RekeyContent, decode_plaintext, encode_plaintext};

fuzz_target!(|bytes: &[u8]| {
    if let Ok((message, signature)) = decode_plaintext(bytes) {
        assert_eq!(encode_plaintext(&message, &signature), bytes, "signed bytes are kept exactly");
    }
    if let Ok(content) = RekeyContent::decode(bytes) {
        assert!(RekeyContent::decode(&content.encode()).is_ok_and(|again| again == content));
    }
    if let Ok(rejection) = JoinRejection::decode(bytes) {
        assert!(JoinRejection::decode(&rejection.encode()).is_ok_and(|again| again == rejection));
    }
});
