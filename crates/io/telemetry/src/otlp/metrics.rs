//! From the Prometheus text format to OTLP metrics.
//!
//! Everything the programs count is available as Prometheus text already, be it from the registry or from the server's
//! `/metrics`, so the text is what gets exported: counters as cumulative monotonic sums, gauges as gauges, histograms as
//! histograms with explicit bounds. Summaries are not used by Partyline and are left out.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
        metric::Data, number_data_point,
    },
};

/// When counting began and when it was read, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period {
    pub(super) start: u64,
    pub(super) end: u64,
}

type Labels = Vec<(String, String)>;

/// Samples of one metric.
#[derive(Debug, Default)]
struct Family {
    kind: Kind,
    help: String,
    numbers: Vec<(Labels, f64)>,
    histograms: BTreeMap<Labels, Buckets>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Gauge,
    Counter,
    Histogram,
    Summary,
}

/// One histogram: cumulative counts by upper bound, as Prometheus has them.
#[derive(Debug, Default)]
struct Buckets {
    cumulative: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

/// Parses a page in the Prometheus text format. Lines that are not understood are skipped.
pub(super) fn parse(text: &str, period: Period) -> Vec<Metric> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            parse_comment(comment, &mut families);
        } else if let Some((name, labels, value)) = parse_sample(line) {
            add_sample(&mut families, name, labels, value);
        }
    }
    families.into_iter().filter_map(|(name, family)| family.into_metric(name, period)).collect()
}

fn parse_comment(comment: &str, families: &mut BTreeMap<String, Family>) {
    let mut words = comment.splitn(3, ' ');
    let (Some(keyword), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else { return };
    match keyword {
        "HELP" => families.entry(name.to_owned()).or_default().help = rest.to_owned(),
        "TYPE" => {
            families.entry(name.to_owned()).or_default().kind = match rest.trim() {
                "counter" => Kind::Counter,
                "histogram" => Kind::Histogram,
                "summary" => Kind::Summary,
                _ => Kind::Gauge,
            };
        }
        _ => {}
    }
}

fn parse_sample(line: &str) -> Option<(&str, Labels, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(labels) => parse_labels(labels)?,
        None => (Labels::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// Parses `name="value",...}` and returns the labels and what follows the brace.
fn parse_labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unescape(quoted)?;
        labels.push((name.to_owned(), value));
        rest = after;
    }
}

/// Reads up to the closing quote and returns the value and what follows it.
fn unescape(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            _ => value.push(letter),
        }
    }
    None
}

fn add_sample(families: &mut BTreeMap<String, Family>, name: &str, mut labels: Labels, value: f64) {
    for suffix in ["_bucket", "_sum", "_count"] {
        let Some(family) = name.strip_suffix(suffix).and_then(|base| families.get_mut(base)) else {
            continue;
        };
        match family.kind {
            Kind::Histogram => {}
            Kind::Summary => return,
            Kind::Counter | Kind::Gauge => continue,
        }
        let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
        let buckets = family.histograms.entry(labels).or_default();
        match suffix {
            "_bucket" => {
                buckets.cumulative.extend(bound.and_then(|le| le.parse().ok()).map(|le| (le, value as u64)))
            }
            "_sum" => buckets.sum = value,
            _ => buckets.count = value as u64,
        }
        return;
    }
    families.entry(name.to_owned()).or_default().numbers.push((labels, value));
}

