//! What people are called, so that nobody is taken for somebody else.

use partyline_model::{JoinRequestView, MemberView};

use crate::text::clean;

/// Returns what a member is called. Where its name can be taken for another one's, the first digits of its id stand beside
/// it: everybody chooses their own name, and may choose that of somebody else.
pub fn name_of(member: &MemberView) -> String {
    beside(&member.name, member.alike.then(|| member.id.short()))
}

/// Returns what somebody is called who asks to join.
pub fn joiner_name(request: &JoinRequestView) -> String {
    beside(&request.name, request.alike.then(|| request.device.short()))
}

fn beside(name: &str, id: Option<String>) -> String {
    let name = clean(name);
    id.map_or_else(|| name.clone(), |id| format!("{name} ({id})"))
}
