use partyline_model::{
    Allocation, Candidate, CandidateKind, Mapping, NatProfile, PartyId, Role, SessionNonce, TunnelPublicKey,
};
use proptest::prelude::*;

use super::*;
use crate::{
    announcement::{MAX_CANDIDATES, Presence, Reachability},
    membership::{Certificate, Claims, Expiry, Grant, Issuer, tests::largest_charter},
};

fn certificate(name: &str) -> Certificate {
    let signature = Signature([1; 64]);
    let grant = Grant {
        issuer: Issuer::CoOwner(DeviceId([2; 32])),
        invite: partyline_model::InviteId([3; 32]),
        not_after: Expiry::NEVER,
        uses: None,
        role: Role::Member,
        signature,
    };
    let claims = Claims {
        party: PartyId([4; 32]),
        device: DeviceId([5; 32]),
        tunnel: TunnelPublicKey([6; 32]),
        name: name.into(),
        joined_at: Timestamp(u64::MAX),
        grant,
    };
    Certificate {
        claims: Exact::new(claims),
        by_invite: signature,
        by_device: signature,
        by_tunnel: signature,
    }
}

fn message(recipient: Option<[u8; 32]>, sequence: u64, body: Body) -> Message {
    let recipient = recipient.map(DeviceId);
    Message { sender: DeviceId([7; 32]), recipient, sequence, sent_at: Timestamp(sequence), body }
}

fn round_trip(message: Message) -> Result<(), TestCaseError> {
    let message = Exact::new(message);
    let signature = Signature([8; 64]);
    let plaintext = encode_plaintext(&message, &signature);
    prop_assert_eq!(decode_plaintext(&plaintext), Ok((message, signature)));
    let mut longer = plaintext;
    longer.push(0);
    prop_assert!(decode_plaintext(&longer).is_err());
    Ok(())
}

fn announcement(addresses: Vec<std::net::SocketAddr>) -> Announcement {
    let candidate = |address| Candidate { kind: CandidateKind::Mapped, address };
    let nat = NatProfile {
        mapping: Some(Mapping::AddressDependent),
        allocation: Some(Allocation::Contiguous { delta: -3 }),
        public: vec![[203, 0, 113, 7].into()],
        lifetime: Some(std::time::Duration::from_secs(30)),
        ..NatProfile::default()
    };
    let reach = Reachability { candidates: addresses.into_iter().map(candidate).collect(), nat };
    Announcement {
        certificate: certificate("Ana"),
        confirmation: Some(Confirmation { host: 7, version: 3, signature: Signature([9; 64]) }),
        charter: Some(largest_charter().stamp()),
        secret: [10; 8],
        presence: Some(Presence {
            session: SessionNonce([11; 16]),
            host: Some(7),
            name: Some("Anya".into()),
            reach,
            avoided_networks: vec!["10.80.7.0/24".parse().unwrap(); crate::announcement::MAX_AVOIDED],
            copied: true,
            inviting_until: Some(crate::membership::Expiry::NEVER),
        }),
    }
}

#[test]
fn largest_rekey_fits_in_a_message() {
    let update = CharterUpdate {
        charter: largest_charter(),
        confirmation: Some(Confirmation { host: u16::MAX, version: u64::MAX, signature: Signature([1; 64]) }),
    };
    let content = RekeyContent { secret: [1; 32], update };
    let sealed = [content.encode(), vec![0; SEAL_OVERHEAD]].concat();
    let rekey = SealedBox { ephemeral: [1; 32], sealed };
    let message = Exact::new(message(Some([1; 32]), u64::MAX, Body::Rekey(rekey)));
    let plaintext = encode_plaintext(&message, &Signature([8; 64]));
    assert!(plaintext.len() + SEAL_OVERHEAD <= MAX_SEALED, "{}", plaintext.len());
    assert_eq!(decode_plaintext(&plaintext).unwrap().0, message);
}

#[test]
fn bodies_beyond_a_limit_are_rejected() {
    let refused = |body| {
        let plaintext = encode_plaintext(&Exact::new(message(None, 1, body)), &Signature([8; 64]));
        decode_plaintext(&plaintext).is_err()
    };
    assert!(refused(Body::Signal(vec![0; MAX_SIGNAL + 1])));
    let many = vec![([10, 0, 0, 1], 1).into(); MAX_CANDIDATES + 1];
    assert!(refused(Body::Announce(Box::new(announcement(many)))));
    let mut choosy = announcement(Vec::new());
    choosy.presence.as_mut().unwrap().avoided_networks.push("10.80.8.0/24".parse().unwrap());
    assert!(refused(Body::Announce(Box::new(choosy))));
    let mut named = announcement(Vec::new());
    named.certificate = certificate("a\u{202e}b");
    assert!(refused(Body::Announce(Box::new(named))));
    let mut renamed = announcement(Vec::new());
    renamed.presence.as_mut().unwrap().name = Some("a\u{202e}b".into());
    assert!(refused(Body::Announce(Box::new(renamed))));
}

#[test]
fn signature_subject_covers_the_topic() {
    let message = Exact::new(message(None, 1, Body::Leave { certificate: [7; 32] }));
    assert_ne!(subject(&Topic([1; 32]), &message), subject(&Topic([2; 32]), &message));
}

proptest! {
    #[test]
    fn every_body_round_trips(
        recipient: Option<[u8; 32]>, sequence: u64, signal in prop::collection::vec(any::<u8>(), 0..=MAX_SIGNAL),
        addresses in prop::collection::vec(any::<std::net::SocketAddr>(), 0..=MAX_CANDIDATES),
    ) {
        // Scope and flow are local to a host and do not travel.
        let bare = |address: std::net::SocketAddr| (address.ip(), address.port()).into();
        let announcement = announcement(addresses.into_iter().map(bare).collect());
        let update = CharterUpdate { charter: largest_charter(), confirmation: None };
        let rekey = SealedBox { ephemeral: [2; 32], sealed: signal.clone() };
        round_trip(message(recipient, sequence, Body::Announce(Box::new(announcement))))?;
        round_trip(message(recipient, sequence, Body::Charter(Box::new(update))))?;
        round_trip(message(recipient, sequence, Body::Rekey(rekey)))?;
        round_trip(message(recipient, sequence, Body::Signal(signal)))?;
        round_trip(message(recipient, sequence, Body::Leave { certificate: [7; 32] }))?;
        let claim = Claim { run: SessionNonce([3; 16]), established: Some(Timestamp(sequence)) };
        let answer_to = recipient.map(|_| SessionNonce([4; 16]));
        round_trip(message(recipient, sequence, Body::Run(RunMessage { claim, answer_to })))?;
    }

    #[test]
    fn garbage_is_rejected_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_plaintext(&bytes);
        let _ = RekeyContent::decode(&bytes);
    }
}
