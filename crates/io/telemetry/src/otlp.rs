//! Export of spans and metrics to an OpenTelemetry collector (OTLP/HTTP, protobuf).
//!
//! `tracing` spans become OpenTelemetry spans in a layer ([`traces`]), which puts the finished ones into a bounded queue; a
//! thread of its own ([`worker`]) encodes and posts them, and reads the metrics at intervals. The messages and the span
//! processing are those of the `opentelemetry` crates. Their exporters are not used: the SDK's metric types cannot be
//! built from an existing registry, and drops, retries and redaction are decided here.

mod client;
mod health;
mod metrics;
mod redact;
mod settings;
mod traces;
mod worker;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use tokio::sync::oneshot;
use tracing_subscriber::{Layer, Registry};

pub use settings::{OtlpError, OtlpSettings};
use {
    client::Client,
    traces::SpanQueue,
    worker::{FLUSH_TIMEOUT, MetricsSource, Worker},
};

/// A running exporter. Dropping it exports what is queued, which takes [`FLUSH_TIMEOUT`] at most.
pub(crate) struct Otlp {
    source: MetricsSource,
    /// Dropped to end the worker.
    stop: Option<oneshot::Sender<()>>,
    /// Disconnected by the worker when it has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl std::fmt::Debug for Otlp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Otlp").finish_non_exhaustive()
    }
}

impl Otlp {
    /// Starts the exporter's thread. Spans reach it once the layer is installed.
    pub(crate) fn start(
        settings: OtlpSettings,
    ) -> Result<(Self, Box<dyn Layer<Registry> + Send + Sync>), OtlpError> {
        let (queue, queued) = SpanQueue::new();
        let layer = traces::layer(&settings.filter, settings.sample_ratio, queue)?.boxed();
        let source = MetricsSource::default();
        let worker = Worker::new(&settings, Client::new(&settings)?, queued, Arc::clone(&source));
        let (stop, stopped) = oneshot::channel();
        let ended = spawn(worker, stopped)?;
        Ok((Self { source, stop: Some(stop), ended: Mutex::new(ended) }, layer))
    }

    /// Exports what `render` returns instead of the process's registry.
    pub(crate) fn export_metrics(&self, render: impl Fn() -> String + Send + 'static) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(render));
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Runs the worker on a thread and a runtime of its own, so that it neither delays the program nor needs one.
fn spawn(worker: Worker, stop: oneshot::Receiver<()>) -> io::Result<mpsc::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (running, ended) = mpsc::channel();
    thread::Builder::new().name("otlp".to_owned()).spawn(move || {
        runtime.block_on(worker.run(stop));
        // Name look-ups run on threads that may outlive the worker; the program does not wait for them.
        runtime.shutdown_background();
        drop(running);
    })?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use opentelemetry_proto::tonic::{
        collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
        trace::v1::Span,
    };
    use prost::Message as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn settings(listener: &TcpListener) -> OtlpSettings {
        let endpoint = format!("http://{}/base", listener.local_addr().unwrap());
        // Nothing leaves before the exporter ends, so the tests do not depend on time.
        OtlpSettings::with_endpoint(&endpoint)
            .unwrap()
            .unwrap()
            .with_intervals(HOUR, HOUR)
            .with_service("test")
    }

    /// Reads one request and answers it with a status.
    fn answer(stream: &mut TcpStream, status: u16) -> (String, Vec<u8>) {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut chunk).unwrap();
            bytes.extend_from_slice(&chunk[..count]);
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
            let (_, length) = head.split_once("content-length: ").unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if bytes.len() >= end + 4 + length {
                write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").unwrap();
                return (head, bytes.split_off(end + 4));
            }
        }
    }

    /// Serves a collector that gives each request the next of the statuses, and returns what it was sent.
    fn collect(listener: TcpListener, statuses: Vec<u16>) -> thread::JoinHandle<Vec<(String, Vec<u8>)>> {
        thread::spawn(move || {
            statuses.into_iter().map(|status| answer(&mut listener.accept().unwrap().0, status)).collect()
        })
    }

    fn record(settings: OtlpSettings, act: impl FnOnce(&Otlp)) {
        let (otlp, layer) = Otlp::start(settings).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || act(&otlp));
    }

    fn spans(body: &[u8]) -> Vec<Span> {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        request
            .resource_spans
            .into_iter()
            .flat_map(|spans| spans.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    #[test]
    fn spans_and_metrics_arrive_without_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = settings(&listener);
        let collector = collect(listener, vec![200, 200]);
        record(settings, |otlp| {
            otlp.export_metrics(|| {
                "# TYPE partyline_test_total counter\npartyline_test_total 3\n".to_owned()
            });
            let id = "00112233445566778899aabbccddeeff";
            tracing::debug_span!("connection_attempt", trace_id = id, remote = "192.0.2.1:5").in_scope(
                || {
                    tracing::debug!(path = "Direct([2001:db8::1]:7)", "path validated");
                },
            );
        });
        let requests = collector.join().unwrap();
        let span = &spans(&requests[0].1)[0];
        assert!(requests[0].0.starts_with("post /base/v1/traces "), "{}", requests[0].0);
        assert!(requests[0].0.contains("content-type: application/x-protobuf"));
        assert_eq!(span.name, "connection_attempt");
        assert_eq!(
            span.trace_id,
            [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
        );
        assert_eq!(span.events[0].name, "path validated");
        let text = format!("{span:?}");
        assert!(!text.contains("192.0.2.1") && !text.contains("2001:db8"), "{text}");
        assert!(requests[1].0.starts_with("post /base/v1/metrics "), "{}", requests[1].0);
        let request = ExportMetricsServiceRequest::decode(&*requests[1].1).unwrap();
        assert!(format!("{request:?}").contains("partyline_test_total"), "{request:?}");
    }

    #[test]
    fn addresses_are_exported_when_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = OtlpSettings { with_addresses: true, ..settings(&listener) };
        let collector = collect(listener, vec![200]);
        record(settings, |otlp| {
            otlp.export_metrics(String::new);
            drop(tracing::debug_span!("span", remote = "192.0.2.1:5"));
        });
        let (_, body) = &collector.join().unwrap()[0];
        assert!(format!("{:?}", spans(body)).contains("192.0.2.1:5"));
    }

    #[test]
    fn dead_collector_neither_blocks_the_program_nor_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = settings(&listener);
        drop(listener);
        record(settings, |_| {
            (0..3 * traces::MAX_QUEUED_SPANS).for_each(|_| drop(tracing::debug_span!("span")));
        });
    }
}
