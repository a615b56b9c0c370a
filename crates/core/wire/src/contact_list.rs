//! Contact lists: where those can be reached who look for each other on a topic and find no server.
//!
//! A list is the plaintext of a mutable item in the Mainline DHT (BEP 44), sealed under a key of the topic and the day:
//!
//! ```text
//! item    version 1 | sealed list
//! list    contact...
//! contact handle tag 8 | Unix time 4 | flags 1 | length 1 | addresses, or a sealed box of them
//! address family 1 (4 or 6) | address 4 or 16 | port 2
//! flags   1 publisher, 2 sealed for the members
//! ```
//!
//! Everybody who has the topic's keys may rewrite the list, so it proves nothing: an address in it is one to try, and who
//! answers there shows whether it was worth it. What a joiner says of itself in the lobby is sealed for the members, so
//! that other holders of the link do not learn where it is.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use partyline_model::Handle;

/// The maximum length of an item in bytes, so that a node's response fits into one packet beside the nodes that it names.
/// BEP 44 allows 1,000.
pub const MAX_ITEM: usize = 700;
/// The maximum length of a list in bytes.
pub const MAX_LIST: usize = MAX_ITEM - 1 - crate::sealed::SEAL_OVERHEAD;
/// The maximum number of addresses of one contact.
pub const MAX_ADDRESSES: usize = 4;
/// The version of the format, which an item begins with.
pub const VERSION: u8 = 1;

/// Seconds for which a publisher's contact holds, which it renews before they are over.
const PUBLISHER_LIFETIME_S: u32 = 45 * 60;
/// Seconds for which the contact of somebody holds who is looking for the others.
const SEARCHER_LIFETIME_S: u32 = 120;
/// Seconds by which a contact may be dated ahead, since clocks differ.
const TOLERANCE_S: u32 = 600;

const PUBLISHER: u8 = 1;
const SEALED: u8 = 2;
const HEAD_LEN: usize = TAG_LEN + 4 + 1 + 1;
const TAG_LEN: usize = 8;

/// The first bytes of a [`Handle`], by which a contact is told from others on the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandleTag([u8; TAG_LEN]);

impl From<Handle> for HandleTag {
    fn from(handle: Handle) -> Self {
        Self(std::array::from_fn(|at| handle.0[at]))
    }
}

/// What a contact says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// When it said so, in seconds since 1970 by its own clock.
    pub at: u32,
    /// True if it goes on publishing the list while it is connected to others.
    pub publisher: bool,
    /// Where it can be reached.
    pub place: Place,
}

/// Where a contact can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Addresses, at most [`MAX_ADDRESSES`].
    Open(Vec<SocketAddr>),
    /// An encoded sealed box of addresses ([`encode_addresses`]), which members can open.
    Sealed(Vec<u8>),
}

impl Contact {
    /// Returns true unless the contact is over, or dated too far ahead.
    #[must_use]
    pub const fn holds(&self, now: u32) -> bool {
        let lifetime = if self.publisher { PUBLISHER_LIFETIME_S } else { SEARCHER_LIFETIME_S };
        // Its clock and this one may each be wrong by as much as is tolerated.
        self.at <= now.saturating_add(TOLERANCE_S) && now <= self.at.saturating_add(lifetime + TOLERANCE_S)
    }
}

/// The contacts on a topic. It fits into an item: adding drops the oldest ones that would not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactList(BTreeMap<HandleTag, Contact>);

impl ContactList {
    /// Adds what a contact says unless something newer of it is known; returns true if that changed the list.
    pub fn add(&mut self, tag: HandleTag, contact: Contact) -> bool {
        if self.0.get(&tag).is_some_and(|known| known.at >= contact.at) {
            return false;
        }
        self.0.insert(tag, contact);
        while self.len_in_bytes() > MAX_LIST {
            let oldest = self.0.iter().min_by_key(|(_, contact)| (contact.publisher, contact.at));
            let Some(oldest) = oldest.map(|(tag, _)| *tag) else { break };
            self.0.remove(&oldest);
        }
        true
    }

