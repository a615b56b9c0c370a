use partyline_model::{AppError, ErrorCode};
use proptest::prelude::*;

use super::*;

fn invite(name: &str, servers: &[&str]) -> Invite {
    Invite {
        party: PartyId([1; 32]),
        name: name.into(),
        inviter: "Anna".into(),
        members: 3,
        lobby: [2; 32],
        floor: Stamp { version: 7, amendment: 1, digest: [0; 8] },
        servers: servers.iter().map(|&server| server.into()).collect(),
        addresses: Vec::new(),
        nodes: Vec::new(),
        seed: [3; 32],
        not_after: Expiry::from_wire(1_800_000_000),
        uses: NonZeroU8::new(10),
        role: Role::Member,
        issuer: Issuer::Authority,
        signature: Signature([4; 64]),
    }
}

fn typical() -> Invite {
    invite("Friday games", &["wss://play.example.org"])
}

/// Texts as people send them, which the test of the join page reads too.
#[derive(serde::Deserialize)]
struct Cases {
    values: Values,
    texts: Vec<Case>,
    /// What the join page finds in its address.
    hrefs: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Values {
    code: String,
    other: String,
    newer: String,
}

#[derive(serde::Deserialize)]
struct Case {
    why: String,
    text: String,
    outcome: String,
}

fn cases() -> Cases {
    serde_json::from_str(include_str!("../../tests/invites.json")).unwrap()
}

impl Values {
    /// Replaces `{web}`, `{code[3:-1]}`, `{app|uri}` and the like.
    fn expand(&self, text: &str) -> String {
        let web = format!("https://play.example.org/join#{}", self.code);
        let app = format!("{APP}{}", self.code);
        let values = [
            ("web", &web),
            ("app", &app),
            ("code", &self.code),
            ("other", &self.other),
            ("newer", &self.newer),
        ];
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let named = values.iter().find_map(|(name, value)| Some((after.strip_prefix(name)?, value)));
            match named.and_then(|(after, value)| Some((after.split_once('}')?, value))) {
                Some(((modifiers, after), value))
                    if modifiers.starts_with(['[', '|']) || modifiers.is_empty() =>
                {
                    out.push_str(&modified(value, modifiers));
                    rest = after;
                }
                _ => {
                    out.push('{');
                    rest = after;
                }
            }
        }
        out + rest
    }
}

fn modified(value: &str, modifiers: &str) -> String {
    let mut words = modifiers.split('|');
    let slice = words.next().unwrap().trim_matches(['[', ']']);
    let place = |number: &str, default: usize| match number.parse::<isize>() {
        Ok(number) if number < 0 => value.len() - number.unsigned_abs(),
        Ok(number) => number as usize,
        Err(_) => default,
    };
    let part = match slice.split_once(':') {
        _ if slice.is_empty() => value,
        Some((start, end)) => &value[place(start, 0)..place(end, value.len())],
        None => &value[place(slice, 0)..][..1],
    };
    words.fold(part.to_owned(), |text, word| match word {
        "uri" => escaped(&text, |byte| byte.is_ascii_alphanumeric()),
        "hex" => escaped(&text, |_| false),
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        "base64" => base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text),
        "other" => if text == "z" { "y" } else { "z" }.into(),
        word => panic!("modifier {word}"),
    })
}

