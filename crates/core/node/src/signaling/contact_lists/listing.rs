//! When one contact list is read and written.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_timing::Backoff;
use partyline_wire::contact_list::{Contact, ContactList, HandleTag};

/// Between polls while somebody is expected at any moment, and for how long that is.
const EXPECTING: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(600));
/// Between polls until an hour has gone by.
const SOON: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));
/// Between polls from then on.
const RARELY: Duration = Duration::from_secs(60);
/// Between whole look-ups while this device is alone: the nodes closest to the list may be others than those it knows.
const SEARCH: Backoff = Backoff::new(Duration::from_secs(6), Duration::from_secs(60));
/// Between whole look-ups while it is not: nodes come and go.
const REFRESH: Duration = Duration::from_secs(1800);
/// After how long a contact is written again that is meant to last, and one of somebody who is still looking.
const REWRITE: Duration = Duration::from_secs(1800);
const REWRITE_SEARCHER: Duration = Duration::from_secs(90);

/// How much it matters that a list is read soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// Nobody is connected yet.
    Searching,
    /// Somebody may come.
    Watching,
}

/// What is to be done with a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Look for it at the nodes that are closest to it now.
    Search,
    /// Ask the nodes that had it whether it is newer.
    Poll { seen: Option<i64> },
    /// Write it with this device's contact in it.
    Write { seen: Option<i64> },
}

/// One list, as far as it is known.
#[derive(Debug)]
pub(super) struct Listing {
    list: ContactList,
    /// The greatest sequence number that was seen.
    seen: Option<i64>,
    /// True while a lookup is under way.
    busy: bool,
    /// True once the list was read, so that writing it loses nobody.
    read: bool,
    haste: Haste,
    /// The addresses that were written, and when.
    written: Option<(Vec<SocketAddr>, Instant)>,
    writing: Vec<SocketAddr>,
    expecting_since: Instant,
    poll_at: Instant,
    search_at: Instant,
    searches: u32,
}

