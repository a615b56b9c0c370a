//! The exporter's thread: collects finished spans into requests, reads the metrics now and then, and sends both.
//!
//! Nothing else waits for it. While the collector does not answer, at most one batch is kept for a retry and the queue fills
//! up to its bound; metrics are read only when they can be sent.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::InstrumentationScope,
    metrics::v1::{ResourceMetrics, ScopeMetrics},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SpanData};
use prost::Message as _;
use tokio::{
    sync::oneshot,
    time::{Interval, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    client::{Client, ExportError, METRICS_PATH, TRACES_PATH},
    health::Health,
    metrics::{self, Period, attribute},
    redact::redact_span,
    settings::OtlpSettings,
    traces::{MAX_BATCH, QueuedSpans},
};
use crate::Metrics;

/// How long the last export at the end of the program may take.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts the spans that were not exported.
const DROPPED_SPANS: &str = "partyline_telemetry_dropped_spans_total";

/// Renders the metrics to export, in the Prometheus text format; `None` for the process's registry.
pub(super) type MetricsSource = Arc<Mutex<Option<Box<dyn Fn() -> String + Send>>>>;

/// Everything the exporter's thread owns.
pub(super) struct Worker {
    client: Client,
    health: Health,
    queue: QueuedSpans,
    /// The request being collected, or the one that failed and is to be sent again.
    batch: Vec<SpanData>,
    source: MetricsSource,
    resource: Resource,
    started: u64,
    with_addresses: bool,
    span_interval: Duration,
    metric_interval: Duration,
}

impl Worker {
    pub(super) fn new(
        settings: &OtlpSettings,
        client: Client,
        queue: QueuedSpans,
        source: MetricsSource,
    ) -> Self {
        ::metrics::describe_counter!(DROPPED_SPANS, "Spans that were not exported over OTLP.");
        Self {
            client,
            health: Health::default(),
            queue,
            batch: Vec::new(),
            source,
            resource: resource(&settings.service),
            started: unix_nanoseconds(),
            with_addresses: settings.with_addresses,
            span_interval: settings.span_interval,
            metric_interval: settings.metric_interval,
        }
    }

    /// Exports until the other end of `stop` is dropped, then once more.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut span_ticks = ticks(self.span_interval);
        let mut metric_ticks = ticks(self.metric_interval);
        let batch_ready = Arc::clone(&self.queue.batch_ready);
        loop {
            let retry_at = self.health.retry_at();
            let waits = !self.health.may_try(Instant::now());
            tokio::select! {
                _ = &mut stop => break,
                () = sleep_until(retry_at.unwrap_or_else(Instant::now).into()), if waits => {}
                _ = span_ticks.tick(), if !waits => self.export_spans().await,
                () = batch_ready.notified(), if !waits => self.export_spans().await,
                _ = metric_ticks.tick(), if !waits => self.export_metrics().await,
            }
        }
        let last = async {
            self.export_spans().await;
            self.export_metrics().await;
        };
        let _ = timeout(FLUSH_TIMEOUT, last).await;
    }

    /// Sends everything that is queued, in batches, until one fails.
    async fn export_spans(&mut self) {
        loop {
            while self.batch.len() < MAX_BATCH
                && let Ok(span) = self.queue.receiver.try_recv()
            {
                self.batch.push(span);
            }
            if self.batch.is_empty() {
                return;
            }
            let body = self.trace_request().encode_to_vec();
            let sent = self.client.post(TRACES_PATH, body).await;
            if !sent.as_ref().is_err_and(ExportError::is_retryable) {
                let count = self.batch.len() as u64;
                self.queue.dropped.fetch_add(if sent.is_err() { count } else { 0 }, Ordering::Relaxed);
                self.batch.clear();
            }
            if !self.on_sent(sent) {
                return;
            }
        }
    }

    async fn export_metrics(&mut self) {
        ::metrics::counter!(DROPPED_SPANS).absolute(self.queue.dropped.load(Ordering::Relaxed));
        let text = match &*self.source.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(render) => Some(render()),
            None => Metrics::installed().map(|registry| registry.render()),
        };
        let period = Period { start: self.started, end: unix_nanoseconds() };
        let metrics = metrics::parse(&text.unwrap_or_default(), period);
        if metrics.is_empty() {
            return;
        }
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] };
        let sent = self.client.post(METRICS_PATH, request.encode_to_vec()).await;
        self.on_sent(sent);
    }

    fn on_sent(&mut self, sent: Result<(), ExportError>) -> bool {
        match sent {
            Ok(()) => self.health.on_success(self.queue.dropped.load(Ordering::Relaxed)),
            Err(ref error) => self.health.on_failure(Instant::now(), error),
        }
        sent.is_ok()
    }

    fn trace_request(&self) -> ExportTraceServiceRequest {
        let spans = self.batch.iter().map(|span| {
            let mut span = Span::from(span.clone());
            if !self.with_addresses {
                redact_span(&mut span);
            }
            span
        });
        let scope_spans =
            vec![ScopeSpans { scope: Some(scope()), spans: spans.collect(), ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What all spans and metrics of this process have in common. The instance id tells apart programs of the same name.
fn resource(service: &str) -> Resource {
    let attributes = vec![
        attribute("service.name", service),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", &RandomIdGenerator::default().new_trace_id().to_string()),
        attribute("os.type", std::env::consts::OS),
    ];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "partyline".to_owned(), ..InstrumentationScope::default() }
}

fn unix_nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
