//! Ways of reaching members, in the metrics registry.

use std::time::Duration;

use partyline_model::Method;
use partyline_telemetry::Metrics;

/// Counts one that was tried.
pub(super) fn count(registry: &Metrics, method: Method, worked: bool, took: Duration) {
    let outcome = if worked { "worked" } else { "no_answer" };
    let labels = [("method", method.name()), ("outcome", outcome)];
    metrics::counter!("partyline_path_attempts_total", &labels).increment(1);
    metrics::histogram!("partyline_path_attempt_seconds", &labels).record(took.as_secs_f64());
    // Perhaps nobody ever asks for them.
    registry.run_upkeep();
}
