//! Invite links.
//!
//! A link carries everything that a joiner needs: the party, the party secret, the rendezvous servers, and the seed
//! of a key that the authority or a co-owner allowed to make members. Everybody who has the link can join. It has two
//! forms:
//!
//! - `partyline://join/<base64url>` opens the app;
//! - `https://<server>/join#<base64url>` opens a page that opens the app. No server sees what follows the `#`.
//!
//! Layout before base64url (RFC 4648, no padding), numbers big endian:
//!
//! ```text
//! version 1 | PartyId 32 | party secret 32 | invite key seed 32 | grant signature 64 | not_after 4 (seconds, 0 never)
//! role 1 (1 co-owner, 2 member; +128: issued by a co-owner, whose DeviceId 32 follows)
//! length 1, party name | length 1, inviter's name | members 1 | number of servers 1, each: length 1, URL without a
//! leading `wss://`
//! ```

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use partyline_model::{AppError, DeviceId, ErrorCode, PartyId, Role};
use subtle::ConstantTimeEq as _;

use crate::{
    exact::Signature,
    membership::{Expiry, Issuer, check_servers},
    name::{check_display_name, check_party_name},
};

/// The version of the format.
pub const VERSION: u8 = 1;
/// The maximum length of a link in characters.
pub const MAX_LINK: usize = 2048;

/// How a link starts that opens the app.
const APP: &str = "partyline://join/";
/// Flag of the role byte: a co-owner issued the invite, and its device id follows.
const ISSUED_BY_CO_OWNER: u8 = 128;
/// The scheme that server URLs in links leave out.
const DEFAULT_SCHEME: &str = "wss://";
/// Ignores the surplus bits of a truncated link, so that it is reported as truncated rather than damaged.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Why a text is not a usable invite link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text is not an invite link.
    #[error("this is not a Partyline invite link")]
    NotALink,
    /// The link is longer than any invite link.
    #[error("this link is too long for an invite")]
    TooLong,
    /// The link contains characters that no invite link has.
    #[error("this invite link has characters in it that do not belong there")]
    BadCharacters,
    /// The end of the link is missing.
    #[error("the end of this invite link is missing")]
    Truncated,
    /// The link was made by a newer Partyline.
    #[error("this invite is for a newer Partyline")]
    NewerVersion {
        /// The version in the link.
        version: u8,
    },
    /// The link is well-formed, but its contents are impossible.
    #[error("this invite link is damaged")]
    Damaged,
}

impl From<InviteError> for AppError {
    fn from(error: InviteError) -> Self {
        let (code, hint) = match error {
            InviteError::NewerVersion { .. } => (ErrorCode::InviteVersion, "Update Partyline and try again."),
            _ => (ErrorCode::InviteMalformed, "Copy the whole link again, or ask for a new one."),
        };
        let text = error.to_string();
        let mut letters = text.chars();
        let first = letters.next().map(char::to_uppercase).into_iter().flatten();
        Self::new(code, first.chain(letters).chain(['.']).collect::<String>(), hint)
    }
}

/// The contents of an invite link.
#[derive(Clone, Eq)]
pub struct Invite {
    /// The party.
    pub party: PartyId,
    /// The party's name when the invite was created. Not signed.
    pub name: String,
    /// The inviter's display name when the invite was created. Not signed.
    pub inviter: String,
    /// The number of members when the invite was created. Not signed.
    pub members: u8,
    /// The party secret when the invite was created.
    pub secret: [u8; 32],
    /// The party's rendezvous servers.
    pub servers: Vec<String>,
    /// The seed of the invite key.
    pub seed: [u8; 32],
    /// When the invite expires.
    pub not_after: Expiry,
    /// The role that the joiner gets.
    pub role: Role,
    /// The signer of the grant.
    pub issuer: Issuer,
    /// The grant's signature.
    pub signature: Signature,
}

impl PartialEq for Invite {
    fn eq(&self, other: &Self) -> bool {
        self.encode().ct_eq(&other.encode()).into()
    }
}

