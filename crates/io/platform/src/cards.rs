//! What stands behind each network interface, and which of its addresses are deprecated.

#[cfg(target_os = "linux")]
#[path = "cards/linux.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "cards/macos.rs"]
mod system;
#[cfg(target_os = "windows")]
#[path = "cards/windows.rs"]
mod system;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use partyline_model::CardKind;
use tracing::debug;

/// The interfaces of this computer, as the system describes them.
#[derive(Debug, Default)]
pub(crate) struct Cards {
    /// By index; an interface that is not listed is physical.
    kinds: BTreeMap<u32, CardKind>,
    /// Addresses that new connections should not use (RFC 4862, section 5.5.4), with the interface's index.
    deprecated: BTreeSet<(u32, IpAddr)>,
}

impl Cards {
    /// Asks the system. Where it does not answer, every interface counts as physical.
    pub(crate) fn read() -> Self {
        let unknown =
            |error: &io::Error| debug!(%error, "the system does not describe its network interfaces");
        let (kinds, deprecated) = system::read().inspect_err(unknown).unwrap_or_default();
        Self { kinds, deprecated }
    }

    /// Returns what stands behind an interface.
    pub(crate) fn kind(&self, index: Option<u32>) -> CardKind {
        index.and_then(|index| self.kinds.get(&index)).copied().unwrap_or_default()
    }

    /// Returns true if an address of an interface is deprecated.
    pub(crate) fn is_deprecated(&self, index: Option<u32>, address: IpAddr) -> bool {
        index.is_some_and(|index| self.deprecated.contains(&(index, address)))
    }
}
