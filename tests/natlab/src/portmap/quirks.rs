//! Tests against a fake router with the faults of real ones, and with malicious replies.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use partyline_portmap::Protocol;

use super::{
    client::Client,
    fake::{Behaviour, Fake, Reply, nat_pmp},
    home::Home,
};
use crate::{Lab, RouterOptions, until, wait::that};

const PORT: u16 = 41_641;
const LONG: u64 = 600;
/// Maximum memory of a client in KiB, for any reply.
const MEMORY: u64 = 64 << 10;
const UPNP: [Protocol; 1] = [Protocol::Upnp];

pub(super) fn gateway(home: &Home<'_>) -> Ipv4Addr {
    let [a, b, c, _] = home.player.v4().octets();
    Ipv4Addr::new(a, b, c, 1)
}

fn scripted(
    http: impl Fn(&str, &dyn Fn(&str) -> String) -> Option<Reply> + Send + Sync + 'static,
) -> Behaviour {
    Behaviour {
        http: Box::new(move |(action, arguments)| {
            http(action, &|name| arguments.get(name).cloned().unwrap_or_default())
        }),
        ..Behaviour::default()
    }
}

/// Replies to AddPortMapping with an error if `fails` returns true.
fn failing(code: u16, fails: impl Fn(&dyn Fn(&str) -> String) -> bool + Send + Sync + 'static) -> Behaviour {
    scripted(move |action, get| (action == "AddPortMapping" && fails(get)).then_some(Reply::Code(code)))
}

/// A router that grants only permanent leases: the mapping is obtained, remains after kill -9, and is deleted at the
/// next start and at stop.
pub(super) fn permanent(lab: &Lab) -> Result<String> {
    let home = Home::new(lab, RouterOptions::HOME)?;
    let only_permanent = failing(725, |get| get("NewLeaseDuration") != "0");
    let fake = Fake::start(home.router(), gateway(&home), only_permanent)?;
    let mut client = Client::start(&home.player, PORT, &UPNP, LONG, &home.notes())?;
    let mapping = client.mapping(Protocol::Upnp)?;
    ensure!(mapping.permanent && mapping.external.port() == PORT, "{mapping:?}");
    client.kill()?;
    ensure!(fake.held().contains_key(&PORT), "nothing was left by the killed client");
    let mut client = Client::start(&home.player, PORT + 1, &UPNP, LONG, &home.notes())?;
    client.mapping(Protocol::Upnp)?;
    until("the old mapping to be deleted", super::client::RESULT_TIMEOUT, || {
        that(fake.held().keys().eq([&(PORT + 1)]), || format!("{:?}", fake.held()))
    })?;
    client.stop()?;
    ensure!(fake.held().is_empty(), "{:?} outlived the stop", fake.held());
    Ok("lease 0 obtained; left by kill -9, deleted at the next start; deleted at stop".into())
}

/// Tests the reaction to each error code of AddPortMapping.
pub(super) fn errors(lab: &Lab) -> Result<String> {
    let home = Home::new(lab, RouterOptions::HOME)?;
    let fake = Fake::start(home.router(), gateway(&home), Behaviour::default())?;
    let taken = |get: &dyn Fn(&str) -> String| get("NewExternalPort") == PORT.to_string();
    for code in [501, 718, 729] {
        fake.behave(failing(code, taken));
        let external = granted(&home, &fake).with_context(|| format!("error {code}"))?;
        ensure!(external != PORT, "error {code}: {external} was refused");
    }
    for code in [402, 501, 725] {
        fake.behave(failing(code, |get| get("NewLeaseDuration") != "0"));
        granted(&home, &fake).with_context(|| format!("error {code} against leases"))?;
    }
    fake.behave(failing(726, |get| get("NewRemoteHost") != "0.0.0.0"));
    granted(&home, &fake).context("error 726")?;
    fake.behave(failing(727, |get| get("NewExternalPort") != "0"));
    granted(&home, &fake).context("error 727")?;
    let always = [
        401, 402, 403, 501, 600, 601, 602, 603, 604, 605, 606, 701, 715, 716, 718, 724, 725, 726, 727, 728,
        729, 732, 733,
    ];
    for code in always {
        fake.behave(failing(code, |_| true));
        let mut client = Client::start(&home.player, PORT, &UPNP, LONG, &home.notes())?;
        let why = client.refusal(Protocol::Upnp, 1).with_context(|| format!("error {code}"))?;
        ensure!(!why.is_empty() && client.said().mappings.is_empty(), "error {code}: {why}");
        client.stop()?;
        ensure!(fake.held().is_empty(), "error {code} left {:?}", fake.held());
    }
    fake.behave(failing(606, |_| true));
    let mut client = Client::start(&home.player, PORT, &UPNP, LONG, &home.notes())?;
    client.refusal(Protocol::Upnp, 3)?;
    client.stop()?;
    Ok(format!("8 refusals worked around, {} codes reported, breaker opens after 3", always.len()))
}

