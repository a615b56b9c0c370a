use partyline_wire::{
    beacon,
    exact::Exact,
    membership::{Charter, Confirmation},
    sealed::{Body, CharterUpdate, Message, RekeyContent, encode_plaintext, subject},
};
use proptest::prelude::*;

use super::*;
use crate::{
    keys::{Epoch, sign},
    seal::seal,
};

/// A message by `from` that its own code would never send.
fn forge(world: &mut World, from: usize, recipient: Option<DeviceId>, body: Body) -> (Topic, Vec<u8>) {
    let topic = world.friends[from].topics()[0].topic;
    let sealed = world.friends[from]
        .say(world.now, &mut world.rng, &topic, recipient, body, &mut Outcome::default())
        .unwrap();
    (topic, sealed)
}

fn announce_body(world: &World, index: usize) -> partyline_wire::announcement::Announcement {
    match world.friends[index].announce(None) {
        Body::Announce(announcement) => *announcement,
        _ => unreachable!(),
    }
}

#[test]
fn a_replayed_message_is_refused() {
    let mut world = World::of(2);
    let (topic, sealed) = world.announcement(1);
    assert_eq!(world.hand(0, topic, &sealed), Ok(()));
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::Replayed));
    let signal = world.signal(1, 0, vec![1, 2, 3]);
    assert_eq!(world.hand(0, signal.topic, &signal.message), Ok(()));
    assert!(world.effects[0].contains(&Effect::Signal { from: world.id(1), bytes: vec![1, 2, 3] }));
    assert_eq!(world.hand(0, signal.topic, &signal.message), Err(Refusal::Replayed));
}

#[test]
fn an_overtaken_message_still_counts_but_changes_nothing_back() {
    let mut world = World::of(2);
    let (topic, older) = world.announcement(1);
    let World { friends, rng, .. } = &mut world;
    friends[1].start_session(rng);
    let (_, newer) = world.announcement(1);
    world.hand(0, topic, &newer).unwrap();
    world.hand(0, topic, &older).unwrap();
    assert_eq!(world.friends[0].member(&world.id(1)).unwrap().session, Some(world.friends[1].session()));
}

#[test]
fn another_partys_messages_are_refused() {
    let (mut world, mut other) = (World::of(2), World::of(3));
    let (topic, sealed) = other.announcement(1);
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::UnknownTopic));
    let ours = world.friends[0].topics()[0].topic;
    assert_eq!(world.hand(0, ours, &sealed), Err(Refusal::Unreadable));

    // A member of both that announces itself here with its certificate from there.
    let mut foreign = announce_body(&world, 1);
    foreign.certificate = announce_body(&other, 1).certificate;
    let (topic, sealed) = forge(&mut world, 1, None, Body::Announce(Box::new(foreign)));
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::BadCertificate));
}

#[test]
fn a_server_that_changes_or_swaps_records_achieves_nothing() {
    let mut world = World::of(3);
    let (topic, sealed) = world.announcement(1);
    for place in [0, 23, 24, 60, sealed.len() / 2, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        assert_eq!(world.hand(0, topic, &changed), Err(Refusal::Unreadable), "byte {place}");
    }
    // Under whichever handle a record is served, it speaks for the device that signed it.
    let before = *world.friends[0].member(&world.id(2)).unwrap().tunnel_key.as_bytes();
    world.hand(0, topic, &sealed).unwrap();
    assert_eq!(*world.friends[0].member(&world.id(2)).unwrap().tunnel_key.as_bytes(), before);
    // A message for one is not heard by another, and one's own comes back to nobody.
    let signal = world.signal(1, 0, vec![1]);
    assert_eq!(world.hand(2, signal.topic, &signal.message), Err(Refusal::NotForMe));
    assert_eq!(world.hand(1, signal.topic, &signal.message), Err(Refusal::Own));
}

#[test]
fn a_member_cannot_speak_for_another() {
    let mut world = World::of(3);
    let topic = world.friends[1].topics()[0].topic;
    let message = |sender, body| {
        Exact::new(Message { sender, recipient: None, sequence: u64::MAX, sent_at: START, body })
    };
    let leave = message(world.id(2), Body::Leave);
    let signature = sign(world.friends[1].device.signing(), &subject(&topic, &leave));
    let key = world.friends[1].epoch.seal.clone();
    let sealed = seal(&key, &topic.0, &encode_plaintext(&leave, &signature), &mut world.rng);
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::BadSignature));

    // Nor show another's certificate as its own, nor another's tunnel key.
    let mut stolen = announce_body(&world, 1);
    stolen.certificate = announce_body(&world, 2).certificate;
    let (topic, sealed) = forge(&mut world, 1, None, Body::Announce(Box::new(stolen)));
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::BadCertificate));
}

