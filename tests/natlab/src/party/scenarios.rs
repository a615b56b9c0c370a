//! The list of scenarios, and those that have no file of their own.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use partyline_model::{Method, PathKind};

use super::{
    Member, Server, World, admission, cards, comebacks, copies, diagnosis, faults, hairpin, handshake_flood,
    home_server, hostile_member, ipv6, links, names, nat64, portal, routes, small_router, strangers,
    traffic_check::exchange_traffic,
    watch,
    world::{CONNECT_TIMEOUT, connected, gone_from, homes, pairs},
};
use crate::{
    RouterOptions,
    traffic::{self, Flow, Listener},
    until,
    wait::that,
};

/// UDP port on which the game discovers hosts.
const GAME_PORT: u16 = 27015;

/// A scenario and its description.
#[derive(Debug)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// One-line description.
    pub about: &'static str,
    pub(super) run: fn(&World) -> Result<()>,
}

/// Returns all scenarios.
#[must_use]
pub const fn scenarios() -> &'static [Scenario] {
    &[
        Scenario {
            name: "two-homes",
            about: "create, join by link, punch a hole, play over TCP and UDP both ways",
            run: two_homes,
        },
        Scenario { name: "mesh-of-8", about: "eight members, everyone reaches everyone", run: mesh_of_8 },
        Scenario { name: "broadcast", about: "a game's broadcast reaches all eight, once", run: broadcast },
        Scenario {
            name: "two-parties",
            about: "one computer in two parties at once: each is a network of its own",
            run: two_parties,
        },
        Scenario { name: "one-lan", about: "two in one home are connected over its LAN", run: one_lan },
        Scenario { name: "lonely-lan", about: "a LAN without internet needs no server", run: lonely_lan },
        Scenario { name: "symmetric", about: "two symmetric NATs still play", run: symmetric },
        Scenario {
            name: "relay-udp",
            about: "where direct UDP is blocked, the relay carries",
            run: relay_udp,
        },
        Scenario {
            name: "relay-tls",
            about: "where only HTTPS gets out, the relay carries over TLS",
            run: relay_tls,
        },
        Scenario {
            name: "upgrade",
            about: "a relayed connection becomes direct without a break",
            run: upgrade,
        },
        Scenario {
            name: "server-restart",
            about: "the server is killed and comes back; no connection breaks",
            run: server_restart,
        },
        Scenario {
            name: "relay-restart",
            about: "the server is killed under relayed traffic and comes back; no connection breaks",
            run: relay_restart,
        },
        Scenario {
            name: "member-crash",
            about: "a killed member comes back with its address",
            run: member_crash,
        },
        Scenario { name: "cable", about: "a pulled cable costs time, not connections", run: cable },
        Scenario {
            name: "router-advertisement",
            about: "a member that says it is a router changes nobody's routes",
            run: hostile_member::router_advertisement,
        },
        Scenario {
            name: "blocked-ports",
            about: "a member reaches a game of another one, and no system service that is not allowed",
            run: hostile_member::blocked_ports,
        },
        Scenario { name: "kick", about: "a kicked member is out, the others play on", run: kick },
        Scenario {
            name: "kicked-second-device",
            about: "a second device that joined by the same link is out too, and all open links have ended",
            run: admission::kicked_second_device,
        },
        Scenario {
            name: "used-up-link",
            about: "a link for one device lets one in; another one is told so, as with a revoked link",
            run: admission::used_up_link,
        },
        Scenario {
            name: "approval",
            about: "joiners wait for the owner, who lets one in and declines another",
            run: admission::approval,
        },
        Scenario {
            name: "handshake-flood",
            about: "forged and repeated handshakes keep a member neither from its game nor from a new session",
            run: handshake_flood::handshake_flood,
        },
        Scenario {
            name: "strangers-at-the-server",
            about: "a thousand connections of strangers, and requests to the relay, keep nobody from playing",
            run: strangers::strangers_at_the_server,
        },
        Scenario {
            name: "full-disk",
            about: "a full disk refuses new parties with a reason, and costs none that was there",
            run: faults::full_disk,
        },
        Scenario {
            name: "second-service",
            about: "a second service says that there is one already",
            run: faults::second_service,
        },
        Scenario {
            name: "power-cuts",
            about: "killed again and again, a service keeps party and address",
            run: faults::power_cuts,
        },
        Scenario { name: "ipv6-only", about: "two networks without IPv4", run: ipv6::only },
        Scenario { name: "ipv6-mixed", about: "one network without IPv4, one with both", run: ipv6::mixed },
        Scenario {
            name: "ipv6-and-ipv4",
            about: "a member without IPv4 reaches one without IPv6 by the relay",
            run: ipv6::apart,
        },
        Scenario {
            name: "nat64",
            about: "behind a NAT64, a server at an IPv4 literal is joined and a member with IPv4 alone reached directly",
            run: nat64::direct,
        },
        Scenario {
            name: "nat64-relay",
            about: "behind a NAT64, the relay is reached at its IPv4 address",
            run: nat64::relayed,
        },
        Scenario {
            name: "nat64-appears",
            about: "a member moves from a network with IPv4 to one with a NAT64 and stays direct",
            run: nat64::appears,
        },
        Scenario {
            name: "server-moves",
            about: "the server moves to another address behind its name; relay and STUN follow without a restart",
            run: names::server_moves,
        },
        Scenario {
            name: "names-come-back",
            about: "names cannot be resolved for a while, as after sleep; everything is back soon after they are",
            run: names::names_come_back,
        },
        Scenario {
            name: "server-at-home",
            about: "the server is behind a member's own router, which turns packets around; all are direct",
            run: home_server::with_hairpin,
        },
        Scenario {
            name: "server-at-home-no-hairpin",
            about: "the same with a router that does not",
            run: home_server::without_hairpin,
        },
        Scenario {
            name: "server-at-home-unreached",
            about: "there, a member at home that uses the public address is told why it is not answered",
            run: home_server::unreached,
        },
        Scenario {
            name: "client-isolation",
            about: "two whose Wi-Fi keeps them apart and whose router does not hairpin are told so",
            run: hairpin::client_isolation,
        },
        Scenario {
            name: "shared-carrier",
            about: "the same with two behind one carrier's NAT",
            run: hairpin::shared_carrier,
        },
        Scenario {
            name: "captive-portal",
            about: "a network that wants a login is named with its login page, and the party connects afterwards",
            run: portal::captive_portal,
        },
        Scenario {
            name: "vpn-over-party",
            about: "a VPN that rides on the party never becomes its path",
            run: cards::vpn_over_party,
        },
        Scenario {
            name: "vpn-on-lan",
            about: "a VPN over a LAN does not replace the LAN, and goes away without trouble",
            run: cards::vpn_on_lan,
        },
        Scenario {
            name: "vpn-as-last-resort",
            about: "while nothing else works, another VPN carries the party",
            run: cards::vpn_as_last_resort,
        },
        Scenario {
            name: "deprecated-addresses",
            about: "IPv6 paths go on when every address of the card is deprecated",
            run: cards::deprecated_addresses,
        },
        Scenario {
            name: "deprecated-on-lan",
            about: "the same between two on one LAN",
            run: cards::deprecated_on_lan,
        },
        Scenario {
            name: "many-cards",
            about: "thirty bridges do not crowd out the public address",
            run: cards::many_cards,
        },
        Scenario {
            name: "routed-into-party",
            about: "an address that is routed into the party is no path",
            run: cards::routed_into_party,
        },
        Scenario {
            name: "netcheck-watch",
            about: "the network check reports every network that a laptop moves to",
            run: watch::other_networks,
        },
        Scenario {
            name: "diagnosis",
            about: "the log says why a member is on the relay and why packets were dropped",
            run: diagnosis::log_explains_relay_and_drops,
        },
        Scenario {
            name: "leave",
            about: "a member that leaves disappears from every list at once",
            run: leave,
        },
        Scenario {
            name: "rejoin",
            about: "a member that leaves and joins again at once meets everybody, six times",
            run: comebacks::rejoin,
        },
        Scenario {
            name: "hard-kills",
            about: "a service killed at 20 random moments is back with everybody; PARTYLINE_KILLS sets how many",
            run: comebacks::hard_kills,
        },
        Scenario {
            name: "small-table",
            about: "a spray at a router with 256 places leaves room to other programs",
            run: small_router::small_table,
        },
        Scenario {
            name: "copied-state",
            about: "a copy of a member's state stands back, and becomes a member of its own by an invite",
            run: copies::copied_state,
        },
        Scenario {
            name: "copied-state-lan",
            about: "the same on a LAN without a server",
            run: copies::copied_state_on_a_lan,
        },
        Scenario {
            name: "vpn-routes",
            about: "the split routes of several VPN products are no clash with the party",
            run: routes::vpn_routes,
        },
        Scenario {
            name: "clash-appears",
            about: "a network with the party's range appears, the owner moves the party by one command",
            run: routes::clash_appears,
        },
        Scenario {
            name: "pasted-links",
            about: "an invite joins however it was pasted, and a broken one is refused with the reason",
            run: links::pasted,
        },
    ]
}

