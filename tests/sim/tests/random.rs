//! Random parties, each judged by what its networks allow; and those that once came out wrong.
#![allow(missing_docs, clippy::unwrap_used, reason = "a corpus that cannot be read must fail")]

use std::{fs, path::Path};

use partyline_model::PathKind;
use partyline_tests_sim::{
    crowd,
    judge::{Obstacle, Route, allows},
    play::play,
    scenario::Scenario,
    shrink::survive,
};

fn corpus() -> Vec<(String, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file());
    let read = |path: std::path::PathBuf| {
        let scenario = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        (path.display().to_string(), scenario)
    };
    files.map(read).collect()
}

#[test]
fn what_once_came_out_wrong_comes_out_right() {
    let corpus = corpus();
    assert!(!corpus.is_empty());
    for (name, scenario) in corpus {
        assert_eq!(survive(&scenario).wrong, [], "{name}");
    }
}

#[test]
fn random_parties_come_out_right() {
    for seed in 0..8 {
        let outcome = survive(&crowd::scenario(seed, &(2..=6)));
        assert_eq!(outcome.wrong, [], "cargo xtask sim --parties 1 --seed {seed} --members 2..6");
    }
}

#[test]
fn the_same_seed_plays_the_same_party() {
    let traces: Vec<u64> = (20..23)
        .map(|seed| {
            let scenario = crowd::scenario(seed, &(3..=5));
            let (first, second) = (play(&scenario), play(&scenario));
            assert_eq!(first, second, "seed {seed}");
            first.trace
        })
        .collect();
    assert!(traces[0] != traces[1] && traces[1] != traces[2], "other parties leave the same trace");
}

/// The judge is strict: what cannot be is refused, and so is a relay where there must be a direct path.
#[test]
fn wrong_paths_are_told_from_right_ones() {
    for (route, right, wrong) in [
        (Route::Lan, PathKind::Lan, PathKind::Direct),
        (Route::Direct, PathKind::Mapped, PathKind::Relay),
        (Route::Direct, PathKind::DirectV6, PathKind::MemberRelay),
        (Route::Hard, PathKind::Direct, PathKind::Relay),
        (Route::Relay(Obstacle::NoUdp), PathKind::Relay, PathKind::Direct),
        (Route::Relay(Obstacle::NoUdp), PathKind::MemberRelay, PathKind::Overlay),
        (Route::Lan, PathKind::Lan, PathKind::Overlay),
    ] {
        assert!(allows(route, right) && !allows(route, wrong), "{route:?}");
    }
}
