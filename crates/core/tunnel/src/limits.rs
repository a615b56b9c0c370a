//! Sizes that callers of the tunnel have to respect, and rates that members have to.

use partyline_timing::Rate;

/// Bytes that WireGuard adds to a packet: a header of 16 and an authentication tag of 16.
pub const WIREGUARD_OVERHEAD: usize = 32;

/// The longest datagram that is processed, in bytes; longer ones are dropped. No socket carries more than a jumbo frame.
pub const MAX_DATAGRAM_LEN: usize = 9216;

/// The shortest scratch buffer that [`crate::Tunnel::handle_datagram`] accepts, in bytes: the longest handshake message.
pub const MIN_SCRATCH_LEN: usize = 148;

/// Broadcasts per second and at once that one source may send. Discovery needs a handful; some old games play by
/// broadcast, at most once per frame.
pub(crate) const BROADCAST_RATE: Rate = Rate::per_second(BROADCASTS_PER_SECOND, 500);

/// Broadcasts per second that one source may send in the long run.
pub const BROADCASTS_PER_SECOND: u64 = 250;

/// Handshake initiations per second and at once that are worth an X25519 operation to find out who sent them. Above it the
/// sender has to prove its address first.
pub(crate) const INITIATION_RATE: Rate = Rate::per_second(100, 200);

/// The same of handshake responses. Only a sender that saw one of our initiations can send one that costs as much, and a member
/// that comes back gets one from each of the others.
pub(crate) const RESPONSE_RATE: Rate = Rate::per_second(250, 500);

/// Handshake messages per second and at once that are worth an X25519 operation to one source, be its address proven or
/// not. Many members behind one router that come back at the same time are one source.
pub(crate) const SOURCE_HANDSHAKE_RATE: Rate = Rate::per_second(20, 100);
