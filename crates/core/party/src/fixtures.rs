//! Keys and signed documents for the tests of the parts.

use std::num::NonZeroU8;

use ed25519_dalek::SigningKey;
use partyline_model::{DeviceId, InviteId, PartyId, Role, Timestamp};
use partyline_wire::{
    announcement::{Announcement, Presence, Reachability},
    exact::Exact,
    membership::{
        Amendment, Certificate, Charter, Claims, Confirmation, Expiry, Issuer, SignedAmendment, Terms,
    },
};

use crate::{
    chain,
    keys::{DeviceKey, Secret, sign, tunnel_public},
};

pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// A party of which the tests hold every key.
pub(crate) struct Fixture {
    pub(crate) authority: SigningKey,
    pub(crate) invite: SigningKey,
    pub(crate) not_after: Expiry,
    pub(crate) uses: Option<NonZeroU8>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            authority: SigningKey::from_bytes(&[200; 32]),
            invite: SigningKey::from_bytes(&[201; 32]),
            not_after: Expiry::NEVER,
            uses: None,
        }
    }
}

pub(crate) fn device(n: u8) -> DeviceKey {
    DeviceKey::restore(NOW, &Secret::new([n; 32]), 0)
}

pub(crate) fn id(n: u8) -> DeviceId {
    device(n).id()
}

impl Fixture {
    pub(crate) fn party(&self) -> PartyId {
        PartyId(self.authority.verifying_key().to_bytes())
    }

    pub(crate) fn invite_id(&self) -> InviteId {
        InviteId(self.invite.verifying_key().to_bytes())
    }

    pub(crate) fn certificate(&self, n: u8) -> Certificate {
        self.certificate_with_tunnel(n, n)
    }

    pub(crate) fn certificate_with_tunnel(&self, n: u8, tunnel: u8) -> Certificate {
        self.certificate_by(n, tunnel, Issuer::Authority, &self.authority)
    }

    pub(crate) fn certificate_by(
        &self,
        n: u8,
        tunnel: u8,
        issuer: Issuer,
        signer: &SigningKey,
    ) -> Certificate {
        let (party, tunnel) = (self.party(), Secret::new([tunnel; 32]));
        let claims = Claims {
            party,
            device: id(n),
            tunnel: tunnel_public(&tunnel),
            name: format!("Member {n}"),
            joined_at: NOW,
            grant: chain::grant(
                signer,
                &party,
                issuer,
                self.invite_id(),
                (self.not_after, self.uses),
                Role::Member,
            ),
        };
        chain::certify(claims, &self.invite, &device(n), &tunnel)
    }

    pub(crate) fn confirmation(&self, certificate: &Certificate) -> Confirmation {
        self.confirmation_of(certificate, 0, 1)
    }

    /// A confirmation that fixes a host number, under terms of this version.
    pub(crate) fn confirmation_of(&self, certificate: &Certificate, host: u16, version: u64) -> Confirmation {
        chain::confirm(&self.authority, certificate, host, version)
    }

    /// A charter owned by device 0, changed as the test needs it.
    pub(crate) fn charter(&self, version: u64, change: impl FnOnce(&mut Terms)) -> Charter {
        let mut terms = Terms {
            party: self.party(),
            version,
            name: "Friday games".into(),
            range: "10.77.3.0/24".parse().unwrap(),
            servers: Vec::new(),
            owner: id(0),
            co_owners: Vec::new(),
            revoked_devices: Vec::new(),
            revoked_invites: Vec::new(),
            lobbies_since: None,
            approval: false,
            commitment: [1; 32],
        };
        change(&mut terms);
        chain::proclaim(&self.authority, terms)
    }

    /// The charter with an amendment by a co-owner that removes one device.
    pub(crate) fn amended(&self, charter: &Charter, author: u8, removed: DeviceId) -> Charter {
        self.amended_with(charter, author, |amendment| amendment.revoked_devices = vec![removed])
    }

    /// The charter with an amendment by a co-owner that removes device 9, changed as the test needs it.
    pub(crate) fn amended_with(
        &self,
        charter: &Charter,
        author: u8,
        change: impl FnOnce(&mut Amendment),
    ) -> Charter {
        let mut amendment = Amendment {
            terms: charter.terms_digest(),
            number: 1,
            author: id(author),
            revoked_devices: vec![id(9)],
            revoked_invites: Vec::new(),
            commitment: [2; 32],
        };
        change(&mut amendment);
        let amendment = Exact::new(amendment);
        let signature = sign(device(author).signing(), &amendment.subject());
        Charter { amendment: Some(SignedAmendment { amendment, signature }), ..charter.clone() }
    }
}

pub(crate) fn announcement(certificate: Certificate, host: Option<u16>) -> Announcement {
    let session = partyline_model::SessionNonce([1; 16]);
    Announcement {
        certificate,
        confirmation: None,
        charter: None,
        secret: [0; 8],
        presence: Some(Presence {
            session,
            host,
            name: None,
            reach: Reachability::default(),
            avoided_networks: Vec::new(),
            copied: false,
            inviting_until: None,
        }),
    }
}
