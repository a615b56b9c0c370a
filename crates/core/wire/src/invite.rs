//! Invite links.
//!
//! A link carries what a joiner needs to ask for admission: the party, the key of its lobby, the rendezvous servers, and
//! the seed of a key that the authority or a co-owner allowed to make members. It does not carry the party secret, which a member
//! hands over. Everybody who has the link can join while the invite is open. It has two forms:
//!
//! - `partyline://join/<code>` opens the app;
//! - `https://<server>/join#<code>` opens a page that opens the app. No server sees what follows the `#`.
//!
//! The code frames itself: it has a prefix, its length and checks, so that [`Invite::find`] recognises it in
//! any text. In it are, numbers big endian:
//!
//! ```text
//! PartyId 32 | lobby key 32 | invite key seed 32 | grant signature 64 | not_after 4 (seconds, 0 never)
//! number of devices 1 (0 any) | charter floor: version 4, amendment 2
//! role 1 (1 co-owner, 2 member; +128: issued by a co-owner, whose DeviceId 32 follows)
//! length 1, party name | length 1, inviter's name | members 1 | servers, each: length 1, URL without a leading `wss://`
//! where there are any: 0 | addresses 1, at most 4 | each as in [`crate::contact_list`] | DHT nodes 1, at most 3 | each likewise
//! ```

mod base62;
mod elsewhere;
mod error;
mod frame;
mod reader;
mod views;

use std::{fmt, net::SocketAddr, num::NonZeroU8};

use partyline_model::{DeviceId, PartyId, Role, Timestamp};
use subtle::ConstantTimeEq as _;

use crate::{
    contact_list::{MAX_ADDRESSES, encode_addresses, take_address},
    exact::Signature,
    membership::{Expiry, Issuer, Stamp, check_servers},
    name::{check_display_name, check_party_name},
};

pub use error::InviteError;
pub use reader::MAX_TEXT;

/// The version of the format.
pub const VERSION: u8 = 1;
/// The maximum length of a link in characters.
pub const MAX_LINK: usize = 2048;