/// Checks that a mapping is obtained and deleted at stop, and returns the external port.
fn granted(home: &Home<'_>, fake: &Fake) -> Result<u16> {
    let mut client = Client::start(&home.player, PORT, &UPNP, LONG, &home.notes())?;
    let external = client.mapping(Protocol::Upnp)?.external.port();
    client.stop()?;
    ensure!(fake.held().is_empty(), "{:?} outlived the stop", fake.held());
    Ok(external)
}

/// Tests the result codes of PCP and NAT-PMP.
pub(super) fn result_codes(lab: &Lab) -> Result<String> {
    let home = Home::new(lab, RouterOptions::HOME)?;
    let fake = Fake::start(home.router(), gateway(&home), Behaviour::default())?;
    for code in 1..=13_u8 {
        let refuse = move |request: &[u8]| match request.first() {
            Some(0) => vec![vec![0, request[1] | 0x80, 0, code, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]],
            Some(2) => {
                let mut answer = request.to_vec();
                (answer[1], answer[3]) = (answer[1] | 0x80, code);
                vec![answer]
            }
            _ => Vec::new(),
        };
        fake.behave(Behaviour { datagrams: Some(Box::new(refuse)), ..Behaviour::default() });
        let methods = if code <= 5 { vec![Protocol::Pcp, Protocol::NatPmp] } else { vec![Protocol::Pcp] };
        let mut client = Client::start(&home.player, PORT, &methods, LONG, &home.notes())?;
        for method in methods {
            client.refusal(method, 1).with_context(|| format!("{method}, code {code}"))?;
        }
        ensure!(client.said().mappings.is_empty(), "code {code}: {:?}", client.said());
        client.kill()?;
    }
    Ok("13 codes reported".into())
}

/// Replies with hostile bodies to the request for the description.
pub(super) fn hostile_description(lab: &Lab) -> Result<String> {
    hostile_body(lab, "description")
}

/// Replies with hostile bodies to the request for the external address.
pub(super) fn hostile_address(lab: &Lab) -> Result<String> {
    hostile_body(lab, "GetExternalIPAddress")
}

/// Replies with hostile bodies to the mapping request.
pub(super) fn hostile_mapping(lab: &Lab) -> Result<String> {
    hostile_body(lab, "AddPortMapping")
}

/// Checks that NAT-PMP succeeds while UPnP gets hostile bodies, and that memory stays small.
fn hostile_body(lab: &Lab, place: &'static str) -> Result<String> {
    let home = Home::new(lab, RouterOptions::HOME)?;
    let fake = Fake::start(home.router(), gateway(&home), Behaviour::default())?;
    let mut huge = b"<?xml version=\"1.0\"?><root>".to_vec();
    huge.resize(16 << 20, b'<');
    let elsewhere = format!("http://{}:5000/root.xml", home.outside.v4());
    let bodies: [(&str, Reply); 8] = [
        ("huge", Reply::Body(huge)),
        ("drip", Reply::Drip),
        ("bomb", Reply::Body(bomb())),
        ("nested", Reply::Body("<device>".repeat(30_000).into_bytes())),
        ("html", Reply::Body(b"<html><body>Log in<br></body></html>".to_vec())),
        ("empty", Reply::Body(Vec::new())),
        ("binary", Reply::Body(vec![0xfe; 4096])),
        ("redirect", Reply::Redirect(elsewhere)),
    ];
    for (name, reply) in &bodies {
        let reply = reply.clone();
        let behaviour = scripted(move |action, _| (action == place).then(|| reply.clone()));
        attack(&home, &fake, behaviour).with_context(|| format!("{name} as {place}"))?;
    }
    let names: Vec<_> = bodies.iter().map(|(name, _)| *name).collect();
    Ok(format!("{}: none granted, none delayed NAT-PMP, all below {} MiB", names.join(", "), MEMORY >> 10))
}

/// Returns XML with nested entities that expand to gigabytes.
fn bomb() -> Vec<u8> {
    let mut entities = "<!ENTITY a \"aaaaaaaaaaaaaaaaaaaa\">".to_owned();
    for (this, last) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        entities += &format!("<!ENTITY {this} \"{}\">", format!("&{last};").repeat(20));
    }
    format!("<?xml version=\"1.0\"?><!DOCTYPE x [{entities}]><root><URLBase>&j;</URLBase></root>")
        .into_bytes()
}

