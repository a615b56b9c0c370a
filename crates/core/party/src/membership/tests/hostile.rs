use partyline_wire::{
    announcement::Announcement,
    beacon,
    exact::Exact,
    membership::Charter,
    sealed::{Body, CharterUpdate, Message, encode_plaintext, subject},
};
use proptest::prelude::*;

use super::*;
use crate::{
    epoch::Epoch,
    keys::{Secret, sign},
    rekey::seal_rekey,
    seal::{open, seal},
};

/// A message by `from` that its own code would never send.
fn forge(world: &mut World, from: usize, recipient: Option<DeviceId>, body: Body) -> (Topic, Vec<u8>) {
    let topic = world.friends[from].topics()[0].topic;
    (topic, forge_on(world, from, topic, recipient, body))
}

fn forge_on(
    world: &mut World,
    from: usize,
    topic: Topic,
    recipient: Option<DeviceId>,
    body: Body,
) -> Vec<u8> {
    let mut outcome = Outcome::default();
    world.friends[from].send(world.now, &mut world.rng, &topic, recipient, body, &mut outcome);
    only(outcome).message
}

/// A join request of a joiner that its own code would never send.
fn forge_join_request(world: &mut World, from: usize, announcement: &Announcement) -> (Topic, Vec<u8>) {
    let (party, joiner) = (world.friends[0].id(), world.id(from));
    let lobby = current(world, 0).public_lobby().clone();
    let request = lobby.seal_join_request(&mut world.rng, &party, &joiner, announcement).unwrap();
    forge(world, from, None, Body::JoinRequest(request))
}

fn current(world: &World, index: usize) -> Epoch {
    world.friends[index].secrets.current().unwrap().clone()
}

fn announce_body(world: &World, index: usize) -> Announcement {
    world.friends[index].announcement_with(None)
}

#[test]
fn replayed_message_is_refused() {
    let mut world = World::of(2);
    let (topic, sealed) = world.announcement(1);
    assert_eq!(world.deliver_to(0, topic, &sealed), Ok(()));
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::Replayed));
    let signal = world.signal(1, 0, vec![1, 2, 3]);
    assert_eq!(world.deliver_to(0, signal.topic, &signal.message), Ok(()));
    assert!(world.effects[0].contains(&Effect::Signal { from: world.id(1), bytes: vec![1, 2, 3] }));
    assert_eq!(world.deliver_to(0, signal.topic, &signal.message), Err(Refusal::Replayed));
}

#[test]
fn overtaken_message_is_accepted_but_changes_nothing_back() {
    let mut world = World::of(2);
    let (topic, older) = world.announcement(1);
    let World { friends, rng, .. } = &mut world;
    friends[1].start_session(rng);
    let (_, newer) = world.announcement(1);
    world.deliver_to(0, topic, &newer).unwrap();
    world.deliver_to(0, topic, &older).unwrap();
    assert_eq!(world.friends[0].member(&world.id(1)).unwrap().session, Some(world.friends[1].session()));
}

#[test]
fn messages_of_another_party_are_refused() {
    let (mut world, mut other) = (World::of(2), World::of(3));
    let (topic, sealed) = other.announcement(1);
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::UnknownTopic));
    let ours = world.friends[0].topics()[0].topic;
    assert_eq!(world.deliver_to(0, ours, &sealed), Err(Refusal::Unreadable));

    // A member of both that announces itself here with its certificate from there.
    let mut foreign = announce_body(&world, 1);
    foreign.certificate = announce_body(&other, 1).certificate;
    let (topic, sealed) = forge(&mut world, 1, None, Body::Announce(Box::new(foreign)));
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::BadCertificate));
}

#[test]
fn server_cannot_change_or_swap_records() {
    let mut world = World::of(3);
    let (topic, sealed) = world.announcement(1);
    for place in [0, 23, 24, 60, sealed.len() / 2, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        assert_eq!(world.deliver_to(0, topic, &changed), Err(Refusal::Unreadable), "byte {place}");
    }
    // Whatever handle the server files a record under, it speaks for the device that signed it.
    let before = *world.friends[0].member(&world.id(2)).unwrap().tunnel_key.as_bytes();
    world.deliver_to(0, topic, &sealed).unwrap();
    assert_eq!(*world.friends[0].member(&world.id(2)).unwrap().tunnel_key.as_bytes(), before);
    // A message for one member is refused by another, and its sender refuses it too.
    let signal = world.signal(1, 0, vec![1]);
    assert_eq!(world.deliver_to(2, signal.topic, &signal.message), Err(Refusal::NotForMe));
    assert_eq!(world.deliver_to(1, signal.topic, &signal.message), Err(Refusal::Own));
}

