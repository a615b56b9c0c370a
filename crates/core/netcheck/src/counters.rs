//! Counters of requests and of their outcomes.

/// The tests for which requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Test {
    Contact,
    Keepalive,
    Mapping,
    Filtering,
    Allocation,
    Hairpin,
    Lifetime,
}

impl Test {
    /// Returns the test's label in logs and metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::Keepalive => "keepalive",
            Self::Mapping => "mapping",
            Self::Filtering => "filtering",
            Self::Allocation => "allocation",
            Self::Hairpin => "hairpin",
            Self::Lifetime => "lifetime",
        }
    }
}

/// Requests and their outcomes, each by test. Nothing resets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// STUN requests and indications sent, retransmissions included.
    pub requests: TestCounters,
    /// Requests among them that were retransmissions (RFC 8489, section 6.2.1).
    pub retransmissions: TestCounters,
    /// Responses that were used.
    pub responses: TestCounters,
    /// Transactions that ended without a response.
    pub timeouts: TestCounters,
    /// Responses that were dropped.
    pub dropped: DropCounters,
}

impl Counters {
    /// Returns the counters by test, each with its name.
    pub fn by_test(&self) -> impl Iterator<Item = (&'static str, &TestCounters)> {
        [
            ("requests", &self.requests),
            ("retransmissions", &self.retransmissions),
            ("responses", &self.responses),
            ("timeouts", &self.timeouts),
        ]
        .into_iter()
    }
}

/// A number for each test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TestCounters {
    /// First requests to each server, from the main socket.
    pub contact: u64,
    /// Keepalives of the main socket's mapping.
    pub keepalive: u64,
    /// The mapping test (RFC 5780, section 4.3).
    pub mapping: u64,
    /// The filtering tests (RFC 5780, section 4.4), by servers and by members.
    pub filtering: u64,
    /// The port allocation test.
    pub allocation: u64,
    /// The hairpinning test (RFC 5780, section 4.5).
    pub hairpin: u64,
    /// The lifetime test (RFC 5780, section 4.6).
    pub lifetime: u64,
}

impl TestCounters {
    /// Returns each counter with the value of its `test` label.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            (Test::Contact.label(), self.contact),
            (Test::Keepalive.label(), self.keepalive),
            (Test::Mapping.label(), self.mapping),
            (Test::Filtering.label(), self.filtering),
            (Test::Allocation.label(), self.allocation),
            (Test::Hairpin.label(), self.hairpin),
            (Test::Lifetime.label(), self.lifetime),
        ]
        .into_iter()
    }

    pub(crate) const fn increment(&mut self, test: Test) {
        let counter = match test {
            Test::Contact => &mut self.contact,
            Test::Keepalive => &mut self.keepalive,
            Test::Mapping => &mut self.mapping,
            Test::Filtering => &mut self.filtering,
            Test::Allocation => &mut self.allocation,
            Test::Hairpin => &mut self.hairpin,
            Test::Lifetime => &mut self.lifetime,
        };
        *counter = counter.saturating_add(1);
    }
}

/// Dropped responses by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DropCounters {
    /// Not well-formed STUN, a wrong FINGERPRINT, or a missing or wrong MESSAGE-INTEGRITY.
    pub malformed: u64,
    /// A response to a transaction that had a response before, most often to a retransmission.
    pub duplicate: u64,
    /// A response from an address or to a socket that the transaction does not allow.
    pub wrong_source: u64,
    /// An error response, a redirection, or a response without a usable address.
    pub unusable: u64,
}

impl DropCounters {
    /// Returns each counter with the value of its `reason` label.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("malformed", self.malformed),
            ("duplicate", self.duplicate),
            ("wrong_source", self.wrong_source),
            ("unusable", self.unusable),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [Test; 7] = [
        Test::Contact,
        Test::Keepalive,
        Test::Mapping,
        Test::Filtering,
        Test::Allocation,
        Test::Hairpin,
        Test::Lifetime,
    ];

    #[test]
    fn each_test_has_a_counter_and_a_label_of_its_own() {
        for test in ALL {
            let mut counters = TestCounters::default();
            counters.increment(test);
            let counted: Vec<_> = counters.each().filter(|(_, count)| *count == 1).collect();
            assert_eq!(counted, [(test.label(), 1)]);
        }
        let labels: BTreeSet<_> = TestCounters::default().each().map(|(label, _)| label).collect();
        assert_eq!(labels.len(), ALL.len());
    }

    #[test]
    fn counters_stop_at_their_maximum() {
        let mut counters = TestCounters { mapping: u64::MAX, ..TestCounters::default() };
        counters.increment(Test::Mapping);
        assert_eq!(counters.mapping, u64::MAX);
    }
}