impl Listing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            list: ContactList::default(),
            seen: None,
            busy: false,
            read: false,
            haste: Haste::Searching,
            written: None,
            writing: Vec::new(),
            expecting_since: now,
            poll_at: now,
            search_at: now,
            searches: 0,
        }
    }

    /// Sets how much the list matters.
    pub(super) fn set_haste(&mut self, now: Instant, haste: Haste) {
        if haste == Haste::Searching && self.haste == Haste::Watching {
            self.expect(now);
        }
        self.haste = haste;
    }

    /// Reads the list at once.
    pub(super) fn expedite(&mut self, now: Instant) {
        self.search_at = now;
        self.searches = 0;
    }

    /// Reads the list often from now on.
    pub(super) fn expect(&mut self, now: Instant) {
        self.expecting_since = now;
        self.poll_at = now;
        self.searches = 0;
    }

    /// Returns true if this device's contact stands in the list.
    pub(super) const fn is_stored(&self) -> bool {
        self.written.is_some()
    }

    /// Returns all contacts.
    pub(super) fn contacts(&self) -> impl Iterator<Item = (HandleTag, &Contact)> {
        self.list.iter()
    }

    /// Takes a copy of the list. If the newest one lacks this device's contact, somebody has written over it who had not
    /// read it, and it is written again.
    pub(super) fn merge(&mut self, now: u32, sequence: i64, copy: ContactList, own: Option<HandleTag>) {
        let newest = self.seen.is_none_or(|seen| seen <= sequence);
        if newest && own.is_some_and(|own| copy.get(own).is_none()) {
            self.written = None;
        }
        self.seen = self.seen.max(Some(sequence));
        self.list.merge(copy);
        self.list.expire(now);
    }

    /// Returns the list with this device's contact, to be written.
    pub(super) fn with_own(
        &mut self,
        tag: HandleTag,
        contact: Contact,
        addresses: Vec<SocketAddr>,
    ) -> ContactList {
        self.writing = addresses;
        self.list.remove(tag);
        self.list.add(tag, contact);
        self.list.clone()
    }

    /// Notes that a read has ended.
    pub(super) fn on_read(&mut self, now: Instant, answered: bool) {
        self.busy = false;
        self.read |= answered;
        self.poll_at = now + self.poll_interval(now);
    }

    /// Notes that a write has ended. What was not stored is written again after a pause.
    pub(super) fn on_written(&mut self, now: Instant, stored: bool, pause: Duration) {
        self.busy = false;
        self.written = stored.then(|| (std::mem::take(&mut self.writing), now));
        if !stored {
            // Somebody else wrote at the same moment: what it wrote is read first.
            self.read = false;
            self.poll_at = now + pause;
        }
    }

    /// Returns what is due, if this device can be reached at these addresses; none are known at first.
    pub(super) fn poll(&mut self, now: Instant, own: &[SocketAddr]) -> Option<Due> {
        if self.busy {
            return None;
        }
        let due = if self.search_at <= now {
            self.searches += 1;
            self.search_at = now + self.search_interval();
            Due::Search
        } else if self.is_write_due(now, own) {
            Due::Write { seen: self.seen }
        } else if self.poll_at <= now {
            Due::Poll { seen: self.seen }
        } else {
            return None;
        };
        self.busy = true;
        Some(due)
    }

    fn is_write_due(&mut self, now: Instant, own: &[SocketAddr]) -> bool {
        let lifetime = self.lifetime();
        let holds = |(addresses, at): &(Vec<SocketAddr>, Instant)| {
            own == addresses.as_slice() && now.saturating_duration_since(*at) < lifetime
        };
        if !self.written.as_ref().is_some_and(holds) {
            self.written = None;
        }
        self.written.is_none() && self.read && !own.is_empty()
    }

    /// Returns how long what was written may stay as it is.
    const fn lifetime(&self) -> Duration {
        match self.haste {
            Haste::Searching => REWRITE_SEARCHER,
            Haste::Watching => REWRITE,
        }
    }

    fn search_interval(&self) -> Duration {
        match self.haste {
            Haste::Searching => SEARCH.delay_after(self.searches),
            Haste::Watching => REFRESH,
        }
    }

    fn poll_interval(&self, now: Instant) -> Duration {
        let waited = now.saturating_duration_since(self.expecting_since);
        [EXPECTING, SOON]
            .into_iter()
            .find(|(_, until)| waited < *until)
            .map_or(RARELY, |(interval, _)| interval)
    }

    /// Returns the moment at which something is due; `None` while a lookup is under way, whose end comes first.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let rewrite = self.written.as_ref().map(|(_, at)| *at + self.lifetime());
        (!self.busy).then(|| rewrite.into_iter().fold(self.poll_at.min(self.search_at), Instant::min))
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::Handle;
    use partyline_wire::contact_list::Place;

    use super::*;

    fn own() -> Vec<SocketAddr> {
        vec![([5, 5, 5, 5], 7).into()]
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn a_list_is_read_before_it_is_written_and_then_polled() {
        let (now, own) = (Instant::now(), own());
        let mut listing = Listing::new(now);
        assert_eq!(listing.poll(now, &own), Some(Due::Search));
        assert_eq!(listing.poll(now, &own), None, "one lookup at a time");
        listing.on_read(now, true);
        assert_eq!(listing.poll(now, &[]), None, "nobody is listed without an address");
        assert_eq!(listing.poll(now, &own), Some(Due::Write { seen: None }));
        let contact = Contact { at: 0, publisher: true, place: Place::Open(own.clone()) };
        let list = listing.with_own(Handle([1; 16]).into(), contact, own.clone());
        assert_eq!(list.iter().count(), 1);
        listing.on_written(now, true, Duration::ZERO);
        assert!(listing.is_stored() && listing.poll(now, &own).is_none());
        let next = listing.due_at().expect("a poll");
        assert_eq!(next, now + EXPECTING.0);
        assert_eq!(listing.poll(next, &own), Some(Due::Poll { seen: None }));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn a_list_that_another_wrote_at_the_same_moment_is_read_again_first() {
        let (now, own) = (Instant::now(), own());
        let mut listing = Listing::new(now);
        listing.poll(now, &own);
        listing.on_read(now, true);
        listing.poll(now, &own);
        let pause = Duration::from_millis(500);
        listing.on_written(now, false, pause);
        assert_eq!(listing.poll(now, &own), None);
        listing.merge(0, 9, ContactList::default(), None);
        assert_eq!(listing.due_at(), Some(now + pause));
        assert_eq!(listing.poll(now + pause, &own), Some(Due::Poll { seen: Some(9) }));
        listing.on_read(now + pause, true);
        assert_eq!(listing.poll(now + pause, &own), Some(Due::Write { seen: Some(9) }));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn a_device_that_has_lost_its_address_waits_for_no_moment_that_is_past() {
        let (now, own) = (Instant::now(), own());
        let mut listing = Listing::new(now);
        listing.poll(now, &own);
        listing.on_read(now, true);
        listing.poll(now, &own);
        listing.writing.clone_from(&own);
        listing.on_written(now, true, Duration::ZERO);
        for _ in 0..100 {
            let due = listing.due_at().expect("a moment");
            assert!(listing.poll(due, &[]).is_some(), "something is to be done then");
            listing.on_read(due, true);
        }
        assert!(!listing.is_stored());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn polls_become_rare_and_frequent_again_when_somebody_is_expected() {
        let now = Instant::now();
        let mut listing = Listing::new(now);
        listing.set_haste(now, Haste::Watching);
        let at = |secs| now + Duration::from_secs(secs);
        let intervals = [0, 700, 4000].map(|secs| listing.poll_interval(at(secs)));
        assert_eq!(intervals, [EXPECTING.0, SOON.0, RARELY]);
        listing.expect(at(4000));
        assert_eq!(listing.poll_interval(at(4000)), EXPECTING.0);
    }
}
