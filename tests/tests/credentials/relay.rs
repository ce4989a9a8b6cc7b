//! A TCP relay before the CA that can swallow its answers: what came from the caller reaches the
//! CA, what the CA says after the handshake does not come back.
//!
//! Never: looks into TLS.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Relay {
    address: SocketAddr,
    swallowing: Arc<AtomicBool>,
    /// Each change cuts every connection.
    cuts: watch::Sender<u64>,
}

impl Relay {
    pub(crate) async fn start(ca: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let swallowing = Arc::new(AtomicBool::new(false));
        let cuts = watch::Sender::new(0);
        let (swallow, cut) = (Arc::clone(&swallowing), cuts.subscribe());
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let (swallow, mut cut) = (Arc::clone(&swallow), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass_on(caller, ca, &swallow) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, swallowing, cuts }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn swallow_answers(&self) {
        self.swallowing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn cut_and_pass_on(&self) {
        self.swallowing.store(false, Ordering::SeqCst);
        self.cut();
    }
}

async fn pass_on(mut caller: TcpStream, ca: SocketAddr, swallow: &AtomicBool) {
    let Ok(mut ca) = TcpStream::connect(ca).await else { return };
    let (mut from_caller, mut from_ca) = ([0; 16 * 1024], [0; 16 * 1024]);
    // The caller's second flight follows the CA's first: from then on it is application data.
    let (mut ca_has_spoken, mut established) = (false, false);
    loop {
        tokio::select! {
            read = caller.read(&mut from_caller) => match read {
                Ok(count) if count > 0 => {
                    established |= ca_has_spoken;
                    if ca.write_all(&from_caller[..count]).await.is_err() { return }
                }
                _ => return,
            },
            read = ca.read(&mut from_ca) => match read {
                Ok(count) if count > 0 => {
                    ca_has_spoken = true;
                    let lost = established && swallow.load(Ordering::SeqCst);
                    if !lost && caller.write_all(&from_ca[..count]).await.is_err() { return }
                }
                _ => return,
            },
        }
    }
}
