//! Logging set-up and the metrics registry.
//!
//! [`Logging`] decides where log lines go: to the terminal in colour, to a pipe in plain text, and for the service
//! into [rolling files](RollingFile). How much is logged is set by `PARTYLINE_LOG` (the syntax of
//! [`tracing_subscriber::EnvFilter`]) or by the number of `--verbose` flags. [`Metrics`] collects what the
//! `metrics` macros count and renders it for Prometheus.
//!
//! Secrets do not get here: their types cannot be printed.

mod logging;
mod metrics;
mod rolling;

pub use logging::{LogError, LogGuard, Logging};
pub use metrics::Metrics;
pub use rolling::{RollingFile, Rotation};
