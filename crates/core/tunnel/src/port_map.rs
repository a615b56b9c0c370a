//! A policy for incoming packets in the form in which each packet can be judged: a few sorted ranges per protocol.

use partyline_model::{IncomingLevel, IncomingPolicy, PortAccess, PortProtocol, ServicePort};

/// How the filter treats a local port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Everything comes in.
    Open,
    /// Only what belongs to a flow that this computer opened comes in: the level lets nothing else in.
    Closed,
    /// The same, for a port of a system service. What goes out from there may well be the service's answer.
    Service,
    /// The same, for a port that the user blocked.
    Blocked,
}

/// The treatment of all ports of one protocol: each entry holds from its port to that of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortMap(Vec<(u16, Treatment)>);

impl PortMap {
    pub(crate) fn new(policy: &IncomingPolicy, protocol: PortProtocol) -> Self {
        let rules = policy.allowed.iter().chain(&policy.blocked).filter(|port| port.protocol == protocol);
        let ends = rules.flat_map(|port| [Some(port.port), port.port.checked_add(1)]).flatten();
        let mut borders: Vec<u16> = ServicePort::system_service_borders(protocol).chain(ends).collect();
        borders.push(0);
        borders.sort_unstable();
        borders.dedup();
        let mut map: Vec<_> = borders
            .into_iter()
            .map(|port| (port, treatment(policy, ServicePort { protocol, port })))
            .collect();
        map.dedup_by_key(|(_, treatment)| *treatment);
        Self(map)
    }

    /// Returns the treatment of a port.
    pub(crate) fn get(&self, port: u16) -> Treatment {
        let next = self.0.partition_point(|(first, _)| *first <= port);
        // The first entry is that of port 0.
        self.0[next.saturating_sub(1)].1
    }
}

fn treatment(policy: &IncomingPolicy, port: ServicePort) -> Treatment {
    match policy.access(port) {
        PortAccess::Reachable | PortAccess::AllowedByUser => Treatment::Open,
        PortAccess::BlockedByUser => Treatment::Blocked,
        PortAccess::BlockedByDefault if port.system_service().is_some() => Treatment::Service,
        PortAccess::BlockedByDefault => Treatment::Closed,
    }
}

/// Returns true if a policy lets everything in, so that there is nothing to judge.
pub(crate) fn admits_everything(policy: &IncomingPolicy) -> bool {
    policy.level == IncomingLevel::Everything && policy.blocked.is_empty()
}

#[cfg(test)]
mod tests {
    use partyline_model::PortRule;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn map_says_of_every_port_what_the_policy_says(
            level in prop_oneof![Just(IncomingLevel::Nothing), Just(IncomingLevel::Games), Just(IncomingLevel::Everything)],
            allowed in proptest::collection::vec(any::<u16>(), 0..20),
            blocked in proptest::collection::vec(any::<u16>(), 0..20),
            is_tcp in any::<bool>(),
        ) {
            let protocol = if is_tcp { PortProtocol::Tcp } else { PortProtocol::Udp };
            let mut policy = IncomingPolicy::of(level);
            let rules = allowed.iter().map(|port| (port, PortRule::Allow));
            for (port, rule) in rules.chain(blocked.iter().map(|port| (port, PortRule::Block))) {
                policy.set_rule(ServicePort { protocol, port: *port }, Some(rule));
            }
            let map = PortMap::new(&policy, protocol);
            for port in 0..=u16::MAX {
                prop_assert_eq!(map.get(port), treatment(&policy, ServicePort { protocol, port }));
            }
        }
    }
}
