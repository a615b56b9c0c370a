use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// All members in `who` have the same charter, secret and roster, and an address of their own each.
pub(super) fn assert_agreement(world: &World, who: &[usize]) {
    let expected: BTreeSet<DeviceId> = who.iter().map(|index| world.id(*index)).collect();
    let addresses: BTreeSet<_> =
        who.iter().map(|index| world.friends[*index].address_v4().unwrap()).collect();
    assert_eq!(addresses.len(), who.len(), "addresses are distinct");
    for index in who {
        let friend = &world.friends[*index];
        let first = &world.friends[who[0]];
        assert_eq!(friend.charter.in_force(), first.charter.in_force(), "charter of {index}");
        assert_eq!(friend.topics()[0].topic, first.topics()[0].topic, "topic of {index}");
        let known: BTreeSet<DeviceId> =
            friend.members().map(|member| member.device).chain([friend.me()]).collect();
        assert_eq!(known, expected, "roster of {index}");
        for member in friend.members() {
            let itself = &world.friends[world.index(&member.device).unwrap()];
            assert_eq!(member.address_v4, itself.address_v4(), "address as {index} sees it");
            assert!(member.confirmed && member.role == itself.role());
        }
    }
}

/// A caller that only follows effects knows the same members.
fn assert_effects_are_complete(world: &World, who: &[usize]) {
    for index in who {
        let mut reported = BTreeSet::new();
        for effect in &world.effects[*index] {
            match effect {
                Effect::MemberChanged(device) => _ = reported.insert(*device),
                Effect::MemberGone(device, _) => assert!(reported.remove(device)),
                _ => {}
            }
        }
        assert_eq!(reported, world.friends[*index].devices().collect());
        assert_eq!(world.addresses[*index], addresses(&world.friends[*index]));
    }
}

#[test]
fn all_members_agree_who_holds_a_claimed_address() {
    // Fourteen addresses and twelve members: clashes are certain.
    let mut world = World::new(77);
    let outcome =
        world.friends[0].set_range(world.now, &mut world.rng, "10.9.8.16/28".parse().unwrap()).unwrap();
    world.apply(0, outcome);
    let invite = world.invite(0, InviteLifetime::Week, Role::Member);
    (1..12).for_each(|_| _ = world.join(&invite));
    world.announce_all();
    world.announce_all();
    assert_agreement(&world, &(0..12).collect::<Vec<_>>());
    let lowest = (0..12).min_by_key(|index| world.friends[*index].identity.certificate().digest()).unwrap();
    let moved = world.effects[lowest].iter().filter(|effect| **effect == Effect::AddressChanged).count();
    assert!(moved <= 1, "the lowest digest never gives way");
}

#[test]
fn same_seed_gives_the_same_party() {
    let [a, b] = [World::of(4), World::of(4)];
    let state = |world: &World| serde_json::to_string(&world.friends[3].state()).unwrap();
    assert_eq!(state(&a), state(&b));
}

#[derive(Debug, Clone)]
enum Step {
    Join,
    Announce(prop::sample::Index),
    Remove {
        by_owner: bool,
        whom: prop::sample::Index,
    },
    Rename,
    Sleep(prop::sample::Index),
    Wake(prop::sample::Index),
    /// Deliver some of the post, from random places: `(where, fate)`, fate 0 loses it and 1 doubles it.
    Post(Vec<(prop::sample::Index, u8)>),
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => Just(Step::Join),
        3 => index().prop_map(Step::Announce),
        1 => (any::<bool>(), index()).prop_map(|(by_owner, whom)| Step::Remove { by_owner, whom }),
        1 => Just(Step::Rename),
        1 => index().prop_map(Step::Sleep),
        1 => index().prop_map(Step::Wake),
        6 => prop::collection::vec((index(), 0..4_u8), 1..30).prop_map(Step::Post),
        1 => (0..86_400_000_u32).prop_map(Step::Pass),
    ]
}

fn deliver_at_random(world: &mut World, fates: &[(prop::sample::Index, u8)]) {
    for (place, fate) in fates {
        if world.in_flight.is_empty() {
            return;
        }
        let at = place.index(world.in_flight.len());
        let message = InFlight { sealed: world.in_flight[at].sealed.clone(), ..world.in_flight[at] };
        if *fate != 1 {
            world.in_flight.swap_remove(at);
        }
        if *fate != 0 && world.awake[message.to] {
            let _ = world.deliver(&message);
        }
    }
}

/// Removes a member that is not the co-owner; says who went.
fn remove_one(world: &mut World, by: usize, whom: prop::sample::Index, gone: &mut BTreeSet<usize>) {
    let candidates: Vec<usize> = (2..world.friends.len()).filter(|index| !gone.contains(index)).collect();
    if candidates.is_empty() || gone.len() >= 5 {
        return;
    }
    let index = candidates[whom.index(candidates.len())];
    let id = world.id(index);
    if let Ok(outcome) = world.friends[by].remove_member(world.now, &mut world.rng, id, KickScope::default())
    {
        gone.insert(index);
        world.apply(by, outcome);
    }
}

fn run(steps: Vec<Step>) -> (World, Vec<usize>) {
    let mut world = World::of(4);
    let co_owner = world.id(1);
    let outcome = world.friends[0].set_co_owner(world.now, &mut world.rng, co_owner, true).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    let mut gone = BTreeSet::new();
    for step in steps {
        match step {
            Step::Join if world.friends.len() < 10 => {
                // Refused while the owner lacks the secret that a co-owner made.
                let lifetime = InviteLifetime::Never;
                let terms = InviteTerms { lifetime, ..InviteTerms::FRIENDS };
                let World { friends, rng, now, .. } = &mut world;
                if let Ok((invite, _)) = friends[0].create_invite(*now, rng, terms) {
                    let new = world.join(&invite);
                    world.announce(new);
                }
            }
            Step::Join => {}
            Step::Announce(who) => world.announce(who.index(world.friends.len())),
            Step::Remove { by_owner, whom } => {
                remove_one(&mut world, usize::from(!by_owner), whom, &mut gone)
            }
            Step::Rename => {
                let name = format!("Party {}", world.now.0);
                let outcome = world.friends[0].rename(world.now, &mut world.rng, name).unwrap();
                world.apply(0, outcome);
            }
            Step::Sleep(who) => {
                let who = who.index(world.friends.len());
                world.awake[who] = false;
            }
            Step::Wake(who) => {
                let who = who.index(world.friends.len());
                world.awake[who] = true;
                world.announce(who);
            }
            Step::Post(fates) => deliver_at_random(&mut world, &fates),
            Step::Pass(ms) => world.advance(Duration::from_millis(ms.into())),
        }
    }
    world.awake.fill(true);
    for _ in 0..3 {
        world.announce_all();
    }
    let left = (0..world.friends.len()).filter(|index| !gone.contains(index)).collect();
    (world, left)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn members_converge_despite_loss_duplication_and_reordering(steps in prop::collection::vec(step(), 1..40)) {
        let (world, members) = run(steps);
        assert_agreement(&world, &members);
        assert_effects_are_complete(&world, &members);
    }
}
