//! Interfaces on macOS, by name: the system's own ones have fixed prefixes, and tunnels can only be `utun` or those of
//! the drivers that bring their own.

use std::{collections::BTreeMap, io};

use partyline_model::CardKind;

use super::Cards;

/// Tunnels: the system's, ZeroTier's (`feth`, `zt`), the TunTap driver's, and IPsec.
const OVERLAYS: [&str; 8] = ["utun", "feth", "zt", "tun", "tap", "ipsec", "gif", "stf"];
/// Virtual machines and shared networks of this computer.
const INTERNAL: [&str; 5] = ["bridge", "vmnet", "vmenet", "vboxnet", "vnic"];

pub(super) fn read() -> io::Result<Cards> {
    let interfaces = if_addrs::get_if_addrs()?.into_iter();
    let kinds: BTreeMap<u32, CardKind> =
        interfaces.filter_map(|interface| Some((interface.index?, kind_of(&interface.name)))).collect();
    Ok(Cards { kinds, ..Cards::default() })
}

fn kind_of(name: &str) -> CardKind {
    let is_one_of = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if is_one_of(&OVERLAYS) {
        CardKind::Overlay
    } else if is_one_of(&INTERNAL) {
        CardKind::Internal
    } else {
        CardKind::Physical
    }
}
