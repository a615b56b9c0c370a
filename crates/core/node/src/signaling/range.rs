//! Address ranges: which networks of this computer clash with a party's, and which range is free.
//!
//! A system sends a packet by the most specific route. A party's range is a private network with 16 to 28 bits, so
//! the route to it wins over a default route, over the pieces that VPNs cut one into (0.0.0.0/1, 128.0.0.0/1, or a
//! dozen that leave one network out), and over a route to a whole company network. It does not win over a route to the
//! same network or to a part of it. A network that this computer is itself in clashes whatever its size: neighbours
//! there would be hidden by the party, or the party by them.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use rand_core::RngCore;

/// The blocks that ranges are chosen from, with the number of bits that choose a /24 in them. From 10.0.0.0/8 first, where
/// home routers take few ranges of 65,536; if the whole of it is taken (a company network), from the others.
const BLOCKS: [(Ipv4Addr, u8, u8); 3] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8, 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12, 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 8),
];

/// The IPv4 networks that this computer is in or has routes to.
#[derive(Debug, Default)]
pub(super) struct Networks {
    on_link: Vec<Ipv4Net>,
    routed: Vec<Ipv4Net>,
}

impl Networks {
    pub(super) fn new(on_link: &[IpNet], routed: &[IpNet]) -> Self {
        Self { on_link: v4(on_link), routed: v4(routed) }
    }

    /// Returns a network whose addresses this computer would take for the party's, or the party's for it.
    pub(super) fn clash(&self, range: Ipv4Net) -> Option<Ipv4Net> {
        let on_link = self.on_link.iter().find(|network| overlap(network, &range));
        on_link.or_else(|| self.routed.iter().find(|network| range.contains(*network))).copied()
    }

    /// Returns the private networks among them, which a range should better avoid even where it could be used: a party
    /// hides a part of a larger network that a route leads to. Pieces of a default route cover public addresses, too.
    pub(super) fn private(&self) -> impl Iterator<Item = Ipv4Net> {
        self.on_link.iter().chain(self.routed.iter().filter(|network| is_private(network))).copied()
    }
}

fn v4(networks: &[IpNet]) -> Vec<Ipv4Net> {
    let v4 = |network: &IpNet| match network {
        IpNet::V4(network) => Some(network.trunc()),
        IpNet::V6(_) => None,
    };
    networks.iter().filter_map(v4).collect()
}

/// Returns true if two networks have addresses in common.
pub(super) fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(other) || other.contains(one)
}

fn is_private(network: &Ipv4Net) -> bool {
    BLOCKS.iter().any(|(base, prefix, _)| Ipv4Net::new_assert(*base, *prefix).contains(network))
}

/// Returns a random /24 that no network of this computer and none of the `taken` ones has. Where everything seems taken, it
/// returns some range that clashes with nothing, or else any, whose clash the party then shows as a problem.
pub(super) fn choose_range(
    local: &Networks,
    taken: impl Iterator<Item = Ipv4Net>,
    rng: &mut impl RngCore,
) -> Ipv4Net {
    let taken: Vec<Ipv4Net> = taken.collect();
    let is_taken = |range: &Ipv4Net| taken.iter().any(|network| overlap(network, range));
    let unused = |range: &Ipv4Net| !is_taken(range) && local.private().all(|known| !overlap(&known, range));
    let usable = |range: &Ipv4Net| !is_taken(range) && local.clash(*range).is_none();
    draw(rng, unused).or_else(|| draw(rng, usable)).unwrap_or_else(|| random_range(rng, BLOCKS[0]))
}

fn draw(rng: &mut impl RngCore, is_free: impl Fn(&Ipv4Net) -> bool) -> Option<Ipv4Net> {
    let mut tries = BLOCKS.into_iter().flat_map(|block| std::iter::repeat_n(block, 64));
    tries.find_map(|block| Some(random_range(rng, block)).filter(&is_free))
}

