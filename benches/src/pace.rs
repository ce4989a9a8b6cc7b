//! Many asks at once or by the clock, and how long they took. Called by `issuing`, `storm` and `stage`.
//!
//! Never: waits for an answer before the next ask is due.

// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Times in their order.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// In milliseconds, the time that this part of them did not exceed.
    pub(crate) fn ms(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * part) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

/// Asks `each` of `all`, `at_once` at a time; the first error ends it.
pub(crate) async fn at_once<T, F, R>(
    all: impl IntoIterator<Item = T>,
    at_once: usize,
    each: impl Fn(T) -> F,
    mut done: impl FnMut(usize),
) -> Result<Vec<R>>
where
    F: Future<Output = Result<R>> + Send + 'static,
    R: Send + 'static,
{
    let (mut tasks, mut answers) = (JoinSet::new(), Vec::new());
    for one in all {
        if tasks.len() >= at_once
            && let Some(answer) = tasks.join_next().await
        {
            answers.push(answer??);
            done(answers.len());
        }
        tasks.spawn(each(one));
    }
    while let Some(answer) = tasks.join_next().await {
        answers.push(answer??);
        done(answers.len());
    }
    Ok(answers)
}

/// Asks `each` of `all` at `rate` a second, whether or not earlier ones are answered; times count from
/// when an ask was due.
pub(crate) async fn by_the_clock<T, F, R>(
    all: impl IntoIterator<Item = T>,
    rate: f64,
    each: impl Fn(T) -> F,
    mut done: impl FnMut(usize),
) -> Result<Times>
where
    F: Future<Output = Result<R>> + Send + 'static,
{
    let (begin, mut tasks, mut times) = (Instant::now(), JoinSet::new(), Vec::new());
    for (nth, one) in all.into_iter().enumerate() {
        let due = begin + Duration::from_secs_f64(nth as f64 / rate);
        sleep_until(due).await;
        let asked = each(one);
        tasks.spawn(async move { asked.await.map(|_| due.elapsed()) });
        while let Some(answer) = tasks.try_join_next() {
            times.push(answer??);
            done(times.len());
        }
    }
    while let Some(answer) = tasks.join_next().await {
        times.push(answer??);
    }
    Ok(Times::new(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_smallest_to_the_largest() {
        let times = Times::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.ms(0.0), times.ms(0.99), times.ms(1.0)), (1.0, 99.0, 100.0));
        assert_eq!(Times::new(vec![]).ms(0.99), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_counts_from_when_the_ask_was_due() {
        let each = |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        };
        let begin = Instant::now();
        let times = by_the_clock([(); 10], 100.0, each, |_| ()).await.unwrap();
        assert_eq!((times.count(), times.ms(0.0)), (10, 1000.0));
        assert!(begin.elapsed() < Duration::from_secs(2), "nobody waited for another");
    }
}
