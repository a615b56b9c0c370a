//! Who belongs to a party: keys, invites, certificates, roster, revocation, virtual addresses.
//!
//! One [`Membership`] is one party as one device sees it. It does no input or output: the caller hands it sealed
//! messages and the time, and it returns one [`Outcome`]: what changed, what to send, and whether to persist. It does
//! not know over which channel a message came or goes, and it trusts none of them: signatures settle who sent a message,
//! the charter settles what it counts for, and sequence numbers settle whether it is new.
//!
//! Everything that must survive a restart is in [`MembershipState`], which serializes; secrets in it are wiped from
//! memory when dropped and cannot be printed. [`Outcome::persist`] says when it must be written.
//!
//! ```
//! use partyline_model::{InviteTerms, Timestamp};
//! use partyline_party::{DeviceKey, Membership, NewParty, Reachability};
//! use rand_core::SeedableRng as _;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (now, mut rng) = (Timestamp(1_790_000_000_000), rand_chacha::ChaCha8Rng::seed_from_u64(1));
//! let (ana, ben) = (DeviceKey::generate(&mut rng), DeviceKey::generate(&mut rng));
//! let party = NewParty {
//!     name: "Friday games".to_owned(),
//!     display_name: "Ana".to_owned(),
//!     servers: Vec::new(),
//!     range: "10.77.3.0/24".parse()?,
//! };
//! let mut owner = Membership::create(now, &mut rng, &ana, party)?;
//! let (invite, _persist) = owner.create_invite(now, &mut rng, InviteTerms::FRIENDS)?;
//! let mut member = Membership::join(now, &mut rng, &ben, &invite, "Ben".to_owned())?;
//!
//! // The joiner sends a join request in the lobby; the owner's device lets it in with the charter and the party secret.
//! let topic = member.topic();
//! let hello = member.announcement(now, &mut rng, &topic, &Reachability::default());
//! let received = owner.receive(now, &mut rng, &topic, &hello.messages[0].message)?;
//! assert_eq!(received.sender, ben.id());
//! let answer = &received.outcome.messages[0];
//! let _ = member.receive(now, &mut rng, &topic, &answer.message)?;
//! assert!(member.address_v4().is_some());
//! # Ok(())
//! # }
//! ```

mod address;
mod admin;
mod blinding;
mod chain;
mod charter;
mod claim;
mod clock;
mod contact_list;
mod contest;
mod counters;
mod epoch;
mod error;
#[cfg(test)]
mod fixtures;
mod identity;
mod inbound;
mod invites;
mod join_requests;
mod joining;
mod keys;
mod lobby;
mod member;
mod membership;
mod outbound;
mod outcome;
mod reconcile;
mod rekey;
mod replay;
mod revocations;
mod roster;
mod rules;
mod seal;
mod sealed_box;
mod secrets;
mod sequence;
mod state;
mod topic_keys;
mod xeddsa;

pub use clock::{ClockSkew, InviteVerdict, WrongClock};
pub use contact_list::{ContactListKeys, Day};
pub use counters::RefusalCounters;
pub use error::{JoinError, PartyError, Refusal};
pub use invites::OpenInvite;
pub use join_requests::PendingJoin;
pub use keys::{DeviceKey, Secret};
pub use member::Member;
pub use membership::{Membership, NewParty, TopicAccess, TopicPurpose};
pub use outcome::{Departure, Effect, Outcome, Outgoing, Received, RunStanding};
pub use partyline_wire::announcement::Reachability;
pub use roster::MAX_MEMBERS;
pub use rules::{CLOCK_TOLERANCE, Dismissal, Standing};
pub use state::MembershipState;