/// Tests that URLs on other hosts are not fetched, and that impossible external addresses are rejected.
pub(super) fn misleading(lab: &Lab) -> Result<String> {
    let home = Home::new(lab, RouterOptions::HOME)?;
    let fake = Fake::start(home.router(), gateway(&home), Behaviour::default())?;
    let locations = ["http://127.0.0.1:5000/", "http://11.0.0.1/root.xml", "https://x/", "\0"];
    for location in locations {
        let behaviour = Behaviour { location: Some(location.into()), ..Behaviour::default() };
        let before = fake.log().len();
        attack(&home, &fake, behaviour).with_context(|| format!("location {location:?}"))?;
        ensure!(fake.log().len() == before, "{location:?} was followed");
    }
    let addresses = ["0.0.0.0", "127.0.0.1", "224.0.0.1", "", "router", "255.255.255.255"];
    for external in addresses {
        let behaviour = Behaviour { external: external.into(), ..Behaviour::default() };
        attack(&home, &fake, behaviour).with_context(|| format!("external address {external:?}"))?;
    }
    Ok(format!("{} places not visited, {} addresses not believed", locations.len(), addresses.len()))
}

fn attack(home: &Home<'_>, fake: &Fake, behaviour: Behaviour) -> Result<()> {
    let answer = |request: &[u8]| nat_pmp(request, [11, 0, 0, 9], 9);
    fake.behave(Behaviour { datagrams: Some(Box::new(answer)), ..behaviour });
    let methods = [Protocol::NatPmp, Protocol::Upnp];
    let mut client = Client::start(&home.player, PORT, &methods, LONG, &home.notes())?;
    client.mapping(Protocol::NatPmp)?;
    let failures = client.said().states.iter().map(|state| state.failures).max();
    client.refusal(Protocol::Upnp, 1)?;
    let said = client.said();
    ensure!(said.mappings.len() == 1, "after {failures:?} failures UPnP granted: {said:?}");
    let peak = client.peak_memory()?;
    ensure!(peak < MEMORY, "{peak} KiB were used");
    client.kill()
}

/// Tests that an epoch that jumps causes further requests but loses no mapping, that garbage is ignored, and that a
/// private external address is reported as double NAT.
pub(super) fn epoch(lab: &Lab) -> Result<String> {
    static CLOCK: AtomicU32 = AtomicU32::new(1);
    let home = Home::new(lab, RouterOptions::HOME)?;
    let wild = |request: &[u8]| {
        let epoch = CLOCK.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761);
        let mut answers = vec![vec![0, 200], vec![0, 128, 0, 0], vec![0xff; 1100]];
        answers.extend(nat_pmp(request, [100, 64, 3, 1], epoch));
        answers
    };
    let behaviour = Behaviour { datagrams: Some(Box::new(wild)), ..Behaviour::default() };
    let _fake = Fake::start(home.router(), gateway(&home), behaviour)?;
    let mut client = Client::start(&home.player, PORT, &[Protocol::NatPmp], LONG, &home.notes())?;
    let mapping = client.mapping(Protocol::NatPmp)?;
    ensure!(mapping.double_nat, "{mapping:?} is below another NAT");
    client.renewals()?;
    let said = client.said();
    ensure!(said.mappings.len() == 1, "{said:?}");
    client.stop()?;
    Ok("mapping kept beside a mad clock and garbage; double NAT reported".into())
}

/// Tests that a mapping is obtained from another router on the LAN if the default gateway refuses.
pub(super) fn two_routers(lab: &Lab) -> Result<String> {
    let home = Home::new(lab, RouterOptions::HOME)?;
    let second = home.site.host("second")?;
    let first = Fake::start(home.router(), gateway(&home), failing(606, |_| true))?;
    let other = Fake::start(second.namespace(), second.v4(), Behaviour::default())?;
    let mut client = Client::start(&home.player, PORT, &UPNP, LONG, &home.notes())?;
    client.mapping(Protocol::Upnp)?;
    ensure!(first.held().is_empty() && other.held().len() == 1, "{:?} {:?}", first.held(), other.held());
    ensure!(first.log().contains(&"AddPortMapping".to_owned()), "the default gateway was not asked");
    client.stop()?;
    ensure!(other.held().is_empty(), "the mapping outlived the stop");
    Ok("the gateway refused, the other router granted, deleted at stop".into())
}
