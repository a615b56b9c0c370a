//! The exchange of traffic between two members at the end of most scenarios.

use anyhow::Result;

use super::Member;
use crate::traffic;

/// Bytes sent over each TCP connection.
const TCP_BYTES: usize = 4 << 20;
/// Number of datagrams sent in each direction, and their size in bytes.
const DATAGRAMS: (u32, usize) = (500, 1200);

/// Sends TCP and UDP through the tunnel in both directions, and checks every byte.
pub(super) fn exchange_traffic(one: &Member, other: &Member) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let address = to.address()?.into();
        traffic::tcp(&from.host, &to.host, address, TCP_BYTES)?;
        traffic::udp(&from.host, &to.host, address, DATAGRAMS.0, DATAGRAMS.1)?;
    }
    Ok(())
}
