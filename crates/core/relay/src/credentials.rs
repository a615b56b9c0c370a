//! Long-term credentials (RFC 8489, section 9.2), with passwords that are either fixed or derived from a shared secret.
//!
//! A request without credentials is challenged with realm, nonce and password algorithms (401). The repeated request
//! carries USERNAME or USERHASH, realm, nonce and an integrity attribute. If the client implements RFC 8489, it also carries
//! the list of algorithms as it was offered, and its choice. The list must equal the offer, else an attacker on the path
//! shortened it; and both attributes must be present or neither: without them the key is made with MD5 as in RFC 5389.
//!
//! Time-limited user names are `<expiry in unix seconds>:<name>`, and their password is
//! base64(HMAC-SHA1(secret, user name)), so that the rendezvous server, which knows the secret, grants access without
//! asking the relay. An expired user name can do nothing, and no allocation lasts longer than the user name that created or
//! refreshed it last. RFC 8656 lets no other user refresh an allocation (441); the same name with a later expiry is the same
//! user here, so that a client with a new grant keeps its allocation.

use std::{collections::BTreeMap, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use foldhash::quality::FixedState;
use hashbrown::HashMap;
use partyline_model::{Now, Timestamp};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, StunAttribute,
    attributes::stun::{Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, UserHash},
};

use tracing::trace;

use crate::{
    counters::Refusal,
    integrity::{Integrity, Signature},
    nonce::{self, NonceIssuer},
    rejection::Rejection,
    request::Request,
    response::Response,
    settings::{Secret, Settings},
};

/// Returns user name and password for [`Settings::shared_secret`], valid until `expires`.
#[must_use]
pub fn time_limited_credentials(secret: &Secret, expires: Timestamp, name: &str) -> (String, String) {
    let username = format!("{}:{name}", expires.seconds());
    let password = derived_password(secret, &username);
    (username, password)
}

/// Returns the name that quotas count: without its expiry, so that another grant is no further quota.
pub(crate) fn quota_name(username: &str) -> &str {
    match username.split_once(':') {
        Some((expiry, name)) if expiry.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => username,
    }
}

/// Returns when a time-limited user name expires.
fn expiry(username: &str) -> Option<Timestamp> {
    let seconds = username.split(':').next()?.parse::<u64>().ok()?;
    Some(Timestamp(seconds.saturating_mul(1000)))
}

/// Returns true if two user names are of one user: equal, or time-limited with another expiry.
pub(crate) fn is_same_user(a: &str, b: &str) -> bool {
    let both_expire = quota_name(a) != a && quota_name(b) != b;
    a == b || (both_expire && quota_name(a) == quota_name(b))
}

fn derived_password(secret: &Secret, username: &str) -> String {
    STANDARD.encode(Integrity::Sha1.code(secret.expose().as_bytes(), &[username.as_bytes()]))
}

/// The authenticated sender of a request.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The user name as sent, or as found by its hash.
    pub(crate) username: String,
    /// How to sign the response.
    pub(crate) signature: Signature,
    /// When the user name expires, if it does.
    pub(crate) expires: Option<Timestamp>,
}

/// What a request claims.
struct Claims {
    /// `None` if the realm or the hash of the user name is unknown.
    username: Option<String>,
    nonce: String,
}

/// Authenticates requests.
#[derive(Debug)]
pub(crate) struct Credentials {
    realm: String,
    shared_secret: Option<Secret>,
    users: BTreeMap<String, Secret>,
    /// User names by the hash that RFC 8489 lets clients send instead (USERHASH).
    names: HashMap<[u8; 32], String, FixedState>,
    nonces: NonceIssuer,
}

impl Credentials {
    pub(crate) fn new(settings: &Settings, nonce_key: [u8; 32], seed: u64) -> Self {
        // A time-limited name cannot be found by its hash, so anonymity is offered only where all users are known.
        let anonymity = settings.shared_secret.is_none();
        let mut names = HashMap::with_hasher(FixedState::with_seed(seed));
        for name in settings.users.keys() {
            let hash = UserHash::new(name, &settings.realm).ok();
            if let Some(hash) = hash.and_then(|hash| <[u8; 32]>::try_from(hash.hash()).ok()) {
                names.insert(hash, name.clone());
            }
        }
        Self {
            realm: settings.realm.clone(),
            shared_secret: settings.shared_secret.clone(),
            users: settings.users.clone(),
            names,
            nonces: NonceIssuer::new(nonce_key, anonymity, settings.nonce_lifetime.as_secs()),
        }
    }

    /// Authenticates a request from `client`.
    pub(crate) fn authenticate(
        &self,
        now: Now,
        request: &Request<'_>,
        client: IpAddr,
    ) -> Result<Identity, Rejection> {
        let Some(integrity) = request.integrity() else {
            return Err(Refusal::Challenge.because("no credentials"));
        };
        let Claims { username, nonce } = self.claims(request)?;
        let algorithm = chosen_algorithm(request, &nonce)?;
        let username = username.ok_or_else(|| Refusal::Unauthenticated.because("unknown user or realm"))?;
        let expires = if self.users.contains_key(&username) { None } else { expiry(&username) };
        let key = self.key(now, &username, algorithm)?;
        if !integrity.verify(key.as_bytes()) {
            return Err(Refusal::Unauthenticated.because("wrong password"));
        }
        if !self.nonces.is_fresh(&nonce, now.unix, client) {
            return Err(Refusal::StaleNonce.because("nonce expired or issued to another address"));
        }
        let signature = Signature { kind: integrity.kind, key: key.as_bytes().to_vec() };
        Ok(Identity { username, signature, expires })
    }

