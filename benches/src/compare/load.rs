//! The generator in the pod: opens connections, asks, counts, and reads the CPU clocks at both ends
//! of its window. Called by `mod` for the hidden `play load`.
//!
//! Never: retries a request, or leaves one that is under way at the end of a window uncounted: what
//! has no answer within `ANSWER_LIMIT` after it is an error.

// SPDX-License-Identifier: Apache-2.0

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::cpu::Sample;
use super::pace::Pace;
use super::record::{Job, Kind, Window};
use super::serve::MESSAGE;
use super::stats::percentile;

/// What it says once all its connections are open, if it only holds them.
pub(crate) const HELD: &str = "HELD";

/// A connection or an answer that takes longer will not come: several lost SYNs are forgiven.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How many connections are opened at once before a window.
const OPENED_AT_ONCE: usize = 32;

/// After an error: long enough not to spin.
const PAUSE: Duration = Duration::from_millis(10);

/// One read of bulk.
const BULK_READ: usize = 256 * 1024;

/// The counters of a window, and the connections that wait for their next request.
struct Load {
    job: Job,
    in_window: Cell<bool>,
    is_over: Cell<bool>,
    done: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
    under_way: Cell<u64>,
    first_error: RefCell<Option<String>>,
    latencies_us: RefCell<Vec<u32>>,
    idle: RefCell<VecDeque<TcpStream>>,
    next_endpoint: Cell<usize>,
    /// Requests of the open loop that wait for a connection, with the time at which they were due.
    due: RefCell<VecDeque<Instant>>,
    has_due: Notify,
}

/// Runs one job to its end.
pub(crate) async fn perform(job: Job) -> Result<Window> {
    ensure!(!job.endpoints.is_empty(), "a job needs an endpoint");
    let load = Rc::new(Load::new(job));
    LocalSet::new().run_until(load.run()).await
}

impl Load {
    fn new(job: Job) -> Self {
        Self {
            job,
            in_window: Cell::new(false),
            is_over: Cell::new(false),
            done: Cell::default(),
            bytes: Cell::default(),
            errors: Cell::default(),
            under_way: Cell::default(),
            first_error: RefCell::default(),
            latencies_us: RefCell::default(),
            idle: RefCell::default(),
            next_endpoint: Cell::default(),
            due: RefCell::default(),
            has_due: Notify::new(),
        }
    }

    #[expect(clippy::print_stdout, reason = "a process of its own, whose output the stage reads")]
    async fn run(self: Rc<Self>) -> Result<Window> {
        let _held = self.open(self.job.held).await;
        match self.job.kind {
            Kind::Kept | Kind::Paced | Kind::Hold => {
                *self.idle.borrow_mut() = self.open(self.job.connections).await.into();
            }
            Kind::Bulk | Kind::Fresh | Kind::FreshPaced => {}
        }
        if self.job.kind == Kind::Hold {
            println!("{HELD} {}", self.errors.get());
            return pending().await;
        }
        self.start();
        sleep(Duration::from_millis(self.job.warm_ms)).await;
        let before = Sample::take(&self.job.clocks);
        self.in_window.set(true);
        sleep(Duration::from_millis(self.job.window_ms)).await;
        self.in_window.set(false);
        self.is_over.set(true);
        let after = Sample::take(&self.job.clocks);
        let mut window = Window { done: self.done.get(), ..Window::default() };
        before.until(&after, &mut window);
        self.settle().await;
        self.conclude(window)
    }

    /// Starts whoever asks.
    fn start(self: &Rc<Self>) {
        match self.job.kind {
            Kind::Bulk => self.spawn(self.job.connections, |load| load.read_bulk()),
            Kind::Kept => self.spawn(self.job.in_flight, |load| load.ask_again_and_again()),
            Kind::Fresh => self.spawn(self.job.in_flight, |load| load.connect_again_and_again()),
            Kind::Paced => {
                self.spawn(self.job.connections, |load| load.take_what_is_due());
                self.spawn(1, |load| load.schedule());
            }
            Kind::FreshPaced => self.spawn(1, |load| load.schedule()),
            Kind::Hold => {}
        }
    }

    fn spawn<F>(self: &Rc<Self>, tasks: usize, work: impl Fn(Rc<Self>) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        for _ in 0..tasks {
            spawn_local(work(Rc::clone(self)));
        }
    }

    /// Waits for the answers that are still to come; what does not come is an error.
    async fn settle(&self) {
        if self.job.kind == Kind::Bulk {
            return;
        }
        let deadline = Instant::now() + ANSWER_LIMIT;
        while self.under_way.get() > 0 && Instant::now() < deadline {
            sleep(PAUSE).await;
        }
        if self.under_way.get() > 0 {
            self.errors.set(self.errors.get() + self.under_way.get());
            self.note(|| format!("{} requests were not answered", self.under_way.get()));
        }
    }

    fn conclude(&self, mut window: Window) -> Result<Window> {
        let mut latencies = self.latencies_us.borrow_mut();
        latencies.sort_unstable();
        window.bytes = self.bytes.get();
        window.errors = self.errors.get();
        window.first_error = self.first_error.borrow().clone();
        if matches!(self.job.kind, Kind::Paced | Kind::FreshPaced) {
            // In an open loop the window's requests are those that were due in it.
            window.done = latencies.len() as u64;
        }
        window.p50_us = percentile(&latencies, 0.5);
        window.p99_us = percentile(&latencies, 0.99);
        window.max_us = latencies.last().copied();
        let is_empty = window.done == 0 && window.bytes == 0;
        let why = window.first_error.as_deref().unwrap_or("no error was seen");
        ensure!(!is_empty, "nothing was done in the window: {why}");
        Ok(window)
    }

