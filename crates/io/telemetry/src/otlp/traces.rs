//! From `tracing` spans to a bounded queue of finished OpenTelemetry spans.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use opentelemetry::{
    Context,
    trace::{
        Link, SpanBuilder, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        Tracer, TracerProvider as _,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tokio::sync::{Notify, mpsc};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, ParseError, filter_fn},
    registry::LookupSpan,
};

/// The field that names the trace a span belongs to, in 32 hexadecimal digits.
const TRACE_ID_FIELD: &str = "trace_id";

/// Spans that only give log lines their context. They are entered for each input of a state machine, so a record of each
/// would bury the spans that stand for something. `tcp_connection` lasts as long as a session, for days, and the events of a
/// span are limited only when it ends, so that it would grow without a bound until then.
const CONTEXT_SPANS: [&str; 4] = ["party", "peer", "connection", "tcp_connection"];

/// Maximum number of finished spans waiting for export.
pub(super) const MAX_QUEUED_SPANS: usize = 2048;
/// Maximum number of spans in one request; as soon as as many wait, they are exported.
pub(super) const MAX_BATCH: usize = 512;
/// Maximum number of events kept with a span.
const MAX_EVENTS_PER_SPAN: u32 = 64;
/// Maximum number of attributes kept with a span or an event.
const MAX_ATTRIBUTES: u32 = 32;

/// Returns the layer that turns `tracing` spans which pass the filter into finished spans in `queue`.
pub(super) fn layer<S>(
    filter: &str,
    sample_ratio: f64,
    queue: SpanQueue,
) -> Result<impl Layer<S> + Send + Sync, ParseError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        // Decided by the trace id alone, so all programs that share a trace agree.
        .with_sampler(Sampler::TraceIdRatioBased(sample_ratio))
        .with_max_events_per_span(MAX_EVENTS_PER_SPAN)
        .with_max_attributes_per_span(MAX_ATTRIBUTES)
        .with_max_attributes_per_event(MAX_ATTRIBUTES)
        // The resource is added to each request by the worker.
        .with_resource(Resource::builder_empty().build())
        .build();
    let is_exported = filter_fn(|metadata: &Metadata<'_>| {
        !(metadata.is_span() && CONTEXT_SPANS.contains(&metadata.name()))
    });
    Ok(tracing_opentelemetry::layer()
        .with_tracer(SharedTraceTracer(provider.tracer("partyline")))
        .with_context_activation(false)
        .with_tracked_inactivity(false)
        .with_threads(false)
        .with_location(false)
        .with_filter(EnvFilter::try_new(filter)?.and(is_exported)))
}

/// A tracer that lets a span with a field `trace_id` join the trace of that id.
///
/// Programs that compute the same id export spans of the same trace without telling each other anything. Children of such
/// a span inherit its trace; a local parent of another trace becomes a link.
#[derive(Debug)]
struct SharedTraceTracer(SdkTracer);

impl Tracer for SharedTraceTracer {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Span {
        let local_parent = parent.span().span_context().clone();
        match shared_trace_id(&builder) {
            Some(trace_id) if trace_id != local_parent.trace_id() => {
                if local_parent.is_valid() {
                    builder.links.get_or_insert_default().push(Link::with_context(local_parent));
                }
                self.0.build_with_context(builder, &root_of(trace_id))
            }
            _ => self.0.build_with_context(builder, parent),
        }
    }
}

fn shared_trace_id(builder: &SpanBuilder) -> Option<TraceId> {
    let mut attributes = builder.attributes.iter().flatten();
    let value = attributes.find(|attribute| attribute.key.as_str() == TRACE_ID_FIELD)?.value.as_str();
    let is_id = value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    TraceId::from_hex(&value).ok().filter(|id| is_id && *id != TraceId::INVALID)
}

/// A remote parent is the only way to choose a trace id. [`SpanQueue`] takes this one out again, as no such span exists.
fn root_of(trace_id: TraceId) -> Context {
    let parent =
        SpanContext::new(trace_id, SpanId::from(1), TraceFlags::SAMPLED, true, TraceState::default());
    Context::new().with_remote_span_context(parent)
}

/// The producers' end of the bounded queue of finished spans. Pushing never waits; spans that do not fit are counted.
#[derive(Debug, Clone)]
pub(super) struct SpanQueue {
    sender: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
    batch_ready: Arc<Notify>,
}

