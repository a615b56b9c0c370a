//! Long-term credentials of both generations (RFC 8489, section 9.2) and their failures.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use partyline_model::Timestamp;
use partyline_relay::{Secret, Settings, time_limited_credentials};
use stun_rs::{
    Algorithm, AlgorithmId,
    attributes::{
        stun::{
            MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm,
            UserHash, UserName,
        },
        turn::LifeTime,
    },
    methods,
};

fn refresh(seconds: u32) -> stun_rs::StunMessageBuilder {
    request(methods::REFRESH).with_attribute(LifeTime::new(seconds))
}

fn lifetime(answer: &stun_rs::StunMessage) -> u32 {
    answer.get::<LifeTime>().unwrap().expect_life_time().as_u32()
}

#[test]
fn challenge_has_realm_nonce_and_algorithms_without_integrity() {
    let mut lab = Lab::new(settings());
    let challenge = lab.ask(udp("192.0.2.1:1"), &allocate().build()).unwrap();
    assert_eq!(code(&challenge), 401);
    assert_eq!(challenge.get::<Realm>().unwrap().expect_realm().as_str(), REALM);
    let nonce = challenge.get::<Nonce>().unwrap().expect_nonce();
    assert!(nonce.is_nonce_cookie());
    assert_eq!(*challenge.get::<PasswordAlgorithms>().unwrap().expect_password_algorithms(), algorithms());
    assert!(challenge.get::<UserName>().is_none() && challenge.get::<MessageIntegrity>().is_none());
}

#[test]
fn response_is_signed_with_the_attribute_of_the_request() {
    for sha256 in [false, true] {
        let mut lab = Lab::new(settings());
        let mut alice = alice(&mut lab);
        alice.credentials.sha256 = sha256;
        let message = alice.sign(allocate());
        lab.packet(alice.client, &encode(&message));
        let payload = lab.transmits().pop().unwrap().payload;
        // The codec checks what is there; that it is there is checked here.
        let context =
            stun_rs::DecoderContextBuilder::default().with_validation().with_key(alice.key()).build();
        let decoder = stun_rs::MessageDecoderBuilder::default().with_context(context).build();
        let (answer, _) = decoder.decode(&payload).unwrap();
        assert_eq!(code(&answer), 0);
        assert_eq!(answer.get::<MessageIntegritySha256>().is_some(), sha256);
        assert_eq!(answer.get::<MessageIntegrity>().is_some(), !sha256);
    }
}

#[test]
fn unknown_users_and_wrong_passwords_get_401() {
    let mut lab = Lab::new(settings());
    for (name, password) in [("alice", "b"), ("mallory", "a"), ("99999999999:x", "a")] {
        let caller = Caller::new(&mut lab, udp("192.0.2.1:1"), name, password);
        assert_eq!(code(&caller.call(&mut lab, allocate())), 401);
    }
    assert_eq!(lab.server.core.counters().refused.unauthenticated, 3);
    assert!(lab.server.open_sockets() == 0);
}

#[test]
fn incomplete_credentials_get_400() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    let (name, realm) = (UserName::new("alice").unwrap(), Realm::new(REALM).unwrap());
    let integrity = || MessageIntegrity::new(alice.key());
    for message in [
        allocate()
            .with_attribute(realm.clone())
            .with_attribute(alice.credentials.nonce.clone())
            .with_attribute(integrity()),
        allocate()
            .with_attribute(name.clone())
            .with_attribute(alice.credentials.nonce.clone())
            .with_attribute(integrity()),
        allocate().with_attribute(name).with_attribute(realm).with_attribute(integrity()),
    ] {
        assert_eq!(code(&lab.ask(alice.client, &message.build()).unwrap()), 400);
    }
}

#[test]
fn nonce_expires_and_is_bound_to_the_client_address() {
    let mut lab = Lab::new(settings());
    let mut alice = alice(&mut lab);
    lab.advance(3600);
    let answer = alice.call(&mut lab, allocate());
    assert_eq!(code(&answer), 438);
    alice.credentials.nonce = answer.get::<Nonce>().unwrap().expect_nonce().clone();
    let elsewhere = Caller { client: udp("192.0.2.9:1"), ..Caller::new_with_nonce(&alice, "alice", "a") };
    assert_eq!(code(&elsewhere.call(&mut lab, allocate())), 438);
    assert_eq!(code(&alice.call(&mut lab, allocate())), 0);
    let wrong = Caller::new_with_nonce(&elsewhere, "alice", "wrong");
    assert_eq!(code(&wrong.call(&mut lab, allocate())), 401);
}

