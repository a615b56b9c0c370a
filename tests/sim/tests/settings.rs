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
    assert_eq!(world.snapshot(who).settings, set.without_passwords());
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
fn another_name_is_heard_by_everybody_in_every_party() {
    let mut world = World::new(4);
    world.start_server();
    world.party(3);
    let called = |world: &World, by: usize, who: usize| {
        let id = world.snapshot(who).parties[0].members.iter().find(|member| member.me).expect("me").id;
        let party = &world.snapshot(by).parties[0];
        party.members.iter().find(|member| member.id == id).map(|member| member.name.clone())
    };
    let usual = world.snapshot(1).settings;
    world.until("everybody to meet", SOON, |world| [0, 2].iter().all(|by| called(world, *by, 1).is_some()));
    configure(&mut world, 1, &Settings { display_name: "Zoë".into(), ..usual.clone() });
    let zoe = |world: &World, by: usize| called(world, by, 1).as_deref() == Some("Zoë");
    world.until("the new name", SOON, |world| (0..3).all(|by| zoe(world, by)));
    // Those who slept through it hear it when they come back, and so does it survive the program.
    world.kill(1);
    world.start(1);
    world.until("the name after a restart", SOON, |world| (0..3).all(|by| zoe(world, by)));
    let hidden = Settings { display_name: "a\u{202e}b".into(), ..usual };
    world.command(1, Command::Configure { settings: Box::new(hidden) }).expect_err("letters that hide");
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
