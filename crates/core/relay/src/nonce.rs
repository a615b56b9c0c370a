//! Nonces that the server does not have to remember (RFC 8489, section 9.2).
//!
//! ```text
//! obMatJos2 | security features (4 base64 characters) | base64 of: expiry (4) | HMAC-SHA256 over all of it and the client's address (12)
//! ```
//!
//! It is as short as that, so that a challenge is not longer than four times the shortest Allocate request.
//!
//! The cookie and the features come first, so that clients know that the server supports password algorithms. The code covers
//! them: an attacker on the path cannot remove a feature without making the nonce invalid.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use partyline_model::Timestamp;
use subtle::ConstantTimeEq;

use crate::integrity::Integrity;

const COOKIE: &str = "obMatJos2";
/// Bit 0, password algorithms: `80 00 00` in base64.
const PASSWORD_ALGORITHMS: &str = "gAAA";
/// Bits 0 and 1, password algorithms and user name anonymity: `C0 00 00` in base64.
const ANONYMITY: &str = "wAAA";

/// Bytes of the code that a nonce carries.
const CODE_LEN: usize = 12;

/// Issues and checks nonces.
pub(crate) struct NonceIssuer {
    key: [u8; 32],
    features: &'static str,
    lifetime_s: u64,
}

impl fmt::Debug for NonceIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonceIssuer").field("lifetime_s", &self.lifetime_s).finish_non_exhaustive()
    }
}

impl NonceIssuer {
    pub(crate) fn new(key: [u8; 32], anonymity: bool, lifetime_s: u64) -> Self {
        Self { key, features: if anonymity { ANONYMITY } else { PASSWORD_ALGORITHMS }, lifetime_s }
    }

    /// Returns a nonce for a client.
    pub(crate) fn issue(&self, now: Timestamp, client: IpAddr) -> String {
        self.signed(now.seconds().saturating_add(self.lifetime_s) as u32, client)
    }

    /// Returns true if this server issued the nonce to this client and it has not expired.
    pub(crate) fn is_fresh(&self, nonce: &str, now: Timestamp, client: IpAddr) -> bool {
        let at = COOKIE.len() + self.features.len();
        let decoded = nonce.get(at..).and_then(|text| STANDARD_NO_PAD.decode(text).ok());
        let Some(expiry) = decoded.and_then(|bytes| bytes.first_chunk().copied().map(u32::from_be_bytes))
        else {
            return false;
        };
        let ours = bool::from(self.signed(expiry, client).as_bytes().ct_eq(nonce.as_bytes()));
        ours && u64::from(expiry) > now.seconds()
    }

    fn signed(&self, expiry: u32, client: IpAddr) -> String {
        let (head, expiry) = (format!("{COOKIE}{}", self.features), expiry.to_be_bytes());
        let code = |ip: &[u8]| Integrity::Sha256.code(&self.key, &[head.as_bytes(), &expiry, ip]);
        let code = match client {
            IpAddr::V4(ip) => code(&ip.octets()),
            IpAddr::V6(ip) => code(&ip.octets()),
        };
        let tail: Vec<u8> = expiry.into_iter().chain(code.into_iter().take(CODE_LEN)).collect();
        head + &STANDARD_NO_PAD.encode(tail)
    }
}

/// Returns true if a nonce says that the server supports password algorithms.
pub(crate) fn offers_password_algorithms(nonce: &str) -> bool {
    nonce
        .strip_prefix(COOKIE)
        .is_some_and(|rest| rest.starts_with(PASSWORD_ALGORITHMS) || rest.starts_with(ANONYMITY))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn nonce_is_valid_for_its_client_until_it_expires() {
        let issuer = NonceIssuer::new([7; 32], false, 60);
        let nonce = issuer.issue(Timestamp(1_000_000), CLIENT);
        assert!(issuer.is_fresh(&nonce, Timestamp(1_059_000), CLIENT));
        assert!(!issuer.is_fresh(&nonce, Timestamp(1_060_000), CLIENT));
        assert!(!issuer.is_fresh(&nonce, Timestamp(1_000_000), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))));
        assert!(!NonceIssuer::new([8; 32], false, 60).is_fresh(&nonce, Timestamp(1_000_000), CLIENT));
    }

    #[test]
    fn nonce_with_removed_features_is_invalid() {
        let issuer = NonceIssuer::new([7; 32], true, 60);
        let nonce = issuer.issue(Timestamp(0), CLIENT);
        assert!(offers_password_algorithms(&nonce));
        let stripped = nonce.replacen(ANONYMITY, "AAAA", 1);
        assert!(!offers_password_algorithms(&stripped));
        assert!(!issuer.is_fresh(&stripped, Timestamp(0), CLIENT));
        for garbage in ["", "obMatJos2", "obMatJos2gAAAzzzzzzzz", "é".repeat(30).as_str()] {
            assert!(!issuer.is_fresh(garbage, Timestamp(0), CLIENT));
        }
    }
}
