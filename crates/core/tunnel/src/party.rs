//! One party's network: our own addresses, who owns which of the others, and the key that is ours in it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use boringtun::noise::{Packet, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter};
use ipnet::{Ipv4Net, Ipv6Net};
use partyline_model::{DeviceId, TunnelPublicKey};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{DropReason, bucket::Bucket, packet::link_local};

/// Broadcasts a second that one source may send, and how many at once. Discovery needs a handful; some old games
/// play by broadcast, at most once a frame.
const STORM_RATE: u32 = 250;
const STORM_BURST: u32 = 500;

/// Our own place in a party's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartyConfig {
    /// Our IPv4 address and the party's prefix.
    pub v4: Ipv4Net,
    /// Our IPv6 address and the party's prefix. The link-local address with the same interface identifier is ours too.
    pub v6: Ipv6Net,
    /// Largest packet of the network device, in bytes.
    pub mtu: u16,
}

/// A member as the tunnel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its WireGuard static key in this party.
    pub key: TunnelPublicKey,
    /// Its IPv4 address, once it has claimed one.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl PeerConfig {
    /// Every address the member may send from.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(self.v6.into()), Some(link_local(self.v6).into()), self.v4.map(IpAddr::from)]
            .into_iter()
            .flatten()
    }

    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => address == self.v6 || address == link_local(self.v6),
        }
    }
}

/// How far a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    One,
    Everyone,
    Housekeeping,
}

pub(crate) struct Party {
    pub secret: StaticSecret,
    pub public: PublicKey,
    pub net: PartyConfig,
    /// Slots of the members.
    pub peers: BTreeMap<DeviceId, usize>,
    pub routes: BTreeMap<IpAddr, usize>,
    pub keys: BTreeMap<[u8; 32], usize>,
    /// Budget of our own broadcasts.
    pub storm: Bucket,
    /// Checks the first MAC and nothing else.
    pub limiter: Arc<RateLimiter>,
    /// Demands the second MAC, which proves the sender's address.
    strict: RateLimiter,
}

impl Party {
    pub(crate) fn new(now: Instant, secret: StaticSecret, net: PartyConfig) -> Self {
        let public = PublicKey::from(&secret);
        Self {
            public,
            net,
            peers: BTreeMap::new(),
            routes: BTreeMap::new(),
            keys: BTreeMap::new(),
            storm: storm_bucket(now),
            limiter: Arc::new(RateLimiter::new(&public, u64::MAX)),
            strict: RateLimiter::new(&public, 0),
            secret,
        }
    }

    /// Whether an address is our own.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.net.v4.addr(),
            IpAddr::V6(address) => address == self.net.v6.addr() || address == link_local(self.net.v6.addr()),
        }
    }

    pub(crate) fn reach(&self, destination: IpAddr) -> Reach {
        match destination {
            // All IGMPv3 routers, all routers: there is none, and no group to join.
            IpAddr::V4(to) if matches!(to.octets(), [224, 0, 0, 2 | 22]) => Reach::Housekeeping,
            IpAddr::V4(to) if to.is_broadcast() || to.is_multicast() || to == self.net.v4.broadcast() => {
                Reach::Everyone
            }
            IpAddr::V6(to) if matches!(to.segments(), [0xff02, 0, 0, 0, 0, 0, 0, 2 | 0x16]) => {
                Reach::Housekeeping
            }
            IpAddr::V6(to) if to.segments()[0] == 0xff02 => Reach::Everyone,
            _ => Reach::One,
        }
    }

    /// Whether a handshake initiation is meant for this party.
    pub(crate) fn is_addressed_by(&self, datagram: &[u8]) -> bool {
        self.limiter.verify_packet(None, datagram, &mut []).is_ok()
    }

    /// Whether the sender of a handshake initiation has proven its address; if not, the cookie reply that lets it.
    pub(crate) fn demand_cookie(
        &self,
        from: IpAddr,
        datagram: &[u8],
        reply: &mut [u8],
    ) -> Result<(), Option<usize>> {
        match self.strict.verify_packet(Some(from), datagram, reply) {
            Ok(_) => Ok(()),
            Err(TunnResult::WriteToNetwork(cookie)) => Err(Some(cookie.len())),
            Err(_) => Err(None),
        }
    }

    /// The slot of the member whose static key a handshake initiation carries. One X25519 operation.
    pub(crate) fn initiator(&self, initiation: &Packet) -> Result<usize, DropReason> {
        let Packet::HandshakeInit(initiation) = initiation else { return Err(DropReason::Malformed) };
        let half = parse_handshake_anon(&self.secret, &self.public, initiation)
            .map_err(|_| DropReason::Unauthentic)?;
        self.keys.get(&half.peer_static_public).copied().ok_or(DropReason::UnknownPeer)
    }

    pub(crate) fn insert_peer(&mut self, id: DeviceId, slot: usize, config: &PeerConfig) {
        self.peers.insert(id, slot);
        self.keys.insert(config.key.0, slot);
        self.routes.extend(config.addresses().map(|address| (address, slot)));
    }

    /// Forgets what [`Self::insert_peer`] noted, but for what another member has claimed since.
    pub(crate) fn remove_peer(&mut self, id: DeviceId, config: &PeerConfig) {
        let Some(slot) = self.peers.remove(&id) else { return };
        if self.keys.get(&config.key.0) == Some(&slot) {
            self.keys.remove(&config.key.0);
        }
        for address in config.addresses() {
            if self.routes.get(&address) == Some(&slot) {
                self.routes.remove(&address);
            }
        }
    }
}

pub(crate) fn storm_bucket(now: Instant) -> Bucket {
    Bucket::new(now, STORM_RATE, STORM_BURST)
}
