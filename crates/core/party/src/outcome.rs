//! What comes out of a [`Membership`](crate::Membership).

use partyline_model::{DeviceId, Handle, Topic};

use crate::Dismissal;

/// Everything one input of a [`Membership`](crate::Membership) asks of its caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "messages must be sent, effects acted on and the state persisted"]
pub struct Outcome {
    /// What changed, in the order in which it happened, each at most once.
    pub effects: Vec<Effect>,
    /// Messages to send over every channel that reaches their receiver.
    pub messages: Vec<Outgoing>,
    /// True if [`Membership::state`](crate::Membership::state) must be written to disk now.
    pub persist: bool,
    /// True if anything changed that decides which member holds which virtual address: a claim, the set of members
    /// or the range.
    pub addresses_changed: bool,
}

impl Outcome {
    /// Appends what a later input asks for. Effects that are already listed are not repeated.
    pub fn merge(&mut self, other: Self) {
        other.effects.into_iter().for_each(|effect| self.push(effect));
        self.messages.extend(other.messages);
        self.persist |= other.persist;
        self.addresses_changed |= other.addresses_changed;
    }

    /// Adds an effect unless another cause has asked for it already.
    pub(crate) fn push(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The device that signed the message.
    pub sender: DeviceId,
    /// What the message changed and the replies to it.
    pub outcome: Outcome,
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A member is new, or what is known of it changed.
    MemberChanged(DeviceId),
    /// A member is one no longer.
    MemberGone(DeviceId, Departure),
    /// Name, servers, range or roles may have changed.
    CharterChanged,
    /// The party secret changed: enter the new topic, keep visiting the old ones ([`crate::Membership::topics`]).
    Rekeyed,
    /// What this device announces changed: announce again on every topic and channel.
    Announce,
    /// This device's virtual address changed.
    AddressChanged,
    /// The owner's device confirmed this membership.
    Confirmed,
    /// This device's membership does not count, or no longer.
    Dismissed(Dismissal),
    /// For the path machine.
    Signal {
        /// Who sent it.
        from: DeviceId,
        /// What it said.
        bytes: Vec<u8>,
    },
}

/// How a member went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It said goodbye.
    Left,
    /// Its certificate counts no longer.
    Dismissed(Dismissal),
}

/// A sealed message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// On which topic it is sealed.
    pub topic: Topic,
    /// To whom; `None` for everybody on the topic.
    pub to: Option<DeviceId>,
    /// The receiver's handle on the topic.
    pub handle: Option<Handle>,
    /// The sealed message.
    pub message: Vec<u8>,
}
