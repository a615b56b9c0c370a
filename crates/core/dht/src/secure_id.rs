//! Node ids that follow from the node's address (BEP 42), so that nobody can choose to be closest to a target.

use std::net::IpAddr;

use partyline_model::is_public;
use partyline_wire::krpc::{NODE_ID_LEN, NodeId};
use rand_core::RngCore;

const MASK_V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
const MASK_V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
/// The Castagnoli polynomial, least significant bit first.
const CRC32C: u32 = 0x82f6_3b78;

/// Returns a random id.
pub(crate) fn random_id(rng: &mut impl RngCore) -> NodeId {
    let mut id = [0; NODE_ID_LEN];
    rng.fill_bytes(&mut id);
    NodeId(id)
}

/// Returns a random id that is valid for an address (BEP 42).
pub fn secure_id(ip: IpAddr, rng: &mut impl RngCore) -> NodeId {
    let NodeId(mut id) = random_id(rng);
    let [first, second, third] = prefix(ip, id[NODE_ID_LEN - 1]);
    (id[0], id[1], id[2]) = (first, second, third | id[2] & 0x07);
    NodeId(id)
}

/// Returns true if the id is valid for the address. Ids of local addresses always are.
pub(crate) fn is_secure(id: &NodeId, ip: IpAddr) -> bool {
    let [first, second, third] = prefix(ip, id.0[NODE_ID_LEN - 1]);
    !is_public(ip) || [id.0[0], id.0[1], id.0[2] & 0xf8] == [first, second, third]
}

/// Returns the 21 bits that an id must start with if its last byte is `random`.
fn prefix(ip: IpAddr, random: u8) -> [u8; 3] {
    let crc = match ip {
        IpAddr::V4(ip) => masked_crc(ip.octets(), MASK_V4, random),
        // The first half of an address is its network.
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            masked_crc(std::array::from_fn(|index| octets[index]), MASK_V6, random)
        }
    };
    let [first, second, third, _] = crc.to_be_bytes();
    [first, second, third & 0xf8]
}

fn masked_crc<const LEN: usize>(octets: [u8; LEN], mask: [u8; LEN], random: u8) -> u32 {
    let mut masked: [u8; LEN] = std::array::from_fn(|index| octets[index] & mask[index]);
    masked[0] |= (random & 0x07) << 5;
    crc32c(&masked)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ CRC32C } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn crc_is_the_castagnoli_one() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn prefixes_are_those_of_bep_42() {
        let vectors = [
            ("124.31.75.21", 1, [0x5f, 0xbf, 0xbf]),
            ("21.75.31.124", 86, [0x5a, 0x3c, 0xe9]),
            ("65.23.51.170", 22, [0xa5, 0xd4, 0x32]),
            ("84.124.73.14", 65, [0x1b, 0x03, 0x21]),
            ("43.213.53.83", 90, [0xe5, 0x6f, 0x6c]),
        ];
        for (ip, random, [first, second, third]) in vectors {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(prefix(ip, random), [first, second, third & 0xf8], "{ip}");
            let mut id = [0x5a; 20];
            (id[0], id[1], id[2], id[19]) = (first, second, third, random);
            assert!(is_secure(&NodeId(id), ip));
            id[1] ^= 1;
            assert!(!is_secure(&NodeId(id), ip));
        }
    }

    #[test]
    fn any_id_is_valid_for_a_local_address() {
        assert!(is_secure(&NodeId([0; 20]), "192.168.1.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn made_ids_are_valid(seed: u64, v4: u32, v6: u128) {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            for ip in [IpAddr::from(v4.to_be_bytes()), IpAddr::from(v6.to_be_bytes())] {
                prop_assert!(is_secure(&secure_id(ip, &mut rng), ip));
            }
        }
    }
}
