//! The wire form against real sidecars: a dialer of our own, with a genuine certificate, tries what
//! a peer must not (T51 to T54), and each refusal has its accepted twin.
//!
//! Never: a sidecar in the test's own process; only its library rooms on the far side.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use myelin_lab::Pod;
use myelin_sidecar::relay::{Carrier, Link, Step};
use myelin_sidecar::wire::{Dialer, Event, Frame, Refuse, UseNumber};
use myelin_tests::genuine::Genuine;
use myelin_tests::{Mesh, Options, Spec, Workload, declared_peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const PORT: u16 = 7_000;
const SOON: Duration = Duration::from_secs(10);

/// A mesh with one workload, and a pod without a sidecar that holds a genuine identity.
struct Stage {
    mesh: Mesh,
    server: Workload,
    dialer: Pod,
    identity: Genuine,
    /// What each connection to the workload said, whole.
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
}

async fn stage(spec: Spec) -> Result<Option<Stage>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let server = mesh.workload_of(spec).await?;
    let dialer = mesh.pod("dialer")?;
    let identity = Genuine::enrol(&mesh, &dialer, "spiffe://mesh.test/ns/test/sa/dialer").await?;
    let (said, heard) = mpsc::unbounded_channel();
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    tokio::spawn(echo(listener, said));
    Ok(Some(Stage { mesh, server, dialer, identity, heard }))
}

/// Answers each connection with what it said, and reports it when it ends, however it ends.
async fn echo(listener: TcpListener, said: mpsc::UnboundedSender<Vec<u8>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let said = said.clone();
        tokio::spawn(async move {
            let (mut whole, mut buffer) = (Vec::new(), [0; 4_096]);
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                whole.extend_from_slice(&buffer[..read]);
                if stream.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
            drop(stream);
            let _ = said.send(whole);
        });
    }
}

impl Stage {
    async fn connect(&self) -> Result<Link<Dialer>> {
        self.identity.dial(&self.dialer, self.server.v4(PORT)).await
    }

    async fn next_heard(&mut self) -> Result<Vec<u8>> {
        let heard = tokio::time::timeout(SOON, self.heard.recv()).await?;
        heard.context("the workload is gone")
    }
}

/// One whole use: says `words`, expects them back, ends it and settles.
async fn whole_use(link: &mut Link<Dialer>, words: &[u8]) -> Result<()> {
    link.control(Dialer::open)?;
    link.send(words)?;
    link.send_fin()?;
    let mut back = Vec::new();
    loop {
        match next_step(link).await? {
            Step::Accepted | Step::Nothing => {}
            Step::Deliver(bytes) => {
                back.extend_from_slice(&Carrier::records(link).chunk()[..bytes]);
                Carrier::records(link).consume(bytes);
            }
            Step::PeerFin => break,
            other => bail!("expected the echo, got {other:?}"),
        }
    }
    ensure!(back == words, "the echo is {back:?}");
    ensure!(link.settle(SOON).await?, "the connection did not settle");
    Ok(())
}

async fn next_step(link: &mut Link<Dialer>) -> Result<Step> {
    link.flush().await?;
    loop {
        if !Carrier::records(link).chunk().is_empty() {
            return Ok(link.step()?);
        }
        let read = std::future::poll_fn(|cx| Carrier::records(link).poll_read(cx));
        tokio::time::timeout(SOON, read).await.context("the sidecar says nothing")??;
    }
}