    /// Adds all contacts of another copy of the list; returns true if that changed this one.
    pub fn merge(&mut self, other: Self) -> bool {
        other.0.into_iter().fold(false, |changed, (tag, contact)| self.add(tag, contact) | changed)
    }

    /// Removes a contact; returns true if it was there.
    pub fn remove(&mut self, tag: HandleTag) -> bool {
        self.0.remove(&tag).is_some()
    }

    /// Drops contacts that are over, and those that are dated too far ahead.
    pub fn expire(&mut self, now: u32) {
        self.0.retain(|_, contact| contact.holds(now));
    }

    /// Returns what a contact says.
    #[must_use]
    pub fn get(&self, tag: HandleTag) -> Option<&Contact> {
        self.0.get(&tag)
    }

    /// Returns all contacts.
    pub fn iter(&self) -> impl Iterator<Item = (HandleTag, &Contact)> {
        self.0.iter().map(|(tag, contact)| (*tag, contact))
    }

    /// Encodes the list.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, contact) in &self.0 {
            let (body, sealed) = match &contact.place {
                Place::Open(addresses) => (encode_addresses(addresses), 0),
                Place::Sealed(bytes) => (bytes.clone(), SEALED),
            };
            let flags = if contact.publisher { PUBLISHER | sealed } else { sealed };
            let Ok(length) = u8::try_from(body.len()) else { continue };
            out.extend(tag.0);
            out.extend(contact.at.to_be_bytes());
            out.extend([flags, length]);
            out.extend(body);
        }
        out
    }

    /// Decodes a list; `None` if it is malformed or too long. Flags of later versions are ignored.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_LIST {
            return None;
        }
        let (mut list, mut rest) = (Self::default(), bytes);
        while !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk()?;
            let (at, after) = after.split_first_chunk()?;
            let (&[flags, length], after) = after.split_first_chunk()?;
            let (body, after) = after.split_at_checked(usize::from(length))?;
            let sealed = flags & SEALED != 0;
            let place =
                if sealed { Place::Sealed(body.to_vec()) } else { Place::Open(decode_addresses(body)?) };
            let publisher = flags & PUBLISHER != 0;
            let contact = Contact { at: u32::from_be_bytes(*at), publisher, place };
            list.add(HandleTag(*tag), contact);
            rest = after;
        }
        Some(list)
    }

    fn len_in_bytes(&self) -> usize {
        let body = |contact: &Contact| match &contact.place {
            Place::Open(addresses) => addresses.iter().map(|address| address_len(*address)).sum(),
            Place::Sealed(bytes) => bytes.len(),
        };
        self.0.values().map(|contact| HEAD_LEN + body(contact)).sum()
    }
}

const fn address_len(address: SocketAddr) -> usize {
    1 + 2 + if address.is_ipv4() { 4 } else { 16 }
}

/// Encodes addresses, the first [`MAX_ADDRESSES`] of them.
#[must_use]
pub fn encode_addresses(addresses: &[SocketAddr]) -> Vec<u8> {
    let mut out = Vec::new();
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match address.ip() {
            IpAddr::V4(ip) => out.extend([&[4], &ip.octets()[..]].concat()),
            IpAddr::V6(ip) => out.extend([&[6], &ip.octets()[..]].concat()),
        }
        out.extend(address.port().to_be_bytes());
    }
    out
}

/// Decodes addresses; `None` if they are malformed or too many.
#[must_use]
pub fn decode_addresses(bytes: &[u8]) -> Option<Vec<SocketAddr>> {
    let (mut addresses, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (address, after) = take_address(rest)?;
        addresses.push(address);
        rest = after;
    }
    (addresses.len() <= MAX_ADDRESSES).then_some(addresses)
}

