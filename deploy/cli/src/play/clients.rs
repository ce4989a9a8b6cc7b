//! Clients of the two services: some open a connection for each request, some keep one for as long as
//! they live. Every answer is compared with what must come; whatever else happens is a failure.
//! Never: retries.

// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::tally::Counter;
use crate::args::ClientArgs;

/// A request on two busy cores takes milliseconds; whoever waits this long has lost it.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Requests over HTTP.
pub(super) async fn web(args: ClientArgs) -> Result<()> {
    let args = Rc::new(args);
    let dial = Rc::clone(&args);
    run(&args, move || WebClient::open(Rc::clone(&dial))).await
}

/// Greetings, then echoes.
pub(super) async fn greeter(args: ClientArgs) -> Result<()> {
    let args = Rc::new(args);
    let dial = Rc::clone(&args);
    run(&args, move || GreeterClient::open(Rc::clone(&dial))).await
}

/// One connection to a service.
trait Client: Sized {
    /// One request and its right answer.
    async fn ask(&mut self) -> Result<()>;
}

/// Starts the clients, and tells the tally until the process is killed.
async fn run<C, F>(args: &Rc<ClientArgs>, open: impl Fn() -> F + Clone + 'static) -> Result<()>
where
    C: Client + 'static,
    F: Future<Output = Result<C>> + 'static,
{
    let counter = Rc::new(Counter::default());
    if args.once {
        let local = LocalSet::new();
        counter.count(1, local.run_until(once(&open)).await);
        return counter.conclude();
    }
    let local = LocalSet::new();
    for kept in (0..args.fresh).map(|_| false).chain((0..args.kept).map(|_| true)) {
        let (counter, open, pause) = (Rc::clone(&counter), open.clone(), args.pause);
        local.spawn_local(async move {
            loop {
                if kept {
                    keep_asking(&open, &counter, pause).await;
                } else {
                    counter.count(1, once(&open).await);
                }
                sleep(pause).await;
            }
        });
    }
    local.run_until(counter.tell()).await;
    Ok(())
}

/// One connection, one request.
async fn once<C: Client, F: Future<Output = Result<C>>>(open: &impl Fn() -> F) -> Result<()> {
    within(async { open().await?.ask().await }).await
}

/// One connection for as long as it lasts; its end is a failure.
async fn keep_asking<C, F>(open: &impl Fn() -> F, counter: &Counter, pause: Duration)
where
    C: Client,
    F: Future<Output = Result<C>>,
{
    let mut client = match within(open()).await {
        Ok(client) => client,
        Err(error) => return counter.count(1, Err(error.context("a kept connection"))),
    };
    loop {
        let result = within(client.ask()).await;
        let ended = result.is_err();
        counter.count(1, result.context("a kept connection"));
        if ended {
            return;
        }
        sleep(pause).await;
    }
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(REQUEST_LIMIT, work).await {
        Ok(result) => result,
        Err(_) => bail!("no answer within {REQUEST_LIMIT:?}"),
    }
}

struct WebClient {
    args: Rc<ClientArgs>,
    sender: SendRequest<Empty<Bytes>>,
}

impl WebClient {
    async fn open(args: Rc<ClientArgs>) -> Result<Self> {
        let stream = connect(&args).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("cannot begin HTTP")?;
        tokio::task::spawn_local(connection);
        Ok(Self { args, sender })
    }
}

impl Client for WebClient {
    async fn ask(&mut self) -> Result<()> {
        let request = Request::get(format!("/letters/{}", self.args.canary))
            .header(header::HOST, self.args.to.to_string())
            .body(Empty::new())
            .context("cannot form a request")?;
        self.sender.ready().await.context("the connection ended")?;
        let answer = self.sender.send_request(request).await.context("no answer")?;
        ensure!(answer.status().is_success(), "HTTP status {}", answer.status());
        let body = answer.into_body().collect().await.context("the answer broke off")?.to_bytes();
        ensure!(
            body.trim_ascii_end() == self.args.canary.as_bytes(),
            "the answer is not what was asked for"
        );
        Ok(())
    }
}

struct GreeterClient {
    args: Rc<ClientArgs>,
    stream: BufReader<TcpStream>,
    round: u64,
}

impl GreeterClient {
    async fn open(args: Rc<ClientArgs>) -> Result<Self> {
        let mut stream = BufReader::new(connect(&args).await?);
        let greeting = line(&mut stream).await.context("no greeting")?;
        ensure!(greeting == format!("220 {}", args.canary), "the greeting is not the service's");
        Ok(Self { args, stream, round: 0 })
    }
}

impl Client for GreeterClient {
    async fn ask(&mut self) -> Result<()> {
        self.round += 1;
        let said = format!("{} {}", self.args.canary, self.round);
        self.stream.write_all(format!("{said}\n").as_bytes()).await.context("cannot send")?;
        let heard = line(&mut self.stream).await.context("no echo")?;
        ensure!(heard == said, "the echo is not what was said");
        Ok(())
    }
}

async fn connect(args: &ClientArgs) -> Result<TcpStream> {
    let stream = TcpStream::connect(args.to)
        .await
        .with_context(|| format!("cannot connect to {}", args.to))?;
    stream.set_nodelay(true).ok();
    Ok(stream)
}

/// One line without its end; the end of the stream is a failure.
async fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut text = String::new();
    stream.read_line(&mut text).await.context("the connection broke")?;
    match text.strip_suffix('\n') {
        Some(whole) => Ok(whole.to_owned()),
        None => bail!("the connection ended"),
    }
}
