//! The keys of a topic's contact list, by which members find each other without a server.
//!
//! The list is a mutable item in the Mainline DHT (BEP 44), under a key that everybody who may be on the topic derives, and
//! that is another one every day. A node that stores it learns neither what it says nor whose it is, and cannot prepare for
//! the key of the next day.

use ed25519_dalek::SigningKey;
use partyline_model::{PartyId, Timestamp};
use partyline_wire::contact_list::{ContactList, MAX_ITEM, VERSION};
use rand_core::{CryptoRng, RngCore};

use crate::{
    keys::Secret,
    seal::{open, seal},
};

/// Milliseconds.
const DAY: u64 = 86_400_000;
/// For so long around midnight the lists of both days are used, since clocks differ. Milliseconds.
const OVERLAP: u64 = 3_600_000;

/// A day since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u32);

impl Day {
    /// Returns the days whose lists are used at a moment: the present one, and within an hour of midnight also the one
    /// that begins or ended then.
    pub fn around(now: Timestamp) -> impl Iterator<Item = Self> {
        let day = |moment: u64| Self(u32::try_from(moment / DAY).unwrap_or(u32::MAX));
        let (before, after) = (day(now.0.saturating_sub(OVERLAP)), day(now.0.saturating_add(OVERLAP)));
        let present = day(now.0);
        let other = [before, after].into_iter().find(|other| *other != present);
        std::iter::once(present).chain(other)
    }
}

/// The keys of one topic's list on one day.
#[derive(Clone)]
pub struct ContactListKeys {
    signing: SigningKey,
    seal_key: Secret,
}

impl ContactListKeys {
    pub(crate) fn derive(party: &PartyId, lists: &Secret, Day(day): Day) -> Self {
        let derive =
            |info: &str| Secret::derive(party, lists.expose(), &[info.as_bytes(), &day.to_be_bytes()]);
        Self {
            signing: SigningKey::from_bytes(derive("partyline contact list item").expose()),
            seal_key: derive("partyline contact list seal"),
        }
    }

    /// Returns the key that signs the item; its public half is where the item is stored.
    #[must_use]
    pub const fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// Returns the public key under which the item is stored.
    #[must_use]
    pub fn item_key(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// Returns a list as it is stored.
    pub fn seal(&self, rng: &mut (impl CryptoRng + RngCore), list: &ContactList) -> Vec<u8> {
        [&[VERSION][..], &seal(&self.seal_key, &self.item_key(), &list.encode(), rng)].concat()
    }

    /// Opens a list that was stored; `None` if it is of another version or malformed.
    #[must_use]
    pub fn open(&self, item: &[u8]) -> Option<ContactList> {
        let (&[VERSION], sealed) = item.split_first_chunk()? else { return None };
        let plaintext = (item.len() <= MAX_ITEM).then(|| open(&self.seal_key, &self.item_key(), sealed))?;
        ContactList::decode(&plaintext?)
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::Handle;
    use partyline_wire::contact_list::{Contact, Place};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    fn keys(secret: u8, day: u32) -> ContactListKeys {
        ContactListKeys::derive(&PartyId([1; 32]), &Secret::new([secret; 32]), Day(day))
    }

    #[test]
    fn lists_open_with_the_keys_of_their_topic_and_day_only() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut list = ContactList::default();
        let place = Place::Open(vec!["192.0.2.1:7".parse().unwrap(); 4]);
        (0..40).for_each(|n| {
            let contact = Contact { at: 5, publisher: false, place: place.clone() };
            list.add(Handle([n; 16]).into(), contact);
        });
        let item = keys(1, 2).seal(&mut rng, &list);
        assert!(item.len() <= MAX_ITEM);
        assert_eq!(keys(1, 2).open(&item), Some(list));
        assert_eq!(keys(1, 3).open(&item), None);
        assert_eq!(keys(2, 2).open(&item), None);
        assert_eq!(keys(1, 2).open(&[&[VERSION + 1][..], &item[1..]].concat()), None);
        assert_ne!(keys(1, 2).item_key(), keys(1, 3).item_key(), "nobody else can link two days");
    }

    #[test]
    fn two_days_are_used_around_midnight_only() {
        let days = |hour: f64| {
            let now = Timestamp(DAY * 20_000 + (hour * 3_600_000.0) as u64);
            Day::around(now).map(|Day(day)| day).collect::<Vec<_>>()
        };
        assert_eq!(days(0.5), [20_000, 19_999]);
        assert_eq!(days(12.0), [20_000]);
        assert_eq!(days(23.5), [20_000, 20_001]);
    }
}
