//! What the kernel says about this process, read from `/proc/self` at each scrape. Called by
//! `Metrics::render`.
//!
//! Never: reads another process, or fails a scrape because `/proc` is missing (the values then
//! stay as they were).

// SPDX-License-Identifier: Apache-2.0

use std::fs;

use prometheus::{Counter, Gauge, IntGauge, Registry};

use super::table;
use super::{counter, gauge, int_gauge};

/// Clock ticks per second in `/proc`: USER_HZ, part of the kernel's ABI on every architecture
/// that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct Process {
    cpu: Counter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    resident: IntGauge,
    virtual_size: IntGauge,
    start: Gauge,
    threads: IntGauge,
}

impl Process {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            cpu: counter(registry, table::CPU),
            open_fds: int_gauge(registry, table::OPEN_FDS),
            max_fds: int_gauge(registry, table::MAX_FDS),
            resident: int_gauge(registry, table::RESIDENT),
            virtual_size: int_gauge(registry, table::VIRTUAL),
            start: gauge(registry, table::START),
            threads: int_gauge(registry, table::THREADS),
        }
    }

    /// Callers hold the scrape lock: the CPU counter is advanced by a difference.
    pub(super) fn refresh(&self) {
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // The directory handle of this very listing is one of them.
            let open = entries.count().saturating_sub(1);
            self.open_fds.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        if let Some(limit) = read("/proc/self/limits").as_deref().and_then(max_open_files) {
            self.max_fds.set(limit);
        }
        if let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) {
            self.cpu.inc_by((stat.cpu_seconds - self.cpu.get()).max(0.0));
            self.threads.set(stat.threads);
            self.virtual_size.set(stat.virtual_bytes);
            if let Some(boot) = read("/proc/stat").as_deref().and_then(boot_time) {
                self.start.set(boot + stat.started_after_boot);
            }
        }
        if let Some(bytes) = read("/proc/self/status").as_deref().and_then(resident_bytes) {
            self.resident.set(bytes);
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[derive(Debug, PartialEq)]
pub(super) struct Stat {
    pub(super) cpu_seconds: f64,
    pub(super) threads: i64,
    pub(super) started_after_boot: f64,
    pub(super) virtual_bytes: i64,
}

impl Stat {
    /// proc(5): the command name may hold spaces and parentheses, so fields are counted from the
    /// last `)`; the first of them is field 3.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.get(text.rfind(')')? + 1..)?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let ticks = |number| field(number)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            threads: field(20)?.parse().ok()?,
            started_after_boot: ticks(22)? / TICKS_PER_SECOND,
            virtual_bytes: field(23)?.parse().ok()?,
        })
    }
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_bytes(status: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn max_open_files(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
