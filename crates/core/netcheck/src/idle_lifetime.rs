//! The lifetime of an idle mapping on the present network: the test of it, and what was found earlier.

use std::time::{Duration, Instant};

use partyline_model::SocketId;
use tracing::debug;

use crate::{
    client::{Client, Response},
    lifetime::LifetimeTest,
    purpose::Purpose,
};

/// How long a measured profile is believed.
pub(crate) const PROFILE_MAX_AGE: Duration = Duration::from_secs(86_400);

/// The test and its result.
#[derive(Debug, Default)]
pub(crate) struct IdleLifetime {
    test: Option<LifetimeTest>,
    found: Option<Found>,
    gap: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    lifetime: Option<Duration>,
    valid_until: Instant,
}

impl IdleLifetime {
    /// Takes a result from an earlier visit to this network.
    pub(crate) fn restore(&mut self, now: Instant, lifetime: Duration, age: Duration) {
        if let Some(left) = PROFILE_MAX_AGE.checked_sub(age) {
            self.found = Some(Found { lifetime: Some(lifetime), valid_until: now + left });
        }
    }

    /// Begins the test, unless the last result is still valid.
    pub(crate) fn begin(&mut self, now: Instant, test: impl FnOnce() -> Option<LifetimeTest>) {
        self.found = self.found.filter(|found| found.valid_until > now);
        if self.found.is_none() {
            self.test = test();
            if self.test.is_none() {
                debug!(
                    reason = "no NAT, no suitable server or socket, or keepalives are off",
                    "no lifetime test"
                );
            }
        }
    }

    /// Ends the test, whose sockets are gone; an earlier result stays.
    pub(crate) fn stop(&mut self) {
        if self.test.take().is_some() {
            debug!(reason = "another measurement begins", "lifetime test stopped");
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.test.is_some()
    }

    /// Returns the lifetime; `None` while it was not measured.
    pub(crate) fn found(&self) -> Option<Option<Duration>> {
        self.found.map(|found| found.lifetime)
    }

    /// Returns why the lifetime is unknown, in words for a person.
    pub(crate) const fn gap(&self) -> Option<&'static str> {
        self.gap
    }

    pub(crate) fn on_response(&mut self, now: Instant, response: &Response) {
        let Some(test) = &mut self.test else { return };
        match (response.purpose, response.binding) {
            (Purpose::CreateMapping(index), Some(binding)) => test.on_created(now, index, binding.reflexive),
            _ => test.on_unfit(),
        }
    }

    pub(crate) fn on_timeout(&mut self, index: u8) {
        self.test.iter_mut().for_each(|test| test.on_timeout(index));
    }

    pub(crate) fn on_checked(&mut self, socket: SocketId, index: u8) {
        self.test.iter_mut().for_each(|test| test.on_checked(socket, index));
    }

    /// Returns true if the test ended.
    pub(crate) fn step(&mut self, now: Instant, client: &mut Client) -> bool {
        let Some(finding) = self.test.as_mut().and_then(|test| test.step(now, client)) else { return false };
        self.test = None;
        let valid_until = now + PROFILE_MAX_AGE;
        self.found = Some(Found { lifetime: finding.ok(), valid_until });
        self.gap = finding.err().map(|unknown| unknown.0);
        true
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.test.as_ref().and_then(LifetimeTest::poll_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::Reference,
        test_nat::{TestNat, reference, start},
    };
    use partyline_model::{Allocation, Filtering, Mapping};
    use partyline_nat::Rules;

    fn test() -> Option<LifetimeTest> {
        let filtering = Filtering::AddressDependent;
        let rules = Rules::new(Mapping::EndpointIndependent, filtering, Allocation::Random);
        let mut nat = TestNat::new(rules);
        let Reference { server, .. } = reference();
        nat.observe(nat.context.roles.mapping, server);
        LifetimeTest::new(start(), &nat.context, Some(reference()))
    }

    #[test]
    fn earlier_result_is_believed_for_a_day() {
        let (lifetime, hour) = (Duration::from_secs(58), Duration::from_secs(3600));
        for (age, believed) in [(hour, true), (PROFILE_MAX_AGE + hour, false)] {
            let mut idle = IdleLifetime::default();
            idle.restore(start(), lifetime, age);
            assert_eq!(idle.found(), believed.then_some(Some(lifetime)));
            idle.begin(start(), test);
            assert_eq!(idle.is_running(), !believed);
        }
        let mut idle = IdleLifetime::default();
        idle.restore(start(), lifetime, hour);
        idle.begin(start() + PROFILE_MAX_AGE, test);
        assert!(idle.is_running() && idle.found().is_none());
    }

    #[test]
    fn stopped_test_finds_nothing() {
        let mut idle = IdleLifetime::default();
        idle.begin(start(), test);
        idle.stop();
        assert!(!idle.is_running() && idle.found().is_none() && idle.poll_timeout().is_none());
    }
}
