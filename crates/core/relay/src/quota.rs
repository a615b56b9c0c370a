//! How many allocations each user, each client address and the whole server have.

use std::{
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashMap};
use tracing::trace;

use partyline_model::host_network;

use crate::{counters::Refusal, credentials::quota_name, rejection::Rejection, settings::Quotas};

/// Allocations in use, by whom quotas count them.
#[derive(Debug)]
pub(crate) struct QuotaUsage {
    total: usize,
    by_user: HashMap<String, usize, FixedState>,
    by_source: HashMap<IpAddr, usize, FixedState>,
}

impl QuotaUsage {
    pub(crate) fn new(hasher: &FixedState) -> Self {
        let (by_user, by_source) =
            (HashMap::with_hasher(hasher.clone()), HashMap::with_hasher(hasher.clone()));
        Self { total: 0, by_user, by_source }
    }

    /// Checks whether a user may have another allocation from this address.
    pub(crate) fn check(
        &self,
        quotas: &Quotas,
        username: &str,
        address: SocketAddr,
    ) -> Result<(), Rejection> {
        let user = self.by_user.get(quota_name(username)).copied().unwrap_or(0);
        let source = self.by_source.get(&host_network(address.ip())).copied().unwrap_or(0);
        if user >= quotas.allocations_per_user {
            Err(Refusal::AllocationQuotaReached.because("allocations per user"))
        } else if source >= quotas.allocations_per_address {
            Err(Refusal::AllocationQuotaReached.because("allocations per client address"))
        } else if self.total >= quotas.allocations {
            Err(Refusal::InsufficientCapacity.because("allocations of the server"))
        } else {
            Ok(())
        }
    }

    /// Counts an allocation.
    pub(crate) fn add(&mut self, username: &str, address: SocketAddr) {
        self.total += 1;
        *self.by_user.entry_ref(quota_name(username)).or_insert(0) += 1;
        *self.by_source.entry(host_network(address.ip())).or_insert(0) += 1;
        trace!(total = self.total, users = self.by_user.len(), sources = self.by_source.len(), "quota taken");
    }

    /// Counts an allocation no longer.
    pub(crate) fn remove(&mut self, username: &str, address: SocketAddr) {
        self.total = self.total.saturating_sub(1);
        decrement(&mut self.by_user, quota_name(username));
        decrement(&mut self.by_source, &host_network(address.ip()));
        trace!(total = self.total, users = self.by_user.len(), sources = self.by_source.len(), "quota freed");
    }
}

/// Counts one less and removes an entry that reaches zero, so that the table does not grow with former clients.
fn decrement<K, Q>(counts: &mut HashMap<K, usize, FixedState>, key: &Q)
where
    K: Hash + Eq,
    Q: Hash + Equivalent<K> + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(host: u8) -> SocketAddr {
        ([192, 0, 2, host], 1).into()
    }

    #[test]
    fn each_quota_is_checked_and_freed_again() {
        let quotas = Quotas {
            allocations: 3,
            allocations_per_user: 1,
            allocations_per_address: 2,
            ..Quotas::default()
        };
        let mut usage = QuotaUsage::new(&FixedState::with_seed(1));
        let refused = |usage: &QuotaUsage, user, host| {
            usage.check(&quotas, user, client(host)).err().map(|rejection| rejection.reason)
        };
        usage.add("100:alice", client(1));
        assert_eq!(refused(&usage, "200:alice", 2), Some("allocations per user"));
        usage.add("bob", client(1));
        assert_eq!(refused(&usage, "carol", 1), Some("allocations per client address"));
        usage.add("carol", client(2));
        assert_eq!(refused(&usage, "dave", 3), Some("allocations of the server"));
        usage.remove("100:alice", client(1));
        assert_eq!(refused(&usage, "200:alice", 2), None);
        usage.remove("bob", client(1));
        usage.remove("carol", client(2));
        assert!(usage.by_user.is_empty() && usage.by_source.is_empty());
    }
}