/// The worker's end of the queue.
#[derive(Debug)]
pub(super) struct QueuedSpans {
    pub(super) receiver: mpsc::Receiver<SpanData>,
    /// Spans dropped because the queue was full, or because the collector rejected them.
    pub(super) dropped: Arc<AtomicU64>,
    /// Notified when [`MAX_BATCH`] spans wait.
    pub(super) batch_ready: Arc<Notify>,
}

impl SpanQueue {
    pub(super) fn new() -> (Self, QueuedSpans) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_SPANS);
        let (dropped, batch_ready) = (Arc::default(), Arc::new(Notify::new()));
        let queued =
            QueuedSpans { receiver, dropped: Arc::clone(&dropped), batch_ready: Arc::clone(&batch_ready) };
        (Self { sender, dropped, batch_ready }, queued)
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        if span.parent_span_is_remote {
            (span.parent_span_id, span.parent_span_is_remote) = (SpanId::INVALID, false);
        }
        if self.sender.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if self.sender.capacity() <= MAX_QUEUED_SPANS - MAX_BATCH {
            self.batch_ready.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, debug_span, trace_span};
    use tracing_subscriber::{Registry, layer::SubscriberExt as _};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn spans_of(act: impl FnOnce()) -> Vec<SpanData> {
        let (queue, mut queued) = SpanQueue::new();
        let subscriber = Registry::default().with(layer("partyline=debug", 1.0, queue).unwrap());
        tracing::subscriber::with_default(subscriber, act);
        std::iter::from_fn(|| queued.receiver.try_recv().ok()).collect()
    }

    fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
        spans.iter().find(|span| span.name == name).unwrap()
    }

    #[test]
    fn span_with_a_trace_id_field_starts_that_trace_and_its_children_follow() {
        let spans = spans_of(|| {
            let _outer = debug_span!("outer").entered();
            let attempt = debug_span!("connection_attempt", trace_id = ID, party = "p");
            attempt.in_scope(|| debug_span!("step").in_scope(|| debug!(reason = "first", "tried")));
        });
        let (outer, attempt, step) =
            (named(&spans, "outer"), named(&spans, "connection_attempt"), named(&spans, "step"));
        let trace_id = TraceId::from_hex(ID).unwrap();
        assert_eq!(attempt.span_context.trace_id(), trace_id);
        assert_eq!(attempt.parent_span_id, SpanId::INVALID);
        assert_eq!(attempt.links.links[0].span_context, outer.span_context);
        assert_eq!(step.span_context.trace_id(), trace_id);
        assert_eq!(step.parent_span_id, attempt.span_context.span_id());
        assert_eq!(step.events.events[0].name, "tried");
        assert_ne!(outer.span_context.trace_id(), trace_id);
    }

    #[test]
    fn two_programs_share_a_trace_by_its_id_alone() {
        let attempt = || spans_of(|| drop(debug_span!("connection_attempt", trace_id = ID)));
        let (first, second) = (attempt(), attempt());
        assert_eq!(first[0].span_context.trace_id(), second[0].span_context.trace_id());
        assert_ne!(first[0].span_context.span_id(), second[0].span_context.span_id());
    }

    #[test]
    fn malformed_trace_ids_are_ignored() {
        for id in ["", "xyz", "0123", "00000000000000000000000000000000", "+123456789abcdef0123456789abcdef"]
        {
            let spans = spans_of(|| drop(debug_span!("connection_attempt", trace_id = id)));
            assert!(spans[0].span_context.is_valid(), "{id}");
        }
    }

    #[test]
    fn context_spans_and_spans_outside_the_filter_are_not_exported() {
        let spans = spans_of(|| {
            let _attempt = debug_span!("connection_attempt", trace_id = ID).entered();
            let _peer = debug_span!("peer", peer = "ben").entered();
            let _connection = debug_span!("tcp_connection", transport = "tls").entered();
            let _packet = trace_span!("packet").entered();
            debug_span!(target: "hyper", "request").in_scope(|| debug!("kept with the attempt"));
        });
        assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["connection_attempt"]);
        assert_eq!(spans[0].events.events[0].name, "kept with the attempt");
    }

    #[test]
    fn full_queue_drops_spans_and_counts_them() {
        let (queue, queued) = SpanQueue::new();
        let subscriber = Registry::default().with(layer("partyline=debug", 1.0, queue).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            (0..MAX_QUEUED_SPANS + 3).for_each(|_| drop(debug_span!("span")));
        });
        assert_eq!(queued.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(queued.receiver.len(), MAX_QUEUED_SPANS);
    }
}
