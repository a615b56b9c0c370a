use proptest::prelude::*;

use super::*;

fn terms(revoked: usize) -> Terms {
    Terms {
        party: PartyId([1; 32]),
        version: u64::MAX,
        name: "é".repeat(40),
        range: "10.77.3.0/24".parse().unwrap(),
        servers: vec![format!("wss://{}", "x".repeat(MAX_SERVER_BYTES - 6)); MAX_SERVERS],
        owner: DeviceId([2; 32]),
        co_owners: vec![DeviceId([3; 32]); MAX_CO_OWNERS],
        revoked_devices: vec![DeviceId([4; 32]); revoked],
        revoked_invites: vec![InviteId([5; 32]); revoked],
        lobbies_since: Some([3; 8]),
        approval: true,
        commitment: [6; 32],
    }
}

/// The largest charter there can be.
pub(crate) fn largest_charter() -> Charter {
    let amendment = Amendment {
        terms: [7; 32],
        number: u32::MAX,
        author: DeviceId([3; 32]),
        revoked_devices: vec![DeviceId([8; 32]); MAX_AMENDED],
        revoked_invites: vec![InviteId([9; 32]); MAX_AMENDED],
        commitment: [6; 32],
    };
    let signature = Signature([10; 64]);
    Charter {
        terms: Exact::new(terms(MAX_REVOKED)),
        signature,
        amendment: Some(SignedAmendment { amendment: Exact::new(amendment), signature }),
    }
}

#[test]
fn documents_keep_the_bytes_that_were_decoded() {
    let charter = largest_charter();
    let decoded = Exact::<Terms>::decode(charter.terms.bytes().to_vec()).unwrap();
    assert_eq!(decoded, charter.terms);
    assert_eq!(decoded.subject(), charter.terms.subject());
    // A longer encoding of the same number is another document.
    let mut longer = Exact::new(Terms { version: 1, ..terms(0) }).bytes().to_vec();
    longer.splice(32..33, [0x81, 0x00]);
    let decoded = Exact::<Terms>::decode(longer.clone()).unwrap();
    assert_eq!((decoded.value().version, decoded.bytes()), (1, &longer[..]));
}

#[test]
fn signature_subject_differs_between_kinds_of_documents() {
    let amendment = &largest_charter().amendment.unwrap().amendment;
    assert!(amendment.subject().starts_with(b"partyline amendment\0"));
    assert!(largest_charter().terms.subject().starts_with(b"partyline charter\0"));
}

#[test]
fn documents_beyond_a_limit_are_rejected() {
    assert_eq!(terms(MAX_REVOKED).check(), Ok(()));
    let broken = [
        Terms { revoked_devices: vec![DeviceId([0; 32]); MAX_REVOKED + 1], ..terms(0) },
        Terms { revoked_invites: vec![InviteId([0; 32]); MAX_REVOKED + 1], ..terms(0) },
        Terms { co_owners: vec![DeviceId([0; 32]); MAX_CO_OWNERS + 1], ..terms(0) },
        Terms { servers: vec!["wss://x".into(); MAX_SERVERS + 1], ..terms(0) },
        Terms { servers: vec!["https://x".into()], ..terms(0) },
        Terms { servers: vec!["wss://".into()], ..terms(0) },
        Terms { servers: vec!["wss://x y".into()], ..terms(0) },
        Terms { name: "x".repeat(41), ..terms(0) },
    ];
    for terms in broken {
        assert!(Exact::<Terms>::decode(Exact::new(terms).bytes().to_vec()).is_err());
    }
    for range in ["8.8.8.0/24", "10.0.0.0/8", "10.0.0.0/29", "172.16.0.0/15", "10.0.0.1/24"] {
        assert!(check_range(range.parse().unwrap()).is_err(), "{range}");
    }
    for range in ["10.0.0.0/16", "192.168.0.0/24", "172.31.255.240/28"] {
        assert_eq!(check_range(range.parse().unwrap()), Ok(()), "{range}");
    }
}

#[test]
fn newest_charter_has_the_greatest_stamp() {
    let stamp = |version, amendment, digest| Stamp { version, amendment, digest: [digest; 8] };
    let ascending = [stamp(1, 0, 9), stamp(1, 1, 3), stamp(1, 1, 4), stamp(1, 2, 0), stamp(2, 0, 0)];
    assert!(ascending.is_sorted());
    let charter = largest_charter();
    let plain = Charter { amendment: None, ..charter.clone() };
    assert!(plain.stamp() < charter.stamp());
}

#[test]
fn expiry_rounds_up_to_whole_seconds() {
    assert_eq!(Expiry::at(Timestamp(1_001)).time(), Some(Timestamp(2_000)));
    assert_eq!(Expiry::at(Timestamp(2_000)).time(), Some(Timestamp(2_000)));
    assert_eq!(Expiry::at(Timestamp(0)).time(), Some(Timestamp(1_000)));
    assert_eq!(Expiry::at(Timestamp(u64::MAX)), Expiry::NEVER);
    assert_eq!(Expiry::NEVER.time(), None);
}

proptest! {
    #[test]
    fn garbage_is_rejected_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Exact::<Terms>::decode(bytes.clone());
        let _ = Exact::<Amendment>::decode(bytes.clone());
        let _ = Exact::<Claims>::decode(bytes);
    }

    #[test]
    fn grant_subject_covers_every_field(issuer: bool, not_after: u32, uses: u8, role in 0..3_u8) {
        let grant = |issuer: bool, not_after, uses, role| Grant {
            issuer: if issuer { Issuer::CoOwner(DeviceId([1; 32])) } else { Issuer::Authority },
            invite: InviteId([2; 32]),
            not_after: Expiry::from_wire(not_after),
            uses: NonZeroU8::new(uses),
            role: [Role::Owner, Role::CoOwner, Role::Member][usize::from(role)],
            signature: Signature([0; 64]),
        };
        let party = PartyId([3; 32]);
        let subject = grant(issuer, not_after, uses, role).subject(&party);
        prop_assert_ne!(&subject, &grant(!issuer, not_after, uses, role).subject(&party));
        prop_assert_ne!(&subject, &grant(issuer, not_after ^ 1, uses, role).subject(&party));
        prop_assert_ne!(&subject, &grant(issuer, not_after, uses, (role + 1) % 3).subject(&party));
        prop_assert_ne!(&subject, &grant(issuer, not_after, uses ^ 1, role).subject(&party));
        prop_assert_ne!(&subject, &grant(issuer, not_after, uses, role).subject(&PartyId([4; 32])));
    }
}
