//! Compares the result of a check with the expected one.

use std::fmt::Debug;

use partyline_model::{Badge, Mapping};

use super::{measure::Measured, networks::Truth, servers::Servers};

/// The differences between a result and the expected one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Measured, but wrong.
    pub wrong: Vec<String>,
    /// Not measured, although it can be known.
    pub missing: Vec<&'static str>,
    /// Not measured, since it cannot be known.
    pub unknowable: Vec<&'static str>,
}

impl Verdict {
    /// Compares one result. `router` is true if the check knew the router's outside address, as from port mapping.
    #[must_use]
    pub fn of(truth: &Truth, said: &Measured, servers: Servers, router: bool) -> Self {
        let mut verdict = Self::default();
        let (is, measured) = (&truth.profile, &said.profile);
        let full = servers == Servers::Full;
        let independent = is.mapping == Some(Mapping::EndpointIndependent);
        // Another member can test the filtering only of a NAT that uses one port for all destinations.
        let judged = full || (servers == Servers::Friend && independent);
        // Servers with one port each cannot tell address-dependent from port-dependent mapping, nor respond from
        // another address.
        verdict.compare("mapping", is.mapping, measured.mapping, full || independent);
        verdict.compare("filtering", is.filtering, measured.filtering, judged);
        verdict.compare("allocation", is.allocation, measured.allocation, !truth.disturbed);
        // A missing hairpin response proves something only if the probe needed no new mapping.
        verdict.compare("hairpin", is.hairpin, measured.hairpin, independent);
        verdict.compare("UDP blocked", is.udp_blocked, measured.udp_blocked, true);
        verdict.compare("double NAT", is.double_nat, measured.double_nat, router);
        verdict.compare("CGNAT", is.carrier_nat, measured.carrier_nat, router);
        verdict.compare("IPv6", is.ipv6, measured.ipv6, true);
        verdict.compare("IPv6 firewall", is.firewall_v6, measured.firewall_v6, full);
        if truth.badge == Some(Badge::Open) && measured.hairpin.is_some() {
            verdict.wrong.push("hairpin: nothing turns packets around where there is no NAT".to_owned());
        }
        let (badge, named) = (truth.badge, said.badge);
        verdict.compare("badge", badge, named, judged);
        verdict
    }

    /// Returns true if everything that can be known was measured correctly.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.missing.is_empty()
    }

    fn compare<T: PartialEq + Debug>(
        &mut self,
        what: &'static str,
        truth: Option<T>,
        measured: Option<T>,
        knowable: bool,
    ) {
        let Some(truth) = truth else { return };
        match measured {
            Some(measured) if measured == truth => {}
            Some(measured) => self.wrong.push(format!("{what}: {truth:?}, not {measured:?}")),
            None if knowable => self.missing.push(what),
            None => self.unknowable.push(what),
        }
    }
}
