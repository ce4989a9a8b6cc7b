//! A capture that runs: a thread that empties the packet socket into analysis and memory.
//! Called by the demo and the suites.
//! Never: reports before it has read all that crossed the wire before the question.

// SPDX-License-Identifier: Apache-2.0

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::analysis::Analysis;
use super::pcap::{Kept, PcapSummary};
use super::report::WireReport;
use super::socket::{PacketSocket, What};
use crate::lab::Lab;
use crate::link::MARKER_ADDRESS;

/// What may wait for the analysis: half a second of 2 Gbit/s. The kernel takes it only as it is needed.
const QUEUE_BYTES: usize = 128 * 1024 * 1024;

/// Frames kept for a file: enough for minutes of a demo. A suite that wants a whole transfer asks for more.
pub const KEEP_DEFAULT_BYTES: usize = 64 * 1024 * 1024;

/// Shorter strings would be found in ciphertext by chance: 8 random bytes are not.
const SHORTEST_CANARY: usize = 8;

/// Searching costs one pass over the bytes for each.
const MOST_CANARIES: usize = 64;

/// A marker that was lost with a full queue is sent again after this time.
const MARKER_AGAIN: Duration = Duration::from_millis(50);

/// The queue holds 128 MiB at most, which a slow machine reads within seconds.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// The broadcast address of the marker's /30; nobody listens on port 9 (discard).
const MARKER_TARGET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 3), 9);

/// Every capture of this process has its own number: several may listen to one wire.
static CAPTURES: AtomicU64 = AtomicU64::new(1);

/// What to look for and how much to keep.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// Strings that should not be readable on the wire, at least 8 bytes each.
    pub canaries: Vec<Vec<u8>>,
    /// How many bytes of frames to keep for [`Capture::to_pcap`].
    pub keep_bytes: usize,
    /// How many bytes of frames may wait for the analysis (the host may allow less: see
    /// [`WireReport::dropped`]).
    pub queue_bytes: usize,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self { canaries: Vec::new(), keep_bytes: KEEP_DEFAULT_BYTES, queue_bytes: QUEUE_BYTES }
    }
}

impl CaptureOptions {
    /// Looks for these strings.
    pub fn canaries(strings: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self { canaries: strings.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    pub fn keep(mut self, bytes: usize) -> Self {
        self.keep_bytes = bytes;
        self
    }

    pub fn queue(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }
}

/// A running capture of everything that enters the bridge. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    id: u64,
    markers: AtomicU64,
    sender: UdpSocket,
    shared: Arc<Shared>,
    read: watch::Receiver<u64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    analysis: Analysis,
    kept: Kept,
    dropped: u64,
    failure: Option<String>,
}

impl Capture {
    /// Starts to capture. Frames that cross the wire after this has returned are seen.
    pub fn start(lab: &Lab, options: CaptureOptions) -> Result<Self> {
        let canaries = &options.canaries;
        ensure!(
            canaries.len() <= MOST_CANARIES && canaries.iter().all(|c| c.len() >= SHORTEST_CANARY),
            "a capture takes up to {MOST_CANARIES} canaries of at least {SHORTEST_CANARY} bytes each"
        );
        let tap = lab.tap();
        let (socket, sender) = lab.wire().run(|| {
            let sender = UdpSocket::bind((MARKER_ADDRESS, 0)).context("cannot bind the marker")?;
            sender.set_broadcast(true).context("cannot broadcast the marker")?;
            anyhow::Ok((PacketSocket::open(tap, options.queue_bytes)?, sender))
        })??;
        let state = State {
            analysis: Analysis::new(canaries),
            kept: Kept::new(options.keep_bytes),
            dropped: 0,
            failure: None,
        };
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), state: Mutex::new(state) });
        let id = CAPTURES.fetch_add(1, Ordering::Relaxed);
        let (told, read) = watch::channel(0);
        let thread = thread::Builder::new()
            .name("lab-capture".to_owned())
            .spawn({
                let shared = shared.clone();
                move || run(socket, id, &shared, &told)
            })
            .context("cannot start the capture's thread")?;
        Ok(Self { id, markers: AtomicU64::new(0), sender, shared, read, thread: Some(thread) })
    }

    /// The numbers of everything that crossed the wire before this call.
    pub async fn report(&self) -> Result<WireReport> {
        self.flush().await?;
        let state = self.shared.lock();
        let mut report = state.analysis.report();
        report.dropped = state.dropped;
        Ok(report)
    }

    /// Writes what was kept of everything that crossed the wire before this call.
    pub async fn to_pcap(&self, path: impl AsRef<Path>) -> Result<PcapSummary> {
        self.flush().await?;
        self.shared.lock().kept.write(path.as_ref())
    }

    /// Sends a marker and waits until the capture has read it: everything before it has been read too.
    async fn flush(&self) -> Result<()> {
        let marker = self.markers.fetch_add(1, Ordering::Relaxed) + 1;
        let mut read = self.read.clone();
        let deadline = Instant::now() + FLUSH_LIMIT;
        while Instant::now() < deadline {
            self.sender
                .send_to(&marker_text(self.id, marker), MARKER_TARGET)
                .context("cannot send the capture's marker")?;
            let arrived = read.wait_for(|newest| *newest >= marker);
            match timeout(MARKER_AGAIN, arrived).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => {
                    let failure = self.shared.lock().failure.clone().unwrap_or_default();
                    bail!("the capture has ended early: {failure}");
                }
                Err(_) => {}
            }
        }
        bail!("the capture did not catch up within {FLUSH_LIMIT:?}: the machine is too busy")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

fn run(mut socket: PacketSocket, id: u64, shared: &Shared, told: &watch::Sender<u64>) {
    let mut dropped = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let seen = match socket.next(dropped) {
            Ok(seen) => seen,
            Err(error) => {
                shared.lock().failure = Some(format!("{error:#}"));
                return;
            }
        };
        dropped = seen.dropped;
        match seen.what {
            What::Nothing => {}
            What::Frame(at, frame) => {
                let mut state = shared.lock();
                state.dropped = dropped;
                state.analysis.frame(frame);
                state.kept.frame(at, frame);
            }
            What::Marker(frame) => {
                shared.lock().dropped = dropped;
                if let Some(marker) = marker_of(id, frame) {
                    told.send_replace(marker);
                }
            }
        }
    }
}

fn marker_text(id: u64, marker: u64) -> [u8; 16] {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&id.to_be_bytes());
    text[8..].copy_from_slice(&marker.to_be_bytes());
    text
}

/// The marker's number if `frame` is one of this capture's own.
fn marker_of(id: u64, frame: &[u8]) -> Option<u64> {
    const HEADERS: usize = 14 + 20 + 8; // Ethernet, IPv4, UDP
    let text: [u8; 16] = frame.get(HEADERS..HEADERS + 16)?.try_into().ok()?;
    let marker = u64::from_be_bytes(text[8..].try_into().ok()?);
    (text[..8] == id.to_be_bytes()).then_some(marker)
}
