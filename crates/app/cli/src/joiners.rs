//! Devices that ask the owner to be let in.

use partyline_model::{JoinRequestView, PartyView};

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
