//! What two members' path machines tell each other, sealed, before and while they cross their NATs together.
//!
//! One side offers a round: what its NAT does, what it is going to do, and at which addresses it will be seen. The
//! other prepares its own part, answers in kind and starts half a round trip later; the first starts when the answer
//! arrives, so that both send at about the same moment.

use std::net::SocketAddr;

use partyline_model::{Allocation, Filtering, Mapping};
use serde::{Deserialize, Serialize};

use crate::{
    exact::{Malformed, at_most, decode, encode},
    sealed::MAX_SIGNAL,
};

/// The version of these messages. Others are refused, and the members use plain checks and relays.
pub const VERSION: u8 = 1;
/// Most addresses that one side can name.
pub const MAX_ENDPOINTS: usize = 16;
/// Most sockets that one side opens for a spray.
pub const MAX_SOCKETS: u16 = 256;
/// Most packets that one side sprays.
pub const MAX_PACKETS: u16 = 2048;

/// A message of one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The round's number, drawn by the side that offers it.
    pub attempt: u32,
    /// What is said.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Let us do this.
    Offer(PunchPlan),
    /// I am ready and start half a round trip from now.
    Answer(PunchPlan),
    /// The probe with this transaction id reached me, and my answer may not reach you.
    ProbeReceived([u8; 12]),
    /// The round is over for me.
    End(EndReason),
}

/// One side's part in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchPlan {
    /// What it does.
    pub action: PunchAction,
    /// What its NAT does, as far as known.
    pub nat: NatPolicies,
    /// Where it will be seen, in the order in which it sends; at most [`MAX_ENDPOINTS`]. Empty if it cannot be foretold.
    pub endpoints: Vec<SocketAddr>,
}

/// A NAT's three policies, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NatPolicies {
    /// Which destinations share a port.
    pub mapping: Option<Mapping>,
    /// Whose packets are let in.
    pub filtering: Option<Filtering>,
    /// How ports are chosen.
    pub allocation: Option<Allocation>,
}

/// What a side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PunchAction {
    /// Sends to the addresses that the other side foretells.
    Predict,
    /// Opens so many sockets towards the other side, at most [`MAX_SOCKETS`].
    Open {
        /// How many.
        sockets: u16,
    },
    /// Sends so many packets to random ports of the other side, at most [`MAX_PACKETS`].
    Spray {
        /// How many.
        packets: u16,
    },
}

/// Why a round is over for one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// There is a direct path.
    Connected,
    /// The method is switched off, or cannot be prepared now.
    Unavailable,
    /// It was tried without success.
    Failed,
}

impl Signal {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(encode(self));
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is of another version, too long, not in its form, or breaks a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (version, rest) = bytes.split_first().ok_or(Malformed::Encoding)?;
        if *version != VERSION {
            return Err(Malformed::Range { what: "version" });
        }
        let signal: Self = decode(rest, MAX_SIGNAL - 1)?;
        if let Body::Offer(terms) | Body::Answer(terms) = &signal.body {
            terms.check()?;
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

    fn terms(endpoints: usize, part: PunchAction) -> PunchPlan {
        let nat = NatPolicies {
            mapping: Some(Mapping::AddressDependent),
            filtering: None,
            allocation: Some(Allocation::Contiguous { delta: -2 }),
        };
        PunchPlan { action: part, nat, endpoints: vec![([198, 51, 100, 7], 40_000).into(); endpoints] }
    }

    fn offer(terms: PunchPlan) -> Signal {
        Signal { attempt: 7, body: Body::Offer(terms) }
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let largest = terms(MAX_ENDPOINTS, PunchAction::Open { sockets: MAX_SOCKETS });
        let bodies = [
            Body::Offer(largest.clone()),
            Body::Answer(terms(0, PunchAction::Predict)),
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
    fn limits_and_versions_are_kept() {
        let refused = |signal: Signal| Signal::decode(&signal.encode()).is_err();
        assert!(refused(offer(terms(MAX_ENDPOINTS + 1, PunchAction::Predict))));
        assert!(refused(offer(terms(0, PunchAction::Open { sockets: MAX_SOCKETS + 1 }))));
        assert!(refused(offer(terms(0, PunchAction::Spray { packets: MAX_PACKETS + 1 }))));
        let mut bytes = offer(terms(1, PunchAction::Predict)).encode();
        bytes[0] = 2;
        assert_eq!(Signal::decode(&bytes), Err(Malformed::Range { what: "version" }));
        assert!(Signal::decode(&[]).is_err());
        let mut longer = offer(terms(1, PunchAction::Predict)).encode();
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
