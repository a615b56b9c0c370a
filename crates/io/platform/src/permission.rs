//! The permission to create network devices.

use crate::TunError;

/// Checks the permission to create network devices without creating one.
///
/// # Errors
/// [`TunError::NoTunDriver`] or [`TunError::Permission`], whose hints say how to get it.
#[cfg(target_os = "linux")]
pub fn check_device_permission() -> Result<(), TunError> {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Err(TunError::NoTunDriver);
    }
    let status = std::fs::read_to_string("/proc/self/status").map_err(TunError::Other)?;
    if has_net_admin(&status) {
        return Ok(());
    }
    tracing::debug!(reason = "CAP_NET_ADMIN is not effective", "network devices cannot be created");
    Err(TunError::Permission)
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
/// [`TunError::NoTunDriver`] or [`TunError::Permission`], whose hints say how to get it.
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
    use super::has_net_admin;

    #[test]
    fn net_admin_is_bit_twelve_of_the_effective_capabilities() {
        assert!(has_net_admin("Name:\tx\nCapEff:\t0000000000001000\n"));
        assert!(has_net_admin("CapEff:\t000001ffffffffff\n"));
        assert!(!has_net_admin("CapPrm:\t0000000000001000\nCapEff:\t0000000000000400\n"));
        assert!(!has_net_admin(""));
    }
}
