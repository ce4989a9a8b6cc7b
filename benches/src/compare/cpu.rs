//! CPU clocks of processes, their memory, and how busy the machine is. Called by `load` at both
//! ends of a window, and by `visit` for memory.
//!
//! Never: counts a tick twice: a process clock holds all its threads, ended ones included.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::record::Window;

/// Ticks of /proc/stat a second, as Linux shows them to every program (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// All clocks at one moment.
pub(crate) struct Sample {
    at: Instant,
    clocks: BTreeMap<String, f64>,
    own: f64,
    idle: f64,
    steal: f64,
    cpus: f64,
}

impl Sample {
    pub(crate) fn take(clocks: &BTreeMap<String, Vec<i32>>) -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (idle, steal, cpus) = machine(&stat);
        let clocks = clocks.iter().map(|(name, pids)| {
            (name.clone(), pids.iter().map(|pid| process_s(*pid)).sum::<f64>())
        });
        let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        let own = own.map_or(0.0, |spent| Duration::from(spent).as_secs_f64());
        Self { at: Instant::now(), clocks: clocks.collect(), own, idle, steal, cpus }
    }

    /// Writes what lies between two samples into a window.
    pub(crate) fn until(&self, end: &Self, window: &mut Window) {
        let seconds = (end.at - self.at).as_secs_f64();
        window.seconds = seconds;
        let spent = |(name, after): (&String, &f64)| {
            (name.clone(), after - self.clocks.get(name).copied().unwrap_or(*after))
        };
        window.cpu_s = end.clocks.iter().map(spent).collect();
        let ours = window.cpu_s.values().sum::<f64>() + end.own - self.own;
        window.cpu_s.insert("load".to_owned(), end.own - self.own);
        let capacity = seconds * self.cpus;
        window.steal = (end.steal - self.steal) / capacity;
        let busy = capacity - (end.idle - self.idle) - (end.steal - self.steal);
        window.other = ((busy - ours) / capacity).max(0.0);
    }
}

/// Seconds that the whole machine was idle and was stolen from, and its number of CPUs.
fn machine(stat: &str) -> (f64, f64, f64) {
    let numbers = |line: &str| -> Vec<f64> {
        line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect()
    };
    let all = stat.lines().find(|line| line.starts_with("cpu ")).map(numbers).unwrap_or_default();
    let column = |index: usize| all.get(index).copied().unwrap_or_default() / TICKS_A_SECOND;
    let cpus = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
    (column(3) + column(4), column(7), cpus.max(1) as f64)
}

/// User and system seconds of one process.
pub(crate) fn process_s(pid: i32) -> f64 {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid));
    let spent = clock.and_then(clock_gettime);
    spent.map_or(0.0, |spent| Duration::from(spent).as_secs_f64())
}

/// A process and everything that it started.
pub(crate) fn tree(root: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut waiting = vec![i32::try_from(root).unwrap_or_default()];
    while let Some(pid) = waiting.pop() {
        found.push(pid);
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    found
}

/// Resident memory of these processes in KiB.
pub(crate) fn resident_kib(pids: &[i32]) -> f64 {
    let one = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.to_owned();
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    pids.iter().filter_map(one).sum()
}

/// Does `work` on one CPU: threads and processes that it starts stay there.
pub(crate) fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> T) -> nix::Result<T> {
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread)?;
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(this_thread, &only)?;
    let done = work();
    sched_setaffinity(this_thread, &before)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_are_read_from_the_first_line() {
        let stat = "cpu  100 0 50 300 200 1 2 50 0 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n";
        assert_eq!(machine(stat), (5.0, 0.5, 2.0));
    }

    #[test]
    fn a_process_is_in_its_own_tree_and_has_memory() {
        let own = std::process::id();
        let pids = tree(own);
        assert!(pids.contains(&i32::try_from(own).unwrap()));
        assert!(resident_kib(&pids) > 0.0);
        assert!(process_s(i32::try_from(own).unwrap()) > 0.0);
    }

    #[test]
    fn a_thread_has_its_cpus_back_after_work_on_one() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let first = (0..CpuSet::count()).find(|cpu| before.is_set(*cpu).unwrap()).unwrap();
        let inside = on_cpu(first, || sched_getaffinity(Pid::from_raw(0)).unwrap()).unwrap();
        let count = |set: &CpuSet| (0..CpuSet::count()).filter(|c| set.is_set(*c).unwrap()).count();
        assert_eq!(count(&inside), 1);
        assert_eq!(count(&sched_getaffinity(Pid::from_raw(0)).unwrap()), count(&before));
    }
}
