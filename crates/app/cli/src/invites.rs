//! Invites that can still be used, as a table.

use std::time::{SystemTime, UNIX_EPOCH};

use partyline_model::InviteView;

use crate::{
    output::{Output, Tone},
    status::role,
    table,
};

/// One line for each invite.
pub fn lines(output: &Output, invites: &[InviteView], now: SystemTime) -> Vec<String> {
    if invites.is_empty() {
        return vec!["No invite made on this computer is open. Make one with `partyline invite`.".into()];
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let row = |invite: &InviteView| {
        let ends =
            invite.expires.map_or_else(|| "never".into(), |at| span(u64::from(at).saturating_sub(now)));
        [invite.id.short(), ends, used(invite), role(invite.role).into()]
            .map(|text| (text, Tone::Plain))
            .to_vec()
    };
    table::render(output, &["INVITE", "ENDS", "USED", "MAKES"], &invites.iter().map(row).collect::<Vec<_>>())
}

fn used(invite: &InviteView) -> String {
    invite.uses.map_or_else(|| invite.used.to_string(), |uses| format!("{} of {uses}", invite.used))
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => "in less than a minute".into(),
        60..7200 => format!("in {} min", seconds.div_ceil(60)),
        7200..172_800 => format!("in {} h", seconds.div_ceil(3600)),
        _ => format!("in {} days", seconds.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU8, time::Duration};

    use partyline_model::{InviteId, Role};

    use super::*;

    #[test]
    fn each_invite_shows_its_id_expiry_uses_and_role() {
        let invite = |number, expires, uses, role| InviteView {
            id: InviteId([number; 32]),
            expires,
            used: 3,
            uses,
            role,
        };
        let invites =
            [invite(1, Some(90_000), NonZeroU8::new(10), Role::Member), invite(2, None, None, Role::CoOwner)];
        let shown = lines(&Output::plain(), &invites, UNIX_EPOCH + Duration::from_secs(3600));
        assert_eq!(shown[1], "01010101  in 24 h  3 of 10  member");
        assert_eq!(shown[2], "02020202  never    3        co-owner");
        assert!(lines(&Output::plain(), &[], UNIX_EPOCH)[0].contains("partyline invite"));
    }
}
