//! The flows that this computer opened to members, so that answers to them are let in.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Flows in one bucket, and the number of buckets: 8,192 flows, as many as a home router keeps. What is opened beyond that
/// replaces the flow of its bucket that would expire first.
const WAYS: usize = 8;
const BUCKETS: usize = 1024;

/// Lifetime of a UDP flow without outgoing packets (RFC 4787, REQ-5, recommends 5 minutes).
const UDP_LIFETIME: Duration = Duration::from_secs(300);
/// How long after a broadcast anybody may answer it. Discovery takes seconds; 2 minutes are the least that RFC 4787 allows.
const BROADCAST_LIFETIME: Duration = Duration::from_secs(120);
/// Lifetime of an established TCP connection without outgoing segments (RFC 5382, REQ-5).
const ESTABLISHED_LIFETIME: Duration = Duration::from_secs(7440);
/// Lifetime of a TCP connection that opens or closes (RFC 5382, REQ-5).
const TRANSITORY_LIFETIME: Duration = Duration::from_secs(240);

/// What names a flow. All members share one address and port after a broadcast ([`FlowKey::broadcast`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey {
    pub protocol: u8,
    pub remote: IpAddr,
    pub remote_port: u16,
    pub local_port: u16,
}

impl FlowKey {
    /// Returns the key of a flow to everybody, whom no single address names.
    pub(crate) const fn broadcast(protocol: u8, local_port: u16) -> Self {
        Self { protocol, remote: IpAddr::V6(Ipv6Addr::UNSPECIFIED), remote_port: 0, local_port }
    }

    /// Returns the bucket of the flow (FNV-1a). Only programs of this computer open flows, so nobody else can fill a bucket
    /// on purpose.
    fn bucket(&self) -> usize {
        let address = match self.remote {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let ports = [self.remote_port.to_be_bytes(), self.local_port.to_be_bytes()];
        let bytes = address.octets().into_iter().chain(ports.into_iter().flatten()).chain([self.protocol]);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        // The last bytes hardly reach the high bits otherwise (the finalizer of MurmurHash3).
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (hash ^ (hash >> 33)) as usize % BUCKETS
    }
}

/// What an outgoing packet means for its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// A UDP packet to one member.
    Udp,
    /// A UDP packet to all members.
    Broadcast,
    /// A TCP segment that opens or closes a connection: with SYN, FIN or RST.
    Transitory,
    /// Another TCP segment.
    Established,
}

impl Activity {
    const fn lifetime(self) -> Duration {
        match self {
            Self::Udp => UDP_LIFETIME,
            Self::Broadcast => BROADCAST_LIFETIME,
            Self::Transitory => TRANSITORY_LIFETIME,
            Self::Established => ESTABLISHED_LIFETIME,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    key: FlowKey,
    expires: Instant,
}

/// The flows of one party. Its size is fixed, and it takes no memory before the first flow.
#[derive(Debug, Default)]
pub(crate) struct FlowTable(Vec<Option<Flow>>);

impl FlowTable {
    /// Notes an outgoing packet. `opens` says whether it may open a flow, or only keep one.
    pub(crate) fn on_outgoing(&mut self, now: Instant, key: FlowKey, activity: Activity, opens: bool) {
        if self.0.is_empty() {
            if !opens {
                return;
            }
            self.0 = vec![None; WAYS * BUCKETS];
        }
        let flow = Flow { key, expires: now + activity.lifetime() };
        let bucket = &mut self.0[key.bucket() * WAYS..][..WAYS];
        let known = bucket.iter_mut().flatten().find(|known| known.key == key && known.expires > now);
        if let Some(known) = known {
            *known = flow;
        } else if opens
            && let Some(place) = bucket.iter_mut().min_by_key(|place| place.map(|flow| flow.expires))
        {
            *place = Some(flow);
        }
    }

    /// Returns true if a flow is open.
    pub(crate) fn is_open(&self, now: Instant, key: FlowKey) -> bool {
        let bucket = self.0.get(key.bucket() * WAYS..).unwrap_or_default();
        bucket.iter().take(WAYS).flatten().any(|flow| flow.key == key && flow.expires > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{start, v4};

    fn key(remote_port: u16, local_port: u16) -> FlowKey {
        FlowKey { protocol: 17, remote: v4(1).into(), remote_port, local_port }
    }

    #[test]
    fn flow_is_open_until_its_lifetime_ends_and_packets_renew_it() {
        for (activity, lifetime) in [
            (Activity::Udp, 300),
            (Activity::Broadcast, 120),
            (Activity::Transitory, 240),
            (Activity::Established, 7440),
        ] {
            let (mut now, mut table) = (start(), FlowTable::default());
            table.on_outgoing(now, key(1, 2), activity, true);
            now += Duration::from_secs(lifetime - 1);
            assert!(table.is_open(now, key(1, 2)) && !table.is_open(now, key(2, 2)));
            table.on_outgoing(now, key(1, 2), activity, false);
            now += Duration::from_secs(lifetime - 1);
            assert!(table.is_open(now, key(1, 2)));
            now += Duration::from_secs(1);
            assert!(!table.is_open(now, key(1, 2)), "{activity:?}");
            table.on_outgoing(now, key(1, 2), activity, false);
            assert!(!table.is_open(now, key(1, 2)), "an expired flow is not renewed");
        }
    }

    #[test]
    fn flood_of_flows_replaces_the_oldest_and_the_table_stays_as_large() {
        let (mut now, mut table) = (start(), FlowTable::default());
        assert_eq!(table.0.capacity(), 0);
        for local in 0..=u16::MAX {
            now += Duration::from_millis(1);
            table.on_outgoing(now, key(9, local), Activity::Udp, true);
            assert!(table.is_open(now, key(9, local)), "the newest flow has a place");
        }
        assert_eq!(table.0.len(), WAYS * BUCKETS);
        let open = (0..=u16::MAX).filter(|local| table.is_open(now, key(9, *local))).count();
        assert_eq!(open, WAYS * BUCKETS, "hashing fills every bucket");
        assert!(!table.is_open(now, key(9, 0)), "the oldest has made room");
    }
}
