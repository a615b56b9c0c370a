//! What two NATs allow at all, whatever a program does.
//!
//! Both sides may know each other's NAT, tell each other over a relay what they see, open many sockets, foretell ports
//! that are preserved or counted, and try random ports. They have [`MAX_PACKETS`] packets each, far fewer than there
//! are ports, and do not wait for mappings to expire. What decides is which of three things each side has:
//!
//! - Its port is *known*: shared by all destinations (EI mapping), preserved or counted.
//! - Its port is *steady*: the same for every port of the other side (EI or HD mapping). Then one socket can try many
//!   ports of the other side from a single port of its own.
//! - It is *open*: it lets in any port of an address that it has written to (EI or HD filtering). Then it can be found
//!   by trying ports, and hears from where.
//!
//! Of the 378 pairs of the 27 types, 365 can have a direct path. In the other 13 a packet would have to meet two things at
//! once of which it can only try one: among 64,512 ports and with so few packets that is a chance of some 3 %.

use std::fmt;

use partyline_model::{Allocation, Filtering, Mapping};

use crate::Rules;

/// Packets that each side may send at most to find the other.
pub const MAX_PACKETS: usize = 2048;

/// How a direct path comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Technique {
    /// Both ports are known.
    Meet,
    /// One port is known and steady.
    Spray,
    /// One side is open, and either the other is too or one of them is steady.
    SprayOpen,
    /// One port is known, the other side open.
    SprayThenMeet,
    /// One port is known and its side open, the other steady.
    LearnThenMeet,
    /// One side is open, the other steady.
    SprayTwice,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// Both ports are unknown, and neither side is open.
    BothHidden,
    /// One port is unknown, the other changes with every try, and neither side is open.
    OneShot,
    /// One side changes to an unknown port with every destination and lets in that one alone; the other changes too.
    NeverBack,
    /// The same, but the other side preserves ports and is open: it could use a port again, once its mapping expired.
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
                "The side whose port is known hears the other's port, which stays, and meets it from its next port."
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

/// Whether any strategy can give two computers a direct path, each behind one NAT of its own that filters by mapping
/// and is used by nobody else, and how or why not. Does not depend on the order.
///
/// # Errors
/// None can; the obstacle is the reason.
pub fn direct(one: &Rules, other: &Rules) -> Result<Technique, Obstacle> {
    let (one, other) = (Side::of(one), Side::of(other));
    match (one.known, other.known) {
        (true, true) => Ok(Technique::Meet),
        (true, false) => known_and_random(one, other),
        (false, true) => known_and_random(other, one),
        (false, false) => both_random(one, other),
    }
}

fn known_and_random(known: Side, random: Side) -> Result<Technique, Obstacle> {
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
    known: bool,
    steady: bool,
    open: bool,
    preserves: bool,
}

impl Side {
    fn of(rules: &Rules) -> Self {
        Self {
            known: rules.mapping == Mapping::EndpointIndependent || rules.allocation != Allocation::Random,
            steady: rules.mapping != Mapping::AddressAndPortDependent,
            open: rules.filtering != Filtering::AddressAndPortDependent,
            preserves: rules.allocation == Allocation::Preserving,
        }
    }
}
