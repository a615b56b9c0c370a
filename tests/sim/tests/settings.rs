//! What people set counts at once and survives whatever happens to the program.
#![allow(missing_docs)]

use std::time::Duration;

use partyline_model::{Command, Grade, Methods, PathKind, RelaySetting, Reply, Settings};
use partyline_tests_sim::World;

const SOON: Duration = Duration::from_secs(30);

fn configure(world: &mut World, who: usize, settings: &Settings) {
    let settings = Box::new(settings.clone());
    world.command(who, Command::Configure { settings }).expect("settings within limits");
}

#[test]
fn settings_survive_the_program() {
    let mut world = World::new(1);
    let who = world.member();
    let relay =
        RelaySetting { url: "turn:mine.test".into(), username: "ann".into(), password: "secret".into() };
    let set = Settings {
        display_name: "Ann".into(),
        relays: vec![relay],
        methods: Methods { spray: false, ..Methods::default() },
        mtu: 1300,
        ..world.snapshot(who).settings
    };
    configure(&mut world, who, &set);
    world.kill(who);
    world.start(who);
    assert_eq!(world.snapshot(who).settings, set.without_secrets());
    // What a client shows and sends back keeps the password.
    let shown = world.snapshot(who).settings;
    configure(&mut world, who, &Settings { mtu: 1350, ..shown });
    let kept = world.members[who].node.as_ref().expect("a node").settings().clone();
    assert_eq!(kept, Settings { mtu: 1350, ..set });
    let bad = Box::new(Settings { mtu: 9, ..kept.clone() });
    world.command(who, Command::Configure { settings: bad }).expect_err("an MTU that does not work");
    assert_eq!(world.members[who].node.as_ref().expect("a node").settings(), &kept);
}

#[test]
fn switching_direct_paths_off_and_on_counts_at_once() {
    let mut world = World::new(2);
    world.start_server();
    let party = world.party(2);
    world.until("a direct path", SOON, |world| world.path(0, 1).is_some_and(|kind| kind < PathKind::Relay));
    let usual = world.snapshot(0).settings;
    configure(&mut world, 0, &Settings { direct: false, ..usual.clone() });
    world.until("the relay", SOON, |world| {
        [(0, 1), (1, 0)].iter().all(|(a, b)| world.path(*a, *b) == Some(PathKind::Relay))
    });
    assert!(world.reaches(0, 1) && world.reaches(1, 0));
    configure(&mut world, 0, &usual);
    world.until("a direct path", 10 * SOON, |world| {
        [(0, 1), (1, 0)].iter().all(|(a, b)| world.path(*a, *b).is_some_and(|kind| kind < PathKind::Relay))
    });
    assert!(world.reaches(0, 1) && world.reaches(1, 0));

    let member = world.members[1].node.as_ref().expect("a node").device();
    let reply = world.command(0, Command::Samples { party, member }).expect("samples");
    let Reply::Samples(samples) = reply else { panic!("{reply:?}") };
    assert!(samples.iter().any(|sample| sample.path == Some(PathKind::Relay)));
    assert!(samples.is_sorted_by(|a, b| a.at_ms <= b.at_ms), "{samples:?}");
    let quality = world.sees(0, 1).expect("a member").quality;
    assert_eq!(quality.latest, samples.last().copied());
    assert_eq!(quality.grade, Some(Grade::Excellent), "{quality:?}");
}
