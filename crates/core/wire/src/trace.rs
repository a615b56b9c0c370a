//! The id under which a connection attempt is traced.

use partyline_model::{Handle, Topic};
use sha2::{Digest, Sha256};

/// Bytes of a trace id, as in OpenTelemetry and W3C Trace Context.
pub const TRACE_ID_LEN: usize = 16;

/// Returns the trace id of a connection attempt between two members of a topic.
///
/// Both members know both handles, and the rendezvous server sees them when it forwards messages between the two. All
/// three compute the same id without any message about it, in whichever order the handles are given. It reveals
/// nothing to anybody else: handles and topics are derived from the party secret. It is never all zeros, which the
/// trace formats reserve.
#[must_use]
pub fn trace_id(topic: &Topic, a: Handle, b: Handle) -> [u8; TRACE_ID_LEN] {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let hash = Sha256::new_with_prefix(b"partyline trace v1\0").chain_update(topic.0);
    let digest = hash.chain_update(low.0).chain_update(high.0).finalize();
    let mut id = [0; TRACE_ID_LEN];
    id.copy_from_slice(&digest[..TRACE_ID_LEN]);
    if id == [0; TRACE_ID_LEN] {
        id[TRACE_ID_LEN - 1] = 1;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_members_compute_the_same_id() {
        let (topic, a, b) = (Topic([1; 32]), Handle([2; 16]), Handle([3; 16]));
        assert_eq!(trace_id(&topic, a, b), trace_id(&topic, b, a));
    }

    #[test]
    fn other_pairs_and_topics_have_other_ids() {
        let (topic, a, b) = (Topic([1; 32]), Handle([2; 16]), Handle([3; 16]));
        let id = trace_id(&topic, a, b);
        assert_ne!(id, trace_id(&Topic([9; 32]), a, b));
        assert_ne!(id, trace_id(&topic, a, Handle([4; 16])));
        assert_ne!(id, [0; TRACE_ID_LEN]);
    }
}
