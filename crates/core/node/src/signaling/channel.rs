//! The notion of a channel: one way by which sealed messages travel between the members of a party.
//!
//! A sealed message is encrypted for the party and signed by its sender, so a channel is trusted with nothing but
//! carrying bytes. All channels are used side by side; the first to deliver wins, and what arrives again is dropped by
//! its sequence number. To keep that cheap, every channel can be asked whom it [reaches](Channel::reaches) by itself,
//! and a later one leaves out those whom an earlier one reaches.
//!
//! A further channel implements [`Channel`] and is listed in
//! [`Channels`](super::channels::Channels), [`ChannelKind`] and [`SignalingCounters`]; no other channel changes.
//!
//! What the words mean, from the inside out:
//!
//! ```text
//! signal            what the path machines of two members tell each other (punching)
//!  └ sealed message encrypted for the party, signed by its sender: an announcement, a charter, a leave, a signal
//!     ├ frame           to and from a rendezvous server, over a WebSocket
//!     ├ beacon          by multicast on the local network
//!     ├ direct          in datagrams to an address at which a member answers
//!     └ control message to a member's engine, inside the tunnel to it
//! ```

use std::collections::VecDeque;

use partyline_model::{DeviceId, Now, Topic};
use partyline_party::{Outcome, Outgoing, Reachability};
use rand_chacha::ChaCha20Rng;

use super::{channel_kind::ChannelKind, counters::SignalingCounters, event::Event, party::LocalParty};
use crate::io::Output;

/// What every operation of a channel may use.
pub(super) struct Context<'a> {
    /// The present moment.
    pub now: Now,
    /// Randomness, for sealing and for choosing among members.
    pub rng: &'a mut ChaCha20Rng,
    /// How this device can be reached.
    pub reach: &'a Reachability,
    /// Where the channel puts what has to be done.
    pub events: &'a mut VecDeque<Event>,
    /// Counters of all channels.
    pub counters: &'a mut SignalingCounters,
}

impl Context<'_> {
    /// Asks the engine for something.
    pub(super) fn output(&mut self, output: Output) {
        self.events.push_back(Event::Output(output));
    }

    /// Takes the one message of an outcome, and sees to it that the state it was made with is stored.
    pub(super) fn take_message(&mut self, mut outcome: Outcome) -> Option<Outgoing> {
        if outcome.persist {
            self.output(Output::Save);
        }
        outcome.messages.pop()
    }

    /// Counts messages put on their way.
    pub(super) fn sent(&mut self, kind: ChannelKind, count: usize) {
        self.counters.of(kind).sent += count as u64;
    }
}

/// Whether an earlier channel reaches all these members on a topic.
pub(super) type Covered<'a> = &'a dyn Fn(&LocalParty, &Topic, &[DeviceId]) -> bool;

/// One way by which sealed messages travel.
pub(super) trait Channel {
    /// Returns the kind of this channel.
    fn kind(&self) -> ChannelKind;

    /// Returns true if each of `members` gets by itself, over this channel, what is announced or sent to it on the
    /// topic. With several members it is one and the same carrier that reaches them all, so that each also gets what
    /// the others announce.
    fn reaches(&self, party: &LocalParty, topic: &Topic, members: &[DeviceId]) -> bool;

    /// Carries a sealed message to its receiver, or to every member if it names none.
    fn send(&mut self, cx: &mut Context<'_>, party: &LocalParty, message: &Outgoing, covered: Covered<'_>);

    /// Announces how this device can be reached.
    fn announce(&mut self, cx: &mut Context<'_>, party: &mut LocalParty, covered: Covered<'_>);
}
