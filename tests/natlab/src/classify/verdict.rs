//! Compares what the check said with the truth.

use std::fmt::Debug;

use partyline_model::{Badge, Mapping};

use super::{measure::Measured, networks::Truth, servers::Servers};

/// What is right, wrong and unknown of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Told otherwise than it is.
    pub wrong: Vec<String>,
    /// Not told although it could be known.
    pub missing: Vec<&'static str>,
    /// Not told, and not to be known.
    pub unknowable: Vec<&'static str>,
}

impl Verdict {
    /// Judges one check.
    /// `router`: whether the check was told what port mapping would tell, the router's outside address.
    #[must_use]
    pub fn of(truth: &Truth, said: &Measured, servers: Servers, router: bool) -> Self {
        let mut verdict = Self::default();
        let (is, told) = (&truth.profile, &said.profile);
        let full = servers == Servers::Full;
        let independent = is.mapping == Some(Mapping::EndpointIndependent);
        // A member judges a NAT only that has one port for everybody.
        let judged = full || (servers == Servers::Friend && independent);
        // Servers on one port each cannot tell address from port, nor can they answer from elsewhere.
        verdict.compare("mapping", is.mapping, told.mapping, full || independent);
        verdict.compare("filtering", is.filtering, told.filtering, judged);
        verdict.compare("allocation", is.allocation, told.allocation, !truth.disturbed);
        // That nothing comes back proves something only where no new mapping was needed for it.
        verdict.compare("hairpin", is.hairpin, told.hairpin, independent);
        verdict.compare("UDP blocked", is.udp_blocked, told.udp_blocked, true);
        verdict.compare("double NAT", is.double_nat, told.double_nat, router);
        verdict.compare("CGNAT", is.carrier_nat, told.carrier_nat, router);
        verdict.compare("IPv6", is.ipv6, told.ipv6, true);
        verdict.compare("IPv6 firewall", is.firewall_v6, told.firewall_v6, full);
        if truth.badge == Some(Badge::Open) && told.hairpin.is_some() {
            verdict.wrong.push("hairpin: nothing turns packets around where there is no NAT".to_owned());
        }
        let (badge, named) = (truth.badge, said.badge);
        verdict.compare("badge", badge, named, judged);
        verdict
    }

    /// Whether all that can be known was told, and rightly.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.missing.is_empty()
    }

    fn compare<T: PartialEq + Debug>(
        &mut self,
        what: &'static str,
        truth: Option<T>,
        told: Option<T>,
        knowable: bool,
    ) {
        let Some(truth) = truth else { return };
        match told {
            Some(told) if told == truth => {}
            Some(told) => self.wrong.push(format!("{what}: {truth:?}, not {told:?}")),
            None if knowable => self.missing.push(what),
            None => self.unknowable.push(what),
        }
    }
}
