//! The list of scenarios.

use anyhow::Result;

use super::{groups, meetings, quiet, refusals};
use crate::party::World;

/// A scenario and its description.
#[derive(Debug)]
pub(super) struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// One-line description.
    pub about: &'static str,
    /// True if CI runs it.
    pub in_ci: bool,
    pub run: fn(&World, usize) -> Result<()>,
}

/// Returns all scenarios.
pub(super) const fn scenarios() -> &'static [Scenario] {
    &[
        Scenario {
            name: "two-homes",
            about: "two port-restricted homes; --runs of them",
            in_ci: true,
            run: meetings::two_homes,
        },
        Scenario {
            name: "reachable-inviter",
            about: "the inviter's address in the link suffices, without the DHT",
            in_ci: true,
            run: meetings::reachable_inviter,
        },
        Scenario {
            name: "half-dead",
            about: "half of the DHT's nodes, and one of its two routers, are dead",
            in_ci: false,
            run: meetings::half_dead,
        },
        Scenario {
            name: "eight-joiners",
            about: "eight homes use one link at the same moment",
            in_ci: false,
            run: meetings::eight_joiners,
        },
        Scenario {
            name: "eight-at-address",
            about: "the same with the inviter's public address in the link",
            in_ci: true,
            run: meetings::eight_at_address,
        },
        Scenario {
            name: "inviter-leaves",
            about: "the inviter's computer is off; tunnels stay, and a newcomer joins through the others",
            in_ci: true,
            run: groups::inviter_leaves,
        },
        Scenario {
            name: "hard-with-third",
            about: "two symmetric NATs are relayed by a third member",
            in_ci: true,
            run: groups::hard_with_third,
        },
        Scenario {
            name: "hard-alone",
            about: "two symmetric NATs alone: the text says what helps",
            in_ci: false,
            run: refusals::hard_alone,
        },
        Scenario {
            name: "udp-blocked",
            about: "a network without UDP: the text says so",
            in_ci: false,
            run: refusals::udp_blocked,
        },
        Scenario {
            name: "dht-blocked",
            about: "a network that drops DHT packets: the text says so",
            in_ci: true,
            run: refusals::dht_blocked,
        },
        Scenario {
            name: "routers-dead",
            about: "without routers, nodes in the link and those remembered suffice",
            in_ci: false,
            run: meetings::routers_dead,
        },
        Scenario {
            name: "hostile-nodes",
            about: "a third of the nodes send garbage, floods and old items",
            in_ci: false,
            run: meetings::hostile_nodes,
        },
        Scenario {
            name: "carrier",
            about: "both homes are behind their carriers' NATs",
            in_ci: true,
            run: meetings::carrier,
        },
        Scenario {
            name: "other-nodes",
            about: "nodes of the crate mainline beside those of libtorrent",
            in_ci: false,
            run: meetings::other_nodes,
        },
        Scenario {
            name: "dht-off",
            about: "with the setting `dht` off, no packet goes to the DHT",
            in_ci: true,
            run: quiet::dht_off,
        },
        Scenario {
            name: "at-rest",
            about: "a connected party sends at most 12 packets a minute to the DHT",
            in_ci: false,
            run: quiet::at_rest,
        },
    ]
}
