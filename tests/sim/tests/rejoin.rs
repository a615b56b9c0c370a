//! Leaving a party and coming back to it.
#![allow(missing_docs)]

use std::time::Duration;

use partyline_model::Command;
use partyline_tests_sim::World;

const SOON: Duration = Duration::from_secs(6);

/// Lets one member leave and join again by a new invite after each of these pauses.
fn rejoin(seed: u64, members: usize, pauses: &[u64]) {
    let mut world = World::new(seed);
    world.start_server();
    let party = world.party(members);
    let who = 1 + seed as usize % (members - 1);
    for pause in pauses {
        world.command(who, Command::Leave { party }).expect("anybody may");
        world.run(Duration::from_millis(*pause));
        let link = world.invite(0, party);
        world.join(who, &link);
        world.until_mesh(SOON);
        world.assert_all_reach();
    }
}

#[test]
fn member_that_comes_back_at_once_meets_everybody() {
    for seed in 0..2 {
        for members in [2, 3, 4] {
            for pause in [0, 10, 41, 100, 400, 1000, 5000] {
                rejoin(seed, members, &[pause]);
            }
        }
    }
}

/// A member that was restarted enters its topic as a visitor first, and so several times within seconds.
#[test]
fn member_that_was_restarted_and_comes_back_meets_everybody() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        world.start_server();
        let party = world.party(4);
        for _ in 0..3 {
            world.kill(2);
            world.start(2);
            world.until_mesh(SOON);
            world.command(2, Command::Leave { party }).expect("anybody may");
            let link = world.invite(0, party);
            world.join(2, &link);
            world.until_mesh(SOON);
            world.assert_all_reach();
        }
    }
}
