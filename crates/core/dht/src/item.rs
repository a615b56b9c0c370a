//! Mutable items (BEP 44).

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use partyline_wire::krpc::{MAX_SALT, MAX_VALUE, NodeId, Response, signed_bytes};
use sha1::{Digest as _, Sha1};

/// A mutable item. The holder of the private key can replace it by one with a higher sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The Ed25519 public key.
    pub key: [u8; 32],
    /// The salt, which tells items of one key apart; at most 64 bytes.
    pub salt: Vec<u8>,
    /// The sequence number.
    pub seq: i64,
    /// The value: a string of at most 996 bytes, 1,000 when bencoded.
    pub value: Vec<u8>,
    /// The signature over salt, sequence number and value.
    pub signature: [u8; 64],
}

impl Item {
    /// Makes an item and signs it. An item whose salt or value is too long can be made, but not stored.
    #[must_use]
    pub fn sign(key: &SigningKey, salt: Vec<u8>, seq: i64, value: Vec<u8>) -> Self {
        let signature = key.sign(&signed_bytes(&salt, seq, &value)).to_bytes();
        Self { key: key.verifying_key().to_bytes(), salt, seq, value, signature }
    }

    /// Returns true if the signature is valid and the item is within its limits. Weak keys and malleable signatures are
    /// refused.
    #[must_use]
    pub fn verify(&self) -> bool {
        let signed = signed_bytes(&self.salt, self.seq, &self.value);
        let signature = Signature::from_bytes(&self.signature);
        let valid = |key: VerifyingKey| key.verify_strict(&signed, &signature).is_ok();
        self.is_within_limits() && VerifyingKey::from_bytes(&self.key).is_ok_and(valid)
    }

    /// Returns the target under which nodes store the item.
    #[must_use]
    pub fn target(&self) -> NodeId {
        target(&self.key, &self.salt)
    }

    pub(crate) const fn is_within_limits(&self) -> bool {
        self.salt.len() <= MAX_SALT && self.value.len() <= MAX_VALUE
    }

    /// Returns the item that a response carries, unverified, or `None` if it carries none of this key.
    pub(crate) fn in_response(response: &Response<'_>, key: &[u8; 32], salt: &[u8]) -> Option<Self> {
        let signature = *response.signature?;
        let value = response.value?.to_vec();
        (response.key? == key).then_some(Self {
            key: *key,
            salt: salt.to_vec(),
            seq: response.seq?,
            value,
            signature,
        })
    }
}

/// Returns the target of a key and salt: the SHA-1 of both.
#[must_use]
pub fn target(key: &[u8; 32], salt: &[u8]) -> NodeId {
    NodeId(Sha1::new().chain_update(key).chain_update(salt).finalize().into())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
    use sha2::Sha512;

    use super::*;

    fn bytes<const LEN: usize>(hex: &str) -> [u8; LEN] {
        std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
    }

    /// The test vectors of BEP 44: salt, target and signature.
    const VECTORS: [(&str, &str, &str); 2] = [
        (
            "",
            "4a533d47ec9c7d95b1ad75f576cffc641853b750",
            "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
             1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
        ),
        (
            "foobar",
            "411eba73b6f087ca51a3795d9c8c938d365e32c1",
            "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
             df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
        ),
    ];

    #[test]
    fn items_of_bep_44_are_valid_and_are_signed_alike() {
        let key = bytes("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548");
        let secret: [u8; 64] = bytes(
            "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
             b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d",
        );
        let secret = ExpandedSecretKey::from_bytes(&secret);
        for (salt, expected_target, signature) in VECTORS {
            let item = Item {
                key,
                salt: salt.into(),
                seq: 1,
                value: b"Hello World!".to_vec(),
                signature: bytes(signature),
            };
            assert!(item.verify());
            assert_eq!(item.target().0, bytes(expected_target));
            let public = VerifyingKey::from_bytes(&key).unwrap();
            let signed = raw_sign::<Sha512>(&secret, &signed_bytes(&item.salt, 1, &item.value), &public);
            assert_eq!(signed.to_bytes(), item.signature);
        }
    }

    #[test]
    fn every_part_of_an_item_is_signed() {
        let item = Item::sign(&SigningKey::from_bytes(&[7; 32]), b"salt".to_vec(), 5, b"value".to_vec());
        assert!(item.verify());
        let changes: [fn(&mut Item); 5] = [
            |item| item.salt.clear(),
            |item| item.seq += 1,
            |item| item.value.push(0),
            |item| item.signature[40] ^= 1,
            |item| item.key = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
        ];
        for change in changes {
            let mut changed = item.clone();
            change(&mut changed);
            assert!(!changed.verify(), "{changed:?}");
        }
    }

    #[test]
    fn item_beyond_its_limits_is_invalid() {
        let key = SigningKey::from_bytes(&[7; 32]);
        assert!(Item::sign(&key, vec![1; MAX_SALT], 1, vec![2; MAX_VALUE]).verify());
        assert!(!Item::sign(&key, vec![1; MAX_SALT + 1], 1, vec![]).verify());
        assert!(!Item::sign(&key, vec![], 1, vec![2; MAX_VALUE + 1]).verify());
    }

    #[test]
    fn weak_key_is_refused() {
        // The neutral element signs everything with an all-zero scalar.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let item = Item { key: neutral, salt: vec![], seq: 1, value: vec![], signature };
        assert!(!item.verify());
    }
}
