//! The state file, written when the node asks: at once before a command is answered, else at most once a second.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use partyline_model::{AppError, ErrorCode};
use partyline_platform::{read, replace};

const FILE: &str = "state.json";
/// Between two writes that no command waits for, and after one that failed.
const CALM: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);

/// Where the node's state is kept.
pub(crate) struct Store {
    path: PathBuf,
    due: Option<Instant>,
    problem: Option<AppError>,
}

impl Store {
    pub(crate) fn new(directory: &std::path::Path) -> Self {
        Self { path: directory.join(FILE), due: None, problem: None }
    }

    /// What was saved last.
    pub(crate) fn load(&self) -> Result<Option<Vec<u8>>, AppError> {
        read(&self.path).map_err(AppError::from)
    }

    /// Whether nothing was saved so far.
    pub(crate) fn is_new(&self) -> Result<bool, AppError> {
        self.load().map(|saved| saved.is_none())
    }

    /// The file's name, for errors.
    pub(crate) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// The state changed.
    pub(crate) fn mark(&mut self, now: Instant) {
        self.due.get_or_insert(now + CALM);
    }

    /// Whether something is still to be written.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.due.is_some()
    }

    /// When to write, if nothing asks for it earlier.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Why the last write failed, if it did.
    pub(crate) const fn problem(&self) -> Option<&AppError> {
        self.problem.as_ref()
    }

    /// Writes; what could not be written is tried again later.
    pub(crate) async fn write(&mut self, now: Instant, state: Vec<u8>) -> Result<(), AppError> {
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || replace(&path, &state)).await;
        let result = match written {
            Ok(result) => result.map_err(AppError::from),
            Err(_) => Err(AppError::new(
                ErrorCode::Internal,
                "The state could not be written because of a defect.",
                "Please report it with the log.",
            )),
        };
        if let Err(error) = &result {
            tracing::error!(%error, "the state could not be saved");
        }
        self.due = result.is_err().then(|| now + RETRY);
        self.problem = result.clone().err();
        result
    }
}
