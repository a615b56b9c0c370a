//! Settings of the OTLP export, read from the variables that the OpenTelemetry specification names.

use std::{env, time::Duration};

use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
};

/// Base URL of the collector. Without it nothing is exported.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// `name=value` pairs separated by commas, percent-encoded, sent with each request.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// Only `http/protobuf` is supported.
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
/// Milliseconds a request may take.
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
/// `true` switches the export off.
const DISABLED: &str = "OTEL_SDK_DISABLED";
/// The `service.name` of the resource.
const SERVICE: &str = "OTEL_SERVICE_NAME";
/// Share of the traces to export, 0 to 1.
const SAMPLE_RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
/// Milliseconds between two exports of spans.
const SPAN_INTERVAL: &str = "OTEL_BSP_SCHEDULE_DELAY";
/// Milliseconds between two exports of metrics.
const METRIC_INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
/// Which spans and events to export, in the syntax of `EnvFilter`.
const FILTER: &str = "PARTYLINE_OTLP_FILTER";
/// `1` exports IP addresses as they are.
const ADDRESSES: &str = "PARTYLINE_OTLP_ADDRESSES";

const DEFAULT_FILTER: &str = "partyline=debug";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_SPAN_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_METRIC_INTERVAL: Duration = Duration::from_secs(60);

/// Bounds of all intervals and timeouts.
const DURATION_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);

