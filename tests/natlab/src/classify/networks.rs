//! The networks to classify, with the expected results.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use partyline_model::{Allocation, Badge, Filtering, Mapping, NatProfile};
use partyline_nat::Rules;

use super::measure::{Measured, Question, measure};
use crate::{Host, Lab, Line, Nat, RouterOptions};

use {Filtering as F, Mapping as M};

const CONE: Rules = Rules::new(M::EndpointIndependent, F::AddressAndPortDependent, Allocation::Preserving);
/// Port that two computers of one home share.
const SHARED_PORT: u16 = 41_641;

/// Topology of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    /// One host behind one router.
    Home(RouterOptions),
    /// A home behind another NAT. The check knows the outside address of the home's router.
    Below { upper: RouterOptions, home: RouterOptions },
    /// Two hosts with the same port behind one router. The check runs on the second.
    Neighbours(RouterOptions),
    /// A host with a public address and no router.
    Open,
}

/// A network to classify.
#[derive(Debug, Clone)]
pub struct Network {
    /// Name in the report.
    pub name: String,
    /// True for the 27 NAT types.
    pub is_type: bool,
    /// True if `--spread` includes the network.
    pub in_spread: bool,
    build: Build,
    /// Expected result. Fields that are `None` are not compared.
    pub truth: Truth,
}

/// Expected result of a check.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// Expected behavior. The public addresses are not compared.
    pub profile: NatProfile,
    /// Expected summary.
    pub badge: Option<Badge>,
    /// True if the allocation behavior may remain unknown, because it cannot be told from another one.
    pub disturbed: bool,
}

impl Network {
    /// Builds the network in a lab and runs the check.
    ///
    /// # Errors
    /// Returns an error if it cannot be built, or the check does not end.
    pub fn measure(&self, lab: &Lab, number: usize, line: Line, mut question: Question) -> Result<Measured> {
        let name = format!("n{number}");
        let on_line = |options| RouterOptions { line: Some(line), ..options };
        let host = match self.build {
            Build::Home(options) => lab.home(&name, on_line(options))?,
            Build::Open => lab.open_host(&name, line)?,
            Build::Below { upper, home } => {
                let above = lab.site(&format!("{name}u"), on_line(upper))?;
                let site = above.site(&name, home)?;
                question.router = site.outside().map(IpAddr::V4);
                site.host(&name)?
            }
            Build::Neighbours(options) => {
                let site = lab.site(&name, on_line(options))?;
                occupy(&site.host(&format!("{name}a"))?, &question)?;
                question.port = SHARED_PORT;
                site.host(&name)?
            }
        };
        if host.v6().is_none() {
            question.servers.retain(|server| server.address.is_ipv4());
        }
        measure(&host, &question)
    }
}

/// Makes a host occupy the shared port at the router.
fn occupy(host: &Host, question: &Question) -> Result<()> {
    let server = question.servers.first().context("a server")?.address;
    host.enter(|| UdpSocket::bind(("0.0.0.0", SHARED_PORT))?.send_to(b"taken", server))??;
    Ok(())
}

/// Returns all networks.
#[must_use]
pub fn networks() -> Vec<Network> {
    let types = Rules::all_types(1).enumerate().map(|(number, rules)| Network {
        is_type: true,
        // Every mapping, filtering and allocation behavior, and each pair of them, once.
        in_spread: (number / 9 + number / 3 % 3 + number % 3) % 3 == 0,
        ..home(&rules.short(), rules)
    });
    types.chain(peculiar_routers()).chain(others()).collect()
}