impl fmt::Debug for Invite {
    /// Leaves out the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite").field("party", &self.party).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Invite {
    /// Parses a link in either form. Spaces, quotes and brackets around it are ignored.
    ///
    /// # Errors
    /// What is wrong with the link.
    pub fn parse(link: &str) -> Result<Self, InviteError> {
        let link = link.trim_matches(|c: char| c.is_whitespace() || "<>()\"'".contains(c));
        let code = code_of(link).ok_or(InviteError::NotALink)?;
        if link.len() > MAX_LINK {
            return Err(InviteError::TooLong);
        }
        let code = code.trim_end_matches(['/', '=']);
        if !code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(InviteError::BadCharacters);
        }
        // One character more than a multiple of four carries no whole byte, so that the link was truncated there.
        let whole = if code.len() % 4 == 1 { &code[..code.len() - 1] } else { code };
        Self::decode(&BASE64.decode(whole).map_err(|_| InviteError::BadCharacters)?)
    }

    /// Returns the link that opens the app.
    #[must_use]
    pub fn app_link(&self) -> String {
        format!("{APP}{}", BASE64.encode(self.encode()))
    }

    /// Returns the link that opens a page of the first server; `None` without servers.
    #[must_use]
    pub fn web_link(&self) -> Option<String> {
        let server = self.servers.first()?;
        let (scheme, rest) = match server.strip_prefix(DEFAULT_SCHEME) {
            Some(rest) => ("https", rest),
            None => ("http", server.strip_prefix("ws://")?),
        };
        let host = rest.split('/').next()?;
        Some(format!("{scheme}://{host}/join#{}", BASE64.encode(self.encode())))
    }

    fn encode(&self) -> Vec<u8> {
        let (issuer_flag, issuer): (u8, &[u8]) = match &self.issuer {
            Issuer::Authority => (0, &[]),
            Issuer::CoOwner(device) => (ISSUED_BY_CO_OWNER, device.as_bytes()),
        };
        let role = match self.role {
            Role::CoOwner => 1,
            Role::Owner | Role::Member => 2,
        };
        let not_after = self.not_after.to_wire().to_be_bytes();
        let mut out =
            [&[VERSION][..], &self.party.0, &self.secret, &self.seed, &self.signature.0, &not_after].concat();
        out.push(role | issuer_flag);
        out.extend(issuer);
        push_text(&mut out, &self.name);
        push_text(&mut out, &self.inviter);
        out.push(self.members);
        out.push(u8::try_from(self.servers.len()).unwrap_or(u8::MAX));
        for server in &self.servers {
            push_text(&mut out, server.strip_prefix(DEFAULT_SCHEME).unwrap_or(server));
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, InviteError> {
        let mut reader = Reader(bytes);
        match reader.byte()? {
            VERSION => {}
            0 => return Err(InviteError::Damaged),
            version => return Err(InviteError::NewerVersion { version }),
        }
        let (party, secret, seed) = (PartyId(reader.array()?), reader.array()?, reader.array()?);
        let (signature, not_after) = (Signature(reader.array()?), u32::from_be_bytes(reader.array()?));
        let (role, issuer) = reader.role_and_issuer()?;
        let (name, inviter, members) = (reader.text()?, reader.text()?, reader.byte()?);
        let servers = (0..reader.byte()?).map(|_| reader.server()).collect::<Result<Vec<_>, _>>()?;
        let named = check_party_name(&name).is_ok() && check_display_name(&inviter).is_ok();
        if !reader.0.is_empty() || !named || check_servers(&servers).is_err() {
            return Err(InviteError::Damaged);
        }
        let not_after = Expiry::from_wire(not_after);
        Ok(Self { party, name, inviter, members, secret, servers, seed, not_after, role, issuer, signature })
    }
}

/// Returns the part of a link that carries the invite.
fn code_of(link: &str) -> Option<&str> {
    if link.get(..APP.len()).is_some_and(|start| start.eq_ignore_ascii_case(APP)) {
        return link.get(APP.len()..);
    }
    let (page, code) = link.split_once('#')?;
    let (scheme, rest) = page.split_once("://")?;
    let (host, path) = rest.split_once('/')?;
    let web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    (web && !host.is_empty() && path.trim_end_matches('/') == "join").then_some(code)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    // A party that was checked has no longer texts; truncating keeps the format sound in any case.
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
    out.push(bytes.len() as u8);
    out.extend(bytes);
}

/// Reads fields from the front. Missing bytes mean that the link was truncated.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], InviteError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(InviteError::Truncated)?;
        self.0 = rest;
        Ok(*field)
    }

    fn byte(&mut self) -> Result<u8, InviteError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Result<String, InviteError> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or(InviteError::Truncated)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| InviteError::Damaged)
    }

    fn server(&mut self) -> Result<String, InviteError> {
        let text = self.text()?;
        Ok(if text.contains("://") { text } else { format!("{DEFAULT_SCHEME}{text}") })
    }

    fn role_and_issuer(&mut self) -> Result<(Role, Issuer), InviteError> {
        let byte = self.byte()?;
        let role = match byte & !ISSUED_BY_CO_OWNER {
            1 => Role::CoOwner,
            2 => Role::Member,
            _ => return Err(InviteError::Damaged),
        };
        let issuer = match byte & ISSUED_BY_CO_OWNER {
            0 => Issuer::Authority,
            _ => Issuer::CoOwner(DeviceId(self.array()?)),
        };
        Ok((role, issuer))
    }
}

#[cfg(test)]
mod tests;
