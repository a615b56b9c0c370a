//! What an input of a [`Membership`](crate::Membership) asks of the caller.

use std::fmt;

use partyline_model::{DeviceId, Handle, SessionNonce, Topic};

use crate::rules::Dismissal;

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
        self.extend(other.effects);
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

    pub(crate) fn extend(&mut self, effects: impl IntoIterator<Item = Effect>) {
        effects.into_iter().for_each(|effect| self.push(effect));
    }
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The device that signed the message.
    pub sender: DeviceId,
    /// True if the message is for everybody on the topic, so that it may be passed on as it is; false if it is for this
    /// device alone.
    pub broadcast: bool,
    /// What the message changed and the replies to it.
    pub outcome: Outcome,
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A member joined, or what is known of it changed.
    MemberChanged(DeviceId),
    /// A device is no longer a member.
    MemberGone(DeviceId, Departure),
    /// Name, servers, range or roles may have changed.
    CharterChanged,
    /// The party secret changed: enter the new topic, and stay on the old ones ([`crate::Membership::topics`]).
    Rekeyed,
    /// What this device announces changed: announce it again on every topic and channel.
    Announce,
    /// This device's virtual address changed.
    AddressChanged,
    /// The owner's device confirmed this membership.
    Confirmed,
    /// This device's membership does not count, or no longer.
    Dismissed(Dismissal),
    /// Who asks to be let in has changed, or what this device waits for until it is let in.
    JoinRequestsChanged,
    /// A member sent a signal for the path machine.
    Signal {
        /// The member.
        from: DeviceId,
        /// The signal, which only the path machine can decode.
        bytes: Vec<u8>,
    },
    /// Another run with this device's keys said something: answer it ([`crate::Membership::answer_run`]), the way it came.
    RunMet {
        /// The other run.
        run: SessionNonce,
        /// Which of the two goes on.
        standing: RunStanding,
    },
}

/// What is known of another run with the same keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStanding {
    /// It may have ended long ago.
    Unknown,
    /// It is alive, and gives way to this one.
    GivesWay,
    /// It is alive, and this one has given way: it must say and do nothing more in the party.
    GoesOn,
}

/// Why a device is no longer a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It left.
    Left,
    /// Its certificate no longer counts.
    Dismissed(Dismissal),
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it left"),
            Self::Dismissed(dismissal) => dismissal.fmt(f),
        }
    }
}

/// A sealed message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic it was sealed for.
    pub topic: Topic,
    /// The receiver; `None` for everybody on the topic.
    pub to: Option<DeviceId>,
    /// The receiver's handle on the topic.
    pub handle: Option<Handle>,
    /// The sealed message.
    pub message: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_outcomes_ask_for_everything_and_repeat_no_effect() {
        let outgoing = Outgoing { topic: Topic([1; 32]), to: None, handle: None, message: vec![1] };
        let mut first = Outcome {
            effects: vec![Effect::Announce],
            messages: vec![outgoing.clone()],
            addresses_changed: true,
            ..Outcome::default()
        };
        first.merge(Outcome {
            effects: vec![Effect::Rekeyed, Effect::Announce],
            messages: vec![outgoing],
            persist: true,
            ..Outcome::default()
        });
        assert_eq!(first.effects, [Effect::Announce, Effect::Rekeyed]);
        assert!(first.messages.len() == 2 && first.persist && first.addresses_changed);
    }
}