fn peculiar_routers() -> Vec<Network> {
    let counting = |delta| Rules { allocation: Allocation::Contiguous { delta }, ..CONE };
    let mut busy = home("PC, 20 rivals a second", Rules { background_rate: 20, ..counting(1) });
    busy.truth.disturbed = true;
    let mut shared = home("two with one port", CONE);
    shared.build = Build::Neighbours(RouterOptions { nat: Nat::Modelled(CONE), ..RouterOptions::HOME });
    shared.truth.disturbed = true;
    let symmetric = Rules { mapping: M::AddressAndPortDependent, allocation: Allocation::Random, ..CONE };
    // Ports this close together look like those of a counter that other hosts use too.
    let mut few = home("few ports", Rules { ports: (50_000, 50_255), ..symmetric });
    few.truth.disturbed = true;
    // A check must get by with the small table of a cheap router, and with mappings that expire while it runs.
    let cheap = Rules { table: 48, ..symmetric };
    let forgetful = Rules { lifetime: Duration::from_secs(5), ..CONE };
    vec![
        home("small table", cheap),
        home("mappings for 5 s", forgetful),
        home("PC by -3", counting(-3)),
        home("hairpin", Rules { hairpin: true, ..CONE }),
        few,
        busy,
        shared,
    ]
}

fn others() -> Vec<Network> {
    let random_cone = Rules { allocation: Allocation::Random, ..CONE };
    let carrier = |rules| RouterOptions { nat: Nat::Modelled(rules), carrier: true, ..RouterOptions::HOME };
    let symmetric = Rules { mapping: M::AddressAndPortDependent, ..random_cone };
    let kernel = |name: &str, options, rules| Network { build: Build::Home(options), ..home(name, rules) };
    let mut dual = kernel("kernel, dual stack", RouterOptions::DUAL_STACK, CONE);
    dual.truth.profile.ipv6 = Some(true);
    dual.truth.profile.firewall_v6 = Some(F::AddressAndPortDependent);
    let udp_blocked = NatProfile { udp_blocked: Some(true), ..NatProfile::default() };
    let office = Truth { profile: udp_blocked, badge: Some(Badge::UdpBlocked), disturbed: false };
    let mut open = truth(&Rules { filtering: F::EndpointIndependent, ..CONE });
    (open.badge, open.profile.hairpin, open.profile.ipv6) = (Some(Badge::Open), None, Some(true));
    let mut spread = vec![
        kernel("kernel masquerade", RouterOptions::HOME, CONE),
        below("CGNAT", carrier(Rules { filtering: F::AddressDependent, ..random_cone }), &random_cone, true),
        dual,
        Network { build: Build::Home(RouterOptions::OFFICE), truth: office, ..home("office", CONE) },
        Network { build: Build::Open, truth: open, ..home("no NAT", CONE) },
    ];
    spread.iter_mut().for_each(|network| network.in_spread = true);
    let upper = RouterOptions { nat: Nat::Modelled(CONE), ..RouterOptions::HOME };
    spread.extend([
        kernel("kernel fully-random", RouterOptions::SYMMETRIC, symmetric),
        below("CGNAT, symmetric", carrier(symmetric), &symmetric, true),
        below("double NAT", upper, &CONE, false),
    ]);
    spread
}

fn home(name: &str, rules: Rules) -> Network {
    let options = RouterOptions { nat: Nat::Modelled(rules), ..RouterOptions::HOME };
    Network {
        name: name.to_owned(),
        is_type: false,
        in_spread: false,
        build: Build::Home(options),
        truth: truth(&rules),
    }
}

/// Builds a home with the kernel's masquerade behind another NAT. Together they behave like `whole`.
fn below(name: &str, upper: RouterOptions, whole: &Rules, carrier: bool) -> Network {
    let mut network = home(name, *whole);
    network.build = Build::Below { upper, home: RouterOptions::HOME };
    let profile = &mut network.truth.profile;
    (profile.double_nat, profile.carrier_nat, profile.hairpin) = (Some(true), Some(carrier), None);
    network
}

fn truth(rules: &Rules) -> Truth {
    let profile = NatProfile {
        mapping: Some(rules.mapping),
        filtering: Some(rules.filtering),
        allocation: Some(rules.allocation),
        udp_blocked: Some(false),
        hairpin: Some(rules.hairpin),
        ipv6: Some(false),
        ..NatProfile::default()
    };
    Truth { badge: profile.badge(false), profile, disturbed: false }
}
