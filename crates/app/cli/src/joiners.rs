//! Devices that ask the owner to be let in.

use partyline_model::{JoinRequestView, PartyView};
use partyline_wire::name::Appearance;

use crate::{
    output::{Output, Tone},
    table,
    text::clean,
};

/// One line for each device that asks.
pub fn lines(output: &Output, party: &PartyView) -> Vec<String> {
    if party.join_requests.is_empty() {
        let whether =
            if party.approval { "Nobody asks to join." } else { "Everybody with an open invite can join." };
        return vec![whether.into()];
    }
    let row = |request: &JoinRequestView| {
        let state = if request.declined { "declined" } else { "asks" };
        [clean(&request.name), request.device.short(), state.into(), request.invite.short()]
            .map(|text| (text, Tone::Plain))
            .to_vec()
    };
    let rows: Vec<_> = party.join_requests.iter().map(row).collect();
    table::render(output, &["NAME", "ID", "STATE", "INVITE"], &rows)
}

/// The names of those that ask and were not declined, with their ids where a name could be taken for another's.
pub fn names(party: &PartyView) -> String {
    let asking = party.join_requests.iter().filter(|request| !request.declined);
    let named = |request: &JoinRequestView| {
        let appearance = Appearance::of(&request.name);
        let members = party.members.iter().map(|member| (member.id, &member.name));
        let others = party.join_requests.iter().map(|other| (other.device, &other.name));
        let alike = members
            .chain(others)
            .any(|(device, name)| device != request.device && Appearance::of(name).looks_like(&appearance));
        let name = clean(&request.name);
        if alike { format!("{name} ({})", request.device.short()) } else { name }
    };
    asking.map(named).collect::<Vec<_>>().join(", ")
}