#[test]
fn member_cannot_speak_for_another() {
    let mut world = World::of(3);
    let topic = world.friends[1].topics()[0].topic;
    let message = |sender, body| {
        Exact::new(Message { sender, recipient: None, sequence: u64::MAX, sent_at: START, body })
    };
    let certificate = world.friends[2].identity.certificate().digest();
    let leave = message(world.id(2), Body::Leave { certificate });
    let signature = sign(world.friends[1].outbound.device().signing(), &subject(&topic, &leave));
    let key = current(&world, 1).keys().seal_key().clone();
    let sealed = seal(&key, &topic.0, &encode_plaintext(&leave, &signature), &mut world.rng);
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::BadSignature));

    // Nor show another's certificate as its own, nor another's tunnel key.
    let mut stolen = announce_body(&world, 1);
    stolen.certificate = announce_body(&world, 2).certificate;
    let (topic, sealed) = forge(&mut world, 1, None, Body::Announce(Box::new(stolen)));
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::BadCertificate));
}

#[test]
fn message_cannot_be_moved_to_another_topic() {
    let mut world = World::of(3);
    let (old_topic, sealed) = world.announcement(1);
    let old = current(&world, 0);
    let removed = world.id(2);
    let outcome =
        world.friends[0].remove_member(world.now, &mut world.rng, removed, KickScope::default()).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    // A member that knows both keys opens it on the old topic and seals it for the new one.
    let plaintext = open(old.keys().seal_key(), &old_topic.0, &sealed).unwrap();
    let new = current(&world, 0);
    let moved = seal(new.keys().seal_key(), &new.topic().0, &plaintext, &mut world.rng);
    assert_eq!(world.deliver_to(0, *new.topic(), &moved), Err(Refusal::BadSignature));
}

#[test]
fn tunnel_key_of_another_cannot_be_taken() {
    let mut world = World::of(3);
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let thief = world.join(&invite);
    let key = ed25519_dalek::SigningKey::from_bytes(&invite.seed);
    let mut claims = announce_body(&world, thief).certificate.claims().clone();
    claims.tunnel = world.friends[1].tunnel_public();
    let mut announcement = announce_body(&world, thief);
    let own = world.friends[thief].identity.tunnel_secret().clone();
    let device = world.friends[thief].outbound.device().clone();
    announcement.certificate = crate::chain::certify(claims, &key, &device, &own);
    let (topic, sealed) = forge_join_request(&mut world, thief, &announcement);
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::BadCertificate));
    assert_eq!(world.deliver_to(1, topic, &sealed), Err(Refusal::BadCertificate));
}

#[test]
fn two_devices_cannot_share_a_tunnel_key() {
    let mut world = World::of(3);
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let second = world.join(&invite);
    let key = ed25519_dalek::SigningKey::from_bytes(&invite.seed);
    let shared = world.friends[1].identity.tunnel_secret().clone();
    let mut announcement = announce_body(&world, second);
    let mut claims = announcement.certificate.claims().clone();
    claims.tunnel = world.friends[1].tunnel_public();
    let device = world.friends[second].outbound.device().clone();
    announcement.certificate = crate::chain::certify(claims, &key, &device, &shared);
    let (topic, sealed) = forge_join_request(&mut world, second, &announcement);
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::TunnelKeyTaken));
    assert_eq!(world.deliver_to(1, topic, &sealed), Err(Refusal::TunnelKeyTaken));
}

#[test]
fn forged_confirmation_is_refused() {
    let mut world = World::of(2);
    let mut announcement = announce_body(&world, 1);
    let device = world.friends[1].outbound.device().clone();
    announcement.confirmation =
        Some(crate::chain::confirm(device.signing(), &announcement.certificate, 7, 1));
    let (topic, sealed) = forge(&mut world, 1, None, Body::Announce(Box::new(announcement)));
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::BadConfirmation));
}

#[test]
fn older_charter_is_refused() {
    let mut world = World::of(3);
    let old = world.friends[0].charter_update_for(&world.id(1)).unwrap();
    let outcome = world.friends[0].rename(world.now, &mut world.rng, "Newer".into()).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    let (topic, sealed) =
        forge(&mut world, 2, None, Body::Charter(Box::new(CharterUpdate { confirmation: None, ..old })));
    assert_eq!(world.deliver_to(1, topic, &sealed), Err(Refusal::OldCharter));
    assert_eq!(world.friends[1].name(), "Newer");
}

