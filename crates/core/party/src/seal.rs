//! Sealing: XChaCha20-Poly1305 with a random 24-byte nonce in front, which is long enough to be drawn at random for
//! every message under one key. Only the holders of the key can read; the topic is bound in as associated data.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use rand_core::{CryptoRng, RngCore};

use crate::keys::Secret;

const NONCE: usize = 24;

pub(crate) fn seal(
    key: &Secret,
    context: &[u8],
    plaintext: &[u8],
    rng: &mut (impl CryptoRng + RngCore),
) -> Vec<u8> {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let payload = Payload { msg: plaintext, aad: context };
    // Fails only for plaintexts of 256 GiB.
    let sealed = cipher(key).encrypt(XNonce::from_slice(&nonce), payload).unwrap_or_default();
    [&nonce[..], &sealed].concat()
}

pub(crate) fn open(key: &Secret, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
    cipher(key).decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: context }).ok()
}

fn cipher(key: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}
