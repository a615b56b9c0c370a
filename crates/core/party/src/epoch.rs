//! What one party secret stands for: the topic on which members meet, the lobby in which they wait for joiners, and the
//! commitment by which the charter names the secret without showing it.

use partyline_model::{PartyId, Topic};

use crate::{
    keys::Secret,
    lobby::{Lobby, OwnLobby},
    topic_keys::TopicKeys,
};

/// A party secret and everything derived from it. It lasts until the next rekey.
#[derive(Clone)]
pub(crate) struct Epoch {
    secret: Secret,
    commitment: [u8; 32],
    keys: TopicKeys,
    lobby: OwnLobby,
}

impl Epoch {
    pub(crate) fn new(party: &PartyId, secret: Secret) -> Self {
        Self {
            commitment: *Secret::derive(party, secret.expose(), &[b"partyline commitment"]).expose(),
            keys: TopicKeys::new(party, secret.expose()),
            lobby: OwnLobby::new(party, &secret),
            secret,
        }
    }

    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns where members meet.
    pub(crate) const fn keys(&self) -> &TopicKeys {
        &self.keys
    }

    pub(crate) const fn topic(&self) -> &Topic {
        self.keys.topic()
    }

    /// Returns where members wait for joiners.
    pub(crate) const fn lobby(&self) -> &OwnLobby {
        &self.lobby
    }

    /// Returns the lobby as links show it.
    pub(crate) const fn public_lobby(&self) -> &Lobby {
        self.lobby.public()
    }

    pub(crate) const fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Returns the first bytes of the commitment, by which announcements show which secret their sender holds.
    pub(crate) fn tag(&self) -> [u8; 8] {
        tag_of(&self.commitment)
    }
}

/// Returns the tag that belongs to a commitment.
pub(crate) fn tag_of(commitment: &[u8; 32]) -> [u8; 8] {
    let mut tag = [0; 8];
    tag.copy_from_slice(&commitment[..8]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_party_and_secret_has_its_own_topic_lobby_and_commitment() {
        let epoch = |party: u8, secret: u8| Epoch::new(&PartyId([party; 32]), Secret::new([secret; 32]));
        let first = epoch(1, 1);
        for other in [epoch(2, 1), epoch(1, 2)] {
            assert_ne!(first.topic(), other.topic());
            assert_ne!(first.public_lobby().keys().topic(), other.public_lobby().keys().topic());
            assert_ne!(first.commitment(), other.commitment());
        }
        assert_ne!(first.topic(), first.public_lobby().keys().topic());
    }
}