fn escaped(text: &str, keep: impl Fn(u8) -> bool) -> String {
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

fn outcome(text: &str) -> String {
    match Invite::find(text) {
        Ok(invite) if invite == typical() => "whole".into(),
        Ok(invite) => format!("another invite: {}", invite.name),
        Err(InviteError::NotFound) => "not_found".into(),
        Err(InviteError::TooLong) => "too_long".into(),
        Err(InviteError::Elsewhere { what }) => format!("elsewhere: {what}"),
        Err(InviteError::StartMissing) => "start_missing".into(),
        Err(InviteError::EndMissing) => "end_missing".into(),
        Err(InviteError::Damaged) => "damaged".into(),
        Err(InviteError::Several) => "several".into(),
        Err(InviteError::NewerVersion { version }) => {
            assert_eq!(version, 2);
            "newer".into()
        }
    }
}

#[test]
fn texts_as_people_send_them_are_read() {
    let Cases { values, texts, hrefs } = cases();
    assert_eq!(values.code, typical().code(), "the table's codes are outdated");
    assert_eq!(Invite::find(&values.other).unwrap().name, "Other games");
    let wrong: Vec<_> = texts
        .iter()
        .chain(&hrefs)
        .map(|case| (case, outcome(&values.expand(&case.text))))
        .filter(|(case, outcome)| case.outcome != *outcome)
        .map(|(Case { why, text, outcome: expected }, outcome)| {
            format!("{why}: {outcome}, not {expected}: {text}")
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), texts.len() + hrefs.len(), wrong.join("\n"));
}

#[test]
fn typical_link_has_310_characters_and_web_link_323() {
    assert_eq!(typical().app_link().len(), 310);
    assert_eq!(typical().web_link().unwrap().len(), 323);
}

#[test]
fn longest_invite_fits_a_link() {
    let server = format!("ws://{}", "a".repeat(123));
    let mut longest = invite(&"\u{1f3ae}".repeat(40), &[server.as_str(); 4]);
    longest.inviter = "\u{1f3ae}".repeat(32);
    longest.issuer = Issuer::CoOwner(DeviceId([9; 32]));
    assert!(longest.app_link().len() <= MAX_LINK);
    assert_eq!(Invite::find(&longest.app_link()), Ok(longest));
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
    for link in [typical().app_link(), typical().web_link().unwrap()] {
        let start = link.find("PLY").unwrap();
        for end in start..link.len() {
            assert_eq!(Invite::find(&link[..end]), Err(InviteError::EndMissing), "cut at {end}");
            let sentence = format!("Come and play: {}... tonight", &link[..end]);
            assert_eq!(Invite::find(&sentence), Err(InviteError::EndMissing), "cut at {end} in a sentence");
        }
        for begin in start + 1..link.len() - 60 {
            let rest = format!("{}{}", &link[..start], &link[begin..]);
            assert_eq!(Invite::find(&rest), Err(InviteError::StartMissing), "cut before {begin}");
            assert_eq!(
                Invite::find(&link[begin..]),
                Err(InviteError::StartMissing),
                "bare, cut before {begin}"
            );
        }
    }
}

#[test]
fn every_changed_letter_is_reported_as_damage() {
    let link = typical().app_link();
    for place in APP.len()..link.len() {
        for other in ["0", "M", "q", "é", "*"] {
            let changed = format!("{}{other}{}", &link[..place], &link[place + 1..]);
            let expected = match other {
                _ if changed == link => continue,
                // A sign in place of the last letter looks like the punctuation that follows a cut link.
                "é" | "*" if place + 1 == link.len() => InviteError::EndMissing,
                "*" if place == APP.len() => InviteError::EndMissing,
                _ => InviteError::Damaged,
            };
            assert_eq!(Invite::find(&changed), Err(expected), "{other} at {place}");
        }
    }
}

#[test]
fn impossible_contents_are_damage() {
    let find = |body: &[u8]| Invite::find(&frame::close(VERSION, body));
    assert_eq!(find(&invite("a\u{202e}b", &[]).encode()), Err(InviteError::Damaged));
    assert_eq!(find(&invite("a", &["ftp://x"]).encode()), Err(InviteError::Damaged));
    assert_eq!(find(&[]), Err(InviteError::Damaged));
    assert_eq!(find(&[typical().encode(), vec![9]].concat()), Err(InviteError::Damaged));
    assert_eq!(Invite::find(&frame::close(0, &typical().encode())), Err(InviteError::Damaged));
}

#[test]
fn end_is_reported_once_it_has_passed() {
    let end = Timestamp(1_800_000_000_000);
    assert_eq!(typical().ended(end), None);
    assert_eq!(typical().ended(Timestamp(end.0 + 1)), Some(end));
    assert_eq!(Invite { not_after: Expiry::NEVER, ..typical() }.ended(Timestamp(u64::MAX)), None);
}

#[test]
fn errors_say_what_happened_and_what_to_do() {
    let error = AppError::from(Invite::find("https://discord.gg/abc").unwrap_err());
    assert_eq!(error.message, "This is a link to discord.gg, not a Partyline invite.");
    assert_eq!(error.code, ErrorCode::InviteElsewhere);
    let error = AppError::from(Invite::find(&typical().app_link()[..90]).unwrap_err());
    assert_eq!((error.code, &*error.message), (ErrorCode::InviteCut, "The end of this invite is missing."));
}

#[test]
fn hostile_texts_are_bounded() {
    let code = typical().code();
    assert_eq!(Invite::find(&"a".repeat(MAX_TEXT + 1)), Err(InviteError::TooLong));
    let padding = "lorem ipsum ".repeat((MAX_TEXT - code.len()) / 12);
    assert_eq!(Invite::find(&format!("{padding}{code}")), Ok(typical()));
    // These make every step of the search as long as it can be.
    let hostile =
        ["PLY1S0U", &code[..40], "PLY", "%25", "&amp;", "<a", "<a>", "\\u0041", "aHR0c", "https://a.b/join#"];
    for hostile in hostile {
        assert!(Invite::find(&hostile.repeat(100_000 / hostile.len())).is_err(), "{hostile}");
    }
}

#[test]
fn a_party_without_a_server_has_addresses_in_a_link_of_bearable_length() {
    let mut invite = invite("Friday games", &[]);
    let without = invite.app_link().len();
    invite.addresses = vec!["198.51.100.7:41640".parse().unwrap(), "[2001:db8::7]:41640".parse().unwrap()];
    invite.nodes = vec!["203.0.113.9:6881".parse().unwrap(); 3];
    let link = invite.app_link();
    assert_eq!(Invite::find(&link), Ok(invite.clone()));
    assert!(link.len() - without <= 70, "{} letters more", link.len() - without);
    invite.nodes.push("203.0.113.10:6881".parse().unwrap());
    assert_eq!(Invite::find(&invite.app_link()).map(|read| read.nodes.len()), Ok(3), "the first three");
}

#[test]
fn debug_output_has_no_secrets() {
    let text = format!("{:?}", typical());
    assert!(text.contains("Friday games") && !text.contains("2, 2, 2") && !text.contains("3, 3, 3"));
}

/// Drops what the format has no place for.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

prop_compose! {
    fn any_invite()(
        party: [u8; 32], lobby: [u8; 32], floor: (u32, u16), seed: [u8; 32], not_after: u32, uses: u8,
        co_owned: bool, issuer: Option<[u8; 32]>, half: [u8; 32], name in "[a-zA-Z0-9é田]{1,40}",
        inviter in "[a-zA-Z0-9é田]{1,32}", members: u8,
        servers in prop::collection::vec("wss?://[a-z0-9.]{1,60}(:[0-9]{2,5})?(/[a-z]{0,8})?", 0..=4),
        addresses in prop::collection::vec(any::<SocketAddr>(), 0..=4), nodes in prop::collection::vec(any::<SocketAddr>(), 0..=3),
    ) -> Invite {
        Invite {
            party: PartyId(party), name, inviter, members, lobby, servers, seed,
            addresses: addresses.into_iter().map(plain).collect(), nodes: nodes.into_iter().map(plain).collect(),
            floor: Stamp { version: floor.0.into(), amendment: floor.1.into(), digest: [0; 8] },
            not_after: Expiry::from_wire(not_after),
            uses: NonZeroU8::new(uses),
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
        prop_assert_eq!(Invite::find(&invite.app_link()), Ok(invite.clone()));
    }

    #[test]
    fn invite_is_found_in_any_surroundings(
        invite in any_invite(), before in "(\\PC|\\s){0,60}", after in "(\\PC|\\s){0,60}", web: bool, twice: bool,
    ) {
        let link = invite.web_link().filter(|_| web).unwrap_or_else(|| invite.app_link());
        let text = format!("{before}{link}{after}{}", if twice { &link } else { "" });
        prop_assert_eq!(Invite::find(&text), Ok(invite));
    }

    #[test]
    fn invite_is_found_whatever_breaks_its_lines(
        invite in any_invite(), width in 1usize..100, breaks in "[\\n\\r\\t >|\u{200b}\u{ad}\u{2060}=*_~-]{1,4}",
    ) {
        let link = invite.app_link();
        let (lead, code) = link.split_at(APP.len());
        let lines: Vec<_> = code.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        prop_assert_eq!(Invite::find(&format!("{lead}{}", lines.join(&breaks))), Ok(invite));
    }

    #[test]
    fn changed_letter_is_never_accepted(invite in any_invite(), place: prop::sample::Index, other in "[0-9A-Za-z]") {
        let code = invite.code();
        let place = place.index(code.len());
        prop_assume!(code[place..=place] != other);
        let changed = format!("{}{other}{}", &code[..place], &code[place + 1..]);
        prop_assert_eq!(Invite::find(&format!("{APP}{changed}")), Err(InviteError::Damaged));
        prop_assert!(Invite::find(&changed).is_err());
    }

    #[test]
    fn cut_is_reported_as_cut(invite in any_invite(), place: prop::sample::Index, after in "[.!…*)]{0,3}( [a-z]{2,6}){0,4}") {
        let code = invite.code();
        let end = place.index(code.len());
        prop_assert_eq!(Invite::find(&format!("{APP}{}{after}", &code[..end])), Err(InviteError::EndMissing));
    }

    #[test]
    fn garbage_is_rejected_without_panic(text in ".{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Invite::find(&text);
        let _ = Invite::find(&format!("{APP}{text}"));
        let _ = Invite::find(&format!("{APP}PLY1{text}"));
        let _ = Invite::decode(&bytes);
        let _ = Invite::find(&frame::close(VERSION, &bytes));
    }
}
