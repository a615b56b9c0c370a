//! Signed documents: certificates' claims, charters' terms, amendments, messages. The first byte selects the kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partyline_fuzz::round_trip;
use partyline_wire::{
    exact::{Document, Exact},
    membership::{Amendment, Claims, Terms},
    sealed::Message,
};

fn document<T: Document + Clone + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let decode = |bytes: &[u8]| Some(Exact::<T>::decode(bytes.to_vec()).ok()?.value().clone());
    round_trip(bytes, decode, |value| Ok::<_, ()>(Exact::new(value.clone()).bytes().to_vec()));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => document::<Claims>(bytes),
        1 => document::<Terms>(bytes),
        2 => document::<Amendment>(bytes),
        _ => document::<Message>(bytes),
    }
});
