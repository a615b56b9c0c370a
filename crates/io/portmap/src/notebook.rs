//! What would have to be deleted after a crash, noted before the router is asked.
//!
//! A lease runs out by itself, a permanent mapping never does. So every wish is handed to the host of this crate, who
//! writes it down; it is struck out when the router has deleted the mapping. The next start gets what is left.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{MappingRecord, Options, RecordSink};

/// More than this is forgotten, the oldest first: leases will have run out by then.
const PAGES: usize = 64;

/// The notes of all methods.
#[derive(Clone)]
pub(crate) struct Notebook {
    records: Arc<Mutex<Vec<MappingRecord>>>,
    write: Option<RecordSink>,
}

impl Notebook {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            records: Arc::new(Mutex::new(options.previous_records.clone())),
            write: options.record_sink.clone(),
        }
    }

    /// Notes a mapping that is about to be asked for.
    pub(crate) async fn add(&self, record: &MappingRecord) {
        self.change(|records| {
            let new = !records.contains(record);
            if new {
                records.push(record.clone());
                let surplus = records.len().saturating_sub(PAGES);
                records.drain(..surplus);
            }
            new
        })
        .await;
    }

    /// Strikes out one that is gone.
    pub(crate) async fn strike(&self, record: &MappingRecord) {
        self.change(|records| {
            let before = records.len();
            records.retain(|other| other != record);
            records.len() != before
        })
        .await;
    }

    async fn change(&self, edit: impl FnOnce(&mut Vec<MappingRecord>) -> bool) {
        let changed = edit(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(write) = self.write.clone().filter(|_| changed) else { return };
        let records = Arc::clone(&self.records);
        // Under the lock, so that a later state never gets overwritten by an earlier one.
        let written = tokio::task::spawn_blocking(move || {
            write(&records.lock().unwrap_or_else(PoisonError::into_inner));
        });
        if written.await.is_err() {
            tracing::warn!("the port mappings could not be noted");
        }
    }
}