/// How a link starts that opens the app.
const APP: &str = "partyline://join/";
/// Flag of the role byte: a co-owner issued the invite, and its device id follows.
const ISSUED_BY_CO_OWNER: u8 = 128;
/// What follows the servers where addresses do: the length of no URL.
const END_OF_SERVERS: u8 = 0;
/// The maximum number of DHT nodes in a link.
pub const MAX_NODES: usize = 3;
/// The scheme that server URLs in links leave out.
const DEFAULT_SCHEME: &str = "wss://";

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
    /// The public key of the lobby in which the members wait for joiners.
    pub lobby: [u8; 32],
    /// The least stamp of a charter that the joiner takes; its digest is zero.
    pub floor: Stamp,
    /// The party's rendezvous servers.
    pub servers: Vec<String>,
    /// Addresses at which members may be found, at most 4. Not signed.
    pub addresses: Vec<SocketAddr>,
    /// Nodes of the Mainline DHT that answered the inviter, at most 3. Not signed.
    pub nodes: Vec<SocketAddr>,
    /// The seed of the invite key.
    pub seed: [u8; 32],
    /// When the invite expires.
    pub not_after: Expiry,
    /// The number of devices that may join by it; `None` for any number.
    pub uses: Option<NonZeroU8>,
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
    /// Reads the one invite in a text: a link in either form or a bare code, in a sentence or a whole message, however mail
    /// programs, messengers and redirects wrapped it. The same invite twice counts as one.
    ///
    /// # Errors
    /// What is wrong with the invite, or what the text is instead.
    pub fn find(text: &str) -> Result<Self, InviteError> {
        let code = reader::find(text)?;
        match frame::open(&code) {
            Some((VERSION, body)) => Self::decode(&body).ok_or(InviteError::Damaged),
            Some((version, _)) if version > VERSION => Err(InviteError::NewerVersion { version }),
            _ => Err(InviteError::Damaged),
        }
    }

    /// Returns when the invite ended, if it has ended at `now`.
    #[must_use]
    pub fn ended(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_after.time().filter(|end| now > *end)
    }

    /// Returns the link that opens the app.
    #[must_use]
    pub fn app_link(&self) -> String {
        format!("{APP}{}", self.code())
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
        Some(format!("{scheme}://{host}/join#{}", self.code()))
    }

    fn code(&self) -> String {
        Self::framed(&self.encode())
    }

    /// Frames any bytes as the contents of a code, so that a fuzzer gets past the checks.
    #[doc(hidden)]
    #[must_use]
    pub fn framed(body: &[u8]) -> String {
        frame::close(VERSION, body)
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
        let mut out = [&self.party.0[..], &self.lobby, &self.seed, &self.signature.0, &not_after].concat();
        out.push(self.uses.map_or(0, NonZeroU8::get));
        out.extend(u32::try_from(self.floor.version).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(u16::try_from(self.floor.amendment).unwrap_or(u16::MAX).to_be_bytes());
        out.push(role | issuer_flag);
        out.extend(issuer);
        push_text(&mut out, &self.name);
        push_text(&mut out, &self.inviter);
        out.push(self.members);
        for server in &self.servers {
            push_text(&mut out, server.strip_prefix(DEFAULT_SCHEME).unwrap_or(server));
        }
        if !(self.addresses.is_empty() && self.nodes.is_empty()) {
            out.push(END_OF_SERVERS);
            push_addresses(&mut out, &self.addresses, MAX_ADDRESSES);
            push_addresses(&mut out, &self.nodes, MAX_NODES);
        }
        out
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (party, lobby, seed) = (PartyId(reader.array()?), reader.array()?, reader.array()?);
        let (signature, not_after) = (Signature(reader.array()?), u32::from_be_bytes(reader.array()?));
        let (uses, floor) = (NonZeroU8::new(reader.byte()?), reader.floor()?);
        let (role, issuer) = reader.role_and_issuer()?;
        let (name, inviter, members) = (reader.text()?, reader.text()?, reader.byte()?);
        let mut servers = Vec::new();
        while !matches!(reader.0.first(), None | Some(&END_OF_SERVERS)) {
            servers.push(reader.server()?);
        }
        let has_contacts = !reader.0.is_empty();
        let (mut addresses, mut nodes) = (Vec::new(), Vec::new());
        if has_contacts {
            reader.byte()?;
            addresses = reader.addresses(MAX_ADDRESSES)?;
            nodes = reader.addresses(MAX_NODES)?;
        }
        if !reader.0.is_empty() || (has_contacts && addresses.is_empty() && nodes.is_empty()) {
            return None;
        }
        let named = check_party_name(&name).is_ok() && check_display_name(&inviter).is_ok();
        let not_after = Expiry::from_wire(not_after);
        (named && check_servers(&servers).is_ok()).then_some(Self {
            party,
            name,
            inviter,
            members,
            lobby,
            floor,
            servers,
            addresses,
            nodes,
            seed,
            not_after,
            uses,
            role,
            issuer,
            signature,
        })
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    // A party that was checked has no longer texts; truncating keeps the format sound in any case.
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
    out.push(bytes.len() as u8);
    out.extend(bytes);
}

fn push_addresses(out: &mut Vec<u8>, addresses: &[SocketAddr], max: usize) {
    let addresses = &addresses[..addresses.len().min(max)];
    out.push(addresses.len() as u8);
    out.extend(encode_addresses(addresses));
}

/// Reads fields from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn server(&mut self) -> Option<String> {
        let text = self.text()?;
        Some(if text.contains("://") { text } else { format!("{DEFAULT_SCHEME}{text}") })
    }

    fn addresses(&mut self, max: usize) -> Option<Vec<SocketAddr>> {
        let count = Some(usize::from(self.byte()?)).filter(|count| *count <= max)?;
        let take = |_| {
            let (address, rest) = take_address(self.0)?;
            self.0 = rest;
            Some(address)
        };
        (0..count).map(take).collect()
    }

    fn floor(&mut self) -> Option<Stamp> {
        let version = u32::from_be_bytes(self.array()?).into();
        let amendment = u16::from_be_bytes(self.array()?).into();
        Some(Stamp { version, amendment, digest: [0; 8] })
    }

    fn role_and_issuer(&mut self) -> Option<(Role, Issuer)> {
        let byte = self.byte()?;
        let role = match byte & !ISSUED_BY_CO_OWNER {
            1 => Role::CoOwner,
            2 => Role::Member,
            _ => return None,
        };
        let issuer = match byte & ISSUED_BY_CO_OWNER {
            0 => Issuer::Authority,
            _ => Issuer::CoOwner(DeviceId(self.array()?)),
        };
        Some((role, issuer))
    }
}

#[cfg(test)]
mod tests;