fn two_homes(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    let [anna, ben] = &members[..] else { unreachable!("two were asked for") };
    anna.wait_for_path(ben, PathKind::Direct)?;
    ben.wait_for_path(anna, PathKind::Direct)?;
    anna.partyline(&["ping", "ben"])?;
    counted(anna)?;
    exchange_traffic(anna, ben)
}

/// Checks that the service's metrics count the method that worked, and its duration.
fn counted(member: &Member) -> Result<()> {
    let text = member.partyline(&["doctor", "--metrics"])?;
    for name in ["partyline_path_attempts_total", "partyline_path_attempt_seconds_count"] {
        let line = format!("{name}{{method=\"punch\",outcome=\"worked\"}} 1");
        ensure!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
    Ok(())
}

fn mesh_of_8(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = eight(world, &server)?;
    let addresses: BTreeSet<_> = members.iter().map(Member::address).collect::<Result<_>>()?;
    ensure!(addresses.len() == members.len(), "addresses clash: {addresses:?}");
    for (from, to) in pairs(&members) {
        traffic::udp(&from.host, &to.host, to.address()?.into(), 100, 1000)?;
    }
    world.note("pairs", members.len() * (members.len() - 1));
    Ok(())
}

fn broadcast(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = eight(world, &server)?;
    let range = members[0].party()?.range.context("the party has no range")?;
    let listeners: Vec<_> =
        members.iter().map(|member| Listener::start(&member.host, GAME_PORT)).collect::<Result<_>>()?;
    for destination in [Ipv4Addr::BROADCAST, range.broadcast()] {
        for member in &members {
            traffic::send_broadcast(
                &member.host,
                (destination, GAME_PORT).into(),
                &format!("{} at {destination}", member.name()),
            )?;
        }
    }
    for (member, listener) in members.iter().zip(&listeners) {
        received_all_once(member, listener, &members, &[Ipv4Addr::BROADCAST, range.broadcast()])?;
    }
    Ok(())
}

fn two_parties(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    let cora = world.member(world.lab.home("cora", RouterOptions::HOME)?)?;
    let (anna, ben) = (&members[0], &members[1]);
    cora.join(&ben.create(Some(&server))?)?;
    let first = anna.party()?.range.context("no range")?;
    let second =
        until("cora to have an address", CONNECT_TIMEOUT, || cora.party()?.range.context("no range yet"))?;
    ensure!(!first.contains(&second) && !second.contains(&first), "{first} and {second} overlap");
    until("cora to reach ben", CONNECT_TIMEOUT, || {
        let seen = cora.sees("ben")?;
        cora.ping(seen.address.context("ben has no address")?)
    })?;
    let listeners = [Listener::start(&anna.host, GAME_PORT)?, Listener::start(&cora.host, GAME_PORT)?];
    for (range, text) in [(first, "to the first"), (second, "to the second")] {
        traffic::send_broadcast(&ben.host, (range.broadcast(), GAME_PORT).into(), text)?;
    }
    for (listener, own) in listeners.iter().zip(["to the first", "to the second"]) {
        until(&format!("{own} to be heard"), CONNECT_TIMEOUT, || {
            that(listener.received().contains_key(own), || format!("heard {:?}", listener.received()))
        })?;
        ensure!(listener.received().len() == 1, "a broadcast crossed parties: {:?}", listener.received());
    }
    anna.ping(anna.sees("ben")?.address.context("ben has no address")?)
}

/// Checks that the member received one broadcast of every other member for each destination, from that member's
/// address.
fn received_all_once(
    member: &Member,
    listener: &Listener,
    all: &[Member],
    destinations: &[Ipv4Addr],
) -> Result<()> {
    for other in all.iter().filter(|other| other.name() != member.name()) {
        let sender = std::net::IpAddr::from(other.address()?);
        for destination in destinations {
            let text = format!("{} at {destination}", other.name());
            until(&format!("{} to hear {text}", member.name()), CONNECT_TIMEOUT, || {
                let received = listener.received();
                that(received.contains_key(&text), || format!("it received {received:?}"))
            })?;
            let senders = &listener.received()[&text];
            ensure!(*senders == [sender], "{} received {text:?} from {senders:?}", member.name());
        }
    }
    Ok(())
}

fn one_lan(world: &World) -> Result<()> {
    let server = world.server()?;
    let home = world.lab.site("flat", RouterOptions::HOME)?;
    let members = world.party(Some(&server), vec![home.host("anna")?, home.host("ben")?])?;
    members[0].wait_for_path(&members[1], PathKind::Lan)?;
    members[1].wait_for_path(&members[0], PathKind::Lan)?;
    exchange_traffic(&members[0], &members[1])
}

fn lonely_lan(world: &World) -> Result<()> {
    let cabin = world.lab.lonely_lan("cabin")?;
    let members = world.party(None, vec![cabin.host("anna")?, cabin.host("ben")?, cabin.host("cora")?])?;
    for (from, to) in pairs(&members) {
        from.wait_for_path(to, PathKind::Lan)?;
    }
    exchange_traffic(&members[0], &members[2])
}

fn symmetric(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::SYMMETRIC)?;
    exchange_traffic(&members[0], &members[1])
}

