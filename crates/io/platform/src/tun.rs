//! A party's network device.
//!
//! On Linux a TUN device with virtio headers, so that one read or write carries up to 64 KiB of one flow (TSO, USO, GRO).
//! It vanishes with the process, and its routes with it. In addition to its connected routes it gets:
//!
//! - `255.255.255.255/32` and `224.0.0.0/4`, and `ff02::/16` in the local table, where the kernel keeps multicast:
//!   so that broadcasts of games, which choose no interface, reach the party. Programs that do choose one (mDNS
//!   responders, DHCP clients, anything bound to an interface or using `IP_MULTICAST_IF`) are not affected, and unicast
//!   never is. With several parties switched on, unbound broadcasts go to the one switched on last: its metric is the
//!   lowest, and when it goes down the next takes over.
//! - a link-local address with the interface identifier of its virtual address, instead of a random one, so that members
//!   can attribute it.
//!
//! TUN devices on Linux perform no address resolution (no ARP, no duplicate detection), so addresses work at once.

mod batch;
#[cfg(target_os = "linux")]
#[path = "tun/linux.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "tun/macos.rs"]
mod system;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
#[path = "tun/unsupported.rs"]
mod system;

use std::io;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use partyline_model::{AppError, ErrorCode};

pub use batch::{TunReads, TunWrites};
pub use system::TunDevice;

use crate::{LocalAddress, sentence};

/// The configuration of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunConfig {
    /// The device's name; `None` takes the first free of `partyline0`, `partyline1`, … . Ignored on macOS.
    pub name: Option<String>,
    /// This computer's IPv4 address in the party, with the party's prefix.
    pub v4: Ipv4Net,
    /// This computer's IPv6 address in the party, with the party's prefix.
    pub v6: Ipv6Net,
    /// The longest packet, in bytes.
    pub mtu: u16,
}

/// Why a device could not be created.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The process lacks the permission.
    #[error("this process may not create network devices")]
    Permission,
    /// The process lacks the capability, as root in a container or as an ordinary user.
    #[error(
        "this process lacks the capability CAP_NET_ADMIN, without which no network device can be created"
    )]
    NoCapability {
        /// True for a process of root, whose capabilities were taken away.
        root: bool,
    },
    /// The kernel's TUN driver is missing.
    #[error("the system has no TUN driver, so that /dev/net/tun is missing or leads nowhere")]
    NoTunDriver,
    /// The driver is there, but not its device node.
    #[error("the device node /dev/net/tun is missing, although the system has its driver")]
    NoNode,
    /// Something else is in the place of the driver's device node.
    #[error("/dev/net/tun is {found}, not the TUN driver's device (the character device 10:200)")]
    WrongNode {
        /// What it is.
        found: String,
    },
    /// The node is right, but may not be opened.
    #[error("this process may not open /dev/net/tun")]
    NodeRefused,
    /// Another device has the name.
    #[error("a network device named {name} already exists")]
    NameTaken {
        /// The name that is taken.
        name: String,
    },
    /// The party's address range is in use.
    #[error("the address range {range} is already used by {interface} on this computer")]
    AddressClash {
        /// The party's address range.
        range: Ipv4Net,
        /// The interface that uses it.
        interface: String,
    },
    /// Devices are not supported on this system yet.
    #[error("network devices are not supported on this system yet")]
    Unsupported,
    /// Another error of the system.
    #[error("the network device could not be set up: {0}")]
    Other(#[source] io::Error),
}

impl TunError {
    /// Returns what the user can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Permission => {
                "Start the Partyline service, or run this as root or with CAP_NET_ADMIN (as administrator elsewhere)."
            }
            Self::NoCapability { root: false } => {
                "Start the Partyline service with `sudo systemctl start partyline`, or run this with sudo."
            }
            Self::NoCapability { root: true } => {
                "Start the container with `--cap-add NET_ADMIN --device /dev/net/tun`; in a systemd unit, add \
                 `CAP_NET_ADMIN` to CapabilityBoundingSet."
            }
            Self::NoTunDriver => {
                "Load the driver with `sudo modprobe tun`, in a container on the computer that runs it; then start the \
                 container with `--device /dev/net/tun`."
            }
            Self::NoNode => {
                "Make it with `sudo mkdir -p /dev/net && sudo mknod -m 666 /dev/net/tun c 10 200`; start a container \
                 with `--device /dev/net/tun`."
            }
            Self::WrongNode { .. } => {
                "Put it aside and make the right one: `sudo mv /dev/net/tun /dev/net/tun.wrong && sudo mknod -m 666 \
                 /dev/net/tun c 10 200`; start a container with `--device /dev/net/tun`."
            }
            Self::NodeRefused => {
                "Run `sudo chmod 666 /dev/net/tun`; start a container with `--device /dev/net/tun --cap-add NET_ADMIN`."
            }
            Self::NameTaken { .. } => "Remove that device, or choose another name.",
            Self::AddressClash { .. } => {
                "Leave the other network, or ask the party's owner for another address range."
            }
            Self::Unsupported => "Use Linux for now.",
            Self::Other(_) => "Look into the log for details.",
        }
    }
}

impl From<TunError> for AppError {
    fn from(error: TunError) -> Self {
        let code = match error {
            TunError::Permission | TunError::NoCapability { .. } => ErrorCode::PermissionDenied,
            TunError::NoTunDriver | TunError::NoNode | TunError::WrongNode { .. } | TunError::NodeRefused => {
                ErrorCode::TunNode
            }
            TunError::AddressClash { .. } => ErrorCode::RangeConflict,
            _ => ErrorCode::Device,
        };
        Self::new(code, sentence(&error.to_string()), error.hint())
    }
}

/// Refuses a range that one of the computer's interfaces uses.
///
/// # Errors
/// [`TunError::AddressClash`] then.
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code))]
fn check_range(range: Ipv4Net, addresses: &[LocalAddress]) -> Result<(), TunError> {
    let range = range.trunc();
    let clash = addresses.iter().find(|local| match local.network() {
        Some(IpNet::V4(network)) => network.contains(&range) || range.contains(&network),
        _ => false,
    });
    let interface = clash.map(|local| local.interface.clone());
    let Some(interface) = interface else { return Ok(()) };
    tracing::debug!(%range, interface, reason = "address range in use", "device refused");
    Err(TunError::AddressClash { range, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(address: &str, prefix: u8) -> LocalAddress {
        let address = address.parse().unwrap();
        LocalAddress {
            interface: "eth0".into(),
            index: Some(2),
            address,
            prefix,
            point_to_point: false,
            card: partyline_model::CardKind::Physical,
            deprecated: false,
        }
    }

    #[test]
    fn range_in_use_is_refused_with_its_interface() {
        let range = "10.77.0.5/24".parse().unwrap();
        for taken in [local("10.77.0.9", 24), local("10.1.2.3", 8), local("10.77.0.200", 28)] {
            let error = check_range(range, &[taken]).unwrap_err();
            assert!(matches!(&error, TunError::AddressClash { interface, .. } if interface == "eth0"));
            assert_eq!(AppError::from(error).code, ErrorCode::RangeConflict);
        }
        check_range(range, &[local("10.78.0.9", 24), local("fd00::1", 64)]).unwrap();
    }
}
