//! Notices on Linux: netlink messages about links, addresses and routes. Their contents are not used.

use std::{fmt, io};

use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

/// Multicast groups of rtnetlink(7): link, IPv4 and IPv6 addresses, IPv4 and IPv6 routes.
const GROUPS: [u32; 5] = [1, 5, 9, 7, 11];

pub(super) struct Notices(TokioSocket);

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}

impl Notices {
    pub(super) fn new() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(Self(socket))
    }

    pub(super) async fn next(&mut self) -> io::Result<()> {
        match self.0.recv(&mut Vec::with_capacity(8192)).await {
            // Notices were lost because there were so many: that is a notice too.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                tracing::debug!(reason = %error, "notices of the network lost");
                Ok(())
            }
            result => result,
        }
    }
}
