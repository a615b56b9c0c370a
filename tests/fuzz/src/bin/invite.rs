//! Texts with invites in them, as users paste them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::invite::Invite;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(invite) = Invite::find(text) else { return };
    assert_eq!(Invite::find(&invite.app_link()).as_ref(), Ok(&invite));
    if let Some(link) = invite.web_link() {
        assert_eq!(Invite::find(&link).as_ref(), Ok(&invite));
    }
});
