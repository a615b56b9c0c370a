//! Where joiners ask members for admission.
//!
//! An invite leads to the lobby, and to no other topic. The holder of a link can enter it and ask for admission, and learns
//! no more than how many others are there: a join request is sealed for the members, which hold the lobby's secret key,
//! and their answer is sealed for the joiner.

use std::net::SocketAddr;

use partyline_model::{DeviceId, PartyId};
use partyline_wire::{
    announcement::Announcement,
    contact_list::{decode_addresses, encode_addresses},
    sealed::SealedBox,
};
use rand_core::{CryptoRng, RngCore};

use crate::{
    error::Refusal,
    keys::{Secret, tunnel_public},
    sealed_box::{Purpose, open_box, seal_for},
    topic_keys::TopicKeys,
};

/// A lobby as the holder of a link knows it.
#[derive(Clone)]
pub(crate) struct Lobby {
    key: [u8; 32],
    keys: TopicKeys,
}

impl Lobby {
    /// Returns the lobby with this public key.
    pub(crate) fn new(party: &PartyId, key: [u8; 32]) -> Self {
        let keys = Secret::derive(party, &key, &[b"partyline lobby"]);
        Self { key, keys: TopicKeys::new(party, keys.expose()) }
    }

    /// Returns the public key, which links contain.
    pub(crate) const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(crate) const fn keys(&self) -> &TopicKeys {
        &self.keys
    }

    /// Seals a joiner's announcement for the members; `None` if the link's key is weak.
    pub(crate) fn seal_join_request(
        &self,
        rng: &mut (impl CryptoRng + RngCore),
        party: &PartyId,
        joiner: &DeviceId,
        announcement: &Announcement,
    ) -> Option<SealedBox> {
        seal_for((party, Purpose::JoinRequest), rng, &self.key, &joiner.0, &announcement.encode())
    }

    /// Seals where a joiner can be reached, for the members; `None` if the link's key is weak.
    pub(crate) fn seal_addresses(
        &self,
        rng: &mut (impl CryptoRng + RngCore),
        party: &PartyId,
        addresses: &[SocketAddr],
    ) -> Option<Vec<u8>> {
        let SealedBox { ephemeral, sealed } =
            seal_for((party, Purpose::Contact), rng, &self.key, &[], &encode_addresses(addresses))?;
        Some([&ephemeral[..], &sealed].concat())
    }
}

/// A lobby as the members know it.
#[derive(Clone)]
pub(crate) struct OwnLobby {
    secret: Secret,
    public: Lobby,
}

impl OwnLobby {
    /// Returns the lobby that belongs to a party secret.
    pub(crate) fn new(party: &PartyId, party_secret: &Secret) -> Self {
        let secret = Secret::derive(party, party_secret.expose(), &[b"partyline lobby key"]);
        Self { public: Lobby::new(party, tunnel_public(&secret).0), secret }
    }

    /// Returns what the holders of links know of it.
    pub(crate) const fn public(&self) -> &Lobby {
        &self.public
    }

    /// Opens what a joiner has announced.
    ///
    /// # Errors
    /// Returns why it must be dropped.
    pub(crate) fn open_join_request(
        &self,
        party: &PartyId,
        joiner: &DeviceId,
        request: &SealedBox,
    ) -> Result<Announcement, Refusal> {
        let plaintext = open_box((party, Purpose::JoinRequest), &self.secret, &joiner.0, request);
        Announcement::decode(&plaintext.ok_or(Refusal::Unreadable)?).map_err(|_| Refusal::Malformed)
    }

    /// Opens where a joiner says that it can be reached.
    pub(crate) fn open_addresses(&self, party: &PartyId, sealed: &[u8]) -> Option<Vec<SocketAddr>> {
        let (ephemeral, sealed) = sealed.split_first_chunk()?;
        let sealed = SealedBox { ephemeral: *ephemeral, sealed: sealed.to_vec() };
        decode_addresses(&open_box((party, Purpose::Contact), &self.secret, &[], &sealed)?)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::fixtures::{Fixture, announcement, id};

    #[test]
    fn join_request_is_read_by_members_only_and_belongs_to_its_joiner() {
        let (fixture, mut rng) = (Fixture::default(), ChaCha8Rng::seed_from_u64(1));
        let party = fixture.party();
        let ours = OwnLobby::new(&party, &Secret::new([1; 32]));
        let link = Lobby::new(&party, *ours.public().key());
        assert_eq!(link.keys().topic(), ours.public().keys().topic());
        let said = announcement(fixture.certificate(1), None);
        let request = link.seal_join_request(&mut rng, &party, &id(1), &said).unwrap();
        assert_eq!(ours.open_join_request(&party, &id(1), &request), Ok(said));
        assert_eq!(ours.open_join_request(&party, &id(2), &request), Err(Refusal::Unreadable));
        let others = OwnLobby::new(&party, &Secret::new([2; 32]));
        assert_eq!(others.open_join_request(&party, &id(1), &request), Err(Refusal::Unreadable));
    }
}
