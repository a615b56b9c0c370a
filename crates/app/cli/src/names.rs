//! What members are called, so that no two of a party are called the same.

use std::collections::BTreeMap;

use partyline_model::{DeviceId, MemberView};
use partyline_wire::name::Appearance;

use crate::text::clean;

/// The names of a party's members. Where a name looks like that of another member, the first digits of the id stand beside
/// it: everybody chooses their own name, and may choose that of somebody else.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<DeviceId, String>);

impl Names {
    pub fn of(members: &[MemberView]) -> Self {
        let looks: Vec<_> = members.iter().map(|member| Appearance::of(&member.name)).collect();
        let is_unique = |look: &Appearance| looks.iter().filter(|other| look.looks_like(other)).count() == 1;
        let name = |(member, look): (&MemberView, &Appearance)| {
            let name = clean(&member.name);
            (member.id, if is_unique(look) { name } else { format!("{name} ({})", member.id.short()) })
        };
        Self(members.iter().zip(&looks).map(name).collect())
    }

    /// Returns what a member is called.
    pub fn get(&self, member: &MemberView) -> String {
        self.0.get(&member.id).cloned().unwrap_or_else(|| clean(&member.name))
    }
}

/// Returns what one member is called among the others.
pub fn name_of(members: &[MemberView], member: &MemberView) -> String {
    Names::of(members).get(member)
}
