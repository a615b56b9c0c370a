//! The metrics registry: what the `metrics` macros count, as text for Prometheus.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Upper bounds of histogram buckets in seconds, for everything named `*_seconds`.
const SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The process's registry.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// The registry; the first call makes the macros count into it. If another recorder was installed before, this
    /// one stays empty.
    #[must_use]
    pub fn install() -> Self {
        static REGISTRY: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = REGISTRY.get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            let _ = ::metrics::set_global_recorder(recorder);
            handle
        });
        Self(handle.clone())
    }

    /// Everything counted so far, in the Prometheus text format; [tidies up](Self::tidy), too.
    #[must_use]
    pub fn render(&self) -> String {
        self.tidy();
        self.0.render()
    }

    /// Puts what histograms have recorded into their buckets. Until then each record takes memory, so this or
    /// [`Self::render`] has to be called now and then.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

fn builder() -> PrometheusBuilder {
    let seconds = metrics_exporter_prometheus::Matcher::Suffix("_seconds".into());
    PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &SECONDS)
        .unwrap_or_else(|_| PrometheusBuilder::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
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