#[test]
fn bid_down_of_password_algorithms_is_detected() {
    let mut lab = Lab::new(settings());
    let mut alice = alice(&mut lab);
    alice.credentials.sha256 = true;
    let signed = |list: Option<PasswordAlgorithms>, choice: Option<AlgorithmId>, alice: &Caller| {
        let mut builder = allocate()
            .with_attribute(UserName::new("alice").unwrap())
            .with_attribute(Realm::new(REALM).unwrap())
            .with_attribute(alice.credentials.nonce.clone());
        if let Some(list) = list {
            builder = builder.with_attribute(list);
        }
        if let Some(choice) = choice {
            builder = builder.with_attribute(PasswordAlgorithm::new(Algorithm::from(choice)));
        }
        builder.with_attribute(MessageIntegritySha256::new(alice.key())).build()
    };
    let mut md5_only = PasswordAlgorithms::default();
    md5_only.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::MD5)));
    for (list, choice) in [
        (Some(md5_only), Some(AlgorithmId::MD5)),
        (Some(algorithms()), None),
        (None, Some(AlgorithmId::SHA256)),
    ] {
        let message = signed(list, choice, &alice);
        assert_eq!(code(&lab.ask(alice.client, &message).unwrap()), 400);
    }
    // A nonce whose features were taken away is not one of ours.
    let stripped = alice.credentials.nonce.as_str().replacen("gAAA", "AAAA", 1);
    alice.credentials.nonce = Nonce::new(stripped).unwrap();
    alice.credentials.sha256 = false;
    assert_eq!(code(&alice.call(&mut lab, allocate())), 438);
}

#[test]
fn userhash_is_accepted_where_all_users_are_known() {
    let mut lab = Lab::new(Settings { shared_secret: None, ..settings() });
    let mut alice = alice(&mut lab);
    alice.credentials.sha256 = true;
    let message = |name: &str| {
        allocate()
            .with_attribute(UserHash::new(name, REALM).unwrap())
            .with_attribute(Realm::new(REALM).unwrap())
            .with_attribute(alice.credentials.nonce.clone())
            .with_attribute(algorithms())
            .with_attribute(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)))
            .with_attribute(MessageIntegritySha256::new(alice.key()))
            .build()
    };
    assert!(alice.credentials.nonce.as_str().starts_with("obMatJos2wAAA"));
    assert_eq!(code(&lab.ask(alice.client, &message("mallory")).unwrap()), 401);
    assert_eq!(code(&lab.ask(alice.client, &message("alice")).unwrap()), 0);
}

/// A member that was removed gets no further grant, and must not go on with its last one for good.
#[test]
fn relay_grant_is_not_prolonged_by_refreshing() {
    let mut lab = Lab::new(settings());
    let expires = Timestamp(lab.now.unix.0 + 900_000);
    let (name, password) = time_limited_credentials(&Secret::new("shared"), expires, "0a0b");
    let caller = Caller::new(&mut lab, udp("192.0.2.1:1"), &name, &password);
    caller.relayed(&mut lab);
    lab.advance(590);
    assert_eq!(lifetime(&caller.call(&mut lab, refresh(3600))), 310, "what is left of the grant");
    lab.advance(309);
    assert_eq!(lifetime(&caller.call(&mut lab, refresh(600))), 1);
    assert_eq!(lab.server.core.counters().allocations_active, 1);
    lab.advance(1);
    assert_eq!((lab.server.open_sockets(), lab.server.core.counters().allocations_active), (0, 0));
    for message in [refresh(600), permission("203.0.113.1:1"), allocate()] {
        assert_eq!(code(&caller.call(&mut lab, message)), 401);
    }
}

#[test]
fn newer_grant_of_the_same_member_keeps_its_allocation() {
    let mut lab = Lab::new(settings());
    let grant = |lab: &Lab, seconds: u64, name: &str| {
        let expires = Timestamp(lab.now.unix.0 + seconds * 1000);
        time_limited_credentials(&Secret::new("shared"), expires, name)
    };
    let (name, password) = grant(&lab, 60, "0a0b");
    let first = Caller::new(&mut lab, udp("192.0.2.1:1"), &name, &password);
    first.relayed(&mut lab);
    let (name, password) = grant(&lab, 1200, "0a0c");
    let other = Caller::new_with_nonce(&first, &name, &password);
    assert_eq!(code(&other.call(&mut lab, refresh(600))), 441, "another member");
    let (name, password) = grant(&lab, 1200, "0a0b");
    let newer = Caller::new_with_nonce(&first, &name, &password);
    assert_eq!(lifetime(&newer.call(&mut lab, refresh(600))), 600);
    lab.advance(60);
    assert_eq!(code(&newer.call(&mut lab, permission("203.0.113.1:1"))), 0);
    assert_eq!(lab.server.core.counters().allocations_active, 1);
}

#[test]
fn answers_to_unauthenticated_clients_are_rate_limited() {
    let mut limited = settings();
    limited.quotas.unauthenticated_per_second = 5;
    let mut lab = Lab::new(limited);
    let answers = (0..100)
        .filter(|port| lab.ask(udp(&format!("192.0.2.1:{}", port + 1)), &allocate().build()).is_some());
    assert_eq!(answers.count(), 10);
    assert_eq!(lab.server.core.counters().dropped.rate_limited, 90);
}
