//! Long-term credentials (RFC 8489, section 9.2), with passwords that are either fixed or derived from a shared secret.
//!
//! A request without credentials is challenged with realm, nonce and password algorithms (401). The repeated request
//! carries USERNAME or USERHASH, realm, nonce and an integrity attribute, and, if the client knows RFC 8489, the list of
//! algorithms as it was offered and its choice. The list must be the one that was offered (else somebody on the way
//! shortened it) and both attributes must be there, or neither: then the key is made with MD5 as RFC 5389 had it.
//!
//! Time-limited user names are `<expiry in unix seconds>:<name>` and their password is base64(HMAC-SHA1(secret, user name)),
//! so that whoever knows the secret (the rendezvous) grants access without telling the relay. Expiry closes the door to
//! new allocations; one that stands may be refreshed, since its client could not change its user name (441).

use std::{collections::BTreeMap, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hashbrown::HashMap;
use partyline_model::{Now, Timestamp};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, StunAttribute,
    attributes::stun::{Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, UserHash},
};

use crate::{
    Secret, Settings,
    integrity::{Integrity, Seal},
    nonce::{self, Nonces},
    request::{Reply, Request, Signature},
};

/// User name and password for [`Settings::shared_secret`], valid until `expires`.
#[must_use]
pub fn time_limited_credentials(secret: &Secret, expires: Timestamp, name: &str) -> (String, String) {
    let username = format!("{}:{name}", expires.seconds());
    let password = derived_password(secret, &username);
    (username, password)
}

/// Whom quotas are counted for: the name without its expiry, so that a new grant is no new quota.
pub(crate) fn quota_name(username: &str) -> &str {
    match username.split_once(':') {
        Some((expiry, name)) if expiry.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => username,
    }
}

fn derived_password(secret: &Secret, username: &str) -> String {
    STANDARD.encode(Integrity::Sha1.code(secret.expose().as_bytes(), &[username.as_bytes()]))
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The user name as sent, or as found by its hash.
    pub(crate) username: String,
    /// How to sign the reply.
    pub(crate) signature: Signature,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 401: no credentials, or wrong ones.
    Unauthenticated {
        /// Whether it had credentials at all.
        wrong: bool,
    },
    /// 400: credentials with parts missing or contradicting each other.
    Malformed,
    /// 438: the nonce was used for too long.
    Stale,
}

/// Knows users and nonces.
#[derive(Debug)]
pub(crate) struct Credentials {
    realm: String,
    shared_secret: Option<Secret>,
    users: BTreeMap<String, Secret>,
    /// Names behind the hashes that RFC 8489 lets clients send instead.
    names: HashMap<[u8; 32], String, foldhash::quality::FixedState>,
    nonces: Nonces,
}

impl Credentials {
    pub(crate) fn new(settings: &Settings, nonce_key: [u8; 32], seed: u64) -> Self {
        // A time-limited name cannot be found by its hash, so anonymity is offered only where all users are known.
        let anonymity = settings.shared_secret.is_none();
        let mut names = HashMap::with_hasher(foldhash::quality::FixedState::with_seed(seed));
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
            nonces: Nonces::new(nonce_key, anonymity, settings.nonce_lifetime.as_secs()),
        }
    }

    /// Checks a request's credentials; `standing` is the user of the client's allocation, if it has one.
    pub(crate) fn check(
        &self,
        now: Now,
        request: &Request<'_>,
        client: IpAddr,
        standing: Option<&str>,
    ) -> Result<Identity, Refusal> {
        let Some(seal) = request.seal() else { return Err(Refusal::Unauthenticated { wrong: false }) };
        let (username, nonce) = self.claims(request)?;
        let algorithm = chosen_algorithm(request, &nonce)?;
        let wrong = Refusal::Unauthenticated { wrong: true };
        let username = username.ok_or(wrong)?;
        let key = self.key(now, &username, algorithm, standing).ok_or(wrong)?;
        if !seal.verify(key.as_bytes()) {
            return Err(wrong);
        }
        if !self.nonces.is_fresh(&nonce, now.unix, client) {
            return Err(Refusal::Stale);
        }
        Ok(identity(username, seal, &key))
    }

    /// The user name (`None` if the realm or the hash is not known) and the nonce.
    fn claims(&self, request: &Request<'_>) -> Result<(Option<String>, String), Refusal> {
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
            (Some(realm), Some(nonce), Some(name)) => Ok((name.filter(|_| realm == self.realm), nonce)),
            _ => Err(Refusal::Malformed),
        }
    }

    fn key(
        &self,
        now: Now,
        username: &str,
        algorithm: AlgorithmId,
        standing: Option<&str>,
    ) -> Option<HMACKey> {
        let derived;
        let password = if let Some(password) = self.users.get(username) {
            password.expose()
        } else {
            let expiry: u64 = username.split(':').next()?.parse().ok()?;
            if expiry <= now.unix.seconds() && standing != Some(username) {
                return None;
            }
            derived = derived_password(self.shared_secret.as_ref()?, username);
            &derived
        };
        HMACKey::new_long_term(username, &self.realm, password, Algorithm::from(algorithm)).ok()
    }

    /// The reply to a request that was refused.
    pub(crate) fn refuse(&self, now: Now, request: &Request<'_>, client: IpAddr, refusal: Refusal) -> Reply {
        let (method, id) = (request.method(), request.id());
        let code = match refusal {
            Refusal::Unauthenticated { .. } => 401,
            Refusal::Malformed => return Reply::error(method, id, 400),
            Refusal::Stale => 438,
        };
        let mut reply = Reply::error(method, id, code);
        if let (Ok(realm), Ok(nonce)) =
            (Realm::new(&self.realm), Nonce::new(self.nonces.issue(now.unix, client)))
        {
            reply = reply.with(realm).with(nonce);
        }
        reply.with(offered_algorithms())
    }
}

fn identity(username: String, seal: Seal<'_>, key: &HMACKey) -> Identity {
    Identity { username, signature: Signature { kind: seal.kind, key: key.as_bytes().to_vec() } }
}

/// Best first.
fn offered_algorithms() -> PasswordAlgorithms {
    let mut list = PasswordAlgorithms::default();
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)));
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::MD5)));
    list
}

/// RFC 8489, section 9.2.4: the choice counts only together with the list as it was offered.
fn chosen_algorithm(request: &Request<'_>, nonce: &str) -> Result<AlgorithmId, Refusal> {
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
        _ => Err(Refusal::Malformed),
    }
}
