//! What connectivity tells the other parts of the node, and asks the engine to do.

use std::time::Duration;

use partyline_model::{Candidate, DeviceId, Method, NatProfile, PartyId, PathKind};

use crate::{control::ControlMessage, io::Output};

/// Something for another part of the node.
#[derive(Debug)]
pub(crate) enum Event {
    /// For the engine, as it is.
    Output(Output),
    /// The candidates to announce changed.
    Candidates(Vec<Candidate>),
    /// What the NAT does was measured, or changed.
    Nat(NatProfile),
    /// The router has another address, or lost its mappings.
    PublicAddressChanged,
    /// The router accepts no more new flows; sprays may create so many from now on.
    RouterFull { spray_limit: u32 },
    /// A signal between path machines has to reach a member, over every channel there is.
    Signal {
        /// The party both are in.
        party: PartyId,
        to: DeviceId,
        bytes: Vec<u8>,
    },
    /// The session with a member came up.
    SessionUp { party: PartyId, member: DeviceId },
    /// The session with a member is gone.
    SessionDown { party: PartyId, member: DeviceId },
    /// A message of a member's engine arrived through the tunnel.
    Control { party: PartyId, from: DeviceId, message: ControlMessage },
    /// A check of the path in use was answered, or was not.
    Sampled {
        /// The member at its far end.
        member: (PartyId, DeviceId),
        /// The round trip; `None` if no answer came.
        rtt: Option<Duration>,
        /// The kind of path.
        kind: PathKind,
    },
    /// A connection method succeeded, or was given up.
    Attempted {
        method: Method,
        /// True if packets can go that way.
        succeeded: bool,
        /// How long that took to find out.
        took: Duration,
    },
    /// A relay or STUN server that answered has fallen silent; the rendezvous server beside it may have, too.
    ServerSilent,
    /// The snapshot may have changed.
    Changed,
}
