//! Logging set-up, the metrics registry, and OTLP export of traces and metrics.
//!
//! [`Logging`] decides where log lines go: to the terminal in colour, to a pipe in plain text, and for the service
//! into [rolling files](RollingFile). The level is set by `PARTYLINE_LOG` (the syntax of
//! [`tracing_subscriber::EnvFilter`]) or by the number of `--verbose` flags. [`Metrics`] collects what the
//! `metrics` macros count and renders it for Prometheus.
//!
//! If `OTEL_EXPORTER_OTLP_ENDPOINT` is set, [`Logging::start`] also exports spans and metrics to an OpenTelemetry
//! collector ([`OtlpSettings`]). A span with a field `trace_id` of 32 hexadecimal digits starts or joins the trace of that
//! id, which is how the spans of two members and of their rendezvous server come together in one trace.
//!
//! Secrets cannot be logged: their types implement neither `Debug` nor `Display` with the secret in it.

mod logging;
mod metrics;
mod otlp;
mod rolling;

pub use logging::{LogError, LogGuard, Logging};
pub use metrics::Metrics;
pub use otlp::{OtlpError, OtlpSettings};
pub use rolling::{RollingFile, Rotation};
