//! An OTLP/HTTP receiver for protobuf bodies on loopback. It decodes requests with the message types that OpenTelemetry
//! publishes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::any_value::Value,
    metrics::v1::{Metric, metric::Data, number_data_point},
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message as _;

/// Time limit of [`Collector::wait_for`].
const DEADLINE: Duration = Duration::from_secs(60);

/// The telemetry received, each item with the name of its service.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Spans in order of arrival.
    pub spans: Vec<(String, Span)>,
    /// Metrics in order of arrival. A metric appears again with each export.
    pub metrics: Vec<(String, Metric)>,
}

impl Received {
    /// Returns the spans with that name.
    pub fn spans_named(&self, name: &str) -> impl Iterator<Item = &Span> {
        self.spans.iter().map(|(_, span)| span).filter(move |span| span.name == name)
    }

    /// Returns the latest value of a gauge or counter without labels.
    #[must_use]
    pub fn newest_value(&self, name: &str) -> Option<i64> {
        let (_, metric) = self.metrics.iter().rev().find(|(_, metric)| metric.name == name)?;
        let points = match metric.data.as_ref()? {
            Data::Gauge(gauge) => &gauge.data_points,
            Data::Sum(sum) => &sum.data_points,
            _ => return None,
        };
        match points.first()?.value? {
            number_data_point::Value::AsInt(value) => Some(value),
            number_data_point::Value::AsDouble(_) => None,
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Received>,
    changed: Condvar,
    stopped: AtomicBool,
}

/// A running receiver. It stops when dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Starts to listen on a free port.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, shared) = (listener.local_addr()?, Arc::new(Shared::default()));
        let accepting = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if accepting.stopped.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Returns the endpoint to configure in the exporter.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the telemetry received satisfies a condition, and returns it.
    ///
    /// # Errors
    /// Returns an error if it does not within a minute.
    pub fn wait_for(&self, condition: impl Fn(&Received) -> bool) -> Result<Received> {
        let received = self.shared.received.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.shared.changed.wait_timeout_while(received, DEADLINE, |received| !condition(received));
        let (received, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let names = received.spans.iter().map(|(service, span)| format!("{service}: {}", span.name));
            bail!("not everything arrived; spans: {:?}", names.collect::<Vec<_>>());
        }
        Ok(received.clone())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let taken = read_request(&mut stream).and_then(|(path, body)| self.take(&path, &body));
        let status = if taken.is_ok() { "200 OK" } else { "400 Bad Request" };
        // A client that has closed the connection misses the response.
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }

    fn take(&self, path: &str, body: &[u8]) -> Result<()> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            "/v1/traces" => {
                for resource in ExportTraceServiceRequest::decode(body)?.resource_spans {
                    let service = service_name(resource.resource.as_ref());
                    let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                    received.spans.extend(spans.map(|span| (service.clone(), span)));
                }
            }
            "/v1/metrics" => {
                for resource in ExportMetricsServiceRequest::decode(body)?.resource_metrics {
                    let service = service_name(resource.resource.as_ref());
                    let metrics = resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
                    received.metrics.extend(metrics.map(|metric| (service.clone(), metric)));
                }
            }
            other => bail!("nothing is received at {other}"),
        }
        self.changed.notify_all();
        Ok(())
    }
}

fn service_name(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let name = attributes.iter().find(|attribute| attribute.key == "service.name");
    match name.and_then(|name| name.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}

/// Reads a request with a content length, and returns its path and body.
fn read_request(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut chunk)? {
            0 => bail!("the client hung up"),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&bytes[..end])?.to_ascii_lowercase();
        let path = head.split(' ').nth(1).context("a path")?.to_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("a length")?.trim().parse()?;
        if bytes.len() >= end + 4 + length {
            return Ok((path, bytes[end + 4..][..length].to_vec()));
        }
    }
}
