//! Which pairs of NATs allow a direct path at all, whatever a program does.
//!
//! Both sides may know each other's NAT behavior, exchange over a relay what they see, open many sockets, predict ports
//! that are preserved or contiguous, and try random ports. Each has [`MAX_PACKETS`] packets, far fewer than there are
//! ports, and does not wait for mappings to expire. Three properties of each side decide:
//!
//! - Its port is *predictable*: shared by all destinations (EI mapping), preserved or contiguous.
//! - Its port is *steady*: the same for every port of the other side (EI or HD mapping). Then one socket can try many
//!   ports of the other side from a single port of its own.
//! - It is *open*: it lets in any port of an address that it has sent to (EI or HD filtering). Then it can be found by
//!   trying ports, and learns the source of the packet that finds it.
//!
//! Of the 378 pairs of the 27 types, 365 can have a direct path. In the other 13, two unknown values have to be guessed
//! at once, of which a packet can try only one. Among 64,512 ports and with so few packets the chance is about 3 %.

use std::fmt;

use partyline_model::{Allocation, Filtering, Mapping};

use crate::Rules;

/// The maximum number of packets that each side sends to find the other.
pub const MAX_PACKETS: usize = 2048;

/// How a direct path is established.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Technique {
    /// Both ports are predictable.
    Meet,
    /// One port is predictable and steady.
    Spray,
    /// One side is open, and the other is open too or its own port is steady.
    SprayOpen,
    /// One port is predictable, and the other side is open.
    SprayThenMeet,
    /// One port is predictable and its side open, and the other port is steady.
    LearnThenMeet,
    /// One side is open, and the other port is steady.
    SprayTwice,
}

/// Why no direct path is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// Neither port is predictable, and neither side is open.
    BothHidden,
    /// One port is unpredictable, the other changes with every try, and neither side is open.
    OneShot,
    /// One side has an unpredictable port for every destination and lets in only that destination; the other side's
    /// port changes too.
    NeverBack,
    /// As [`Self::NeverBack`], but the other side preserves ports and is open: it could use a port again once its
    /// mapping has expired.
    Expiry,
}

impl fmt::Display for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meet => "Both ports are known beforehand, so both sides send at the same time.",
            Self::Spray => {
                "One port is known and stays: the other side opens many sockets to it, and it tries ports until it \
                 meets one."
            }
            Self::SprayOpen => {
                "One side opens many sockets and lets in the other's address: it is found by trying ports, and its \
                 answer is let in."
            }
            Self::SprayThenMeet => {
                "One side is found by trying ports, and is then met from the known port that it expects."
            }
            Self::LearnThenMeet => {
                "The side with the known port learns the other's port, which stays, and meets it from its next port."
            }
            Self::SprayTwice => {
                "One side is found from a port that stays, opens many sockets to that port, and is found again."
            }
        })
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothHidden => {
                "Both ports are random and nothing is let in from others, so both would have to be guessed at once."
            }
            Self::OneShot => {
                "One port is random, and every guess comes from another port than the one that is let in."
            }
            Self::NeverBack => {
                "One side answers every new port from another random port, and lets in only who was sent to from it."
            }
            Self::Expiry => {
                "One side answers every new port from another random port; only a port that is used again once its \
                 mapping has expired could meet it."
            }
        })
    }
}

/// Returns the technique with which two computers can establish a direct path. Each is behind one NAT of its own that
/// filters by mapping and has no other users. The order of the two makes no difference.
///
/// # Errors
/// No technique can; the obstacle is the reason.
pub fn direct(one: &Rules, other: &Rules) -> Result<Technique, Obstacle> {
    let (one, other) = (Side::of(one), Side::of(other));
    match (one.predictable, other.predictable) {
        (true, true) => Ok(Technique::Meet),
        (true, false) => predictable_and_random(one, other),
        (false, true) => predictable_and_random(other, one),
        (false, false) => both_random(one, other),
    }
}

fn predictable_and_random(known: Side, random: Side) -> Result<Technique, Obstacle> {
    match (known.steady, random.open, random.steady, known.open) {
        (true, _, _, _) => Ok(Technique::Spray),
        (false, true, _, _) => Ok(Technique::SprayThenMeet),
        (false, false, true, true) => Ok(Technique::LearnThenMeet),
        (false, false, false, true) if known.preserves => Err(Obstacle::Expiry),
        (false, false, false, true) => Err(Obstacle::NeverBack),
        (false, false, _, false) => Err(Obstacle::OneShot),
    }
}

fn both_random(one: Side, other: Side) -> Result<Technique, Obstacle> {
    match (one.open, other.open) {
        (true, true) => Ok(Technique::SprayOpen),
        (true, false) => open_and_closed(one, other),
        (false, true) => open_and_closed(other, one),
        (false, false) => Err(Obstacle::BothHidden),
    }
}

fn open_and_closed(open: Side, closed: Side) -> Result<Technique, Obstacle> {
    match (open.steady, closed.steady) {
        (true, _) => Ok(Technique::SprayOpen),
        (false, true) => Ok(Technique::SprayTwice),
        (false, false) => Err(Obstacle::NeverBack),
    }
}

#[derive(Debug, Clone, Copy)]
struct Side {
    predictable: bool,
    steady: bool,
    open: bool,
    preserves: bool,
}

impl Side {
    fn of(rules: &Rules) -> Self {
        Self {
            predictable: rules.mapping == Mapping::EndpointIndependent
                || rules.allocation != Allocation::Random,
            steady: rules.mapping != Mapping::AddressAndPortDependent,
            open: rules.filtering != Filtering::AddressAndPortDependent,
            preserves: rules.allocation == Allocation::Preserving,
        }
    }
}
