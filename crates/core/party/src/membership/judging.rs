//! What is judged again after another charter, and when time has passed.

use partyline_model::{DeviceId, Timestamp};
use tracing::debug;

use super::Membership;
use crate::{
    epoch::Epoch,
    outcome::{Effect, Outcome},
    rules::Standing,
};

impl Membership {
    pub(super) fn judge_all(&mut self, now: Timestamp, out: &mut Outcome) {
        let devices: Vec<DeviceId> = self.roster.known_devices().copied().collect();
        devices.into_iter().for_each(|device| self.judge_member(now, device, out));
        self.judge_own(now, out);
    }

    pub(super) fn judge_member(&mut self, now: Timestamp, device: DeviceId, out: &mut Outcome) {
        if let Some(effect) = self.roster.judge(device, self.charter.rules(), now) {
            (out.persist, out.addresses_changed) = (true, true);
            out.push(effect);
        }
    }

    pub(super) fn judge_own(&mut self, now: Timestamp, out: &mut Outcome) {
        self.update_standing(now, out);
        self.update_claim(out);
    }

    pub(super) fn update_standing(&mut self, now: Timestamp, out: &mut Outcome) {
        let standing = self.identity.standing(self.charter.rules(), now);
        if standing == self.standing {
            return;
        }
        debug!(before = ?self.standing, after = ?standing, "own membership changed");
        match standing {
            Standing::Confirmed => out.extend([Effect::Confirmed, Effect::Announce]),
            Standing::Dismissed(dismissal) => out.push(Effect::Dismissed(dismissal)),
            Standing::Unconfirmed { .. } => {}
        }
        self.standing = standing;
        out.persist = true;
    }

    /// Claims a host number, or another one if this one is held by another member.
    pub(super) fn update_claim(&mut self, out: &mut Outcome) {
        let Some(range) = self.charter.range().filter(|_| out.addresses_changed) else { return };
        let host = self.claims().choose_own(range);
        if host != self.claim.host {
            self.claim.host = host;
            out.persist = true;
            out.extend([Effect::AddressChanged, Effect::Announce]);
        }
    }

    /// Closes the lobbies that the charter in force closes, and the own invites that lead there.
    pub(super) fn follow_lobbies(&mut self) {
        self.secrets.set_lobbies_since(self.charter.rules().terms().and_then(|terms| terms.lobbies_since));
        let Self { invites, secrets, .. } = self;
        invites.close_unless(|commitment| secrets.is_lobby_open(commitment));
    }

    pub(super) fn rotate(&mut self, now: Timestamp, epoch: Epoch, out: &mut Outcome) {
        self.secrets.rotate(now, epoch);
        self.expire_secrets(now, out);
        out.persist = true;
    }

    pub(super) fn expire_secrets(&mut self, now: Timestamp, out: &mut Outcome) {
        self.invites.expire(now);
        out.persist |= self.secrets.expire(now, |commitment| self.invites.open_until(commitment)) > 0;
    }
}
