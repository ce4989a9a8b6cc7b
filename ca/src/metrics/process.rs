//! The process metrics that every Prometheus client shows, read from /proc/self at each scrape.
//!
//! Never: fails a scrape; what cannot be read is left out.

// SPDX-License-Identifier: Apache-2.0

use std::fs;

use prometheus::core::{Collector as Collect, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// USER_HZ: the unit of times in /proc, 100 on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// x86-64 and arm64 Debian kernels; RSS in /proc/self/stat counts these.
const PAGE_BYTES: f64 = 4096.0;

pub(super) struct Collector {
    cpu: Counter,
    gauges: [Gauge; 5],
}

impl Collector {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "User and system CPU time spent in seconds.",
            )?,
            gauges: [
                Gauge::new("process_resident_memory_bytes", "Resident memory size in bytes.")?,
                Gauge::new("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
                Gauge::new("process_threads", "Number of OS threads in the process.")?,
                Gauge::new("process_open_fds", "Number of open file descriptors.")?,
                Gauge::new("process_start_time_seconds", "Start of the process in Unix time.")?,
            ],
        })
    }
}

impl Collect for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(Collect::desc).chain(self.cpu.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Fields are counted from behind the command's name, which may hold spaces (proc(5)).
        let fields: Vec<f64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| {
                rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
            })
            .unwrap_or_default();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
        let spent = (field(14) + field(15)) / TICKS_PER_SECOND;
        self.cpu.inc_by((spent - self.cpu.get()).max(0.0));
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot =
            boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let start = boot.unwrap_or(0.0) + field(22) / TICKS_PER_SECOND;
        let values = [field(24) * PAGE_BYTES, field(23), field(20), open as f64, start];
        self.gauges.iter().zip(values).for_each(|(gauge, value)| gauge.set(value));
        self.gauges.iter().flat_map(Collect::collect).chain(self.cpu.collect()).collect()
    }
}
