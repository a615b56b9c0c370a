//! Where log lines go, and how many.

use std::{
    env, io,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{RollingFile, Rotation};

/// The variable that overrides `--verbose`, for example `info,partyline_paths=trace`.
const VARIABLE: &str = "PARTYLINE_LOG";

/// Lines that may wait for a slow disk; more are dropped, as logging must not hold up packets.
const BUFFERED_LINES: usize = 4096;

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `PARTYLINE_LOG` cannot be read.
    #[error("{VARIABLE} is not a log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The log file cannot be opened.
    #[error("cannot write logs in {directory}: {source}")]
    File {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Logging was started before.
    #[error("logging was started twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes the last lines when it is dropped: keep it until the end of the program.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct LogGuard(#[expect(dead_code, reason = "only its drop matters")] Option<WorkerGuard>);

/// How to log.
#[derive(Debug, Clone, Default)]
pub struct Logging {
    verbosity: u8,
    file: Option<(PathBuf, String)>,
}

impl Logging {
    /// 0: warnings; 1: what happens; 2: why; 3 and more: every packet.
    #[must_use]
    pub fn verbosity(verbosity: u8) -> Self {
        Self { verbosity, file: None }
    }

    /// Logs into rolling files `<name>.log` too, at least what happens.
    #[must_use]
    pub fn also_into(mut self, directory: &Path, name: &str) -> Self {
        self.file = Some((directory.to_owned(), name.to_owned()));
        self
    }

    /// Starts to log for the whole process.
    ///
    /// # Errors
    /// An unreadable filter, a file that cannot be opened, or logging that was started before.
    pub fn start(self) -> Result<LogGuard, LogError> {
        let mut lines = vec![terminal().with_filter(filter(self.verbosity)?).boxed()];
        let mut guard = None;
        if let Some((directory, name)) = &self.file {
            let (writer, flush) = file(directory, name)?;
            let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
            lines.push(layer.with_filter(filter(self.verbosity.max(1))?).boxed());
            guard = Some(flush);
        }
        tracing_subscriber::registry().with(lines).try_init()?;
        Ok(LogGuard(guard))
    }
}

fn filter(verbosity: u8) -> Result<EnvFilter, LogError> {
    filter_from(env::var(VARIABLE).ok().as_deref(), verbosity)
}

/// The bus libraries log at INFO what is of no use to anybody here.
fn filter_from(variable: Option<&str>, verbosity: u8) -> Result<EnvFilter, LogError> {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbosity.min(3))];
    let text = variable.filter(|text| !text.trim().is_empty()).unwrap_or(level);
    Ok(EnvFilter::try_new(format!("zbus=warn,zbus_names=warn,{text}"))?)
}

fn file(directory: &Path, name: &str) -> Result<(NonBlocking, WorkerGuard), LogError> {
    let failed = |source| LogError::File { directory: directory.to_owned(), source };
    let file = RollingFile::open(directory, name, Rotation::default()).map_err(failed)?;
    Ok(NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES).lossy(true).finish(file))
}

fn terminal() -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if io::stderr().is_terminal() {
        let colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        lines.with_ansi(colour).with_target(false).compact().boxed()
    } else if env::var_os("JOURNAL_STREAM").is_some() {
        // The journal writes down the time itself.
        lines.with_ansi(false).without_time().boxed()
    } else {
        lines.with_ansi(false).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_choose_a_level_and_the_variable_overrides_them() {
        let of = |variable, verbosity| filter_from(variable, verbosity).unwrap().to_string();
        assert!(of(None, 0).ends_with("warn"));
        assert!(of(None, 9).ends_with("trace"));
        assert!(of(Some(" "), 1).ends_with("info"));
        assert!(of(Some("partyline_paths=trace"), 1).contains("partyline_paths=trace"));
        assert!(filter_from(Some("a=b=c"), 0).is_err());
    }

    #[test]
    fn lines_reach_the_file_and_control_characters_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let guard = Logging::verbosity(0).also_into(directory.path(), "service").start().unwrap();
        tracing::info!(name = "\u{1b}[31mred", "somebody joined");
        assert!(matches!(Logging::verbosity(0).start(), Err(LogError::Twice(_))));
        drop(guard);
        let text = std::fs::read_to_string(directory.path().join("service.log")).unwrap();
        assert!(text.contains("somebody joined"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