    /// Opens so many connections, each asked once, so that it stands from end to end.
    async fn open(self: &Rc<Self>, number: usize) -> Vec<TcpStream> {
        let wanted = Rc::new(Cell::new(number));
        let opened = Rc::new(RefCell::new(Vec::with_capacity(number)));
        let mut openers = Vec::new();
        for _ in 0..OPENED_AT_ONCE.min(number) {
            let (load, wanted, opened) = (Rc::clone(self), Rc::clone(&wanted), Rc::clone(&opened));
            openers.push(spawn_local(async move {
                while let Some(left) = wanted.get().checked_sub(1) {
                    wanted.set(left);
                    match load.connect_and_ask().await {
                        Ok(stream) => opened.borrow_mut().push(stream),
                        Err(error) => load.fail(&error),
                    }
                }
            }));
        }
        for opener in openers {
            opener.await.ok();
        }
        opened.take()
    }

    async fn read_bulk(self: Rc<Self>) {
        let mut block = vec![0_u8; BULK_READ];
        while !self.is_over.get() {
            let mut stream = match self.connect().await {
                Ok(stream) => stream,
                Err(error) => {
                    self.fail(&error);
                    sleep(PAUSE).await;
                    continue;
                }
            };
            loop {
                match stream.read(&mut block).await {
                    Ok(0) => break self.fail(&anyhow::anyhow!("the stream ended")),
                    Ok(read) if self.in_window.get() => {
                        self.bytes.set(self.bytes.get() + read as u64);
                    }
                    Ok(_) => {}
                    Err(error) => break self.fail(&error.into()),
                }
            }
        }
    }

    async fn ask_again_and_again(self: Rc<Self>) {
        while !self.is_over.get() {
            let waiting = self.idle.borrow_mut().pop_front();
            self.enter();
            let from = Instant::now();
            let asked = match waiting {
                Some(mut stream) => ask(&mut stream).await.map(|()| stream),
                None => self.connect_and_ask().await,
            };
            if let Some(stream) = self.leave(from, asked).await {
                self.idle.borrow_mut().push_back(stream);
            }
        }
    }

    async fn connect_again_and_again(self: Rc<Self>) {
        while !self.is_over.get() {
            self.enter();
            let from = Instant::now();
            let asked = self.connect_and_ask().await;
            drop(self.leave(from, asked).await);
        }
    }

    /// Sends each request when it is due, however late the answers are.
    async fn schedule(self: Rc<Self>) {
        let mut pace = match Pace::new(self.job.rate) {
            Ok(pace) => pace,
            Err(error) => return self.fail(&error),
        };
        while let Ok(due) = pace.next().await {
            if self.is_over.get() {
                return;
            }
            if self.job.kind == Kind::Paced {
                self.enter();
                self.due.borrow_mut().push_back(due);
                self.has_due.notify_one();
            } else {
                spawn_local(Rc::clone(&self).connect_once(due));
            }
        }
    }

    async fn take_what_is_due(self: Rc<Self>) {
        let mut stream = self.idle.borrow_mut().pop_front();
        loop {
            let due = self.due.borrow_mut().pop_front();
            let Some(due) = due else {
                self.has_due.notified().await;
                continue;
            };
            let counts = self.in_window.get();
            let asked = match stream.take() {
                Some(mut stream) => ask(&mut stream).await.map(|()| stream),
                None => self.connect_and_ask().await,
            };
            stream = self.leave_if(counts, due, asked).await;
        }
    }

    async fn connect_once(self: Rc<Self>, due: Instant) {
        let counts = self.in_window.get();
        self.enter();
        let asked = self.connect_and_ask().await;
        drop(self.leave_if(counts, due, asked).await);
    }

    fn enter(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// In a closed loop a request counts when it ends within the window.
    async fn leave(&self, from: Instant, asked: Result<TcpStream>) -> Option<TcpStream> {
        self.leave_if(self.in_window.get(), from, asked).await
    }

    async fn leave_if(
        &self,
        counts: bool,
        from: Instant,
        asked: Result<TcpStream>,
    ) -> Option<TcpStream> {
        self.under_way.set(self.under_way.get() - 1);
        match asked {
            Ok(stream) => {
                if counts {
                    self.done.set(self.done.get() + 1);
                    let us = from.elapsed().as_micros();
                    self.latencies_us.borrow_mut().push(u32::try_from(us).unwrap_or(u32::MAX));
                }
                Some(stream)
            }
            Err(error) => {
                self.fail(&error);
                sleep(PAUSE).await;
                None
            }
        }
    }

    fn fail(&self, error: &anyhow::Error) {
        self.errors.set(self.errors.get() + 1);
        self.note(|| format!("{error:#}"));
    }

    fn note(&self, error: impl FnOnce() -> String) {
        self.first_error.borrow_mut().get_or_insert_with(error);
    }

    async fn connect(&self) -> Result<TcpStream> {
        let index = self.next_endpoint.get();
        self.next_endpoint.set((index + 1) % self.job.endpoints.len());
        connect(self.job.endpoints[index]).await
    }

    async fn connect_and_ask(&self) -> Result<TcpStream> {
        let asked = timeout(ANSWER_LIMIT, async {
            let mut stream = self.connect().await?;
            ask(&mut stream).await?;
            Ok(stream)
        });
        asked.await.context("no answer on a new connection within 5 s")?
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).await.context("cannot connect")?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    Ok(stream)
}

/// One message there, one back.
async fn ask(stream: &mut TcpStream) -> Result<()> {
    let mut message = [0x5a_u8; MESSAGE];
    stream.write_all(&message).await.context("cannot send a request")?;
    stream.read_exact(&mut message).await.context("no answer")?;
    Ok(())
}
