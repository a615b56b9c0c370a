//! Which party, which member: by name, address, or the first digits of an id.

use partyline_model::{
    AppError, ErrorCode, FormerPartyView, InviteView, JoinRequestView, MemberView, PartyView, Snapshot,
};
use partyline_wire::name::Appearance;

use crate::text::clean;

/// The fewest digits of an id that are taken for one.
const MIN_DIGITS: usize = 4;

/// The party that was meant; without a word, the only one there is.
pub fn party<'a>(snapshot: &'a Snapshot, word: Option<&str>) -> Result<&'a PartyView, AppError> {
    let found = match word {
        Some(word) => matching(&snapshot.parties, word, |party| (party.name.as_str(), party.id.to_string())),
        None => snapshot.parties.iter().collect(),
    };
    match (found.as_slice(), word) {
        ([party], _) => Ok(party),
        ([], None) => Err(AppError::new(
            ErrorCode::UnknownParty,
            "This computer is in no party.",
            "Make one with `partyline create <name>`, or join one with `partyline join`.",
        )),
        ([], Some(word)) => Err(AppError::new(
            ErrorCode::UnknownParty,
            format!("There is no party \"{word}\" on this computer."),
            "`partyline list` shows those there are.",
        )),
        (several, _) => Err(ambiguous("party", several.iter().map(|party| (&party.name, party.id.short())))),
    }
}

/// The party of an earlier identity that was meant.
pub fn former<'a>(snapshot: &'a Snapshot, word: &str) -> Result<&'a FormerPartyView, AppError> {
    let found =
        matching(&snapshot.former_parties, word, |former| (former.name.as_str(), former.id.to_string()));
    match found.as_slice() {
        [former] => Ok(former),
        [] => Err(AppError::new(
            ErrorCode::UnknownParty,
            format!("This computer was in no party \"{word}\" under an earlier identity."),
            "`partyline status` shows those that it was in.",
        )),
        several => Err(ambiguous("party", several.iter().map(|party| (&party.name, party.id.short())))),
    }
}

/// The member that was meant, in the party that was meant, or in any.
pub fn member<'a>(
    snapshot: &'a Snapshot,
    in_party: Option<&str>,
    word: &str,
) -> Result<(&'a PartyView, &'a MemberView), AppError> {
    let parties = parties(snapshot, in_party)?.iter();
    let found: Vec<_> =
        parties.flat_map(|party| members(party, word).map(move |member| (party, member))).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(AppError::new(
            ErrorCode::UnknownMember,
            format!("Nobody is called \"{word}\"."),
            "`partyline status` shows the members.",
        )),
        several => {
            let names = several
                .iter()
                .map(|(party, member)| (&member.name, format!("{} in {}", member.id.short(), party.name)));
            Err(ambiguous("member", names))
        }
    }
}

/// The device that asks to be let in and was meant, in the party that was meant, or in any.
pub fn joiner<'a>(
    snapshot: &'a Snapshot,
    in_party: Option<&str>,
    word: &str,
) -> Result<(&'a PartyView, &'a JoinRequestView), AppError> {
    let parties = parties(snapshot, in_party)?.iter();
    let found: Vec<_> = parties
        .flat_map(|party| {
            matching(&party.join_requests, word, |request| {
                (request.name.as_str(), request.device.to_string())
            })
            .into_iter()
            .map(move |request| (party, request))
        })
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(AppError::new(
            ErrorCode::UnknownMember,
            format!("Nobody called \"{}\" asks to join.", clean(word)),
            "`partyline approve` shows who asks.",
        )),
        several => {
            let names = several.iter().map(|(party, request)| {
                (&request.name, format!("{} in {}", request.device.short(), party.name))
            });
            Err(ambiguous("device", names))
        }
    }
}

/// The invite that was meant, in the party that was meant, or in any.
pub fn invite<'a>(
    snapshot: &'a Snapshot,
    in_party: Option<&str>,
    word: &str,
) -> Result<(&'a PartyView, &'a InviteView), AppError> {
    let wanted = |invite: &&InviteView| {
        word.len() >= MIN_DIGITS && invite.id.to_string().starts_with(&word.to_lowercase())
    };
    let parties = parties(snapshot, in_party)?.iter();
    let found: Vec<_> = parties
        .flat_map(|party| party.invites.iter().filter(wanted).map(move |invite| (party, invite)))
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(AppError::new(
            ErrorCode::InvalidInput,
            format!("No open invite made on this computer begins with \"{}\".", clean(word)),
            "`partyline invite --list` shows them.",
        )),
        several => Err(ambiguous(
            "invite",
            several.iter().map(|(party, invite)| (&party.name, invite.id.to_string())),
        )),
    }
}

fn parties<'a>(snapshot: &'a Snapshot, word: Option<&str>) -> Result<&'a [PartyView], AppError> {
    match word {
        Some(name) => party(snapshot, Some(name)).map(std::slice::from_ref),
        None => Ok(&snapshot.parties),
    }
}

fn members<'a>(party: &'a PartyView, word: &str) -> impl Iterator<Item = &'a MemberView> {
    let by_address = |member: &&MemberView| {
        let v4 = member.address.is_some_and(|address| word.parse() == Ok(address));
        v4 || member.address_v6.is_some_and(|address| word.parse() == Ok(address))
    };
    let addressed: Vec<_> = party.members.iter().filter(by_address).collect();
    let found = if addressed.is_empty() {
        matching(&party.members, word, |member| (member.name.as_str(), member.id.to_string()))
    } else {
        addressed
    };
    found.into_iter()
}

/// Those whose id starts so; if there are none, those whose name looks like that. Everybody may choose any name, even the
/// digits of another's id or a name that looks like another's, but not an id.
fn matching<'a, T>(all: &'a [T], word: &str, names: impl Fn(&T) -> (&str, String)) -> Vec<&'a T> {
    let digits = word.to_ascii_lowercase();
    if digits.len() >= MIN_DIGITS {
        let identified: Vec<_> = all.iter().filter(|one| names(one).1.starts_with(&digits)).collect();
        if !identified.is_empty() {
            return identified;
        }
    }
    let wanted = Appearance::of(word);
    all.iter().filter(|one| Appearance::of(names(one).0).looks_like(&wanted)).collect()
}

fn ambiguous<'a>(what: &str, candidates: impl Iterator<Item = (&'a String, String)>) -> AppError {
    let list: Vec<_> = candidates.map(|(name, id)| format!("{} ({})", clean(name), clean(&id))).collect();
    AppError::new(
        ErrorCode::InvalidInput,
        format!("Which {what} is meant? {}.", list.join(", ")),
        "Give the first digits of its id instead.",
    )
}
