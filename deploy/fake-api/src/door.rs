//! Further addresses of the same API server, at each of which requests can be held: one for each
//! client whose steps a test wants to put into an order of its own.
//!
//! Never: holds a watch, which waits anyway, or a request that came in by another door.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{FakeApi, Serving, serve};

/// An address of a [`FakeApi`]; it ends when it is dropped.
pub struct Door {
    address: SocketAddr,
    post: Arc<Post>,
    _serving: Serving,
}

/// Who stands at the door.
#[derive(Default)]
pub(crate) struct Post {
    /// How many more may pass before one is held. None: all.
    left: Mutex<Option<usize>>,
    /// Whether those that are held may go on.
    open: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

impl FakeApi {
    /// Another address, at which requests can be held.
    pub async fn door(&self) -> std::io::Result<Door> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, post) = (listener.local_addr()?, Arc::new(Post::default()));
        let serving = serve::accept(listener, Arc::clone(&self.inner), Some(Arc::clone(&post)));
        Ok(Door { address, post, _serving: Serving(tokio::spawn(serving)) })
    }
}

impl Door {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// After so many more requests, those that follow are held before anything of them is done.
    pub fn hold_after(&self, requests: usize) {
        self.post.open.send_replace(false);
        self.post.held.send_replace(0);
        *self.post.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(requests);
    }

    /// Resolves as soon as a request is held.
    pub async fn holds(&self) {
        // The sender is ours.
        let _ = self.post.held.subscribe().wait_for(|held| *held > 0).await;
    }

    /// Whoever is held goes on, and nobody is held any more.
    pub fn release(&self) {
        *self.post.left.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.post.open.send_replace(true);
    }
}

impl Post {
    /// Returns when this request may be done.
    pub(crate) async fn pass(&self) {
        let mut open = self.open.subscribe();
        match &mut *self.left.lock().unwrap_or_else(PoisonError::into_inner) {
            None => return,
            Some(0) => {}
            Some(left) => {
                *left -= 1;
                return;
            }
        }
        self.held.send_modify(|held| *held += 1);
        let _ = open.wait_for(|open| *open).await;
    }
}