fn relay_udp(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = blocked(world, &server)?;
    members[0].wait_for_path(&members[1], PathKind::Relay)?;
    members[0].wait_for_method(&members[1], Method::RelayUdp)?;
    exchange_traffic(&members[0], &members[1])
}

fn relay_tls(world: &World) -> Result<()> {
    let server = world.server()?;
    let clerk = world.lab.home("clerk", RouterOptions::OFFICE)?;
    let ben = world.lab.home("ben", RouterOptions::HOME)?;
    let members = world.party(Some(&server), vec![clerk, ben])?;
    members[0].wait_for_path(&members[1], PathKind::Relay)?;
    members[0].wait_for_method(&members[1], Method::RelayTls)?;
    exchange_traffic(&members[0], &members[1])
}

fn upgrade(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = blocked(world, &server)?;
    let (anna, ben) = (&members[0], &members[1]);
    anna.wait_for_path(ben, PathKind::Relay)?;
    let flow = Flow::start(&anna.host, &ben.host, ben.address()?.into())?;
    world.lab.unblock()?;
    anna.wait_for_path(ben, PathKind::Direct)?;
    ben.wait_for_path(anna, PathKind::Direct)?;
    settle(world, vec![flow])
}

fn server_restart(world: &World) -> Result<()> {
    let mut server = world.server()?;
    let members = homes(world, &server, &["anna", "ben", "cora"], RouterOptions::HOME)?;
    for (from, to) in pairs(&members) {
        from.wait_for_path(to, PathKind::Direct)?;
    }
    let flows = flows(&members)?;
    bounce(&mut server, &members)?;
    settle(world, flows)
}

