//! The networks to recognize, and the truth about each.

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
/// The port that two computers of one home use.
const SHARED_PORT: u16 = 41_641;

/// How a network is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    /// One computer behind one router.
    Home(RouterOptions),
    /// A home behind a carrier's NAT; the check knows its router's outside address.
    Below { upper: RouterOptions, home: RouterOptions },
    /// Two computers with the same port behind one router; the second is asked.
    Neighbours(RouterOptions),
    /// A public address and no router.
    Open,
}

/// One network.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Whether it is one of the 27 types.
    pub is_type: bool,
    /// Whether the short version has it.
    pub in_spread: bool,
    build: Build,
    /// What is true of it, and whether that can be known; what is `None` is not looked at.
    pub truth: Truth,
}

/// What is true of a network.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// The policies and what else is looked at. `public` is not.
    pub profile: NatProfile,
    /// The word for it.
    pub badge: Option<Badge>,
    /// Whether the allocation policy may stay unknown, since it looks like another.
    pub disturbed: bool,
}

impl Network {
    /// Builds it in a lab and runs the check.
    ///
    /// # Errors
    /// It cannot be built, or the check does not end.
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

/// Lets a computer take the shared port at the router.
fn occupy(host: &Host, question: &Question) -> Result<()> {
    let server = question.servers.first().context("a server")?.address;
    host.enter(|| UdpSocket::bind(("0.0.0.0", SHARED_PORT))?.send_to(b"taken", server))??;
    Ok(())
}

/// All networks.
#[must_use]
pub fn networks() -> Vec<Network> {
    let types = Rules::all_types(1).enumerate().map(|(number, rules)| Network {
        is_type: true,
        // Every mapping, filtering and allocation, and each pair of them, once.
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
    // Ports so close together might be those of a counter that others use too.
    let mut few = home("few ports", Rules { ports: (50_000, 50_255), ..symmetric });
    few.truth.disturbed = true;
    // A check must do with what a cheap router has room for, and with mappings that go while it runs.
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

/// A home with the kernel's masquerade below another NAT; together they are as `whole`.
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
