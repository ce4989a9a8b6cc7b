//! How the kernel schedules this process: as work in batches (SCHED_BATCH), which waits for its turn
//! instead of interrupting whoever runs. Nobody needs a certificate within the millisecond, and what the
//! disk says to one thread need not stop another in the middle of a signature. Called by `main` before
//! the first thread starts, so that all of them inherit it.
//!
//! Never: raises the priority that it was started with, or fails a start.

// SPDX-License-Identifier: Apache-2.0

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

const BATCH: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
/// Niceness 0 in the library's scale. It sets one together with the policy; ours is put back after.
const EVEN: u8 = 49;

/// From now on in batches, as far as the kernel lets us.
pub fn in_batches() {
    let nice = getpriority_process(None);
    let even = ThreadPriorityValue::try_from(EVEN).map(ThreadPriority::Crossplatform);
    // Where somebody was made nicer, going back to 0 is refused, and the policy is set all the same.
    let _ = even.map(|even| set_thread_priority_and_policy(thread_native_id(), even, BATCH));
    let _ = nice.and_then(|nice| setpriority_process(None, nice));
}

/// What could not be had, in one line.
pub fn missing() -> Option<String> {
    match thread_schedule_policy() {
        Ok(policy) if policy == BATCH => None,
        other => Some(format!(
            "an issue costs a tenth more CPU: the kernel did not set SCHED_BATCH, it says {other:?}; let seccomp allow sched_setscheduler"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_start_later_inherit_it_and_niceness_stays() {
        setpriority_process(None, 3).unwrap();
        assert!(missing().is_some());
        in_batches();
        assert_eq!(missing(), None);
        let inherited = std::thread::spawn(thread_schedule_policy).join().unwrap();
        assert_eq!(inherited.unwrap(), BATCH);
        assert_eq!(getpriority_process(None).unwrap(), 3);
    }
}
