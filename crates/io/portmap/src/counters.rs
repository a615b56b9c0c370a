//! Counters of one protocol.

use crate::error::MappingError;

/// What happened to one protocol's mapping since the mapper started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Mappings granted that did not exist before, or with another external address.
    pub granted: u64,
    /// Leases renewed.
    pub renewed: u64,
    /// Mappings that the router had lost or changed.
    pub lost: u64,
    /// Mappings deleted on request, those of earlier runs included.
    pub deleted: u64,
    /// Requests refused by the router, with or without a code.
    pub refused: u64,
    /// Requests that no router answered.
    pub no_response: u64,
    /// Requests to a router that does not speak the protocol.
    pub not_supported: u64,
    /// Requests answered in a way that the protocol does not allow.
    pub invalid_response: u64,
    /// Requests that this computer's network could not carry, for want of a gateway or an address as well.
    pub network_error: u64,
    /// Times that the circuit breaker opened.
    pub circuit_opened: u64,
}

impl Counters {
    /// Iterates over all counters with their stable label values.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("granted", self.granted),
            ("renewed", self.renewed),
            ("lost", self.lost),
            ("deleted", self.deleted),
            ("refused", self.refused),
            ("no_response", self.no_response),
            ("not_supported", self.not_supported),
            ("invalid_response", self.invalid_response),
            ("network_error", self.network_error),
            ("circuit_opened", self.circuit_opened),
        ]
        .into_iter()
    }

    /// Counts a failed request by its reason.
    pub(crate) const fn on_error(&mut self, error: &MappingError) {
        let counter = match error {
            MappingError::NoResponse => &mut self.no_response,
            MappingError::NotSupported(_) => &mut self.not_supported,
            MappingError::Refused { .. } | MappingError::Denied { .. } => &mut self.refused,
            MappingError::InvalidResponse(_) => &mut self.invalid_response,
            MappingError::NoGateway | MappingError::NoIpv6Address | MappingError::Network(_) => {
                &mut self.network_error
            }
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Protocol;

    #[test]
    fn failure_is_counted_by_its_reason() {
        let mut counters = Counters::default();
        counters.on_error(&MappingError::NoResponse);
        counters.on_error(&MappingError::NotSupported(Protocol::Pcp));
        counters.on_error(&MappingError::refused("no"));
        counters.on_error(&MappingError::Denied { code: 4, reason: "no" });
        counters.on_error(&MappingError::InvalidResponse("?".into()));
        counters.on_error(&MappingError::NoGateway);
        let counted: BTreeMap<_, _> = counters.each().filter(|(_, count)| *count > 0).collect();
        let expected = [
            ("invalid_response", 1),
            ("network_error", 1),
            ("no_response", 1),
            ("not_supported", 1),
            ("refused", 2),
        ];
        assert_eq!(counted, BTreeMap::from(expected));
    }

    #[test]
    fn every_counter_has_a_label_of_its_own() {
        let labels: BTreeMap<_, _> = Counters::default().each().collect();
        assert_eq!(labels.len(), Counters::default().each().count());
    }
}
