//! How long packets do not arrive when something goes wrong: a game between somebody it happens to and a friend.

use std::time::{Duration, Instant};

use crate::{
    packet,
    scenario::Happening,
    stage::{POLL_INTERVAL, Stage},
};

/// How long the two are watched; an outage does not count longer.
const WATCHED: Duration = Duration::from_secs(8);

/// What went wrong for somebody who was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The direct path was cut, the relay remained.
    Cut,
    /// The computer was carried to another home; counts from when it is there.
    Roamed,
    /// The computer woke.
    Woke,
    /// The program was started again.
    Restarted,
    /// The router forgot all mappings.
    RouterRestarted,
}

/// The longest time that packets did not arrive, from one member to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// After what.
    pub trouble: Trouble,
    /// Whether it was all that went wrong.
    pub alone: bool,
    /// How long.
    pub span: Duration,
}

/// Two members who send each other packets, and the longest time that none arrived.
#[derive(Debug)]
pub(crate) struct Watch {
    trouble: Trouble,
    alone: bool,
    pair: [usize; 2],
    began: Instant,
    sent: u32,
    last: [Instant; 2],
    longest: [Duration; 2],
}

impl Trouble {
    /// All, for reports.
    pub const ALL: [Self; 5] = [Self::Cut, Self::Roamed, Self::Woke, Self::Restarted, Self::RouterRestarted];

    /// In a few words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "direct path cut",
            Self::Roamed => "another network",
            Self::Woke => "woke",
            Self::Restarted => "program restarted",
            Self::RouterRestarted => "router restarted",
        }
    }

    /// What a happening is to those whose packets are watched from then on.
    pub(crate) const fn of(what: &Happening) -> Option<Self> {
        match what {
            Happening::Cut { .. } => Some(Self::Cut),
            Happening::Roam { .. } => Some(Self::Roamed),
            Happening::RouterRestart { .. } => Some(Self::RouterRestarted),
            _ => None,
        }
    }
}

impl Stage<'_> {
    /// Begins to watch somebody and a friend; `None` is anybody it is connected to. Beside the trouble it is told whether
    /// that is all that goes wrong.
    pub(crate) fn watch(&mut self, (trouble, alone): (Trouble, bool), who: usize, friend: Option<usize>) {
        let met = |other: usize| self.times.contains_key(&(who.min(other), who.max(other)));
        let fits = |other: &usize| self.can_send(*other) && met(*other);
        let friends: Vec<usize> = (0..self.present.len()).filter(fits).collect();
        let any = friends.get(self.scenario.seed as usize % friends.len().max(1)).copied();
        let friend = friend.filter(|friend| friends.contains(friend)).or(any);
        self.watch = friend.filter(|_| self.can_send(who)).map(|friend| Watch {
            trouble,
            alone,
            pair: [who, friend],
            began: self.world.now.instant,
            sent: 0,
            last: [self.world.now.instant; 2],
            longest: [Duration::ZERO; 2],
        });
    }

    fn can_send(&self, who: usize) -> bool {
        let member = &self.world.members[who];
        self.present[who] && member.node.is_some() && !member.asleep && !member.devices.is_empty()
    }

    /// Notes what has arrived, and sends the next packets; ends when it was long enough.
    pub(crate) fn keep_watching(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        let now = self.world.now.instant;
        for (direction, to) in [watch.pair[1], watch.pair[0]].into_iter().enumerate() {
            let received = std::mem::take(&mut self.world.members[to].received);
            let heard = received.iter().any(|(_, bytes)| is_ours(bytes));
            // Of an outage, what remains beside the distance of two looks.
            let gap = (now - watch.last[direction]).saturating_sub(POLL_INTERVAL);
            watch.longest[direction] = watch.longest[direction].max(gap);
            if heard {
                watch.last[direction] = now;
            }
        }
        if now >= watch.began + WATCHED {
            let Watch { trouble, alone, longest, .. } = watch;
            return self.outages.extend(longest.map(|span| Outage { trouble, alone, span }));
        }
        if watch.pair.iter().all(|who| self.can_send(*who)) {
            self.send_watched(&mut watch);
            self.watch = Some(watch);
        }
    }

    fn send_watched(&mut self, watch: &mut Watch) {
        watch.sent += 1;
        let [one, other] = watch.pair;
        for (from, to) in [(one, other), (other, one)] {
            let target = self.world.address(to);
            self.world.send_packet(from, target, format!("{MARK} {}", watch.sent).as_bytes());
        }
    }
}

const MARK: &str = "watched";

fn is_ours(bytes: &[u8]) -> bool {
    packet::open(bytes).is_some_and(|(_, payload)| payload.starts_with(MARK.as_bytes()))
}
