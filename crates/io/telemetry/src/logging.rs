//! Where log lines and spans go, and at which level.

use std::{
    env, io,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    RollingFile, Rotation,
    otlp::{Otlp, OtlpError, OtlpSettings},
};

/// Overrides `--verbose`, for example `info,partyline_paths=trace`.
const FILTER_VARIABLE: &str = "PARTYLINE_LOG";

/// Maximum number of lines waiting for a slow disk; more are dropped, because logging must not hold up packets.
const MAX_BUFFERED_LINES: usize = 4096;

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `PARTYLINE_LOG` is not a valid filter.
    #[error("{FILTER_VARIABLE} is not a log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The log file cannot be opened.
    #[expect(missing_docs, reason = "the names say it")]
    #[error("cannot write logs in {directory}: {source}")]
    File { directory: PathBuf, source: io::Error },
    /// Logging was already started in this process.
    #[error("logging was started twice")]
    AlreadyStarted(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes the last lines and exports the last spans when dropped; keep it until the end of the program.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct LogGuard {
    otlp: Option<Otlp>,
    // Dropped last, so that the file gets what the exporter logs at its end.
    _file: Option<WorkerGuard>,
}

impl LogGuard {
    /// Exports these metrics over OTLP, given in the Prometheus text format, instead of the process's registry. Has no
    /// effect without an OTLP endpoint. `render` is called on the exporter's own thread.
    pub fn export_metrics(&self, render: impl Fn() -> String + Send + 'static) {
        if let Some(otlp) = &self.otlp {
            otlp.export_metrics(render);
        }
    }
}

/// Configures logging for a process.
#[derive(Debug, Clone, Default)]
pub struct Logging {
    verbosity: u8,
    file: Option<(PathBuf, String)>,
    otlp: OtlpChoice,
}

/// Where the settings of the OTLP export come from.
#[derive(Debug, Clone, Default)]
enum OtlpChoice {
    #[default]
    Environment,
    Settings(Box<OtlpSettings>),
}

impl Logging {
    /// Logs at a level of 0 (warnings), 1 (info), 2 (debug), or 3 and more (trace: every packet).
    #[must_use]
    pub fn verbosity(verbosity: u8) -> Self {
        Self { verbosity, ..Self::default() }
    }

    /// Logs into rolling files `<name>.log` too, at least at the info level.
    #[must_use]
    pub fn also_into(mut self, directory: &Path, name: &str) -> Self {
        self.file = Some((directory.to_owned(), name.to_owned()));
        self
    }

    /// Exports over OTLP with these settings instead of those in the environment.
    #[must_use]
    pub fn export_to(mut self, settings: OtlpSettings) -> Self {
        self.otlp = OtlpChoice::Settings(Box::new(settings));
        self
    }

    /// Starts logging for the whole process. Settings of the OTLP export that cannot be used are warned about and switch
    /// it off.
    ///
    /// # Errors
    /// The filter is invalid, the log file cannot be opened, or logging was already started.
    pub fn start(self) -> Result<LogGuard, LogError> {
        let mut layers = vec![terminal().with_filter(filter(self.verbosity)?).boxed()];
        let mut guard = LogGuard { _file: None, otlp: None };
        if let Some((directory, name)) = &self.file {
            let (writer, flush) = file(directory, name)?;
            let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
            layers.push(layer.with_filter(filter(self.verbosity.max(1))?).boxed());
            guard._file = Some(flush);
        }
        let problem = match self.otlp.start() {
            Ok(Some((otlp, layer))) => {
                layers.push(layer);
                guard.otlp = Some(otlp);
                None
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        tracing_subscriber::registry().with(layers).try_init()?;
        if let Some(error) = problem {
            tracing::warn!(%error, "OTLP export is off");
        }
        Ok(guard)
    }
}

impl OtlpChoice {
    fn start(self) -> Result<Option<(Otlp, BoxedLayer)>, OtlpError> {
        let settings = match self {
            Self::Environment => OtlpSettings::from_environment()?,
            Self::Settings(settings) => Some(*settings),
        };
        settings.map(Otlp::start).transpose()
    }
}

fn filter(verbosity: u8) -> Result<EnvFilter, LogError> {
    filter_from(env::var(FILTER_VARIABLE).ok().as_deref(), verbosity)
}

fn filter_from(variable: Option<&str>, verbosity: u8) -> Result<EnvFilter, LogError> {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbosity.min(3))];
    let text = variable.filter(|text| !text.trim().is_empty()).unwrap_or(level);
    // The D-Bus libraries log every call at info.
    Ok(EnvFilter::try_new(format!("zbus=warn,zbus_names=warn,{text}"))?)
}

fn file(directory: &Path, name: &str) -> Result<(NonBlocking, WorkerGuard), LogError> {
    let failed = |source| LogError::File { directory: directory.to_owned(), source };
    let file = RollingFile::open(directory, name, Rotation::default()).map_err(failed)?;
    Ok(NonBlockingBuilder::default().buffered_lines_limit(MAX_BUFFERED_LINES).lossy(true).finish(file))
}

fn terminal() -> BoxedLayer {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if io::stderr().is_terminal() {
        let colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        lines.with_ansi(colour).with_target(false).compact().boxed()
    } else if env::var_os("JOURNAL_STREAM").is_some() {
        // The journal adds the time itself.
        lines.with_ansi(false).without_time().boxed()
    } else {
        lines.with_ansi(false).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_sets_the_level_and_the_variable_overrides_it() {
        let of = |variable, verbosity| filter_from(variable, verbosity).unwrap().to_string();
        assert!(of(None, 0).ends_with("warn"));
        assert!(of(None, 9).ends_with("trace"));
        assert!(of(Some(" "), 1).ends_with("info"));
        assert!(of(Some("partyline_paths=trace"), 1).contains("partyline_paths=trace"));
        assert!(filter_from(Some("a=b=c"), 0).is_err());
    }

    #[test]
    fn lines_reach_the_file_without_control_characters() {
        let directory = tempfile::tempdir().unwrap();
        let guard = Logging::verbosity(0).also_into(directory.path(), "service").start().unwrap();
        tracing::info!(name = "\u{1b}[31mred", "member joined");
        assert!(matches!(Logging::verbosity(0).start(), Err(LogError::AlreadyStarted(_))));
        drop(guard);
        let text = std::fs::read_to_string(directory.path().join("service.log")).unwrap();
        assert!(text.contains("member joined"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
