//! What a pair of members costs in large parties and in many parties. It must not grow with either.

use std::{fs, time::Duration};

use partyline_rendezvous::{Limits, Rate};

use crate::{Member, World};

/// The time in which all members have to find and measure each other.
const MESH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the party is watched at rest: several keepalive intervals.
const REST: Duration = Duration::from_secs(60);

/// What members of parties of this size and number cost. Processor times are those of the simulation, including its
/// servers; the peers of a member are those of all its parties.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Scale {
    /// Members of each party.
    pub members: usize,
    /// Parties that all of them are in.
    pub parties: usize,
    /// The virtual time until all members were connected to each other, in milliseconds.
    pub mesh_ms: f64,
    /// Processor time of a member for each peer in the first 30 seconds, in milliseconds.
    pub mesh_cpu_ms: f64,
    /// Datagrams and frames to servers that a member sends for each peer in them.
    pub mesh_messages: f64,
    /// Processor time of a member for each peer in a minute of rest, in milliseconds.
    pub rest_cpu_ms: f64,
    /// Datagrams that a member sends to each peer in 15 seconds of rest.
    pub rest_datagrams: f64,
    /// Timeouts that wake a member per second of rest.
    pub rest_wakes: f64,
}

/// Makes members meet at once in one or several parties, and then rest.
#[must_use]
pub fn measure(members: usize, parties: usize) -> Scale {
    let mut world = World::new(members as u64);
    let rate = Rate::per_second(1_000_000, 1_000_000);
    world.limits =
        Limits { address_rate: rate, topic_rate: rate, members_per_topic: 1_000, ..world.limits.clone() };
    world.start_server();
    let (start, begun) = (world.now().instant, cpu_ms());
    (0..members).for_each(|_| _ = world.member());
    for _ in 0..parties {
        let (_, link) = world.create(0, None);
        (1..members).for_each(|who| world.join(who, &link));
    }
    let met = meet(&mut world, parties);
    let peers = (members * parties * (members - 1)) as f64;
    world.run((start + MESH_TIMEOUT).saturating_duration_since(world.now().instant));
    let (mesh_cpu_ms, mesh) = ((cpu_ms() - begun) / peers, counts(&world));
    let (begun, before) = (cpu_ms(), counts(&world));
    world.run(REST);
    let after = counts(&world);
    let minutes = REST.as_secs_f64() / 60.0;
    Scale {
        members,
        parties,
        mesh_ms: met.as_secs_f64() * 1000.0,
        mesh_cpu_ms,
        mesh_messages: mesh.messages as f64 / peers,
        rest_cpu_ms: (cpu_ms() - begun) / peers / minutes,
        rest_datagrams: (after.datagrams - before.datagrams) as f64 / peers / minutes / 4.0,
        rest_wakes: (after.wakes - before.wakes) as f64 / members as f64 / REST.as_secs_f64(),
    }
}

/// Runs until all members are connected to each other. Returns how long it took.
fn meet(world: &mut World, parties: usize) -> Duration {
    let start = world.now().instant;
    let all = world.members.len();
    let mut who = 0;
    while who < all {
        if connected(world, who) >= (all - 1) * parties {
            who += 1;
            continue;
        }
        assert!(world.now().instant - start < MESH_TIMEOUT, "{who} of {all} members do not find all others");
        world.run(Duration::from_millis(100));
    }
    world.now().instant - start
}

fn connected(world: &World, who: usize) -> usize {
    let ready = |path: &partyline_model::PathView| path.handshake_s.is_some();
    let members = world.snapshot(who).parties.into_iter().flat_map(|party| party.members);
    members.filter(|member| member.path.as_ref().is_some_and(ready)).count()
}

struct Counts {
    datagrams: usize,
    messages: usize,
    wakes: usize,
}

fn counts(world: &World) -> Counts {
    let sum = |of: fn(&Member) -> usize| world.members.iter().map(of).sum();
    let datagrams: usize = sum(|member| member.datagrams);
    let frames: usize = sum(|member| member.frames);
    Counts { datagrams, messages: datagrams + frames, wakes: sum(|member| member.wakes) }
}

/// Returns the processor time of this thread so far in milliseconds, or NaN if the system does not report it.
fn cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns: Option<f64> = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
    ns.unwrap_or(f64::NAN) / 1e6
}