fn random_range(rng: &mut impl RngCore, (base, _, bits): (Ipv4Addr, u8, u8)) -> Ipv4Net {
    let index = rng.next_u32() % (1 << bits);
    Ipv4Net::new_assert(Ipv4Addr::from_bits(base.to_bits() + (index << 8)), 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng as _;

    /// What VPNs set instead of a default route: OpenVPN's and others' halves, quarters and eighths, and WireGuard's
    /// allowed addresses for everything but 10.0.0.0/8, and but all private networks.
    const SPLIT: [&[&str]; 5] = [
        &["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"],
        &["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2", "2000::/3"],
        &["0.0.0.0/3", "32.0.0.0/3", "64.0.0.0/3", "96.0.0.0/3", "128.0.0.0/3", "160.0.0.0/3", "192.0.0.0/3"],
        &[
            "0.0.0.0/5",
            "8.0.0.0/7",
            "11.0.0.0/8",
            "12.0.0.0/6",
            "16.0.0.0/4",
            "32.0.0.0/3",
            "64.0.0.0/2",
            "128.0.0.0/1",
        ],
        &[
            "128.0.0.0/2",
            "192.0.0.0/9",
            "192.128.0.0/11",
            "192.160.0.0/13",
            "192.169.0.0/16",
            "172.0.0.0/12",
            "172.32.0.0/11",
        ],
    ];

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn range(text: &str) -> Ipv4Net {
        text.parse().expect("a range")
    }

    #[test]
    fn pieces_of_a_default_route_clash_with_no_range_and_take_none() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
        for pieces in SPLIT {
            let networks = Networks::new(&nets(&["192.168.1.0/24"]), &nets(pieces));
            for text in ["10.80.7.0/24", "172.20.0.0/16", "192.168.80.0/28"] {
                assert_eq!(networks.clash(range(text)), None, "{text} beside {pieces:?}");
            }
            let chosen = choose_range(&networks, std::iter::empty(), &mut rng);
            assert_eq!(chosen.addr().octets()[0], 10, "{chosen} beside {pieces:?}");
        }
    }

    #[test]
    fn only_a_route_as_specific_as_the_partys_clashes() {
        let routed = |text| Networks::new(&[], &nets(&[text])).clash(range("10.80.0.0/20"));
        for text in ["10.80.0.0/20", "10.80.4.0/24", "10.80.4.7/32"] {
            assert_eq!(routed(text), Some(range(text)));
        }
        for text in ["10.0.0.0/8", "10.80.0.0/16", "10.80.16.0/24", "0.0.0.0/1", "fd00::/8"] {
            assert_eq!(routed(text), None, "{text}");
        }
    }

    #[test]
    fn network_that_this_computer_is_in_clashes_whatever_its_size() {
        let on_link = |text| Networks::new(&nets(&[text]), &[]).clash(range("10.80.7.0/24"));
        assert!(on_link("10.0.0.0/8").is_some() && on_link("10.80.7.0/24").is_some());
        assert!(on_link("10.80.7.9/32").is_some() && on_link("10.80.8.0/24").is_none());
    }

    #[test]
    fn chosen_range_avoids_what_is_taken_and_where_private_routes_lead() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
        let company = nets(&["10.0.0.0/8"]);
        for (on_link, routed) in [(&company[..], &[][..]), (&[], &company)] {
            let networks = Networks::new(on_link, routed);
            for _ in 0..200 {
                let chosen = choose_range(&networks, std::iter::empty(), &mut rng);
                assert!(chosen.addr().octets()[0] == 172 && chosen.prefix_len() == 24, "{chosen}");
            }
        }
        let taken = ["10.0.0.0/8", "172.16.0.0/12"].map(range);
        let chosen = choose_range(&Networks::default(), taken.into_iter(), &mut rng);
        assert_eq!(chosen.addr().octets()[..2], [192, 168]);
    }

    #[test]
    fn where_routes_lead_to_all_private_networks_a_range_that_wins_is_chosen() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([3; 32]);
        let networks = Networks::new(&[], &nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]));
        let chosen = choose_range(&networks, std::iter::empty(), &mut rng);
        assert_eq!(networks.clash(chosen), None);
    }
}
