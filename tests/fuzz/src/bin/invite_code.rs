//! The bytes inside an invite link, after base64.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::invite::Invite;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fuzz_target!(|bytes: &[u8]| {
    let mut link = String::from("partyline://join/");
    for group in bytes.chunks(3) {
        let word = group
            .iter()
            .enumerate()
            .fold(0u32, |word, (index, byte)| word | u32::from(*byte) << (16 - 8 * index));
        for digit in 0..=group.len() {
            link.push(DIGITS[(word >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    if let Ok(invite) = Invite::parse(&link) {
        assert_eq!(Invite::parse(&invite.app_link()).as_ref(), Ok(&invite));
    }
});