#[test]
fn forged_charter_is_refused() {
    let mut world = World::of(3);
    let mut terms = world.friends[0].charter.in_force().unwrap().terms.value().clone();
    terms.version += 1;
    terms.owner = world.id(2);
    let forged = crate::chain::proclaim(world.friends[2].outbound.device().signing(), terms);
    let body = Body::Charter(Box::new(CharterUpdate { charter: forged, confirmation: None }));
    let (topic, sealed) = forge(&mut world, 2, None, body);
    assert_eq!(world.deliver_to(1, topic, &sealed), Err(Refusal::BadCharter));
}

#[test]
fn amendment_by_a_plain_member_is_refused() {
    let mut world = World::of(3);
    let charter = world.friends[2].charter.in_force().unwrap().clone();
    let amendment = Exact::new(partyline_wire::membership::Amendment {
        terms: charter.terms_digest(),
        number: 1,
        author: world.id(2),
        revoked_devices: vec![world.id(1)],
        revoked_invites: Vec::new(),
        commitment: [0; 32],
    });
    let signature = sign(world.friends[2].outbound.device().signing(), &amendment.subject());
    let amendment = Some(partyline_wire::membership::SignedAmendment { amendment, signature });
    let body = Body::Charter(Box::new(CharterUpdate {
        charter: Charter { amendment, ..charter },
        confirmation: None,
    }));
    let (topic, sealed) = forge(&mut world, 2, None, body);
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::BadCharter));
}

#[test]
fn secret_that_the_charter_does_not_commit_to_is_refused() {
    let mut world = World::of(3);
    let (from, to) = (world.id(2), world.id(1));
    let update = CharterUpdate { confirmation: None, ..world.friends[2].charter_update_for(&to).unwrap() };
    let (party, tunnel) = (world.friends[2].id(), world.friends[1].tunnel_public());
    let secret = Secret::new([66; 32]);
    let rekey = seal_rekey((&party, &from), &mut world.rng, (&to, &tunnel), &secret, update).unwrap();
    let (topic, sealed) = forge(&mut world, 2, Some(to), rekey);
    let before = world.friends[1].topics();
    assert_eq!(world.deliver_to(1, topic, &sealed), Err(Refusal::WrongSecret));
    assert_eq!(world.friends[1].topics(), before);
}

#[test]
fn rekey_opens_for_its_receiver_only() {
    let mut world = World::of(3);
    let (to, topic) = (world.id(1), world.friends[0].topics()[0].topic);
    let World { friends, rng, .. } = &mut world;
    let body = friends[0].rekey_body_for(&to, rng).unwrap();
    // Re-addressed to the third member, it does not open.
    let third = friends[2].me();
    let sealed = forge_on(&mut world, 0, topic, Some(third), body);
    assert_eq!(world.deliver_to(2, topic, &sealed), Err(Refusal::Unreadable));
}

#[test]
fn device_with_the_secret_alone_is_no_member() {
    let mut world = World::of(2);
    let stranger = DeviceKey::generate(&mut world.rng);
    let epoch = current(&world, 0);
    let message = Exact::new(Message {
        sender: stranger.id(),
        recipient: None,
        sequence: 1,
        sent_at: world.now,
        body: Body::Signal(vec![1]),
    });
    let signature = sign(stranger.signing(), &subject(epoch.topic(), &message));
    let plaintext = encode_plaintext(&message, &signature);
    let sealed = seal(epoch.keys().seal_key(), &epoch.topic().0, &plaintext, &mut world.rng);
    assert_eq!(world.deliver_to(0, *epoch.topic(), &sealed), Err(Refusal::UnknownSender));
}

#[test]
fn beacons_of_a_device_cannot_be_recognized_on_another_network() {
    let mut world = World::of(2);
    let topic = world.friends[1].topics()[0].topic;
    let World { friends, rng, now, .. } = &mut world;
    let mut beacon = || {
        let sealed = only(friends[1].beacon(*now, rng, &topic, &Reachability::default())).message;
        beacon::encode(&topic, &sealed).unwrap()
    };
    let (home, cafe) = (beacon(), beacon());
    for beacon in [&home, &cafe] {
        let received = beacon::decode(beacon).unwrap();
        assert_eq!(world.friends[0].topic_of(&received), Some(topic));
    }
    let chunks: std::collections::BTreeSet<_> = home.windows(4).collect();
    assert!(!cafe.windows(4).any(|bytes| chunks.contains(bytes)), "a stranger finds them alike");
}

