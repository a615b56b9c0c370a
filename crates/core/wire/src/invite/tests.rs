use proptest::prelude::*;

use super::*;

fn invite(name: &str, servers: &[&str]) -> Invite {
    Invite {
        party: PartyId([1; 32]),
        name: name.into(),
        inviter: "Anna".into(),
        members: 3,
        secret: [2; 32],
        servers: servers.iter().map(|&server| server.into()).collect(),
        seed: [3; 32],
        not_after: Expiry::from_wire(1_800_000_000),
        role: Role::Member,
        issuer: Issuer::Authority,
        signature: Signature([4; 64]),
    }
}

fn typical() -> Invite {
    invite("Friday games", &["wss://play.example.org"])
}

#[test]
fn typical_link_has_288_characters_and_web_link_301() {
    assert_eq!(typical().app_link().len(), 288);
    assert_eq!(typical().web_link().unwrap().len(), 301);
}

#[test]
fn both_link_forms_parse_to_the_same_invite() {
    let invite = typical();
    assert_eq!(Invite::parse(&invite.app_link()), Ok(invite.clone()));
    assert_eq!(Invite::parse(&invite.web_link().unwrap()), Ok(invite.clone()));
    assert_eq!(Invite::parse(&format!(" <{}>\n", invite.app_link())), Ok(invite.clone()));
    assert_eq!(Invite::parse(&invite.app_link().replacen("partyline", "PARTYLINE", 1)), Ok(invite));
}

#[test]
fn web_link_keeps_the_port_and_follows_the_scheme() {
    let link = |server| invite("x", &[server]).web_link().unwrap();
    assert!(link("wss://a.example:8443/v1").starts_with("https://a.example:8443/join#"));
    assert!(link("ws://127.0.0.1:80").starts_with("http://127.0.0.1:80/join#"));
    assert_eq!(invite("x", &[]).web_link(), None);
}

#[test]
fn every_truncated_link_is_reported_as_truncated() {
    let link = typical().app_link();
    for end in APP.len()..link.len() {
        assert_eq!(Invite::parse(&link[..end]), Err(InviteError::Truncated), "cut at {end}");
    }
}

#[test]
fn each_fault_has_its_own_error() {
    let good = typical();
    let code = |bytes: &[u8]| Invite::parse(&format!("{APP}{}", BASE64.encode(bytes)));
    let mut bytes = good.encode();
    assert_eq!(Invite::parse("https://example.org/"), Err(InviteError::NotALink));
    assert_eq!(Invite::parse("https://example.org/other#abc"), Err(InviteError::NotALink));
    assert_eq!(Invite::parse(""), Err(InviteError::NotALink));
    assert_eq!(Invite::parse(&format!("{}%20x", good.app_link())), Err(InviteError::BadCharacters));
    assert_eq!(Invite::parse(&format!("{APP}{}", "A".repeat(MAX_LINK))), Err(InviteError::TooLong));
    assert_eq!(Invite::parse(&format!("{}AAAA", good.app_link())), Err(InviteError::Damaged));
    bytes[0] = 2;
    assert_eq!(code(&bytes), Err(InviteError::NewerVersion { version: 2 }));
    assert_eq!(code(&[2]), Err(InviteError::NewerVersion { version: 2 }));
    assert_eq!(code(&invite("a\u{202e}b", &[]).encode()), Err(InviteError::Damaged));
    assert_eq!(code(&invite("a", &["ftp://x"]).encode()), Err(InviteError::Damaged));
}

#[test]
fn debug_output_has_no_secrets() {
    let text = format!("{:?}", typical());
    assert!(text.contains("Friday games") && !text.contains("2, 2, 2") && !text.contains("3, 3, 3"));
}

prop_compose! {
    fn any_invite()(
        party: [u8; 32], secret: [u8; 32], seed: [u8; 32], not_after: u32, co_owned: bool, issuer: Option<[u8; 32]>,
        half: [u8; 32], name in "[a-zA-Z0-9é田]{1,40}",
        inviter in "[a-zA-Z0-9é田]{1,32}", members: u8,
        servers in prop::collection::vec("wss?://[a-z0-9.]{1,60}(:[0-9]{2,5})?(/[a-z]{0,8})?", 0..=4),
    ) -> Invite {
        Invite {
            party: PartyId(party), name, inviter, members, secret, servers, seed,
            not_after: Expiry::from_wire(not_after),
            role: if co_owned { Role::CoOwner } else { Role::Member },
            issuer: issuer.map_or(Issuer::Authority, |id| Issuer::CoOwner(DeviceId(id))),
            signature: Signature([half, half].concat().try_into().unwrap()),
        }
    }
}

proptest! {
    #[test]
    fn every_invite_round_trips(invite in any_invite()) {
        prop_assert!(invite.app_link().len() <= MAX_LINK);
        prop_assert_eq!(Invite::parse(&invite.app_link()), Ok(invite.clone()));
    }

    #[test]
    fn garbage_is_rejected_without_panic(text in ".{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Invite::parse(&text);
        let _ = Invite::parse(&format!("{APP}{text}"));
        let _ = Invite::decode(&bytes);
    }
}