fn relay_restart(world: &World) -> Result<()> {
    let mut server = world.server()?;
    let members = blocked(world, &server)?;
    members[0].wait_for_path(&members[1], PathKind::Relay)?;
    let flows = flows(&members)?;
    bounce(&mut server, &members)?;
    connected(&members)?;
    settle(world, flows)
}

fn member_crash(world: &World) -> Result<()> {
    let server = world.server()?;
    let mut members = homes(world, &server, &["anna", "ben", "cora"], RouterOptions::HOME)?;
    let before = members[1].address()?;
    let bystanders = Flow::start(&members[0].host, &members[2].host, members[2].address()?.into())?;
    members[1].crash()?;
    members[1].start()?;
    connected(&members)?;
    let after = members[1].address()?;
    ensure!(before == after, "the address changed from {before} to {after}");
    exchange_traffic(&members[0], &members[1])?;
    settle(world, vec![bystanders])
}

fn cable(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    let (anna, ben) = (&members[0], &members[1]);
    let flow = Flow::start(&anna.host, &ben.host, ben.address()?.into())?;
    anna.host.cut()?;
    let there = ben.address()?;
    until("the connection to stall", CONNECT_TIMEOUT, || {
        that(anna.ping(there).is_err(), || "it still answers".into())
    })?;
    anna.host.restore()?;
    connected(&members)?;
    settle(world, vec![flow])
}

