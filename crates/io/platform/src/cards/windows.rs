//! Interfaces on Windows, by IP Helper.

#![allow(unsafe_code, reason = "IP Helper has no safe interface")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use partyline_model::CardKind;
use windows_sys::Win32::NetworkManagement::IpHelper::{GetIfEntry2, MIB_IF_ROW2};

/// Interface types of the IANA registry: adapters without hardware (Wintun), and tunnels.
const PROPRIETARY_VIRTUAL: u32 = 53;
const TUNNEL: u32 = 131;
/// Words in the descriptions of drivers that make a VPN's adapter look like Ethernet.
const OVERLAYS: [&str; 9] =
    ["tap-", "vpn", "zerotier", "hamachi", "tailscale", "wireguard", "wintun", "nebula", "easytier"];
/// Words in the descriptions of adapters that lead to virtual machines and containers.
const INTERNAL: [&str; 4] =
    ["hyper-v virtual ethernet", "virtualbox host-only", "vmware virtual ethernet", "loopback"];

/// What stands behind each interface, by index. Which addresses are deprecated is not read here.
type Interfaces = (BTreeMap<u32, CardKind>, BTreeSet<(u32, IpAddr)>);

pub(super) fn read() -> io::Result<Interfaces> {
    let indexes = if_addrs::get_if_addrs()?.into_iter().filter_map(|interface| interface.index);
    let kinds: BTreeMap<u32, CardKind> =
        indexes.filter_map(|index| Some((index, kind_of(&row(index)?)))).collect();
    Ok((kinds, BTreeSet::new()))
}

/// Returns what the system knows of an interface.
fn row(index: u32) -> Option<MIB_IF_ROW2> {
    // SAFETY: the structure has only integers and arrays of them, for which zero is a value.
    let mut row: MIB_IF_ROW2 = unsafe { std::mem::zeroed() };
    row.InterfaceIndex = index;
    // SAFETY: the pointer is valid for the call, which fills the row that the index names.
    let result = unsafe { GetIfEntry2(&raw mut row) };
    (result == 0).then_some(row)
}

fn kind_of(row: &MIB_IF_ROW2) -> CardKind {
    let length = row.Description.iter().position(|unit| *unit == 0).unwrap_or(row.Description.len());
    let description = String::from_utf16_lossy(&row.Description[..length]).to_lowercase();
    let is_one_of = |words: &[&str]| words.iter().any(|word| description.contains(word));
    if matches!(row.Type, PROPRIETARY_VIRTUAL | TUNNEL) || is_one_of(&OVERLAYS) {
        CardKind::Overlay
    } else if is_one_of(&INTERNAL) {
        CardKind::Internal
    } else {
        CardKind::Physical
    }
}
