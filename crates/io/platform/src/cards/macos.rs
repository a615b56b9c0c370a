//! Interfaces on macOS, by name: the system's own ones have fixed prefixes, and tunnels can only be `utun` or those of
//! the drivers that bring their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use partyline_model::CardKind;

/// Tunnels: the system's, ZeroTier's (`feth`, `zt`), the TunTap driver's, and IPsec.
const OVERLAYS: [&str; 8] = ["utun", "feth", "zt", "tun", "tap", "ipsec", "gif", "stf"];
/// Virtual machines and shared networks of this computer.
const INTERNAL: [&str; 5] = ["bridge", "vmnet", "vmenet", "vboxnet", "vnic"];

/// What stands behind each interface, by index. Which addresses are deprecated is not read here.
type Interfaces = (BTreeMap<u32, CardKind>, BTreeSet<(u32, IpAddr)>);

pub(super) fn read() -> io::Result<Interfaces> {
    let interfaces = if_addrs::get_if_addrs()?.into_iter();
    let kinds: BTreeMap<u32, CardKind> =
        interfaces.filter_map(|interface| Some((interface.index?, kind_of(&interface.name)))).collect();
    Ok((kinds, BTreeSet::new()))
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
