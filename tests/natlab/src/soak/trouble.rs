//! What happens to a party in the course of its life.

use std::fmt;

use anyhow::{Context, Result};
use rand_core::RngCore;

/// The members, the owner first.
pub(super) const NAMES: [&str; 4] = ["anna", "ben", "cora", "dan"];
/// The member that is never restarted.
pub(super) const WITNESS: usize = 1;
/// After so many draws, every trouble has come up.
const MAX_DRAWS: usize = 1000;

/// A trouble, with the place of the member that it strikes in the list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Leaves and joins again.
    Rejoin(usize),
    /// Is kicked, and a new device joins in its place.
    Kick(usize),
    /// The owner moves the party to another range.
    Range,
    /// The service is stopped as by the system, and started again.
    Restart(usize),
    /// The service is killed and started again.
    Kill(usize),
    /// The server is killed and started again.
    ServerRestart,
    /// The cable is pulled for some seconds.
    Cable(usize),
    /// The router loses its line and its table.
    Router(usize),
    /// The computer sleeps for some seconds.
    Sleep(usize),
}

impl Trouble {
    /// Draws a trouble. The owner can neither leave nor be kicked, and the witness, on whom resources are measured, is
    /// neither kicked nor restarted.
    pub(super) fn draw(dice: &mut impl RngCore) -> Self {
        let mut below = |count: usize| dice.next_u32() as usize % count;
        let anyone = below(NAMES.len());
        let guest = 1 + below(NAMES.len() - 1);
        let restarted = [0, 2, 3][below(3)];
        let kicked = 2 + below(2);
        match below(10) {
            0 | 1 => Self::Rejoin(guest),
            2 => Self::Kick(kicked),
            3 => Self::Range,
            4 => Self::Restart(restarted),
            5 => Self::Kill(restarted),
            6 => Self::ServerRestart,
            7 => Self::Cable(anyone),
            8 => Self::Router(anyone),
            _ => Self::Sleep(anyone),
        }
    }
}

impl Trouble {
    /// Draws a trouble with one of `parts` in its name, if there are any.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub(super) fn draw_named(dice: &mut impl RngCore, parts: &[String]) -> Result<Self> {
        let named = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part));
        (0..MAX_DRAWS)
            .map(|_| Self::draw(dice))
            .find(|trouble| named(&trouble.to_string()))
            .with_context(|| format!("no trouble is called {}", parts.join(" or ")))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Rejoin(who) => write!(f, "{} leaves and comes back", NAMES[who]),
            Self::Kick(who) => write!(f, "{} is kicked and replaced", NAMES[who]),
            Self::Range => f.write_str("the range changes"),
            Self::Restart(who) => write!(f, "{}'s service restarts", NAMES[who]),
            Self::Kill(who) => write!(f, "{}'s service is killed", NAMES[who]),
            Self::ServerRestart => f.write_str("the server restarts"),
            Self::Cable(who) => write!(f, "{}'s cable is pulled", NAMES[who]),
            Self::Router(who) => write!(f, "{}'s router loses its table", NAMES[who]),
            Self::Sleep(who) => write!(f, "{} sleeps", NAMES[who]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, mem::discriminant};

    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn every_kind_of_trouble_is_drawn_and_none_restarts_the_witness() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let drawn: Vec<_> = (0..500).map(|_| Trouble::draw(&mut dice)).collect();
        let kinds: BTreeSet<_> = drawn.iter().map(|trouble| format!("{:?}", discriminant(trouble))).collect();
        assert_eq!(kinds.len(), 9);
        assert!(!drawn.contains(&Trouble::Restart(WITNESS)) && !drawn.contains(&Trouble::Kill(WITNESS)));
        assert!(!drawn.contains(&Trouble::Kick(0)) && !drawn.contains(&Trouble::Kick(WITNESS)));
        assert!(Trouble::draw_named(&mut dice, &["dan's router".into(), "flood".into()]).is_ok());
        assert!(Trouble::draw_named(&mut dice, &["flood".into()]).is_err());
        assert!(!drawn.contains(&Trouble::Rejoin(0)) && drawn.contains(&Trouble::Rejoin(WITNESS)));
    }
}
