//! Queries that wait for their responses.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_timing::{Deadlines, RttEstimator};
use partyline_wire::krpc::TRANSACTION_LEN;
use rand_core::RngCore;

use crate::{counters::Drop, event::LookupId};

/// The time for which a response is accepted.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(2500);
/// The bounds of the time after which a node is passed over.
const MIN_PATIENCE: Duration = Duration::from_millis(200);
const MAX_PATIENCE: Duration = Duration::from_millis(900);
/// The time after which a node is passed over before any round trip was measured.
const INITIAL_PATIENCE: Duration = Duration::from_millis(500);

/// A random transaction id. Together with the source address it must be guessed to forge a response.
type TransactionId = [u8; TRANSACTION_LEN];

/// The methods of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodName {
    FindNode,
    Get,
    Put,
}

/// A query that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) destination: SocketAddr,
    pub(crate) lookup: LookupId,
    pub(crate) method: MethodName,
    pub(crate) sent_at: Instant,
    /// True once the lookup no longer waits for it.
    passed_over: bool,
}

/// A deadline of a query that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The lookup passes the node over, but still takes its response.
    PassOver(Transaction),
    /// The query is over.
    TimedOut(Transaction),
}

/// All queries that wait.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    waiting: BTreeMap<TransactionId, Transaction>,
    deadlines: Deadlines<TransactionId>,
    rtt: RttEstimator,
}

impl Transactions {
    /// Begins a transaction and returns its id.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        (destination, lookup, method): (SocketAddr, LookupId, MethodName),
        rng: &mut impl RngCore,
    ) -> TransactionId {
        let mut id = TransactionId::default();
        loop {
            rng.fill_bytes(&mut id);
            if !self.waiting.contains_key(&id) {
                break;
            }
        }
        let transaction = Transaction { destination, lookup, method, sent_at: now, passed_over: false };
        self.waiting.insert(id, transaction);
        self.deadlines.set(id, Some(now + self.patience()));
        id
    }

    /// Ends the transaction to which a response belongs, and returns it with the round-trip time.
    ///
    /// # Errors
    /// If there is none, or if the response comes from another address.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        source: SocketAddr,
        id: &[u8],
    ) -> Result<(Transaction, Duration), Drop> {
        let id = TransactionId::try_from(id).map_err(|_| Drop::UnknownTransaction)?;
        let transaction = *self.waiting.get(&id).ok_or(Drop::UnknownTransaction)?;
        if transaction.destination != source {
            return Err(Drop::WrongSource);
        }
        self.waiting.remove(&id);
        self.deadlines.set(id, None);
        let rtt = now.saturating_duration_since(transaction.sent_at);
        self.rtt.on_sample(rtt);
        Ok((transaction, rtt))
    }

    /// Returns the next deadline that has come.
    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<Overdue> {
        let id = self.deadlines.pop_due(now)?;
        let transaction = self.waiting.get_mut(&id)?;
        if transaction.passed_over {
            return self.waiting.remove(&id).map(Overdue::TimedOut);
        }
        transaction.passed_over = true;
        self.deadlines.set(id, Some(transaction.sent_at + RESPONSE_TIMEOUT));
        Some(Overdue::PassOver(*transaction))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Forgets all queries and round trips, since the network is another.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the time after which a node is passed over.
    fn patience(&self) -> Duration {
        self.rtt.srtt().map_or(INITIAL_PATIENCE, |srtt| {
            srtt.saturating_add(self.rtt.rttvar() * 3).clamp(MIN_PATIENCE, MAX_PATIENCE)
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn node(number: u8) -> SocketAddr {
        SocketAddr::from(([11, 0, 0, number], 6881))
    }

    fn begin(transactions: &mut Transactions, now: Instant, number: u8) -> TransactionId {
        let mut rng = ChaCha12Rng::from_seed([number; 32]);
        transactions.begin(now, (node(number), LookupId(0), MethodName::Get), &mut rng)
    }

    #[test]
    fn response_must_come_from_the_destination_with_its_id() {
        let (now, mut transactions) = (start(), Transactions::default());
        let id = begin(&mut transactions, now, 1);
        assert_eq!(transactions.end(now, node(1), &[]), Err(Drop::UnknownTransaction));
        assert_eq!(
            transactions.end(now, node(1), &[!id[0], id[1], id[2], id[3]]),
            Err(Drop::UnknownTransaction)
        );
        assert_eq!(transactions.end(now, node(2), &id), Err(Drop::WrongSource));
        assert_eq!(transactions.end(now, node(1), &id).unwrap().0.destination, node(1));
        assert_eq!(transactions.end(now, node(1), &id), Err(Drop::UnknownTransaction));
        assert_eq!(transactions.poll_timeout(), None);
    }

    #[test]
    fn node_is_passed_over_before_its_query_times_out() {
        let (now, mut transactions) = (start(), Transactions::default());
        begin(&mut transactions, now, 1);
        assert_eq!(transactions.poll_timeout(), Some(now + INITIAL_PATIENCE));
        assert_eq!(transactions.pop_overdue(now), None);
        assert!(matches!(transactions.pop_overdue(now + INITIAL_PATIENCE), Some(Overdue::PassOver(_))));
        assert_eq!(transactions.poll_timeout(), Some(now + RESPONSE_TIMEOUT));
        assert!(matches!(transactions.pop_overdue(now + RESPONSE_TIMEOUT), Some(Overdue::TimedOut(_))));
        assert_eq!((transactions.pop_overdue(now + RESPONSE_TIMEOUT), transactions.waiting.len()), (None, 0));
    }

    #[test]
    fn late_response_is_taken() {
        let (now, mut transactions) = (start(), Transactions::default());
        let id = begin(&mut transactions, now, 1);
        let late = now + Duration::from_millis(2400);
        transactions.pop_overdue(late);
        assert!(transactions.end(late, node(1), &id).is_ok());
    }

    #[test]
    fn patience_follows_the_round_trips_within_bounds() {
        let (now, mut transactions) = (start(), Transactions::default());
        for (rtt, least, most) in [(10, 200, 200), (180, 200, 900), (2400, 900, 900)] {
            transactions.clear();
            for number in 0..20 {
                let id = begin(&mut transactions, now, number);
                transactions.end(now + Duration::from_millis(rtt), node(number), &id).unwrap();
            }
            let patience = transactions.patience().as_millis();
            assert!((least..=most).contains(&patience), "{rtt}: {patience}");
        }
    }
}
