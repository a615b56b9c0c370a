//! Sealing: XChaCha20-Poly1305 with a random 24-byte nonce in front, which is long enough to be drawn at random for
//! every message under one key. Only the holders of the key can read; the context is bound in as associated data.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use rand_core::{CryptoRng, RngCore};

use crate::keys::Secret;

const NONCE_BYTES: usize = 24;

pub(crate) fn seal(
    key: &Secret,
    context: &[u8],
    plaintext: &[u8],
    rng: &mut (impl CryptoRng + RngCore),
) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut nonce);
    let payload = Payload { msg: plaintext, aad: context };
    // Fails only for plaintexts of 256 GiB.
    let sealed = cipher(key).encrypt(XNonce::from_slice(&nonce), payload).unwrap_or_default();
    [&nonce[..], &sealed].concat()
}

/// Returns the plaintext, or `None` if the bytes were not sealed under this key for this context.
pub(crate) fn open(key: &Secret, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    cipher(key).decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: context }).ok()
}

fn cipher(key: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn sealed_bytes_open_under_their_key_and_context_only() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let key = Secret::new([1; 32]);
        let sealed = seal(&key, b"context", b"plaintext", &mut rng);
        assert_eq!(open(&key, b"context", &sealed).unwrap(), b"plaintext");
        assert_eq!(open(&key, b"other", &sealed), None);
        assert_eq!(open(&Secret::new([2; 32]), b"context", &sealed), None);
        for byte in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[byte] ^= 1;
            assert_eq!(open(&key, b"context", &changed), None, "byte {byte}");
        }
        assert_eq!(open(&key, b"context", &sealed[..NONCE_BYTES - 1]), None);
    }

    #[test]
    fn the_same_plaintext_never_seals_to_the_same_bytes() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let key = Secret::new([1; 32]);
        assert_ne!(seal(&key, b"", b"plaintext", &mut rng), seal(&key, b"", b"plaintext", &mut rng));
    }
}
