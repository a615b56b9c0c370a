//! What all peers of this computer share.
//!
//! [`Shared`] owns it; a [`Context`] borrows it for one call: what a peer may read, the ids it draws from, and the
//! sinks it writes to. Nothing here knows what a peer is made of.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    net::SocketAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use partyline_model::{Candidate, CardKind, NatProfile, RouteTarget};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tracing::{debug, trace};

use crate::{
    api::{Config, Event, Transmit},
    pacing::Pacing,
    path::{Hop, Local, Path, PeerId, Via},
    relays::{RelayOutput, RelayPool},
    sockets::PunchSockets,
    transactions::Transactions,
};

/// Bounds the aliases remembered over all peers.
const MAX_ALIASES: usize = 1024;

/// How often the path to a peer is kept alive where there are few.
const MIN_IDLE_KEEPALIVE: Duration = Duration::from_secs(4);
/// Where there are many, how much each adds to the interval: two keepalives per second go out in all.
const KEEPALIVE_SHARE: Duration = Duration::from_millis(500);

/// What is known about this computer. Peers only read it.
pub(crate) struct Device {
    pub(crate) config: Config,
    /// Candidates that the caller has gathered.
    pub(crate) candidates: Vec<Candidate>,
    /// Networks that no path leads into, because the paths themselves carry them: those of the parties.
    pub(crate) excluded: Vec<IpNet>,
    /// Networks that this computer reaches otherwise than by a default route, and by what.
    pub(crate) routes: Vec<(IpNet, RouteTarget)>,
    /// The behavior of our own NAT.
    pub(crate) nat: NatProfile,
    /// IPv4 STUN servers that report at which address they see a socket.
    pub(crate) stun_servers: Vec<SocketAddr>,
    /// Peers with a direct path: those that may relay for others.
    pub(crate) direct_peers: BTreeSet<PeerId>,
    /// The number of peers.
    pub(crate) peer_count: u32,
}

impl Device {
    /// Returns how long a path in use may be silent: as long as NAT mappings last, or less where there are few peers. A
    /// router that has lost its table lets in what a peer sends only after something went out to that very peer.
    pub(crate) fn keepalive(&self) -> Duration {
        let affordable = (KEEPALIVE_SHARE * self.peer_count).max(MIN_IDLE_KEEPALIVE);
        affordable.min(self.config.keepalive)
    }

    /// Returns true for an address that packets could only reach through a party: it lies inside a network that the paths
    /// themselves carry, or is routed into one.
    pub(crate) fn is_excluded(&self, address: IpAddr) -> bool {
        self.excluded.iter().any(|network| network.contains(&address))
            || self.target(address) == Some(RouteTarget::Party)
    }

    /// Returns true for an address that packets reach through another VPN or tunnel.
    pub(crate) fn is_behind_overlay(&self, address: IpAddr) -> bool {
        self.target(address) == Some(RouteTarget::Card(CardKind::Overlay))
    }

    /// Returns what the longest prefix that matches leads to; of equal ones, the first counts.
    fn target(&self, address: IpAddr) -> Option<RouteTarget> {
        let matching = self.routes.iter().filter(|(network, _)| network.contains(&address));
        matching.rev().max_by_key(|(network, _)| network.prefix_len()).map(|(_, target)| *target)
    }
}

/// Packets that arrive from another port than ours are sent to, and belong to the same path nevertheless.
///
/// A NAT whose mapping depends on the destination answers from one port what it received at another. If its filtering
/// lets both in, packets go to the one and come from the other; a path to the second would make a third.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    by_source: BTreeMap<Path, Path>,
}

impl Aliases {
    /// Returns the path that packets from `source` belong to.
    pub(crate) fn resolve(&self, source: Path) -> Path {
        self.by_source.get(&source).copied().unwrap_or(source)
    }

    /// Notes that packets from `source` belong to `path`.
    pub(crate) fn add(&mut self, source: Path, path: Path) {
        if self.by_source.len() < MAX_ALIASES {
            trace!(%source, %path, "responses come from another port");
            self.by_source.insert(source, path);
        } else {
            debug!(%source, %path, reason = "too many aliases", "alias not remembered");
        }
    }

    /// Returns the sources whose packets belong to `path`.
    pub(crate) fn sources_of(&self, path: Path) -> impl Iterator<Item = Path> {
        self.by_source.iter().filter(move |(_, target)| **target == path).map(|(source, _)| *source)
    }

    /// Forgets all sources of a path.
    pub(crate) fn remove(&mut self, path: Path) {
        self.by_source.retain(|_, target| *target != path);
    }
}

/// Everything that peers share.
pub(crate) struct Shared {
    pub(crate) device: Device,
    pub(crate) transactions: Transactions,
    pub(crate) pacing: Pacing,
    pub(crate) relays: RelayPool,
    pub(crate) sockets: PunchSockets,
    pub(crate) aliases: Aliases,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
}

