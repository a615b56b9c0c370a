//! Invite links.
//!
//! A link carries everything a joiner needs: which party, the party secret, where to meet, and the seed of a key
//! that the authority (or a co-owner) allowed to make members. Whoever has the link can join; it has two forms:
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
use partyline_model::{DeviceId, PartyId, Role};
use subtle::ConstantTimeEq as _;

use crate::{
    exact::Signature,
    membership::{Expiry, Issuer, check_servers},
    name::{check_display_name, check_party_name},
};

/// The version this module writes and reads.
pub const VERSION: u8 = 1;
/// Most characters of a link.
pub const MAX_LINK: usize = 2048;

const APP: &str = "partyline://join/";
const ISSUED_BY_CO_OWNER: u8 = 128;
const DEFAULT_SCHEME: &str = "wss://";
/// Lenient about the bits that a cut link leaves over, so that it is told as cut rather than as damaged.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Why a text is not an invite that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text is no invite link at all.
    #[error("this is not a Partyline invite link")]
    NotALink,
    /// The link is longer than any invite.
    #[error("this link is too long for an invite")]
    TooLong,
    /// The link has characters that no invite has.
    #[error("this invite link has characters in it that do not belong there")]
    BadCharacters,
    /// The end of the link is missing.
    #[error("the end of this invite link is missing")]
    Truncated,
    /// The link was made by a newer Partyline.
    #[error("this invite is for a newer Partyline")]
    NewerVersion {
        /// The version it says.
        version: u8,
    },
    /// The link has the right form but impossible contents.
    #[error("this invite link is damaged")]
    Damaged,
}

/// What a link carries.
#[derive(Clone, Eq)]
pub struct Invite {
    /// Which party.
    pub party: PartyId,
    /// The party's name when the invite was made.
    pub name: String,
    /// What the inviter was called then. Like the party's name it is nobody's signed word, only what the link says.
    pub inviter: String,
    /// How many members there were then.
    pub members: u8,
    /// The party secret when the invite was made.
    pub secret: [u8; 32],
    /// Rendezvous servers.
    pub servers: Vec<String>,
    /// Seed of the invite key.
    pub seed: [u8; 32],
    /// When it ends.
    pub not_after: Expiry,
    /// What it makes of the joiner.
    pub role: Role,
    /// Who signed the grant.
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
    /// Leaves the secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite").field("party", &self.party).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Invite {
    /// Reads a link in either form; spaces, quotes or brackets around it do not matter.
    ///
    /// # Errors
    /// Says what is wrong with the link.
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
        // One character over a multiple of four carries no whole byte: the rest of it was cut off.
        let whole = if code.len() % 4 == 1 { &code[..code.len() - 1] } else { code };
        Self::decode(&BASE64.decode(whole).map_err(|_| InviteError::BadCharacters)?)
    }

    /// The form that opens the app.
    #[must_use]
    pub fn app_link(&self) -> String {
        format!("{APP}{}", BASE64.encode(self.encode()))
    }

    /// The form that opens a page of the first server; `None` without servers.
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

/// The part of a link that carries the invite.
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
    // Longer texts than 255 bytes cannot come from a checked party; the length keeps the form sound all the same.
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
    out.push(bytes.len() as u8);
    out.extend(bytes);
}

/// Takes fields off the front; what is missing was cut off.
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
