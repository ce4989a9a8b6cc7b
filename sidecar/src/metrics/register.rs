//! From a row of the table to a metric in the registry. Called by `Metrics::new`.
//!
//! Never: a metric that the table does not have.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{
    Counter, Gauge, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::table::{Kind, Row};

fn opts(row: Row) -> Opts {
    Opts::new(row.name, row.help)
}

const ROW_IS_VALID: &str = "the table's names and labels are valid and unique, tests render all";

macro_rules! registered {
    ($($function:ident -> $metric:ty, $kind:ident, $make:expr;)*) => {$(
        pub(super) fn $function(registry: &Registry, row: Row) -> $metric {
            debug_assert_eq!(row.kind, Kind::$kind, "{}", row.name);
            let make: fn(Row) -> prometheus::Result<$metric> = $make;
            let metric = make(row).expect(ROW_IS_VALID);
            registry.register(Box::new(metric.clone())).expect(ROW_IS_VALID);
            metric
        }
    )*};
}

registered! {
    counter -> Counter, Counter, |row| Counter::with_opts(opts(row));
    gauge -> Gauge, Gauge, |row| Gauge::with_opts(opts(row));
    int_gauge -> IntGauge, Gauge, |row| IntGauge::with_opts(opts(row));
    int_counter_vec -> IntCounterVec, Counter, |row| IntCounterVec::new(opts(row), row.labels);
    int_gauge_vec -> IntGaugeVec, Gauge, |row| IntGaugeVec::new(opts(row), row.labels);
}

pub(super) fn histogram_vec(
    registry: &Registry,
    row: Row,
    buckets: &[f64],
) -> prometheus::HistogramVec {
    debug_assert_eq!(row.kind, Kind::Histogram, "{}", row.name);
    let shape = HistogramOpts::from(opts(row)).buckets(buckets.to_vec());
    let metric = prometheus::HistogramVec::new(shape, row.labels).expect(ROW_IS_VALID);
    registry.register(Box::new(metric.clone())).expect(ROW_IS_VALID);
    metric
}
