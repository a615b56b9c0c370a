//! How long packets do not arrive after trouble: a game between a member that has trouble and another one.

use std::time::{Duration, Instant};

use crate::{packet, scenario::Happening, world::World};

/// How often views and received packets are looked at.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long the two are watched, which is the longest outage that is measured.
const WATCH_DURATION: Duration = Duration::from_secs(8);
/// How the payload of the packets begins.
const MARK: &str = "watched";

/// What went wrong for a connected member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The direct path was cut, and the relay remained.
    Cut,
    /// The computer moved to another home. The outage counts from its arrival.
    Roamed,
    /// The computer woke.
    Woke,
    /// The program was started again.
    Restarted,
    /// The computer got its power back.
    PowerCut,
    /// The router lost all its mappings.
    RouterRestarted,
    /// The servers were started at another address, for a pair that the relay connected.
    ServerMoved,
    /// A copy of its state was started on another computer.
    Copied,
    /// The home got another IPv6 prefix.
    Renumbered,
}

/// The longest time without a packet from one member to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// The trouble before it.
    pub trouble: Trouble,
    /// True if nothing else went wrong.
    pub alone: bool,
    /// Its duration.
    pub span: Duration,
}

/// Two members that send each other packets, and the longest time without one in each direction.
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
    /// All kinds, for reports.
    pub const ALL: [Self; 9] = [
        Self::Cut,
        Self::Roamed,
        Self::Woke,
        Self::Restarted,
        Self::PowerCut,
        Self::RouterRestarted,
        Self::ServerMoved,
        Self::Copied,
        Self::Renumbered,
    ];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "direct path cut",
            Self::Roamed => "another network",
            Self::Woke => "woke",
            Self::Restarted => "program restarted",
            Self::PowerCut => "power cut",
            Self::RouterRestarted => "router restarted",
            Self::ServerMoved => "server moved, relayed pair",
            Self::Copied => "copied state",
            Self::Renumbered => "another IPv6 prefix",
        }
    }

    /// Returns the trouble that begins with an event.
    pub(crate) const fn of(what: &Happening) -> Option<Self> {
        match what {
            Happening::Cut { .. } => Some(Self::Cut),
            Happening::Roam { .. } => Some(Self::Roamed),
            Happening::RouterRestart { .. } => Some(Self::RouterRestarted),
            Happening::Copy { .. } => Some(Self::Copied),
            Happening::Renumber { .. } => Some(Self::Renumbered),
            _ => None,
        }
    }
}

impl Watch {
    /// Begins to watch a pair. `alone` is true if nothing but the trouble goes wrong.
    pub fn new(now: Instant, (trouble, alone): (Trouble, bool), pair: [usize; 2]) -> Self {
        Self { trouble, alone, pair, began: now, sent: 0, last: [now; 2], longest: [Duration::ZERO; 2] }
    }

    pub const fn pair(&self) -> [usize; 2] {
        self.pair
    }

    /// Notes what has arrived. Returns the outages once the watch is over.
    pub fn look(&mut self, world: &mut World) -> Option<[Outage; 2]> {
        let now = world.now().instant;
        for (direction, to) in [self.pair[1], self.pair[0]].into_iter().enumerate() {
            let received = std::mem::take(&mut world.members[to].received);
            let heard = received.iter().any(|(_, bytes)| is_watched(bytes));
            // A gap of one interval is no outage.
            let gap = (now - self.last[direction]).saturating_sub(POLL_INTERVAL);
            self.longest[direction] = self.longest[direction].max(gap);
            if heard {
                self.last[direction] = now;
            }
        }
        let (trouble, alone) = (self.trouble, self.alone);
        (now >= self.began + WATCH_DURATION).then(|| self.longest.map(|span| Outage { trouble, alone, span }))
    }

    /// Sends the next packets.
    pub fn send(&mut self, world: &mut World) {
        self.sent += 1;
        let [one, other] = self.pair;
        for (from, to) in [(one, other), (other, one)] {
            let target = world.address(to);
            world.send_packet(from, target, format!("{MARK} {}", self.sent).as_bytes());
        }
    }
}

fn is_watched(bytes: &[u8]) -> bool {
    packet::open(bytes).is_some_and(|(_, payload)| payload.starts_with(MARK.as_bytes()))
}
