//! One party of many members: what each of them costs.

use std::{fs, time::Duration};

use partyline_rendezvous::{Limits, Rate};

use crate::World;

/// How long everybody may take to find everybody.
const LIMIT: Duration = Duration::from_secs(120);
/// How long the party is watched once it is at rest.
const WATCHED: Duration = Duration::from_secs(10);

/// What a member of a party of this size costs. The processor times are those of the simulation, servers included.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Scale {
    /// Members of the party.
    pub members: usize,
    /// Virtual time until everybody was connected to everybody, in milliseconds.
    pub mesh_ms: f64,
    /// Processor time of a member until then, in milliseconds.
    pub mesh_cpu_ms: f64,
    /// Processor time of a member in a second of rest, in milliseconds.
    pub rest_cpu_ms: f64,
    /// Datagrams that a member sends in a second of rest.
    pub rest_datagrams: f64,
    /// How often time alone wakes a member in a second of rest.
    pub rest_wakes: f64,
}

/// Has so many members meet at once, and rest.
#[must_use]
pub fn measure(members: usize) -> Scale {
    let mut world = World::new(members as u64);
    let rate = Rate { burst: 1_000_000, per_second: 1_000_000 };
    world.limits =
        Limits { address_rate: rate, topic_rate: rate, members_per_topic: 1_000, ..world.limits.clone() };
    world.start_server();
    let begun = cpu_ms();
    (0..members).for_each(|_| _ = world.member());
    let (_, link) = world.create(0, None);
    (1..members).for_each(|who| world.join(who, &link));
    let met = meet(&mut world);
    let each = members as f64;
    let mesh_cpu_ms = (cpu_ms() - begun) / each;
    world.run(Duration::from_secs(20));
    let (begun, before) = (cpu_ms(), counts(&world));
    world.run(WATCHED);
    let after = counts(&world);
    let per_second = |count: f64| count / each / WATCHED.as_secs_f64();
    Scale {
        members,
        mesh_ms: met.as_secs_f64() * 1000.0,
        mesh_cpu_ms,
        rest_cpu_ms: per_second(cpu_ms() - begun),
        rest_datagrams: per_second((after.0 - before.0) as f64),
        rest_wakes: per_second((after.1 - before.1) as f64),
    }
}

/// Waits until everybody is connected to everybody.
fn meet(world: &mut World) -> Duration {
    let start = world.now.instant;
    let all = world.members.len();
    let mut who = 0;
    while who < all {
        let members = world.view(who).members;
        let ready = |path: &partyline_model::PathView| path.handshake_s.is_some();
        if members.iter().filter(|member| member.path.as_ref().is_some_and(ready)).count() + 1 >= all {
            who += 1;
            continue;
        }
        assert!(world.now.instant - start < LIMIT, "{who} of {all} members do not find all others");
        world.run(Duration::from_millis(100));
    }
    world.now.instant - start
}

fn counts(world: &World) -> (usize, usize) {
    let sum = |of: fn(&crate::Member) -> usize| world.members.iter().map(of).sum();
    (sum(|member| member.datagrams), sum(|member| member.wakes))
}

/// Processor time of this thread so far, where the system tells it.
fn cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns: Option<f64> = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
    ns.unwrap_or(f64::NAN) / 1e6
}
