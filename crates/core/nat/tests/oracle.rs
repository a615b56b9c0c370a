//! The oracle against the NAT model: the technique that it names succeeds with real translations. Where it names an
//! obstacle, neither any technique nor thousands of arbitrary packets get through.
#![allow(missing_docs)]

mod pair;

use std::collections::BTreeMap;

use pair::{NatPair, TECHNIQUES};
use partyline_nat::{
    Rules,
    oracle::{Obstacle, Technique, direct},
};

const SEEDS: u64 = 2;

fn pairs() -> Vec<(Rules, Rules)> {
    let all: Vec<Rules> = Rules::all_types(1).collect();
    let pair = |one: usize| all[one..].iter().map(move |other| (one, *other));
    (0..all.len()).flat_map(pair).map(|(one, other)| (all[one], other)).collect()
}

/// Returns true if a technique succeeds from either side.
fn works(technique: Technique, one: Rules, other: Rules, seed: u64) -> bool {
    NatPair::new(one, other, seed).run(technique) || NatPair::new(other, one, seed).run(technique)
}

#[test]
fn named_technique_succeeds() {
    for (one, other) in pairs() {
        let Ok(technique) = direct(&one, &other) else { continue };
        assert_eq!(direct(&other, &one), Ok(technique));
        for seed in 0..SEEDS {
            let (one_name, other_name) = (one.short(), other.short());
            assert!(
                works(technique, one, other, seed),
                "{one_name} with {other_name}, seed {seed}: {technique:?} fails"
            );
        }
    }
}

#[test]
fn no_technique_succeeds_where_an_obstacle_is_named() {
    let mut lucky = 0;
    for (one, other) in pairs() {
        let Err(obstacle) = direct(&one, &other) else { continue };
        assert_eq!(direct(&other, &one), Err(obstacle));
        for seed in 0..SEEDS {
            for technique in TECHNIQUES {
                let (one_name, other_name) = (one.short(), other.short());
                assert!(
                    !works(technique, one, other, seed),
                    "{one_name} with {other_name}: {technique:?} works"
                );
            }
            lucky += usize::from(NatPair::new(one, other, seed).chance());
        }
    }
    println!("{lucky} of 26 got through by chance");
    assert!(lucky <= 4, "{lucky} of 26 got through by chance, so that it is no coincidence");
}

/// The pair that sends arbitrary packets learns from those that arrive, so that it often succeeds where that is enough.
#[test]
fn arbitrary_packets_often_succeed_where_a_path_is_possible() {
    let some = pairs().into_iter().step_by(5).filter(|(one, other)| direct(one, other).is_ok());
    let found = some.filter(|(one, other)| NatPair::new(*one, *other, 7).chance()).count();
    println!("{found} of 73");
    assert!(found >= 30, "{found} of 73");
}

#[test]
fn waiting_for_expiry_helps_where_the_oracle_says_so() {
    for (one, other) in pairs() {
        let expected = direct(&one, &other) == Err(Obstacle::Expiry);
        let Err(_) = direct(&one, &other) else { continue };
        let met = NatPair::new(one, other, 1).wait() || NatPair::new(other, one, 1).wait();
        assert_eq!(met, expected, "{} with {}", one.short(), other.short());
    }
}

#[test]
fn thirteen_pairs_have_no_direct_path() {
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
