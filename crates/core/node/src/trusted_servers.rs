//! Rendezvous servers that the user named or confirmed.

use std::collections::BTreeSet;

use partyline_model::AddressScope;
use serde::{Deserialize, Serialize};

/// The URLs of servers that may be at private addresses, and may name relays there. All others were named by an invite or
/// a charter, which somebody else wrote, and must not lead this computer's packets into its own network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct TrustedServers(BTreeSet<String>);

impl TrustedServers {
    /// Adds a server; returns true if it is new.
    pub(crate) fn insert(&mut self, url: &str) -> bool {
        self.0.insert(without_slash(url).to_owned())
    }

    /// Returns the addresses at which a server may be contacted.
    pub(crate) fn scope(&self, url: &str) -> AddressScope {
        if self.0.contains(without_slash(url)) { AddressScope::Any } else { AddressScope::Public }
    }
}

/// Texts are compared rather than parsed URLs: two parsers that disagree on the host could be played against each other.
fn without_slash(url: &str) -> &str {
    url.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_that_was_confirmed_may_be_at_private_addresses() {
        let mut trusted = TrustedServers::default();
        assert!(trusted.insert("ws://192.168.1.2:4480/") && !trusted.insert("ws://192.168.1.2:4480"));
        assert_eq!(trusted.scope("ws://192.168.1.2:4480"), AddressScope::Any);
        for other in
            ["ws://192.168.1.2:80", "wss://192.168.1.2:4480", "ws://192.168.1.2:4480@192.168.1.1", ""]
        {
            assert_eq!(trusted.scope(other), AddressScope::Public, "{other}");
        }
    }
}
