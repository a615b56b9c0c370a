//! When each pair of members connected, as their views show it.

use std::{collections::BTreeMap, time::Instant};

use partyline_model::{DeviceId, PathKind};

use crate::{judge::is_relayed, outcome::PairTimes, world::World};

/// What one member's view says of another.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// True if packets can flow.
    ready: bool,
    kind: Option<PathKind>,
}

/// The views looked at so far.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    devices: BTreeMap<DeviceId, usize>,
    /// The revision of each member's view that was looked at last.
    revisions: Vec<u32>,
    /// When each member joined.
    joined: Vec<Option<Instant>>,
    seen: BTreeMap<(usize, usize), Seen>,
    times: BTreeMap<(usize, usize), PairTimes>,
}

impl Contacts {
    /// Adds a computer, of which nothing is known yet.
    pub fn add(&mut self) {
        self.revisions.push(0);
        self.joined.push(None);
    }

    /// Takes note that a member's program was started.
    pub fn on_start(&mut self, who: usize, device: DeviceId) {
        self.devices.insert(device, who);
        self.revisions[who] = 0;
    }

    pub fn on_join(&mut self, who: usize, now: Instant) {
        self.joined[who] = Some(now);
    }

    /// Returns true if the two were connected once.
    pub fn have_met(&self, one: usize, other: usize) -> bool {
        self.times.contains_key(&(one.min(other), one.max(other)))
    }

    /// Returns how long a pair took to connect.
    pub fn times(&self, one: usize, other: usize) -> PairTimes {
        self.times.get(&(one.min(other), one.max(other))).copied().unwrap_or_default()
    }

    /// Looks at the view of a member, if it has changed.
    pub fn look(&mut self, who: usize, world: &World) {
        let Some(node) = world.members[who].node.as_ref() else { return };
        if node.revision() == self.revisions[who] {
            return;
        }
        self.revisions[who] = node.revision();
        let parties = world.snapshot(who).parties.into_iter();
        for view in parties.flat_map(|party| party.members).filter(|view| !view.me) {
            let Some(other) = self.devices.get(&view.id).copied() else { continue };
            let shaken = view.path.as_ref().is_some_and(|path| path.handshake_s.is_some());
            let ready = shaken && view.address.is_some();
            self.seen.insert((who, other), Seen { ready, kind: view.path.map(|path| path.kind) });
            self.note_times(who, other, world);
        }
    }

    fn note_times(&mut self, who: usize, other: usize, world: &World) {
        let (one, two) = (self.seen.get(&(who, other)), self.seen.get(&(other, who)));
        let Some((one, two)) = one.zip(two).filter(|(one, two)| one.ready && two.ready) else { return };
        let is_direct = |seen: &Seen| seen.kind.is_some_and(|kind| !is_relayed(kind));
        let direct = is_direct(one) && is_direct(two);
        let since = |who: usize| Some(self.joined[who]?.max(world.members[who].online?));
        let Some(since) = since(who).zip(since(other)).map(|(a, b)| a.max(b)) else { return };
        let took = world.now().instant.saturating_duration_since(since);
        let times = self.times.entry((who.min(other), who.max(other))).or_default();
        times.first.get_or_insert(took);
        if direct {
            times.direct.get_or_insert(took);
        }
    }
}