    fn claims(&self, request: &Request<'_>) -> Result<Claims, Rejection> {
        let realm =
            request.find(|attribute| attribute.as_realm().ok().map(|realm| realm.as_str().to_owned()));
        let nonce =
            request.find(|attribute| attribute.as_nonce().ok().map(|nonce| nonce.as_str().to_owned()));
        let name = request.find(|attribute| match attribute {
            StunAttribute::UserName(name) => Some(Some(name.as_str().to_owned())),
            StunAttribute::UserHash(hash) => Some(self.names.get(hash.hash()).cloned()),
            _ => None,
        });
        match (realm, nonce, name) {
            (Some(realm), Some(nonce), Some(name)) => {
                Ok(Claims { username: name.filter(|_| realm == self.realm), nonce })
            }
            _ => Err(Refusal::BadRequest.because("user name, realm or nonce is missing")),
        }
    }

    fn key(&self, now: Now, username: &str, algorithm: AlgorithmId) -> Result<HMACKey, Rejection> {
        let unknown = || Refusal::Unauthenticated.because("unknown user");
        let derived;
        let password = if let Some(password) = self.users.get(username) {
            password.expose()
        } else {
            if expiry(username).ok_or_else(unknown)? <= now.unix {
                return Err(Refusal::Unauthenticated.because("time-limited user name expired"));
            }
            derived = derived_password(self.shared_secret.as_ref().ok_or_else(unknown)?, username);
            &derived
        };
        let key = HMACKey::new_long_term(username, &self.realm, password, Algorithm::from(algorithm));
        key.map_err(|_| unknown())
    }

    /// Adds realm, a nonce and the password algorithms to the response to a request that was not authenticated.
    pub(crate) fn add_challenge(&self, response: Response, now: Now, client: IpAddr) -> Response {
        trace!(%client, "nonce issued");
        let nonce = Nonce::new(self.nonces.issue(now.unix, client));
        let response = match (Realm::new(&self.realm), nonce) {
            (Ok(realm), Ok(nonce)) => response.with(realm).with(nonce),
            _ => response,
        };
        response.with(offered_algorithms())
    }
}

/// Returns the password algorithms, best first.
fn offered_algorithms() -> PasswordAlgorithms {
    let mut list = PasswordAlgorithms::default();
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)));
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::MD5)));
    list
}

/// Returns the algorithm that the client chose. The choice counts only together with the list as it was offered (RFC 8489,
/// section 9.2.4).
fn chosen_algorithm(request: &Request<'_>, nonce: &str) -> Result<AlgorithmId, Rejection> {
    if !nonce::offers_password_algorithms(nonce) {
        return Ok(AlgorithmId::MD5);
    }
    let list = request.find(|attribute| attribute.as_password_algorithms().ok().cloned());
    let choice = request.find(|attribute| attribute.as_password_algorithm().ok().cloned());
    match (list, choice) {
        (None, None) => Ok(AlgorithmId::MD5),
        (Some(list), Some(choice))
            if list == offered_algorithms() && list.iter().any(|offer| *offer == choice) =>
        {
            Ok(choice.algorithm())
        }
        _ => Err(Refusal::BadRequest.because("password algorithms differ from the offer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_equals_the_one_that_coturn_derives() {
        // printf '1700000000:user' | openssl dgst -sha1 -hmac secret -binary | base64
        let (name, password) =
            time_limited_credentials(&Secret::new("secret"), Timestamp(1_700_000_000_000), "user");
        assert_eq!((name.as_str(), password.as_str()), ("1700000000:user", "I/MZeIG6MwzOV8Uubr9liB2556o="));
    }

    #[test]
    fn quotas_ignore_the_expiry_of_a_time_limited_name() {
        assert_eq!(quota_name("1700000000:0a0b"), "0a0b");
        assert_eq!(quota_name("alice"), "alice");
        assert_eq!(quota_name("team:alice"), "team:alice");
    }

    #[test]
    fn another_grant_is_the_same_user_and_another_name_is_not() {
        assert!(is_same_user("alice", "alice") && is_same_user("1:0a0b", "2:0a0b"));
        for (a, b) in [("1:0a0b", "1:0a0c"), ("alice", "1:alice"), ("alice", "bob"), ("team:a", "other:a")] {
            assert!(!is_same_user(a, b), "{a} {b}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let settings = Settings {
            shared_secret: Some(Secret::new("hidden1")),
            users: [("alice".into(), Secret::new("hidden2"))].into(),
            ..Settings::default()
        };
        let printed = format!("{settings:?} {:?}", Credentials::new(&settings, [0xAB; 32], 1));
        assert!(!printed.contains("hidden") && !printed.contains("171, 171"), "{printed}");
    }
}
