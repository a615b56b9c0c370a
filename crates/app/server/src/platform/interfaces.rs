//! The addresses of this computer's network interfaces, which every supported system lists in its own way.

use std::{io, net::IpAddr};

/// Returns the addresses of all interfaces, sorted, those of interfaces that are down included.
///
/// # Errors
/// The system does not list them.
pub(crate) fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn loopback_is_listed() {
        assert!(interface_addresses().unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
