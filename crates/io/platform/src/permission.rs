//! The permission to create network devices.

use crate::TunError;

/// The device node of the TUN driver, and its number (Linux, Documentation/networking/tuntap.rst).
#[cfg(target_os = "linux")]
const NODE: &str = "/dev/net/tun";
#[cfg(target_os = "linux")]
const NODE_NUMBER: (u64, u64) = (10, 200);

/// Checks the permission to create network devices without creating one.
///
/// # Errors
/// A [`TunError`] that names what is missing; its hint says how to get it.
#[cfg(target_os = "linux")]
pub fn check_device_permission() -> Result<(), TunError> {
    let checked = check_node(std::path::Path::new(NODE)).and_then(|()| check_capability());
    checked.inspect_err(|error| tracing::debug!(reason = %error, "network devices cannot be created"))
}

/// Checks that a path is the TUN driver's device and can be opened. Opening it creates nothing.
#[cfg(target_os = "linux")]
fn check_node(path: &std::path::Path) -> Result<(), TunError> {
    use std::io::ErrorKind;

    let found = match std::fs::metadata(path) {
        Ok(metadata) => node_kind(&metadata),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(if has_driver() { TunError::NoNode } else { TunError::NoTunDriver });
        }
        // Without the right to look into the directory there is none to open what is in it.
        Err(_) => return Err(TunError::NodeRefused),
    };
    if let Some(found) = found {
        return Err(TunError::WrongNode { found });
    }
    match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(TunError::NodeRefused),
        // ENODEV or ENXIO: the node leads to no driver.
        Err(error) => {
            tracing::debug!(%error, "the TUN device cannot be opened");
            Err(TunError::NoTunDriver)
        }
    }
}

/// Describes what is in the place of the TUN driver's device; `None` if it is that.
#[cfg(target_os = "linux")]
fn node_kind(metadata: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    let (kind, device) = (metadata.file_type(), metadata.rdev());
    let number = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    if kind.is_char_device() {
        return (number != NODE_NUMBER).then(|| format!("the character device {}:{}", number.0, number.1));
    }
    let what = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_file() => "an ordinary file",
        kind if kind.is_block_device() => "a block device",
        _ => "a pipe or a socket",
    };
    Some(what.to_owned())
}

/// Returns true if the kernel has its TUN driver loaded. All containers of a computer share its drivers.
#[cfg(target_os = "linux")]
fn has_driver() -> bool {
    let drivers = std::fs::read_to_string("/proc/misc").unwrap_or_default();
    drivers.lines().any(|line| line.split_whitespace().eq(["200", "tun"]))
}

#[cfg(target_os = "linux")]
fn check_capability() -> Result<(), TunError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(TunError::Other)?;
    if has_net_admin(&status) {
        return Ok(());
    }
    Err(TunError::NoCapability { root: nix::unistd::geteuid().is_root() })
}

/// Returns true if the effective capabilities in `/proc/self/status` include CAP_NET_ADMIN (capabilities(7)).
#[cfg(target_os = "linux")]
fn has_net_admin(status: &str) -> bool {
    const CAP_NET_ADMIN: u64 = 12;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> CAP_NET_ADMIN & 1 == 1)
}

/// Checks the permission to create network devices without creating one.
///
/// # Errors
/// [`TunError::Permission`], whose hint says how to get it.
#[cfg(target_os = "macos")]
pub fn check_device_permission() -> Result<(), TunError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(TunError::Permission) }
}

/// Checks the right without using it.
///
/// # Errors
/// Always, until there is a device for this system.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub const fn check_device_permission() -> Result<(), TunError> {
    Err(TunError::Unsupported)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn net_admin_is_bit_twelve_of_the_effective_capabilities() {
        assert!(has_net_admin("Name:\tx\nCapEff:\t0000000000001000\n"));
        assert!(has_net_admin("CapEff:\t000001ffffffffff\n"));
        assert!(!has_net_admin("CapPrm:\t0000000000001000\nCapEff:\t0000000000000400\n"));
        assert!(!has_net_admin(""));
    }

    #[test]
    fn whatever_stands_in_the_place_of_the_node_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("tun");
        let found = |path: &Path| match check_node(path) {
            Err(TunError::WrongNode { found }) => found,
            other => panic!("{other:?}"),
        };
        let missing = check_node(&file).unwrap_err();
        assert!(matches!(missing, TunError::NoNode | TunError::NoTunDriver), "{missing}");
        std::fs::write(&file, "").unwrap();
        assert_eq!(found(&file), "an ordinary file");
        assert_eq!(found(place.path()), "a directory");
        assert_eq!(found(Path::new("/dev/null")), "the character device 1:3");
        let missing = check_node(&file.join("below a file")).unwrap_err();
        assert!(matches!(missing, TunError::NoNode | TunError::NoTunDriver), "{missing}");
    }

    #[test]
    fn every_fault_has_a_command_that_mends_it() {
        let faults = [
            TunError::NoTunDriver,
            TunError::NoNode,
            TunError::WrongNode { found: "a directory".to_owned() },
            TunError::NodeRefused,
            TunError::NoCapability { root: false },
            TunError::NoCapability { root: true },
        ];
        for fault in faults {
            assert!(fault.hint().contains('`'), "{fault}: {}", fault.hint());
            assert!(
                fault.to_string().contains("/dev/net/tun") || fault.to_string().contains("CAP_NET_ADMIN")
            );
        }
    }
}
