//! The oracle against the NATs themselves: the way that it names is played with real translations and works; where it
//! names an obstacle, neither any of the ways nor thousands of arbitrary packets get through.
#![allow(missing_docs)]

mod play;

use std::collections::BTreeMap;

use partyline_nat::{
    Rules,
    oracle::{Obstacle, Technique, direct},
};
use play::{Play, WAYS};

const SEEDS: u64 = 2;

fn pairs() -> Vec<(Rules, Rules)> {
    let all: Vec<Rules> = Rules::all_types(1).collect();
    let pair = |one: usize| all[one..].iter().map(move |other| (one, *other));
    (0..all.len()).flat_map(pair).map(|(one, other)| (all[one], other)).collect()
}

/// Whether a way works from either side.
fn works(way: Technique, one: Rules, other: Rules, seed: u64) -> bool {
    Play::new(one, other, seed).take(way) || Play::new(other, one, seed).take(way)
}

#[test]
fn the_way_that_is_named_works() {
    for (one, other) in pairs() {
        let Ok(way) = direct(&one, &other) else { continue };
        assert_eq!(direct(&other, &one), Ok(way));
        for seed in 0..SEEDS {
            let (one_name, other_name) = (one.short(), other.short());
            assert!(works(way, one, other, seed), "{one_name} with {other_name}, seed {seed}: {way:?} fails");
        }
    }
}

#[test]
fn where_an_obstacle_is_named_no_way_works() {
    let mut lucky = 0;
    for (one, other) in pairs() {
        let Err(obstacle) = direct(&one, &other) else { continue };
        assert_eq!(direct(&other, &one), Err(obstacle));
        for seed in 0..SEEDS {
            for way in WAYS {
                let (one_name, other_name) = (one.short(), other.short());
                assert!(!works(way, one, other, seed), "{one_name} with {other_name}: {way:?} works");
            }
            lucky += usize::from(Play::new(one, other, seed).chance());
        }
    }
    println!("{lucky} of 26 got through by chance");
    assert!(lucky <= 4, "{lucky} of 26 got through by chance, so it is not chance");
}

/// The player that tries anything is not blind: where hearing the other side is enough, it finds through.
#[test]
fn chance_finds_through_where_it_can() {
    let some = pairs().into_iter().step_by(5).filter(|(one, other)| direct(one, other).is_ok());
    let found = some.filter(|(one, other)| Play::new(*one, *other, 7).chance()).count();
    println!("{found} of 73");
    assert!(found >= 30, "{found} of 73");
}

#[test]
fn waiting_for_a_mapping_to_expire_helps_where_the_oracle_says_so() {
    for (one, other) in pairs() {
        let expected = direct(&one, &other) == Err(Obstacle::Expiry);
        let Err(_) = direct(&one, &other) else { continue };
        let met = Play::new(one, other, 1).wait() || Play::new(other, one, 1).wait();
        assert_eq!(met, expected, "{} with {}", one.short(), other.short());
    }
}

#[test]
fn the_impossible_pairs_are_thirteen() {
    let mut counts = BTreeMap::new();
    for (one, other) in pairs() {
        let name = direct(&one, &other).map_or_else(|o| format!("{o:?}: {o}"), |w| format!("{w:?}: {w}"));
        counts.entry(name).or_insert_with(Vec::new).push(format!("{} {}", one.short(), other.short()));
    }
    for (name, pairs) in &counts {
        let short = if pairs.len() > 10 { String::new() } else { pairs.join(", ") };
        println!("{:4} {name} {short}", pairs.len());
    }
    let impossible = pairs().into_iter().filter(|(one, other)| direct(one, other).is_err()).count();
    assert_eq!(impossible, 13);
}
