//! Where joiners wait to be let in.
//!
//! An invite leads to the lobby, and to no other topic. Whoever has a link can enter it and knock there, and learns no more
//! than how many others are there: what a joiner says is sealed for the members, which hold the lobby's secret key, and
//! what they answer is sealed for the joiner.

use partyline_model::{DeviceId, PartyId};
use partyline_wire::{announcement::Announcement, sealed::SealedBox};
use rand_core::{CryptoRng, RngCore};

use crate::{
    error::Refusal,
    keys::{Secret, tunnel_public},
    room::Room,
    sealed_box::{Purpose, open_box, seal_for},
};

/// A lobby as the holder of a link knows it.
#[derive(Clone)]
pub(crate) struct Lobby {
    key: [u8; 32],
    room: Room,
}

impl Lobby {
    /// Returns the lobby with this public key.
    pub(crate) fn new(party: &PartyId, key: [u8; 32]) -> Self {
        let room = Secret::derive(party, &key, &[b"partyline lobby"]);
        Self { key, room: Room::new(party, room.expose()) }
    }

    /// Returns the public key, which links contain.
    pub(crate) const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(crate) const fn room(&self) -> &Room {
        &self.room
    }

    /// Seals a joiner's announcement for the members; `None` if the link's key is weak.
    pub(crate) fn knock(
        &self,
        rng: &mut (impl CryptoRng + RngCore),
        party: &PartyId,
        joiner: &DeviceId,
        announcement: &Announcement,
    ) -> Option<SealedBox> {
        seal_for((party, Purpose::Knock), rng, &self.key, &joiner.0, &announcement.encode())
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
    pub(crate) fn open_knock(
        &self,
        party: &PartyId,
        joiner: &DeviceId,
        knock: &SealedBox,
    ) -> Result<Announcement, Refusal> {
        let plaintext = open_box((party, Purpose::Knock), &self.secret, &joiner.0, knock);
        Announcement::decode(&plaintext.ok_or(Refusal::Unreadable)?).map_err(|_| Refusal::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::fixtures::{Fixture, announcement, id};

    #[test]
    fn knock_is_read_by_members_only_and_belongs_to_its_joiner() {
        let (fixture, mut rng) = (Fixture::default(), ChaCha8Rng::seed_from_u64(1));
        let party = fixture.party();
        let ours = OwnLobby::new(&party, &Secret::new([1; 32]));
        let link = Lobby::new(&party, *ours.public().key());
        assert_eq!(link.room().topic(), ours.public().room().topic());
        let said = announcement(fixture.certificate(1), None);
        let knock = link.knock(&mut rng, &party, &id(1), &said).unwrap();
        assert_eq!(ours.open_knock(&party, &id(1), &knock), Ok(said));
        assert_eq!(ours.open_knock(&party, &id(2), &knock), Err(Refusal::Unreadable));
        let others = OwnLobby::new(&party, &Secret::new([2; 32]));
        assert_eq!(others.open_knock(&party, &id(1), &knock), Err(Refusal::Unreadable));
    }
}
