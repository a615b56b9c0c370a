//! Join requests that wait for the owner's decision, on the owner's device.

use std::collections::BTreeMap;

use partyline_model::{DeviceId, InviteId, Timestamp, Topic};
use partyline_wire::announcement::Announcement;
use tracing::debug;

use crate::revocations::Revocations;

/// Number of requests kept. A holder of the link can make any number of them.
const MAX_REQUESTS: usize = 32;

/// A device that asks to be let in.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    /// Its last announcement, which was checked.
    pub(crate) announcement: Announcement,
    /// The sequence number of the message that delivered the announcement.
    pub(crate) sequence: u64,
    /// The topic on which it waits for an answer.
    pub(crate) topic: Topic,
    /// When it was heard last, by this device's clock.
    pub(crate) received: Timestamp,
    /// True if the owner has declined it. It is kept, so that the owner can still think better of it.
    pub(crate) declined: bool,
}

/// A join request as the owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingJoin<'a> {
    /// The device that asks.
    pub device: DeviceId,
    /// The name of its user.
    pub name: &'a str,
    /// The invite that it has.
    pub invite: InviteId,
    /// True if the owner has declined it.
    pub declined: bool,
}

/// At most [`MAX_REQUESTS`] requests, one of each device. They are not stored: who still wants to join asks again.
#[derive(Debug, Default)]
pub(crate) struct JoinRequests(BTreeMap<DeviceId, JoinRequest>);

impl JoinRequests {
    /// Keeps a request, in the place of the one that was silent longest if there are too many. Returns true if the owner
    /// does not know of it yet.
    pub(crate) fn add(&mut self, device: DeviceId, mut request: JoinRequest) -> bool {
        let before = self.0.get(&device);
        request.declined = before.is_some_and(|before| before.declined);
        let new = before.is_none();
        if new && self.0.len() >= MAX_REQUESTS {
            let silent = self.0.iter().min_by_key(|(_, request)| request.received).map(|(device, _)| *device);
            silent.map(|silent| self.0.remove(&silent));
        }
        debug!(peer = %device.short(), new, declined = request.declined, count = self.0.len(), "join request waits for the owner");
        self.0.insert(device, request);
        new
    }

    pub(crate) fn get(&self, device: &DeviceId) -> Option<&JoinRequest> {
        self.0.get(device)
    }

    /// Marks a request as declined, and returns it.
    pub(crate) fn decline(&mut self, device: &DeviceId) -> Option<&JoinRequest> {
        let request = self.0.get_mut(device)?;
        request.declined = true;
        Some(request)
    }

    pub(crate) fn remove(&mut self, device: &DeviceId) -> Option<JoinRequest> {
        self.0.remove(device)
    }

    /// Forgets those of revoked devices and invites; returns true if there were any.
    pub(crate) fn revoke(&mut self, revoked: &Revocations) -> bool {
        let before = self.0.len();
        self.0.retain(|device, request| {
            let invite = &request.announcement.certificate.claims().grant.invite;
            !revoked.devices.contains(device) && !revoked.invites.contains(invite)
        });
        self.0.len() < before
    }

    /// Forgets all requests; returns true if there were any.
    pub(crate) fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    /// Returns the requests in order of their devices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PendingJoin<'_>> {
        self.0.iter().map(|(device, request)| {
            let claims = request.announcement.certificate.claims();
            let announced =
                request.announcement.presence.as_ref().and_then(|presence| presence.name.as_ref());
            let name = announced.unwrap_or(&claims.name);
            PendingJoin { device: *device, name, invite: claims.grant.invite, declined: request.declined }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, NOW, announcement, id};

    fn request(n: u8, at: u64) -> (DeviceId, JoinRequest) {
        let announcement = announcement(Fixture::default().certificate(n), None);
        let received = Timestamp(NOW.0 + at);
        let topic = Topic([n; 32]);
        (id(n), JoinRequest { announcement, sequence: at, topic, received, declined: false })
    }

    #[test]
    fn flood_of_requests_takes_the_place_of_those_that_were_silent_longest() {
        let mut requests = JoinRequests::default();
        for n in 0..=MAX_REQUESTS as u8 {
            let (device, request) = request(n, n.into());
            assert!(requests.add(device, request));
        }
        assert_eq!(requests.iter().count(), MAX_REQUESTS);
        assert!(requests.get(&id(0)).is_none() && requests.get(&id(MAX_REQUESTS as u8)).is_some());
    }

    #[test]
    fn requests_end_with_their_invite() {
        let mut requests = JoinRequests::default();
        let (device, first) = request(1, 1);
        requests.add(device, first);
        let invite = Fixture::default().invite_id();
        assert!(requests.revoke(&Revocations { devices: Vec::new(), invites: vec![invite] }));
        assert_eq!(requests.iter().count(), 0);
    }

    #[test]
    fn declined_request_stays_declined_until_it_is_approved() {
        let mut requests = JoinRequests::default();
        let (device, first) = request(1, 1);
        requests.add(device, first);
        assert!(requests.decline(&device).is_some());
        assert!(!requests.add(device, request(1, 2).1), "the owner knows of it");
        assert!(requests.iter().all(|pending| pending.declined && pending.name == "Member 1"));
        assert!(requests.remove(&device).is_some() && !requests.clear());
    }
}