fn kick(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben", "mallory"], RouterOptions::HOME)?;
    let [anna, ben, mallory] = &members[..] else { unreachable!("three were asked for") };
    let friends = Flow::start(&anna.host, &ben.host, ben.address()?.into())?;
    let addresses = [anna.address()?, ben.address()?];
    anna.partyline(&["kick", "mallory"])?;
    for friend in [anna, ben] {
        gone_from(friend, "mallory")?;
    }
    for address in addresses {
        until("mallory to lose access", CONNECT_TIMEOUT, || {
            that(mallory.ping(address).is_err(), || format!("{address} still answers"))
        })?;
    }
    settle(world, vec![friends])?;
    exchange_traffic(anna, ben)
}

fn leave(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben", "cora"], RouterOptions::HOME)?;
    members[2].partyline(&["leave"])?;
    for friend in &members[..2] {
        gone_from(friend, "cora")?;
    }
    let left = members[2].status()?.parties.len();
    ensure!(left == 0, "cora is still in {left} parties");
    exchange_traffic(&members[0], &members[1])
}

/// Connects a party of eight members: five in homes with three kinds of router, and three on one LAN.
fn eight(world: &World, server: &Server) -> Result<Vec<Member>> {
    let mut hosts = vec![
        world.lab.home("anna", RouterOptions::HOME)?,
        world.lab.home("ben", RouterOptions::DUAL_STACK)?,
        world.lab.home("cora", RouterOptions::SYMMETRIC)?,
        world.lab.home("dan", RouterOptions::DUAL_STACK)?,
        world.lab.home("eve", RouterOptions::HOME)?,
    ];
    let flat = world.lab.site("flat", RouterOptions::HOME)?;
    for name in ["fay", "gus", "hal"] {
        hosts.push(flat.host(name)?);
    }
    world.party(Some(server), hosts)
}

/// Connects two members in homes between which UDP is blocked.
fn blocked(world: &World, server: &Server) -> Result<Vec<Member>> {
    let hosts = [world.lab.home("anna", RouterOptions::HOME)?, world.lab.home("ben", RouterOptions::HOME)?];
    world.lab.block_udp(&hosts[0], &hosts[1])?;
    world.party(Some(server), hosts.into())
}

fn flows(members: &[Member]) -> Result<Vec<Flow>> {
    pairs(members).map(|(from, to)| Flow::start(&from.host, &to.host, to.address()?.into())).collect()
}

/// Stops the connections, each of which must have survived, and records the longest wait for a response.
fn settle(world: &World, flows: Vec<Flow>) -> Result<()> {
    let reports = flows.into_iter().map(Flow::stop).collect::<Result<Vec<_>>>()?;
    let longest = reports.iter().map(|report| report.longest.as_secs_f64()).fold(0.0, f64::max);
    world.note("connections", reports.len());
    world.note("lost", 0);
    world.note("longest_gap_ms", (longest * 1000.0).round());
    Ok(())
}

/// Kills the server, waits until all members have noticed, restarts it, and waits until all members are connected
/// again.
fn bounce(server: &mut Server, members: &[Member]) -> Result<()> {
    server.kill()?;
    for member in members {
        server_is(member, false)?;
    }
    server.restart()?;
    members.iter().try_for_each(|member| server_is(member, true))
}

fn server_is(member: &Member, connected: bool) -> Result<()> {
    let what = format!("{} to see the server {}", member.name(), if connected { "back" } else { "gone" });
    until(&what, CONNECT_TIMEOUT, || {
        let servers = member.party()?.servers;
        that(!servers.is_empty() && servers.iter().all(|server| server.connected == connected), || {
            format!("{servers:?}")
        })
    })
}
