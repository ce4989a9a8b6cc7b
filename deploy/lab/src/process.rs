//! A running program of a pod: its lines, its end, and its group's end. Made by `launch`.
//! Never: outlives its handle; the whole process group is killed when the handle is dropped or when the
//! program itself ends (a program that starts its own session escapes that: run it in the foreground).

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// Lines kept of each program: a suite's longest story has hundreds; older ones fall out.
const MAX_LINES: usize = 2_000;

/// A longer line is cut into pieces of this size, so that one program holds at most 2,000 x 16 KiB.
const MAX_LINE_BYTES: u64 = 16 * 1024;

/// After the program has ended its pipes may be held open by something that left its group.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// How many of the last lines an error message quotes.
const QUOTED_LINES: usize = 5;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// One line of a program's output, without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub stream: Stream,
    pub text: String,
}

/// A running program. Dropping it kills its process group.
#[derive(Debug)]
pub struct Proc {
    pid: Pid,
    label: String,
    shared: Arc<Shared>,
    waiter: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// How many lines have fallen out of `lines`.
    fallen: u64,
    open_streams: u8,
    exit: Option<ExitStatus>,
}

/// A place in a program's output: what comes after it is "new".
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Proc {
    pub(crate) fn new(mut child: Child, label: String, tee: Option<File>) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a PID above i32")?);
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(()) });
        let tee = tee.map(|file| Arc::new(Mutex::new(file)));
        let streams: [(Stream, Option<Box<dyn Read + Send>>); 2] = [
            (Stream::Out, child.stdout.take().map(|pipe| Box::new(pipe) as _)),
            (Stream::Err, child.stderr.take().map(|pipe| Box::new(pipe) as _)),
        ];
        for (stream, pipe) in streams {
            let Some(pipe) = pipe else { continue };
            shared.lock().open_streams += 1;
            let (shared, tee) = (shared.clone(), tee.clone());
            thread::spawn(move || read_lines(stream, pipe, &shared, tee.as_deref()));
        }
        let waiter = thread::spawn({
            let shared = shared.clone();
            move || await_end(child, pid, &shared)
        });
        Ok(Self { pid, label, shared, waiter: Some(waiter) })
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// All lines that are still held, both streams, in the order in which they were read.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lock().lines.iter().cloned().collect()
    }

    /// The held lines of one stream, joined by line ends.
    pub fn text(&self, stream: Stream) -> String {
        let state = self.shared.lock();
        let chosen = state.lines.iter().filter(|line| line.stream == stream);
        chosen.map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The end of the output so far: give it to [`Proc::wait_line_after`].
    pub fn mark(&self) -> Mark {
        let state = self.shared.lock();
        Mark(state.fallen + state.lines.len() as u64)
    }

    /// Waits until some line, old or new, contains `pattern`, and returns that line.
    pub async fn wait_line(&self, pattern: &str, limit: Duration) -> Result<String> {
        self.wait_line_after(Mark(0), pattern, limit).await
    }

    /// As [`Proc::wait_line`], but only lines after `mark` count.
    pub async fn wait_line_after(
        &self,
        mark: Mark,
        pattern: &str,
        limit: Duration,
    ) -> Result<String> {
        let mut changed = self.shared.changed.subscribe();
        let deadline = Instant::now() + limit;
        loop {
            let (found, ended) = {
                let state = self.shared.lock();
                (state.find(mark, pattern), state.is_over())
            };
            if let Some(text) = found {
                return Ok(text);
            }
            if ended {
                bail!("{}: ended before it said {pattern:?}; {}", self.label, self.last_words());
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                bail!(
                    "{}: did not say {pattern:?} within {limit:?}; {}",
                    self.label,
                    self.last_words()
                );
            }
        }
    }

    /// Waits for the program's end and (shortly) for the last of its output.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let mut changed = self.shared.changed.subscribe();
        let ended = changed.wait_for(|()| self.shared.lock().exit.is_some());
        if timeout(limit, ended).await.is_err() {
            bail!("{}: still runs after {limit:?}; {}", self.label, self.last_words());
        }
        let drained = changed.wait_for(|()| self.shared.lock().is_over());
        timeout(DRAIN_LIMIT, drained).await.ok();
        self.exit_status().ok_or_else(|| anyhow!("{}: no exit status", self.label))
    }

    /// Waits for the end and demands success.
    pub async fn wait_success(&self, limit: Duration) -> Result<()> {
        let status = self.wait(limit).await?;
        if !status.success() {
            bail!("{}: failed with {status}; {}", self.label, self.last_words());
        }
        Ok(())
    }

    /// Its exit status if it has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.shared.lock().exit
    }

    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// Kills the whole process group at once (SIGKILL).
    pub fn kill9(&self) {
        let state = self.shared.lock();
        if state.exit.is_none() {
            killpg(self.pid, Signal::SIGKILL).ok();
        }
    }

    /// Asks the program (not its children) to end: SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal to the program itself; nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        let state = self.shared.lock();
        if state.exit.is_none() {
            kill(self.pid, signal).ok();
        }
    }

    /// The last lines and the exit status in one line, for error messages.
    pub fn last_words(&self) -> String {
        let state = self.shared.lock();
        let skip = state.lines.len().saturating_sub(QUOTED_LINES);
        let quoted: Vec<&str> = state.lines.iter().skip(skip).map(|l| l.text.as_str()).collect();
        let fate =
            state.exit.map_or_else(|| "it runs".to_owned(), |exit| format!("it ended: {exit}"));
        if quoted.is_empty() {
            return format!("{fate}; it said nothing");
        }
        format!("{fate}; its last lines: {}", quoted.join(" | "))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill9();
        if let Some(waiter) = self.waiter.take() {
            waiter.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn change(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut self.lock());
        self.changed.send_replace(());
    }
}

impl State {
    fn find(&self, mark: Mark, pattern: &str) -> Option<String> {
        let skip = usize::try_from(mark.0.saturating_sub(self.fallen)).unwrap_or(usize::MAX);
        let mut fresh = self.lines.iter().skip(skip);
        fresh.find(|line| line.text.contains(pattern)).map(|line| line.text.clone())
    }

    fn is_over(&self) -> bool {
        self.exit.is_some() && self.open_streams == 0
    }

    fn push(&mut self, line: Line) {
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
            self.fallen += 1;
        }
        self.lines.push_back(line);
    }
}

/// Waits without reaping first, so that under the lock the PID is known to be this program's still:
/// neither a signal nor the group's kill can ever reach a stranger with a reused PID.
fn await_end(mut child: Child, pid: Pid, shared: &Shared) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), flags) == Err(nix::errno::Errno::EINTR) {}
    shared.change(|state| {
        killpg(pid, Signal::SIGKILL).ok();
        state.exit = child.wait().ok();
    });
}

fn read_lines(stream: Stream, pipe: impl Read, shared: &Shared, tee: Option<&Mutex<File>>) {
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if let Some(tee) = tee {
            tee.lock().expect("no holder of the lock panics").write_all(&bytes).ok();
        }
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
        shared.change(|state| state.push(Line { stream, text }));
    }
    shared.change(|state| state.open_streams -= 1);
}
