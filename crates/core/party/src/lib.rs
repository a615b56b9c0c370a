//! Who belongs to a party: keys, invites, certificates, roster, revocation, virtual addresses.
//!
//! One [`Membership`] is one party as one device sees it. It does no input or output: the caller hands it sealed
//! messages and the time, and it returns one [`Outcome`]: what changed, what to send, and whether to persist. It does not
//! know over which channel a message came or goes, and it trusts none of them: who said a thing is settled by
//! signatures, what counts by the charter, and what was said before by sequence numbers.
//!
//! Everything that must survive a restart is in [`MembershipState`], which serializes; secrets in it are wiped from
//! memory when dropped and cannot be printed. [`Outcome::persist`] says when it must be written.

mod address;
mod chain;
mod clock;
mod error;
mod govern;
mod keys;
mod membership;
mod outcome;
mod receive;
mod roster;
mod rules;
mod seal;
mod state;
mod talk;
mod view;

pub use clock::{ClockReference, ClockSkew};
pub use error::{JoinError, PartyError, Refusal};
pub use keys::{DeviceKey, Secret};
pub use membership::{Membership, NewParty, TopicAccess};
pub use outcome::{Departure, Effect, Outcome, Outgoing, Received};
pub use partyline_wire::announcement::Reachability;
pub use roster::{MAX_MEMBERS, Member};
pub use rules::{CLOCK_TOLERANCE, Dismissal, Standing};
pub use state::MembershipState;

#[cfg(test)]
mod tests;