#[test]
fn announcement_with_twelve_long_candidates_fits_a_beacon() {
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
    let received = beacon::decode(&beacon).unwrap();
    assert_eq!(friends[0].topic_of(&received), Some(topic));
    assert_eq!(friends[0].receive(*now, rng, &topic, received.sealed()).unwrap().sender, friends[1].me());
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
        let epoch = current(&world, 0);
        prop_assert!(world.deliver_to(0, *epoch.topic(), &bytes).is_err());
        // Even when sealed by a device that knows the key.
        let sealed = seal(epoch.keys().seal_key(), &epoch.topic().0, &bytes, &mut world.rng);
        prop_assert!(world.deliver_to(0, *epoch.topic(), &sealed).is_err());
        let World { friends, rng, now, .. } = &mut world;
        prop_assert!(friends[0].receive(*now, rng, &Topic([0; 32]), &bytes).is_err());
    }

    #[test]
    fn signed_garbage_never_panics(place: prop::sample::Index, byte: u8) {
        let mut world = World::of(2);
        let epoch = current(&world, 0);
        let (topic, sealed) = world.announcement(1);
        let mut plaintext = open(epoch.keys().seal_key(), &topic.0, &sealed).unwrap();
        let at = 64 + place.index(plaintext.len() - 64);
        plaintext[at] = byte;
        let changed = seal(epoch.keys().seal_key(), &topic.0, &plaintext, &mut world.rng);
        let _ = world.deliver_to(0, topic, &changed);
        prop_assert!(world.knows(0, 1));
    }
}

#[test]
fn refused_message_changes_nothing() {
    let mut world = World::of(3);
    let mut announcement = announce_body(&world, 1);
    announcement.certificate = announce_body(&world, 2).certificate;
    let (topic, sealed) = forge(&mut world, 1, None, Body::Announce(Box::new(announcement)));
    let state = |world: &World| serde_json::to_string(&world.friends[0].state()).unwrap();
    let before = state(&world);
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::BadCertificate));
    assert_eq!(state(&world), before);
}

#[test]
fn amendment_with_a_secret_that_nobody_receives_does_not_silence_the_party() {
    let mut world = World::of(4);
    let co_owner = world.id(1);
    let outcome = world.friends[0].set_co_owner(world.now, &mut world.rng, co_owner, true).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    let charter = world.friends[1].charter.in_force().unwrap().clone();
    let amendment = Exact::new(partyline_wire::membership::Amendment {
        terms: charter.terms_digest(),
        number: 1,
        author: co_owner,
        revoked_devices: vec![world.id(3)],
        revoked_invites: Vec::new(),
        commitment: [66; 32],
    });
    let signature = sign(world.friends[1].outbound.device().signing(), &amendment.subject());
    let amendment = Some(partyline_wire::membership::SignedAmendment { amendment, signature });
    let charter = Charter { amendment, ..charter };
    let body = || Body::Charter(Box::new(CharterUpdate { charter: charter.clone(), confirmation: None }));
    let (topic, sealed) = forge(&mut world, 1, None, body());
    for index in [0, 2] {
        assert_eq!(world.deliver_to(index, topic, &sealed), Err(Refusal::SecretMissing));
    }
    let (topic, said) = world.announcement(2);
    world.deliver_to(0, topic, &said).unwrap();
    assert!(!world.friends[0].member(&world.id(2)).unwrap().candidates.is_empty());
    // The device that it removes needs no secret to learn of that.
    let (topic, sealed) = forge(&mut world, 1, None, body());
    assert_eq!(world.deliver_to(3, topic, &sealed), Ok(()));
    assert_eq!(world.dismissed(3), Some(Dismissal::Removed));
}

/// Digests decide between claims where nothing is fixed, and a member can draw tunnel keys until its own is the lowest.
#[test]
fn member_cannot_take_the_address_of_another_by_the_digest_of_its_certificate() {
    for (victim, thief) in [(1, 2), (2, 1), (0, 1), (0, 2)] {
        let mut world = World::of(3);
        let address = world.friends[victim].address_v4();
        world.friends[thief].claim.host = world.friends[victim].claim.host;
        let (topic, sealed) = world.announcement(thief);
        for index in [0, 1, 2].into_iter().filter(|index| *index != thief) {
            world.deliver_to(index, topic, &sealed).unwrap();
            if index != victim {
                assert_eq!(world.friends[index].member(&world.id(victim)).unwrap().address_v4, address);
            }
            assert_eq!(world.friends[index].member(&world.id(thief)).unwrap().address_v4, None);
        }
        assert_eq!(world.friends[victim].address_v4(), address);
    }
}