/// Sends frames that the machine would not let out.
async fn smuggle(link: &mut Link<Dialer>, frames: &[Frame<'_>]) -> Result<()> {
    link.control(|_, out| {
        frames.iter().for_each(|frame| frame.encode_into(out));
        Ok(())
    })?;
    Ok(link.flush().await?)
}

/// Reads on: nothing but the end may come, and it must be a TCP reset.
async fn expect_reset(link: &mut Link<Dialer>) -> Result<()> {
    loop {
        let read = std::future::poll_fn(|cx| Carrier::records(link).poll_read(cx));
        match tokio::time::timeout(SOON, read).await.context("still open")? {
            Ok(_) => {
                let length = Carrier::records(link).chunk().len();
                ensure!(length > 0, "a clean end where a reset was expected");
                Carrier::records(link).consume(length);
            }
            Err(error) => {
                let text = error.to_string();
                ensure!(text.contains("reset"), "ended with {text}, expected a reset");
                return Ok(());
            }
        }
    }
}

#[tokio::test]
async fn a_recycled_connection_carries_one_use_after_the_other() -> Result<()> {
    let Some(mut stage) = stage(Spec::new("server")).await? else { return Ok(()) };
    let mut link = stage.connect().await?;
    let canary = stage.mesh.canary().to_owned();
    for round in 0..5 {
        let words = format!("use {round} {canary}");
        whole_use(&mut link, words.as_bytes()).await?;
        ensure!(stage.next_heard().await? == words.as_bytes());
    }
    stage.mesh.demand_clean_wire().await?;
    Ok(())
}

/// T51: after a whole use, each of these is answered with a reset, and the workload hears none of it.
#[tokio::test]
async fn what_is_out_of_order_on_a_recycled_connection_is_reset_and_never_delivered() -> Result<()>
{
    let Some(mut stage) = stage(Spec::new("server")).await? else { return Ok(()) };
    let stale = Frame::Data(b"stale");
    let table: [(&str, &[Frame<'_>]); 8] = [
        ("data after fin", &[stale]),
        ("fin after fin", &[Frame::Fin]),
        ("idle twice", &[Frame::Idle]),
        ("a use number that was used", &[Frame::Open(UseNumber::new(1)), stale]),
        ("a use number that was skipped to", &[Frame::Open(UseNumber::new(3)), stale]),
        ("an answer, which is the acceptor's", &[Frame::Accepted(UseNumber::new(1))]),
        ("a second hello", &[Frame::Hello { version: 1, proof: &[] }]),
        ("open before its turn", &[Frame::Open(UseNumber::new(2)), Frame::Open(UseNumber::new(3))]),
    ];
    for (name, frames) in table {
        let mut link = stage.connect().await?;
        whole_use(&mut link, b"legal").await.context(name)?;
        ensure!(stage.next_heard().await? == b"legal", "{name}");
        smuggle(&mut link, frames).await.context(name)?;
        expect_reset(&mut link).await.context(name)?;
    }
    // The last row opened a legal second use before it broke off; no other reached the workload.
    while let Ok(more) = stage.heard.try_recv() {
        ensure!(more.is_empty(), "the workload heard {more:?}");
    }
    stage.server.outcome("inbound", "peer_violation", 7.0).await
}

/// T51: a reset that crosses data in flight ends the connection; nothing can follow on it.
#[tokio::test]
async fn a_reset_in_the_middle_of_a_use_ends_the_connection() -> Result<()> {
    let Some(mut stage) = stage(Spec::new("server")).await? else { return Ok(()) };
    let mut link = stage.connect().await?;
    link.control(Dialer::open)?;
    link.send(b"half")?;
    smuggle(&mut link, &[Frame::Reset, Frame::Data(b"ghost")]).await?;
    expect_reset(&mut link).await?;
    let heard = stage.next_heard().await?;
    ensure!(b"half".starts_with(&heard), "the workload heard {heard:?}");
    Ok(())
}

/// T51: a frame that announces more than a frame may hold.
#[tokio::test]
async fn a_frame_longer_than_any_is_reset() -> Result<()> {
    let Some(stage) = stage(Spec::new("server")).await? else { return Ok(()) };
    let mut link = stage.connect().await?;
    link.control(|_, out| {
        out.extend_from_slice(&[6, 0xff, 0xff, 0xff, b'x']);
        Ok(())
    })?;
    link.flush().await?;
    expect_reset(&mut link).await
}

/// T52: an acceptor that dies between `open` and its answer. The sidecar tells its workload so and
/// opens the use nowhere else.
#[tokio::test]
async fn a_use_without_an_answer_is_never_replayed() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let pod = mesh.pod("acceptor")?;
    let id = "spiffe://mesh.test/ns/test/sa/acceptor";
    let to = SocketAddr::new(pod.v4(), PORT);
    let peer = declared_peer(pod.v4(), id, "");
    let client = mesh.workload_of(Spec::new("client").tables(&peer)).await?;
    let identity = Genuine::enrol(&mesh, &pod, id).await?;
    let listener = pod.tcp_listen(to).await?;
    let acceptor = tokio::spawn(async move {
        let mut opened = 0;
        // The first is let down; whether a second comes is the question.
        while let Ok(accepted) =
            tokio::time::timeout(Duration::from_secs(3), listener.accept()).await
        {
            let (mut link, _) = identity.accept(accepted?.0).await?;
            let is_open = link.event(SOON, |event| matches!(event, Event::Opened(_))).await?;
            opened += usize::from(is_open == Some(true));
            drop(link);
        }
        anyhow::Ok(opened)
    });
    let mut stream = client.pod.tcp_connect(to).await?;
    stream.write_all(b"once").await?;
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer).await;
    ensure!(ended.is_err(), "a clean end: {answer:?}");
    ensure!(acceptor.await?? == 1, "the use was opened again");
    client.outcome("outbound", "peer_vanished", 1.0).await
}

const ALLOWED: &str = "[[inbound.allow]]\nname = \"dialer\"\nports = [7000]\nids = [\"spiffe://mesh.test/ns/test/sa/dialer\"]\n";
const FORBIDDEN: &str = "[[inbound.allow]]\nname = \"nobody\"\nports = [7000]\nids = [\"spiffe://mesh.test/ns/test/sa/nobody\"]\n";

/// T53: permission is withdrawn between two uses of one connection.
#[tokio::test]
async fn a_policy_that_changed_between_two_uses_refuses_the_next_open() -> Result<()> {
    let Some(mut stage) = stage(Spec::new("server").tables(ALLOWED)).await? else { return Ok(()) };
    let mut link = stage.connect().await?;
    whole_use(&mut link, b"allowed").await?;
    whole_use(&mut link, b"still allowed").await?;
    stage.server.reload(|spec| FORBIDDEN.clone_into(&mut spec.tables))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    link.control(Dialer::open)?;
    let answer = next_step(&mut link).await?;
    ensure!(answer == Step::Refused(Refuse::PolicyDenied), "{answer:?}");
    ensure!(stage.next_heard().await? == b"allowed");
    ensure!(stage.next_heard().await? == b"still allowed");
    ensure!(stage.heard.try_recv().is_err(), "a third connection reached the workload");
    stage.server.outcome("inbound", "policy_denied", 1.0).await
}

/// T53: permission is withdrawn in the middle of a use.
#[tokio::test]
async fn a_policy_that_changed_in_the_middle_of_a_use_ends_it_within_five_seconds() -> Result<()> {
    let Some(mut stage) = stage(Spec::new("server").tables(ALLOWED)).await? else { return Ok(()) };
    let mut link = stage.connect().await?;
    link.control(Dialer::open)?;
    link.send(b"running")?;
    ensure!(next_step(&mut link).await? == Step::Accepted);
    stage.server.reload(|spec| FORBIDDEN.clone_into(&mut spec.tables))?;
    let ended = tokio::time::timeout(Duration::from_secs(5), expect_reset(&mut link)).await;
    ended.context("the use still runs 5 s after its permission was withdrawn")??;
    ensure!(stage.next_heard().await? == b"running");
    stage.server.outcome("inbound", "withdrawn", 1.0).await
}

/// T54: the acceptor is led to a destination that is not its to dial.
#[tokio::test]
async fn a_destination_that_is_not_the_pods_own_is_refused() -> Result<()> {
    let Some(stage) = stage(Spec::new("server")).await? else { return Ok(()) };
    // The twin: the same dialer reaches the pod's own address.
    let mut link = stage.connect().await?;
    whole_use(&mut link, b"own address").await?;
    let server = stage.server.v4(PORT).ip().to_string();
    let route = stage.dialer.command("ip").args(["route", "add", "10.99.0.1", "via", &server]);
    myelin_tests::programs::output(route, SOON).await?;
    for (to, word) in [
        ("10.99.0.1:7000".parse()?, "bad_destination"),
        (stage.server.v4(15_006), "loop"),
        (stage.server.v4(15_001), "loop"),
    ] {
        // The reset may come before connect has returned, or right after.
        if let Ok(mut stream) = stage.dialer.tcp_connect(to).await {
            let mut answer = Vec::new();
            let ended = stream.read_to_end(&mut answer).await;
            ensure!(ended.is_err() && answer.is_empty(), "{to}: {ended:?} {answer:?}");
        }
        let so_far = if word == "loop" && to.port() == 15_001 { 2.0 } else { 1.0 };
        stage.server.outcome("inbound", word, so_far).await?;
    }
    Ok(())
}