#[test]
fn a_message_cannot_be_moved_to_another_topic() {
    let mut world = World::of(3);
    let (old_topic, sealed) = world.announcement(1);
    let old = world.friends[0].epoch.clone();
    let removed = world.id(2);
    let outcome = world.friends[0].remove_member(world.now, &mut world.rng, removed).unwrap();
    world.take(0, outcome);
    world.settle();
    // Whoever knows both keys opens it on the old topic and seals it for the new one.
    let plaintext = crate::seal::open(&old.seal, &old_topic.0, &sealed).unwrap();
    let new = world.friends[0].epoch.clone();
    let moved = seal(&new.seal, &new.topic.0, &plaintext, &mut world.rng);
    assert_eq!(world.hand(0, new.topic, &moved), Err(Refusal::BadSignature));
}

#[test]
fn a_tunnel_key_belongs_to_whoever_showed_it_first() {
    let mut world = World::of(3);
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let thief = world.join(&invite);
    let key = ed25519_dalek::SigningKey::from_bytes(&invite.seed);
    let mut claims = announce_body(&world, thief).certificate.claims().clone();
    claims.tunnel = world.friends[1].tunnel_public();
    let device = world.friends[thief].device.clone();
    world.friends[thief].state.certificate = crate::chain::certify(claims, &key, &device);
    let (topic, sealed) = world.announcement(thief);
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::TunnelKeyTaken));
    assert_eq!(world.hand(1, topic, &sealed), Err(Refusal::TunnelKeyTaken));
}

#[test]
fn a_forged_confirmation_is_refused() {
    let mut world = World::of(2);
    let mut announcement = announce_body(&world, 1);
    let subject = Confirmation::subject(&announcement.certificate);
    announcement.confirmation = Some(Confirmation(sign(world.friends[1].device.signing(), &subject)));
    let (topic, sealed) = forge(&mut world, 1, None, Body::Announce(Box::new(announcement)));
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::BadConfirmation));
}

#[test]
fn an_older_charter_is_refused() {
    let mut world = World::of(3);
    let old = world.friends[0].charter_update_for(&world.id(1)).unwrap();
    let outcome = world.friends[0].rename(world.now, &mut world.rng, "Newer".into()).unwrap();
    world.take(0, outcome);
    world.settle();
    let (topic, sealed) =
        forge(&mut world, 2, None, Body::Charter(Box::new(CharterUpdate { confirmation: None, ..old })));
    assert_eq!(world.hand(1, topic, &sealed), Err(Refusal::OldCharter));
    assert_eq!(world.friends[1].name(), "Newer");
}

#[test]
fn a_forged_charter_is_refused() {
    let mut world = World::of(3);
    let mut terms = world.friends[0].state.charter.as_ref().unwrap().terms.value().clone();
    terms.version += 1;
    terms.owner = world.id(2);
    let forged = crate::chain::proclaim(world.friends[2].device.signing(), terms);
    let body = Body::Charter(Box::new(CharterUpdate { charter: forged, confirmation: None }));
    let (topic, sealed) = forge(&mut world, 2, None, body);
    assert_eq!(world.hand(1, topic, &sealed), Err(Refusal::BadCharter));
}

#[test]
fn an_amendment_by_somebody_else_than_a_co_owner_is_refused() {
    let mut world = World::of(3);
    let charter = world.friends[2].state.charter.clone().unwrap();
    let amendment = Exact::new(partyline_wire::membership::Amendment {
        terms: charter.terms_digest(),
        number: 1,
        author: world.id(2),
        revoked_devices: vec![world.id(1)],
        revoked_invites: Vec::new(),
        commitment: [0; 32],
    });
    let signature = sign(world.friends[2].device.signing(), &amendment.subject());
    let amendment = Some(partyline_wire::membership::SignedAmendment { amendment, signature });
    let body = Body::Charter(Box::new(CharterUpdate {
        charter: Charter { amendment, ..charter },
        confirmation: None,
    }));
    let (topic, sealed) = forge(&mut world, 2, None, body);
    assert_eq!(world.hand(0, topic, &sealed), Err(Refusal::BadCharter));
}

#[test]
fn a_secret_the_charter_does_not_commit_to_is_refused() {
    let mut world = World::of(3);
    let (from, to) = (world.id(2), world.id(1));
    let update = CharterUpdate { confirmation: None, ..world.friends[2].charter_update_for(&to).unwrap() };
    let content = RekeyContent { secret: [66; 32], update }.encode();
    let party = world.friends[2].id();
    let pair = world.friends[2].pair(&to, &world.friends[1].tunnel_public()).unwrap();
    let sealed = seal(&pair.rekey_key(&party), &[from.0, to.0].concat(), &content, &mut world.rng);
    let certificate = world.friends[2].state.certificate.clone();
    let rekey = Body::Rekey(Box::new(partyline_wire::sealed::Rekey { certificate, sealed }));
    let (topic, sealed) = forge(&mut world, 2, Some(to), rekey);
    let before = world.friends[1].topics();
    assert_eq!(world.hand(1, topic, &sealed), Err(Refusal::WrongSecret));
    assert_eq!(world.friends[1].topics(), before);
}

