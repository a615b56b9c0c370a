//! What comes out of a [`Membership`](crate::Membership).

use partyline_model::{DeviceId, Handle, Topic};

use crate::Dismissal;

/// What an input changed, and what to send because of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "replies are to be sent and effects to be acted on"]
pub struct Outcome {
    /// Who sent the message; `None` if nothing was received.
    pub from: Option<DeviceId>,
    /// In the order they happened.
    pub effects: Vec<Effect>,
    /// Over whichever channels reach the receiver.
    pub messages: Vec<Outgoing>,
}

impl Outcome {
    /// Several causes may ask for the same thing; once is enough.
    pub(crate) fn say_once(&mut self) {
        let mut said = Vec::new();
        self.effects.retain(|effect| {
            let new = !said.contains(effect);
            said.push(effect.clone());
            new
        });
    }
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
