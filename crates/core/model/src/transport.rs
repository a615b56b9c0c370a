//! What datagrams and messages leave and arrive by: the computer's own UDP sockets and streams.

/// One of the computer's UDP sockets. An IPv4 and an IPv6 socket on the same port share an id.
///
/// All parts that use sockets share one id space, so that an id alone says whose socket it is:
///
/// | ids | use | allocated by |
/// |---|---|---|
/// | 0 | [`SocketId::MAIN`], shared by all parties | the engine |
/// | 1 to 0x7fff | hole punching | `partyline-paths` |
/// | 0x8000 to 0xefff | [`SocketId::probe`], NAT behavior discovery | `partyline-netcheck` |
/// | 0xf000 to 0xffff | [`SocketId::second_port`], leased for filtering tests of other members | `partyline-node` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u16);

impl SocketId {
    /// The socket that all parties share.
    pub const MAIN: Self = Self(0);
    /// The highest id of a hole-punching socket; the lowest is 1.
    pub const LAST_PUNCH: Self = Self(0x7fff);
    const FIRST_PROBE: u16 = 0x8000;
    const FIRST_SECOND_PORT: u16 = 0xf000;

    /// Returns the id of the `n`-th socket of NAT behavior discovery. Numbers above 0x6fff wrap around.
    #[must_use]
    pub const fn probe(n: u16) -> Self {
        Self(Self::FIRST_PROBE + n % (Self::FIRST_SECOND_PORT - Self::FIRST_PROBE))
    }

    /// Returns the id of the `n`-th second port. Numbers above 0xfff wrap around.
    #[must_use]
    pub const fn second_port(n: u16) -> Self {
        Self(Self::FIRST_SECOND_PORT | n & 0xfff)
    }

    /// Returns true for a socket of NAT behavior discovery.
    #[must_use]
    pub const fn is_probe(self) -> bool {
        self.0 >= Self::FIRST_PROBE && self.0 < Self::FIRST_SECOND_PORT
    }
}

/// A TURN connection over TCP or TLS. Ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

#[cfg(test)]
mod tests {
    use super::SocketId;

    #[test]
    fn id_ranges_do_not_overlap() {
        assert!(!SocketId::MAIN.is_probe() && !SocketId::LAST_PUNCH.is_probe());
        assert_eq!(
            (SocketId::probe(0).0, SocketId::probe(0x6fff).0, SocketId::probe(0x7000).0),
            (0x8000, 0xefff, 0x8000)
        );
        assert!(
            (0..=u16::MAX).all(|n| SocketId::probe(n).is_probe() && !SocketId::second_port(n).is_probe())
        );
        assert_eq!((SocketId::second_port(0).0, SocketId::second_port(u16::MAX).0), (0xf000, 0xffff));
    }
}