impl Shared {
    pub(crate) fn new(seed: [u8; 32], config: Config) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let relay_rng = ChaCha20Rng::from_rng(&mut rng).unwrap_or_else(|_| ChaCha20Rng::from_seed(seed));
        Self {
            transactions: Transactions::new(rng),
            pacing: Pacing::new(config.pace),
            relays: RelayPool::new(relay_rng, config.keepalive),
            sockets: PunchSockets::default(),
            aliases: Aliases::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            device: Device {
                config,
                candidates: Vec::new(),
                excluded: Vec::new(),
                routes: Vec::new(),
                nat: NatProfile::default(),
                stun_servers: Vec::new(),
                direct_peers: BTreeSet::new(),
                peer_count: 0,
            },
        }
    }

    /// Borrows everything for one call at `now`.
    pub(crate) const fn context(&mut self, now: Instant) -> Context<'_> {
        Context {
            now,
            device: &self.device,
            transactions: &mut self.transactions,
            pacing: &mut self.pacing,
            relays: &mut self.relays,
            sockets: &mut self.sockets,
            aliases: &mut self.aliases,
            transmits: &mut self.transmits,
            events: &mut self.events,
        }
    }

    /// Borrows the relays beside the sinks they write to.
    pub(crate) const fn relays(&mut self) -> (&mut RelayPool, RelayOutput<'_>) {
        (&mut self.relays, RelayOutput { transmits: &mut self.transmits, events: &mut self.events })
    }
}

/// [`Shared`], borrowed by one peer for one call.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) device: &'a Device,
    pub(crate) transactions: &'a mut Transactions,
    pub(crate) pacing: &'a mut Pacing,
    pub(crate) relays: &'a mut RelayPool,
    pub(crate) sockets: &'a mut PunchSockets,
    pub(crate) aliases: &'a mut Aliases,
    pub(crate) transmits: &'a mut VecDeque<Transmit>,
    pub(crate) events: &'a mut VecDeque<Event>,
}

impl Context<'_> {
    /// Sends a STUN message along a path. It is dropped if the path has no way out now: its channel is not bound, or
    /// the member that would forward is not reached directly.
    pub(crate) fn send(&mut self, path: Path, mut message: Vec<u8>) {
        let forwards = |through| self.device.direct_peers.contains(&through);
        let Some(hop) = hop(self.relays, path).filter(|_| path.through().is_none_or(forwards)) else {
            trace!(%path, reason = "no way out", "message dropped");
            return;
        };
        if let Some(header) = hop.header(message.len()) {
            let padding = hop.padding(message.len());
            message.splice(..0, header);
            message.resize(message.len() + padding, 0);
        }
        let Hop { local, destination, .. } = hop;
        self.transmits.push_back(Transmit { local, destination, bytes: message });
    }
}

/// Returns how packets leave along a path, if they can now.
pub(crate) fn hop(relays: &RelayPool, path: Path) -> Option<Hop> {
    let plain = |local| Some(Hop { local, destination: path.remote, channel: None });
    match path.via {
        Via::Socket(socket) => plain(Local::Socket(socket)),
        Via::Member(relay) => plain(Local::Member(relay)),
        Via::Relay(allocation) => relays.hop(allocation, path.remote),
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::SocketId;

    use super::*;
    use crate::path::{AllocationId, MemberRelay};

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn shared() -> (Shared, Instant) {
        (Shared::new([1; 32], Config::default()), Instant::now())
    }

    fn path(port: u16) -> Path {
        Path { via: Via::Socket(SocketId::MAIN), remote: ([198, 51, 100, 1], port).into() }
    }

    #[test]
    fn messages_without_a_way_out_are_dropped() {
        let (mut shared, now) = shared();
        let member = MemberRelay { through: PeerId(1), to: PeerId(2) }.path();
        let unbound = Path { via: Via::Relay(AllocationId(1)), ..path(1) };
        for path in [member, unbound] {
            shared.context(now).send(path, vec![1]);
        }
        assert!(shared.transmits.is_empty());
        shared.device.direct_peers.insert(PeerId(1));
        shared.context(now).send(member, vec![1]);
        shared.context(now).send(path(1), vec![1]);
        assert_eq!(shared.transmits.len(), 2);
    }

    #[test]
    fn aliases_lead_to_their_path_until_it_is_removed() {
        let mut aliases = Aliases::default();
        aliases.add(path(2), path(1));
        assert_eq!((aliases.resolve(path(2)), aliases.resolve(path(3))), (path(1), path(3)));
        assert_eq!(aliases.sources_of(path(1)).collect::<Vec<_>>(), [path(2)]);
        aliases.remove(path(1));
        assert_eq!(aliases.resolve(path(2)), path(2));
    }

    #[test]
    fn aliases_are_bounded() {
        let mut aliases = Aliases::default();
        (0..2000).for_each(|port| aliases.add(path(port), path(9999)));
        assert_eq!(aliases.sources_of(path(9999)).count(), MAX_ALIASES);
    }
}
