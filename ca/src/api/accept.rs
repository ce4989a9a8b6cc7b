//! The accepting loop of a door with few callers: so many at once, while further ones wait in the
//! kernel. `admin` and `ops` serve through it.
//!
//! Never: ends because an accept failed, or knows what is said at the door.

// SPDX-License-Identifier: Apache-2.0

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Stopping, stopped};

/// After a failed accept (no file descriptor left): long enough not to spin, short enough to
/// recover at once.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Gives each caller an answer of its own, `most` at once, until the process is to end.
pub(super) async fn each<C, A>(
    mut poll_accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<C>> + Send,
    most: usize,
    stopping: Stopping,
    answer: impl Fn(C) -> A + Send,
) where
    C: Send,
    A: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    let stopped = stopped(stopping);
    tokio::pin!(stopped);
    loop {
        let permit = permits.clone().acquire_owned().await.expect("this semaphore is never closed");
        let accepted = tokio::select! {
            accepted = poll_fn(&mut poll_accept) => accepted,
            () = &mut stopped => return,
        };
        let Ok(caller) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let answered = answer(caller);
        tokio::spawn(async move {
            let _permit = permit;
            answered.await;
        });
    }
}