#[test]
fn a_rekey_is_for_its_receiver_alone() {
    let mut world = World::of(3);
    let (to, topic) = (world.id(1), world.friends[0].topics()[0].topic);
    let World { friends, rng, now, .. } = &mut world;
    let body = friends[0].rekey_for(&to, rng).unwrap();
    // Re-addressed to the third member, it does not open.
    let third = friends[2].me();
    let sealed = friends[0].say(*now, rng, &topic, Some(third), body, &mut Outcome::default()).unwrap();
    assert_eq!(world.hand(2, topic, &sealed), Err(Refusal::Unreadable));
}

#[test]
fn strangers_with_the_secret_alone_are_nobody() {
    let mut world = World::of(2);
    let stranger = DeviceKey::generate(&mut world.rng);
    let epoch: Epoch = world.friends[0].epoch.clone();
    let message = Exact::new(Message {
        sender: stranger.id(),
        recipient: None,
        sequence: 1,
        sent_at: world.now,
        body: Body::Signal(vec![1]),
    });
    let signature = sign(stranger.signing(), &subject(&epoch.topic, &message));
    let sealed = seal(&epoch.seal, &epoch.topic.0, &encode_plaintext(&message, &signature), &mut world.rng);
    assert_eq!(world.hand(0, epoch.topic, &sealed), Err(Refusal::UnknownSender));
}

#[test]
fn an_announcement_with_twelve_long_candidates_fits_a_beacon() {
    let mut world = World::of(2);
    let long = |n: u16| Candidate {
        kind: CandidateKind::Relayed,
        address: (std::net::Ipv6Addr::from_bits(u128::MAX - u128::from(n)), 65_000 + n).into(),
    };
    let mut reach = Reachability { candidates: (0..24).map(long).collect(), ..Reachability::default() };
    reach.nat.public = vec![std::net::Ipv6Addr::from_bits(u128::MAX).into(); 2];
    let topic = world.friends[1].topics()[0].topic;
    let World { friends, rng, now, .. } = &mut world;
    let sealed = only(friends[1].beacon(*now, rng, &topic, &reach)).message;
    let beacon = beacon::encode(&topic, &sealed).unwrap();
    let (tag, sealed) = beacon::decode(&beacon).unwrap();
    assert_eq!(friends[0].topic_by_tag(tag), Some(topic));
    assert_eq!(friends[0].receive(*now, rng, &topic, sealed).unwrap().sender, friends[1].me());
    assert_eq!(friends[0].member(&friends[1].me()).unwrap().candidates.len(), 12);
    assert!(beacon.len() <= beacon::MAX_BEACON - 300, "{}", beacon.len());
    let full = only(friends[1].announcement(*now, rng, &topic, &reach));
    assert!(full.message.len() <= partyline_wire::rendezvous::MAX_RECORD);
    // And once more with another name, of the longest letters.
    let _ = friends[1].set_display_name(&"\u{1f600}".repeat(32)).unwrap();
    let sealed = only(friends[1].beacon(*now, rng, &topic, &reach)).message;
    assert!(beacon::encode(&topic, &sealed).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut world = World::of(2);
        let epoch = world.friends[0].epoch.clone();
        prop_assert!(world.hand(0, epoch.topic, &bytes).is_err());
        // Even when sealed by somebody who knows the key.
        let sealed = seal(&epoch.seal, &epoch.topic.0, &bytes, &mut world.rng);
        prop_assert!(world.hand(0, epoch.topic, &sealed).is_err());
        let World { friends, rng, now, .. } = &mut world;
        prop_assert!(friends[0].receive(*now, rng, &Topic([0; 32]), &bytes).is_err());
    }

    #[test]
    fn signed_garbage_never_panics(place: prop::sample::Index, byte: u8) {
        let mut world = World::of(2);
        let epoch = world.friends[0].epoch.clone();
        let (topic, sealed) = world.announcement(1);
        let mut plaintext = crate::seal::open(&epoch.seal, &topic.0, &sealed).unwrap();
        let at = 64 + place.index(plaintext.len() - 64);
        plaintext[at] = byte;
        let changed = seal(&epoch.seal, &topic.0, &plaintext, &mut world.rng);
        let _ = world.hand(0, topic, &changed);
        prop_assert!(world.knows(0, 1));
    }
}
