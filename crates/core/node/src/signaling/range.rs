//! Chooses a party's address range.

use ipnet::{IpNet, Ipv4Net};
use rand_core::RngCore;
use std::net::Ipv4Addr;

/// Returns a random /24 that no local network and no other party uses. From 10.0.0.0/8, where home routers take few
/// ranges of 65,536; if the whole of it is taken (a company network), from 172.16.0.0/12, and then from 192.168.0.0/16.
/// Where everything seems taken, it returns some range of 10.0.0.0/8, whose collision the party then shows as a problem.
pub(super) fn choose_range(
    local: &[IpNet],
    taken: impl Iterator<Item = Ipv4Net>,
    rng: &mut impl RngCore,
) -> Ipv4Net {
    let used: Vec<Ipv4Net> = local
        .iter()
        .filter_map(|prefix| match prefix {
            IpNet::V4(prefix) => Some(*prefix),
            IpNet::V6(_) => None,
        })
        .chain(taken)
        .collect();
    let free = |range: &Ipv4Net| used.iter().all(|net| !net.contains(range) && !range.contains(net));
    let blocks = [
        (Ipv4Addr::new(10, 0, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 8),
    ];
    for (base, bits) in blocks {
        for _ in 0..64 {
            let range = nth_range(base, rng.next_u32() % (1 << bits));
            if free(&range) {
                return range;
            }
        }
    }
    nth_range(Ipv4Addr::new(10, 0, 0, 0), rng.next_u32() % (1 << 16))
}

fn nth_range(base: Ipv4Addr, index: u32) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(base.to_bits() + (index << 8)), 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng as _;

    #[test]
    fn avoids_what_is_taken() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
        let company: IpNet = "10.0.0.0/8".parse().unwrap();
        for _ in 0..200 {
            let range = choose_range(&[company], std::iter::empty(), &mut rng);
            assert!(range.addr().octets()[0] == 172, "{range}");
            assert_eq!(range.prefix_len(), 24);
        }
    }
}
