//! The bytes inside an invite, in a frame that is whole: letters in base 62 and a CRC that matches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::invite::Invite;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(invite) = Invite::find(&Invite::framed(bytes)) {
        assert_eq!(Invite::find(&invite.app_link()).as_ref(), Ok(&invite));
    }
});