/// Why the OTLP export is off although an endpoint is configured.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OtlpError {
    #[error("{value:?} is not the URL of an OTLP collector; it should look like http://127.0.0.1:4318")]
    Endpoint { value: String },
    #[error("{HEADERS} must be name=value pairs separated by commas")]
    Headers,
    #[error("{PROTOCOL} is {value:?}, but only http/protobuf is supported")]
    Protocol { value: String },
    #[error("{variable} is {value:?}, which is not a number in its range")]
    Number { variable: &'static str, value: String },
    #[error("{FILTER} is not a filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the exporter cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// How to export spans and metrics to an OpenTelemetry collector over OTLP/HTTP with protobuf bodies.
#[derive(Debug, Clone)]
pub struct OtlpSettings {
    /// Base URL, `http` or `https`; `/v1/traces` and `/v1/metrics` are appended.
    pub(super) endpoint: Uri,
    pub(super) headers: HeaderMap,
    pub(super) service: String,
    pub(super) filter: String,
    pub(super) with_addresses: bool,
    pub(super) sample_ratio: f64,
    pub(super) timeout: Duration,
    pub(super) span_interval: Duration,
    pub(super) metric_interval: Duration,
}

impl OtlpSettings {
    /// Returns the settings in the environment; `None` if no endpoint is configured or the export is disabled.
    ///
    /// # Errors
    /// A variable has a value that cannot be used.
    pub fn from_environment() -> Result<Option<Self>, OtlpError> {
        Self::from_variables(None, |name| env::var(name).ok())
    }

    /// Returns the settings in the environment with another endpoint.
    ///
    /// # Errors
    /// The endpoint or a variable has a value that cannot be used.
    pub fn with_endpoint(endpoint: &str) -> Result<Option<Self>, OtlpError> {
        Self::from_variables(Some(endpoint), |name| env::var(name).ok())
    }

    /// Exports spans and metrics at these intervals.
    #[must_use]
    pub fn with_intervals(self, spans: Duration, metrics: Duration) -> Self {
        Self { span_interval: spans, metric_interval: metrics, ..self }
    }

    /// Sets the `service.name` of the resource.
    #[must_use]
    pub fn with_service(self, name: &str) -> Self {
        Self { service: name.to_owned(), ..self }
    }

    fn from_variables(
        endpoint: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, OtlpError> {
        let variable = |name: &str| {
            variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        // A program whose flag falls back to the variable passes an empty variable on.
        let given = endpoint.map(str::trim).filter(|endpoint| !endpoint.is_empty()).map(str::to_owned);
        let Some(endpoint) = given.or_else(|| variable(ENDPOINT)) else {
            return Ok(None);
        };
        if variable(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        if let Some(value) = variable(PROTOCOL).filter(|value| value != "http/protobuf") {
            return Err(OtlpError::Protocol { value });
        }
        let duration = |name, default| milliseconds(name, variable(name), default);
        Ok(Some(Self {
            endpoint: parse_endpoint(&endpoint)?,
            headers: variable(HEADERS)
                .map_or(Some(HeaderMap::new()), |text| parse_headers(&text))
                .ok_or(OtlpError::Headers)?,
            service: variable(SERVICE).unwrap_or_else(program_name),
            filter: variable(FILTER).unwrap_or_else(|| DEFAULT_FILTER.to_owned()),
            with_addresses: variable(ADDRESSES).is_some_and(|value| value == "1" || value == "true"),
            sample_ratio: ratio(variable(SAMPLE_RATIO))?,
            timeout: duration(TIMEOUT, DEFAULT_TIMEOUT)?,
            span_interval: duration(SPAN_INTERVAL, DEFAULT_SPAN_INTERVAL)?,
            metric_interval: duration(METRIC_INTERVAL, DEFAULT_METRIC_INTERVAL)?,
        }))
    }
}

fn parse_endpoint(text: &str) -> Result<Uri, OtlpError> {
    let uri = text.trim_end_matches('/').parse::<Uri>().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .ok_or_else(|| OtlpError::Endpoint { value: text.to_owned() })
}

fn parse_headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let mut value = HeaderValue::from_bytes(&percent_decode(value.trim())?).ok()?;
        // Usually an API key; `Debug` must not print it.
        value.set_sensitive(true);
        headers.insert(name.trim().parse::<HeaderName>().ok()?, value);
    }
    Some(headers)
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

fn milliseconds(
    variable: &'static str,
    value: Option<String>,
    default: Duration,
) -> Result<Duration, OtlpError> {
    let Some(value) = value else { return Ok(default) };
    let duration = value.parse().ok().map(Duration::from_millis);
    duration.filter(|duration| DURATION_RANGE.contains(duration)).ok_or(OtlpError::Number { variable, value })
}

fn ratio(value: Option<String>) -> Result<f64, OtlpError> {
    let Some(value) = value else { return Ok(1.0) };
    let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or(OtlpError::Number { variable: SAMPLE_RATIO, value })
}

fn program_name() -> String {
    let path = env::current_exe().ok();
    let stem = path.as_ref().and_then(|path| path.file_stem()).and_then(|stem| stem.to_str());
    stem.unwrap_or("partyline").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<OtlpSettings>, OtlpError> {
        OtlpSettings::from_variables(None, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn export_is_off_without_an_endpoint() {
        assert!(settings(&[(SERVICE, "x")]).unwrap().is_none());
        assert!(settings(&[(ENDPOINT, " ")]).unwrap().is_none());
        assert!(OtlpSettings::from_variables(Some(""), |_| None).unwrap().is_none());
        assert!(settings(&[(ENDPOINT, "http://localhost:4318"), (DISABLED, "true")]).unwrap().is_none());
    }

    #[test]
    fn variables_of_the_specification_are_read() {
        let settings = settings(&[
            (ENDPOINT, "https://collector.example/otlp/"),
            (HEADERS, "authorization=Basic%20YQ==, x-tenant=party"),
            (SERVICE, "bens-laptop"),
            (SAMPLE_RATIO, "0.25"),
            (TIMEOUT, "1500"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.endpoint.path(), "/otlp");
        assert_eq!(settings.headers["authorization"], "Basic YQ==");
        assert_eq!(settings.headers["x-tenant"], "party");
        assert_eq!((settings.service.as_str(), settings.sample_ratio), ("bens-laptop", 0.25));
        assert_eq!(settings.timeout, Duration::from_millis(1500));
        assert!(!settings.with_addresses);
        assert!(!format!("{settings:?}").contains("YQ"), "header values are secret");
    }

    #[test]
    fn unusable_values_are_errors() {
        let with = |name, value| settings(&[(ENDPOINT, "http://localhost:4318"), (name, value)]);
        assert!(matches!(settings(&[(ENDPOINT, "localhost:4318")]), Err(OtlpError::Endpoint { .. })));
        assert!(matches!(with(PROTOCOL, "grpc"), Err(OtlpError::Protocol { .. })));
        assert!(matches!(with(HEADERS, "token"), Err(OtlpError::Headers)));
        assert!(matches!(with(HEADERS, "token=%zz"), Err(OtlpError::Headers)));
        assert!(matches!(with(SAMPLE_RATIO, "2"), Err(OtlpError::Number { .. })));
        assert!(matches!(with(SPAN_INTERVAL, "0"), Err(OtlpError::Number { .. })));
    }
}