impl Family {
    fn into_metric(self, name: String, period: Period) -> Option<Metric> {
        let cumulative = AggregationTemporality::Cumulative.into();
        let numbers =
            || self.numbers.iter().map(|(labels, value)| number(labels, *value, period)).collect::<Vec<_>>();
        let data = match self.kind {
            Kind::Counter => Data::Sum(Sum {
                data_points: numbers(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
            Kind::Histogram => {
                let points = self.histograms.iter().map(|(labels, buckets)| buckets.to_point(labels, period));
                Data::Histogram(Histogram {
                    data_points: points.collect(),
                    aggregation_temporality: cumulative,
                })
            }
            Kind::Summary => return None,
        };
        if self.numbers.is_empty() && self.histograms.is_empty() {
            return None;
        }
        let unit = unit(&name).to_owned();
        Some(Metric { name, description: self.help, unit, data: Some(data), ..Metric::default() })
    }
}

impl Buckets {
    fn to_point(&self, labels: &Labels, period: Period) -> HistogramDataPoint {
        // OTLP counts each bucket on its own, and the last one, without a bound, is implied.
        let counts = self
            .cumulative
            .iter()
            .scan(0, |below, (_, count)| Some(count.saturating_sub(std::mem::replace(below, *count))));
        let explicit_bounds =
            self.cumulative.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: period.start,
            time_unix_nano: period.end,
            count: self.count,
            sum: Some(self.sum),
            bucket_counts: counts.collect(),
            explicit_bounds: explicit_bounds.collect(),
            ..HistogramDataPoint::default()
        }
    }
}

fn number(labels: &Labels, value: f64, period: Period) -> NumberDataPoint {
    let is_integer = value.fract() == 0.0 && value.abs() < 9e15;
    let value = if is_integer {
        number_data_point::Value::AsInt(value as i64)
    } else {
        number_data_point::Value::AsDouble(value)
    };
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: period.start,
        time_unix_nano: period.end,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| attribute(name, value)).collect()
}

/// A string attribute.
pub(super) fn attribute(name: &str, value: &str) -> KeyValue {
    let value = Some(any_value::Value::StringValue(value.to_owned()));
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
}

/// The unit in UCUM, which Prometheus names end in.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    if name.ends_with("_seconds") {
        "s"
    } else if name.ends_with("_bytes") {
        "By"
    } else {
        "1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Period = Period { start: 1, end: 2 };

    fn metric(text: &str) -> Metric {
        let mut metrics = parse(text, PERIOD);
        assert_eq!(metrics.len(), 1, "{metrics:?}");
        metrics.remove(0)
    }

    #[test]
    fn counters_become_cumulative_sums_with_their_labels() {
        let text = "# HELP a_bytes_total Bytes sent.\n# TYPE a_bytes_total counter\na_bytes_total{direction=\"to \\\"b\\\"\"} 7\n";
        let metric = metric(text);
        assert_eq!(
            (metric.name.as_str(), metric.description.as_str(), metric.unit.as_str()),
            ("a_bytes_total", "Bytes sent.", "By")
        );
        let Some(Data::Sum(sum)) = metric.data else { panic!() };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        let point = &sum.data_points[0];
        assert_eq!(point.attributes, [attribute("direction", "to \"b\"")]);
        assert_eq!(point.value, Some(number_data_point::Value::AsInt(7)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
    }

    #[test]
    fn gauges_may_be_fractions() {
        let Some(Data::Gauge(gauge)) = metric("# TYPE depth gauge\ndepth 2.5 1700000000\n").data else {
            panic!()
        };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(2.5)));
    }

    #[test]
    fn histograms_become_counts_per_bucket() {
        let text = "# TYPE t_seconds histogram\nt_seconds_bucket{m=\"a\",le=\"0.1\"} 2\nt_seconds_bucket{m=\"a\",le=\"1\"} 5\n\
                    t_seconds_bucket{m=\"a\",le=\"+Inf\"} 6\nt_seconds_sum{m=\"a\"} 3.5\nt_seconds_count{m=\"a\"} 6\n";
        let Some(Data::Histogram(histogram)) = metric(text).data else { panic!() };
        let point = &histogram.data_points[0];
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!(point.bucket_counts, [2, 3, 1]);
        assert_eq!((point.count, point.sum), (6, Some(3.5)));
        assert_eq!(point.attributes, [attribute("m", "a")]);
    }

    #[test]
    fn summaries_and_broken_lines_are_skipped() {
        let text = "# TYPE s summary\ns_sum 1\ns_count 2\n# TYPE\nx{a=\"b\n{}\nname\nvalue x\n";
        assert_eq!(parse(text, PERIOD), []);
    }
}