/// Takes one address from the front.
pub(crate) fn take_address(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (family, rest) = bytes.split_first()?;
    let (ip, rest): (IpAddr, &[u8]) = match family {
        4 => rest.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest))?,
        6 => rest.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(n: u8) -> HandleTag {
        Handle([n; 16]).into()
    }

    fn open(at: u32, addresses: usize) -> Contact {
        let list = ["198.51.100.7:4000", "[2001:db8::7]:4000", "203.0.113.9:1", "203.0.113.9:2"];
        let addresses = list[..addresses].iter().map(|text| text.parse().unwrap()).collect();
        Contact { at, publisher: false, place: Place::Open(addresses) }
    }

    #[test]
    fn lists_round_trip() {
        let mut list = ContactList::default();
        assert!(
            list.add(tag(1), open(100, 2)) && list.add(tag(2), Contact { publisher: true, ..open(7, 0) })
        );
        let sealed = Contact { place: Place::Sealed(vec![5; 60]), ..open(9, 0) };
        assert!(list.add(tag(3), sealed));
        let bytes = list.encode();
        assert_eq!(bytes.len(), list.len_in_bytes());
        assert_eq!(ContactList::decode(&bytes), Some(list));
        for cut in 1..bytes.len() {
            let read = ContactList::decode(&bytes[..cut]);
            assert!(read.is_none_or(|read| read.0.len() < 3), "{cut}");
        }
    }

    #[test]
    fn the_newest_word_of_a_contact_counts() {
        let mut list = ContactList::default();
        assert!(list.add(tag(1), open(100, 1)));
        assert!(!list.add(tag(1), open(100, 2)) && !list.add(tag(1), open(99, 2)));
        let mut other = ContactList::default();
        assert!(other.add(tag(1), open(101, 2)) && other.add(tag(2), open(5, 1)));
        assert!(list.merge(other.clone()) && !list.merge(other));
        assert_eq!(list.get(tag(1)), Some(&open(101, 2)));
        assert_eq!(list.iter().count(), 2);
    }

    #[test]
    fn a_full_list_drops_its_oldest_searchers_first() {
        let mut list = ContactList::default();
        list.add(tag(0), Contact { publisher: true, ..open(1, 2) });
        (1..60).for_each(|n| _ = list.add(tag(n), open(u32::from(n) + 10, 2)));
        assert!(list.encode().len() <= MAX_LIST);
        assert!(list.get(tag(0)).is_some() && list.get(tag(59)).is_some() && list.get(tag(1)).is_none());
        assert!(list.iter().count() > 13, "room for that many with two addresses");
    }

    #[test]
    fn contacts_end_and_none_is_from_the_future() {
        let publisher = Contact { publisher: true, ..open(10_000, 1) };
        let end = |contact: &Contact| (10_000..20_000).find(|now| !contact.holds(*now));
        assert_eq!(end(&open(10_000, 1)), Some(10_000 + SEARCHER_LIFETIME_S + TOLERANCE_S + 1));
        assert_eq!(end(&publisher), Some(10_000 + PUBLISHER_LIFETIME_S + TOLERANCE_S + 1));
        assert!(publisher.holds(10_000 - TOLERANCE_S) && !publisher.holds(10_000 - TOLERANCE_S - 1));
        let mut list = ContactList::default();
        list.add(tag(1), open(u32::MAX, 1));
        list.expire(10_000);
        assert_eq!(list, ContactList::default());
    }

    #[test]
    fn malformed_lists_are_refused() {
        let mut list = ContactList::default();
        list.add(tag(1), open(100, 1));
        let bytes = list.encode();
        let family = HEAD_LEN;
        let mut wrong = bytes.clone();
        wrong[family] = 5;
        assert_eq!(ContactList::decode(&wrong), None);
        assert_eq!(ContactList::decode(&vec![0; MAX_LIST + 1]), None);
        assert_eq!(decode_addresses(&encode_addresses(&["1.2.3.4:5".parse().unwrap()]).repeat(5)), None);
    }
}
