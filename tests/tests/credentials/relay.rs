//! A TCP relay before the CA that can swallow its answers (what came from the caller reaches the
//! CA, what the CA says after the handshake does not come back), say nothing at all, or hang up; and
//! that remembers when somebody called.
//!
//! Never: looks into TLS.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) struct Relay {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Each change cuts every connection.
    cuts: watch::Sender<u64>,
    calls: Arc<Mutex<Vec<Instant>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    PassOn,
    SwallowAnswers,
    /// Connections are taken, and neither side hears of the other.
    Silence,
    HangUp,
}

impl Relay {
    pub(crate) async fn start(ca: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, cuts) = (watch::Sender::new(Mode::PassOn), watch::Sender::new(0));
        let (modes, cut, calls) = (mode.subscribe(), cuts.subscribe(), Arc::default());
        let called: Arc<Mutex<Vec<Instant>>> = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                called.lock().unwrap().push(Instant::now());
                if *modes.borrow() == Mode::HangUp {
                    continue;
                }
                let (modes, mut cut) = (modes.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass_on(caller, ca, &modes) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, mode, cuts, calls }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn swallow_answers(&self) {
        self.mode.send_replace(Mode::SwallowAnswers);
    }

    /// A black hole from now on, for connections that are there as for new ones.
    pub(crate) fn fall_silent(&self) {
        self.mode.send_replace(Mode::Silence);
    }

    pub(crate) fn hang_up(&self) {
        self.mode.send_replace(Mode::HangUp);
        self.cut();
    }

    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn cut_and_pass_on(&self) {
        self.mode.send_replace(Mode::PassOn);
        self.cut();
    }

    /// When somebody called since the last question.
    pub(crate) fn calls(&self) -> Vec<Instant> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

async fn pass_on(mut caller: TcpStream, ca: SocketAddr, modes: &watch::Receiver<Mode>) {
    let Ok(mut ca) = TcpStream::connect(ca).await else { return };
    let (mut from_caller, mut from_ca) = ([0; 16 * 1024], [0; 16 * 1024]);
    // The caller's second flight follows the CA's first: from then on it is application data.
    let (mut ca_has_spoken, mut established) = (false, false);
    loop {
        tokio::select! {
            read = caller.read(&mut from_caller) => match read {
                Ok(count) if count > 0 => {
                    if *modes.borrow() == Mode::Silence { continue }
                    established |= ca_has_spoken;
                    if ca.write_all(&from_caller[..count]).await.is_err() { return }
                }
                _ => return,
            },
            read = ca.read(&mut from_ca) => match read {
                Ok(count) if count > 0 => {
                    ca_has_spoken = true;
                    let mode = *modes.borrow();
                    let swallowed = established && mode == Mode::SwallowAnswers;
                    let lost = swallowed || mode == Mode::Silence;
                    if !lost && caller.write_all(&from_ca[..count]).await.is_err() { return }
                }
                _ => return,
            },
        }
    }
}
