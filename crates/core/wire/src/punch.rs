//! Signals with which two members coordinate hole punching. They are sealed and travel over any signaling channel.
//!
//! One side offers an attempt: its NAT's behavior, the action that it is going to take, and the addresses at which it
//! will be seen. The other side prepares its own action, answers likewise, and starts half a round trip later. The
//! first side starts when the answer arrives, so that both send at about the same moment.

use std::net::SocketAddr;

use partyline_model::{Allocation, Filtering, Mapping};
use serde::{Deserialize, Serialize};

use crate::{
    exact::{Malformed, at_most, decode, encode},
    sealed::MAX_SIGNAL,
};

/// The version of the signals. Members with other versions use plain connectivity checks and relays.
pub const VERSION: u8 = 1;
/// The maximum number of addresses that one side announces for an attempt.
pub const MAX_ENDPOINTS: usize = 16;
/// The maximum number of sockets that one side opens for a spray.
pub const MAX_SOCKETS: u16 = 256;
/// The maximum number of packets that one side sprays.
pub const MAX_PACKETS: u16 = 4096;

/// A signal of one punch attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The number of the attempt, drawn by the side that offers it.
    pub attempt: u32,
    /// The contents.
    pub body: Body,
}

/// The contents of a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Proposes an attempt.
    Offer(PunchPlan),
    /// Accepts the attempt. The sender starts half a round trip later.
    Answer(PunchPlan),
    /// A probe arrived; carries its transaction id. Sent since the response may be filtered.
    ProbeReceived([u8; 12]),
    /// The attempt is over for the sender.
    End(EndReason),
}

/// One side's plan for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchPlan {
    /// The action that the side takes.
    pub action: PunchAction,
    /// The behavior of its NAT, as far as it is known.
    pub nat: NatPolicies,
    /// The addresses at which it will be seen, in the order in which it sends; at most [`MAX_ENDPOINTS`]. Empty if they
    /// cannot be predicted.
    pub endpoints: Vec<SocketAddr>,
}

/// The behavior of a NAT, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NatPolicies {
    /// The mapping behavior.
    pub mapping: Option<Mapping>,
    /// The filtering behavior.
    pub filtering: Option<Filtering>,
    /// The port assignment.
    pub allocation: Option<Allocation>,
}

/// What one side does in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PunchAction {
    /// Sends to the addresses that the other side announced.
    Predict,
    /// Opens many sockets towards the other side.
    Open {
        /// The number of sockets, at most [`MAX_SOCKETS`].
        sockets: u16,
    },
    /// Sends packets to random ports of the other side.
    Spray {
        /// The number of packets, at most [`MAX_PACKETS`].
        packets: u16,
    },
}

/// Why an attempt is over for one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The two members have a direct path.
    Connected,
    /// The method is switched off or cannot be prepared now.
    Unavailable,
    /// The attempt failed.
    Failed,
}

impl Signal {
    /// Encodes the signal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(encode(self));
        bytes
    }

    /// Decodes a signal.
    ///
    /// # Errors
    /// The bytes have another version, are too long or not in the expected form, or exceed a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (version, rest) = bytes.split_first().ok_or(Malformed::Encoding)?;
        if *version != VERSION {
            return Err(Malformed::Range { what: "version" });
        }
        let signal: Self = decode(rest, MAX_SIGNAL - 1)?;
        if let Body::Offer(plan) | Body::Answer(plan) = &signal.body {
            plan.check()?;
        }
        Ok(signal)
    }
}

impl PunchPlan {
    fn check(&self) -> Result<(), Malformed> {
        at_most(&self.endpoints, MAX_ENDPOINTS, "endpoints")?;
        match self.action {
            PunchAction::Open { sockets } if sockets > MAX_SOCKETS => {
                Err(Malformed::Range { what: "sockets" })
            }
            PunchAction::Spray { packets } if packets > MAX_PACKETS => {
                Err(Malformed::Range { what: "packets" })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(endpoints: usize, action: PunchAction) -> PunchPlan {
        let nat = NatPolicies {
            mapping: Some(Mapping::AddressDependent),
            filtering: None,
            allocation: Some(Allocation::Contiguous { delta: -2 }),
        };
        PunchPlan { action, nat, endpoints: vec![([198, 51, 100, 7], 40_000).into(); endpoints] }
    }

    fn offer(plan: PunchPlan) -> Signal {
        Signal { attempt: 7, body: Body::Offer(plan) }
    }

    #[test]
    fn signals_round_trip() {
        let largest = plan(MAX_ENDPOINTS, PunchAction::Open { sockets: MAX_SOCKETS });
        let bodies = [
            Body::Offer(largest.clone()),
            Body::Answer(plan(0, PunchAction::Predict)),
            Body::ProbeReceived([9; 12]),
            Body::End(EndReason::Failed),
        ];
        for body in bodies {
            let signal = Signal { attempt: u32::MAX, body };
            assert_eq!(Signal::decode(&signal.encode()), Ok(signal));
        }
        assert!(offer(largest).encode().len() <= MAX_SIGNAL);
    }

    #[test]
    fn signals_beyond_a_limit_or_of_another_version_are_rejected() {
        let rejected = |signal: Signal| Signal::decode(&signal.encode()).is_err();
        assert!(rejected(offer(plan(MAX_ENDPOINTS + 1, PunchAction::Predict))));
        assert!(rejected(offer(plan(0, PunchAction::Open { sockets: MAX_SOCKETS + 1 }))));
        assert!(rejected(offer(plan(0, PunchAction::Spray { packets: MAX_PACKETS + 1 }))));
        let mut bytes = offer(plan(1, PunchAction::Predict)).encode();
        bytes[0] = 2;
        assert_eq!(Signal::decode(&bytes), Err(Malformed::Range { what: "version" }));
        assert!(Signal::decode(&[]).is_err());
        let mut longer = offer(plan(1, PunchAction::Predict)).encode();
        longer.push(0);
        assert!(Signal::decode(&longer).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(signal) = Signal::decode(&bytes) {
                prop_assert_eq!(Signal::decode(&signal.encode()), Ok(signal));
            }
        }
    }
}
