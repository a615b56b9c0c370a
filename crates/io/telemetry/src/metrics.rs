//! The metrics registry: what the `metrics` macros count, in the Prometheus text format.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the histogram buckets of all metrics named `*_seconds`.
const SECONDS_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static REGISTRY: OnceLock<PrometheusHandle> = OnceLock::new();

/// A handle to the process's registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Returns the registry. The first call makes the `metrics` macros count into it; if another recorder was installed
    /// before, this one stays empty.
    #[must_use]
    pub fn install() -> Self {
        let handle = REGISTRY.get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            let _ = ::metrics::set_global_recorder(recorder);
            handle
        });
        Self(handle.clone())
    }

    /// Returns the registry if it was installed.
    #[must_use]
    pub fn installed() -> Option<Self> {
        REGISTRY.get().cloned().map(Self)
    }

    /// Renders all metrics in the Prometheus text format, after moving histogram samples into their buckets.
    #[must_use]
    pub fn render(&self) -> String {
        self.run_upkeep();
        self.0.render()
    }

    /// Moves recorded histogram samples into their buckets. Until then each sample takes memory, so this or
    /// [`Self::render`] has to be called at least every few minutes.
    pub fn run_upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn builder() -> PrometheusBuilder {
    let seconds = Matcher::Suffix("_seconds".into());
    PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &SECONDS_BUCKETS)
        .unwrap_or_else(|_| PrometheusBuilder::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_gauges_and_histograms_are_rendered() {
        let metrics = Metrics::install();
        ::metrics::counter!("partyline_test_total", "kind" => "a\"b\n").increment(3);
        ::metrics::gauge!("partyline_test_depth").set(2.0);
        ::metrics::histogram!("partyline_test_seconds").record(0.003);
        let text = Metrics::install().render();
        assert_eq!(text, metrics.render());
        assert!(text.contains(r#"partyline_test_total{kind="a\"b\n"} 3"#), "{text}");
        assert!(text.contains("partyline_test_depth 2"), "{text}");
        assert!(text.contains(r#"partyline_test_seconds_bucket{le="0.005"} 1"#), "{text}");
    }
}
