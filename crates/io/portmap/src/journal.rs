//! What would have to be deleted after a crash, recorded before the router is asked.
//!
//! A lease ends by itself, a permanent mapping never does. So every request is handed to the user of this crate, who
//! persists it; its record is removed when the router has deleted the mapping. The next start gets what is left.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{MappingRecord, Options, RecordSink};

/// The oldest records beyond this number are dropped: their leases will have ended.
const MAX_RECORDS: usize = 64;

/// The records of all protocols.
#[derive(Clone)]
pub(crate) struct Journal {
    records: Arc<Mutex<Vec<MappingRecord>>>,
    sink: Option<RecordSink>,
}

impl Journal {
    /// Returns a journal that holds the records of earlier runs.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            records: Arc::new(Mutex::new(options.previous_records.clone())),
            sink: options.record_sink.clone(),
        }
    }

    /// Records a mapping that is about to be requested.
    pub(crate) async fn insert(&self, record: &MappingRecord) {
        self.change(|records| {
            let new = !records.contains(record);
            if new {
                records.push(record.clone());
                let surplus = records.len().saturating_sub(MAX_RECORDS);
                records.drain(..surplus);
            }
            new
        })
        .await;
    }

    /// Removes the record of a mapping that is gone.
    pub(crate) async fn remove(&self, record: &MappingRecord) {
        self.change(|records| {
            let before = records.len();
            records.retain(|other| other != record);
            records.len() != before
        })
        .await;
    }

    async fn change(&self, edit: impl FnOnce(&mut Vec<MappingRecord>) -> bool) {
        let changed = edit(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(sink) = self.sink.clone().filter(|_| changed) else { return };
        let records = Arc::clone(&self.records);
        // Under the lock, so that a later state is never overwritten by an earlier one.
        let written = tokio::task::spawn_blocking(move || {
            sink(&records.lock().unwrap_or_else(PoisonError::into_inner));
        });
        if let Err(error) = written.await {
            tracing::warn!(reason = %error, "port mappings could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn record(number: u16) -> MappingRecord {
        let internal = ([192, 168, 1, 2], 41_641).into();
        MappingRecord { method: Protocol::Upnp, network: None, internal, number, nonce: [0; 3] }
    }

    /// A journal, and all states that it has persisted.
    fn journal() -> (Journal, Arc<Mutex<Vec<Vec<MappingRecord>>>>) {
        let persisted = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&persisted);
        let options = Options {
            record_sink: Some(Arc::new(move |records: &[MappingRecord]| {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(records.to_vec());
            })),
            previous_records: vec![record(1)],
            ..Options::new(41_641, [192, 168, 1, 2].into(), None, 1)
        };
        (Journal::new(&options), persisted)
    }

    #[tokio::test]
    async fn every_change_is_persisted_and_repetition_is_not() {
        let (journal, persisted) = journal();
        journal.insert(&record(2)).await;
        journal.insert(&record(2)).await;
        journal.remove(&record(1)).await;
        journal.remove(&record(1)).await;
        let persisted = persisted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(persisted, [vec![record(1), record(2)], vec![record(2)]]);
    }

    #[tokio::test]
    async fn oldest_records_are_dropped_beyond_the_bound() {
        let (journal, persisted) = journal();
        for number in 2..100 {
            journal.insert(&record(number)).await;
        }
        let last =
            persisted.lock().unwrap_or_else(PoisonError::into_inner).last().cloned().unwrap_or_default();
        assert_eq!((last.len(), last.last()), (MAX_RECORDS, Some(&record(99))));
    }
}
