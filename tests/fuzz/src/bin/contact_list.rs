//! Contact lists, after they were opened.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_wire::contact_list::{ContactList, MAX_LIST};

fuzz_target!(|bytes: &[u8]| {
    if let Some(mut list) = ContactList::decode(bytes) {
        let encoded = list.encode();
        assert!(encoded.len() <= MAX_LIST);
        assert_eq!(ContactList::decode(&encoded).as_ref(), Some(&list));
        list.expire(1_800_000_000);
        assert!(list.encode().len() <= encoded.len());
    }
});
