//! Uses over real sockets and real TLS: two workloads, two links, and everything between them.
//!
//! Never: a mesh connection that was not made by `tls`.

// SPDX-License-Identifier: Apache-2.0

mod answers;

use std::cell::Cell;
use std::future::pending;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU64;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::addr::Endpoint;
use crate::testing::{Authority, connection, still_clock};
use crate::tls::{self, Deadline, Offer};
use crate::wire::{Acceptor, Budget, Dialer, Event};

/// Runs a use as its callers do, which pin what may interrupt it.
async fn run<C: Carrier, I>(
    carrier: &mut C,
    workload: &TcpStream,
    meter: &impl Meter,
    limits: Limits,
    said: Said,
    interrupt: impl Future<Output = I>,
) -> Ending<I> {
    super::run(carrier, workload, meter, limits, said, pin!(interrupt)).await
}

const SOON: Duration = Duration::from_secs(5);
/// Nothing moves any more when nothing moved for so long, on a loaded machine too.
const QUIET: Duration = Duration::from_millis(500);
const LIMITS: Limits = Limits { idle: SOON, answer: None, linger: None };
const BUDGET: Budget = Budget { max_uses: NonZeroU64::MAX, max_bytes: NonZeroU64::MAX };

#[derive(Default)]
struct Count {
    sent: Cell<usize>,
    received: Cell<usize>,
}

impl Meter for Count {
    fn to_peer(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes);
    }

    fn to_workload(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes);
    }
}

async fn sessions() -> (tls::Session, tls::Session) {
    let authority = Authority::new("one");
    let clock = still_clock();
    let local = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let configs = |name: &str| {
        let id = format!("spiffe://test.example/ns/demo/sa/{name}");
        authority.configs(&authority.issue(&id, &local), &clock)
    };
    let (web, db) = (configs("web"), configs("db"));
    let (here, there) = connection().await;
    let endpoint = Endpoint(here.peer_addr().unwrap());
    let (dialled, accepted) = tokio::join!(
        tls::dial(here, endpoint, Offer::Myelin1, &web, Deadline(SOON)),
        tls::accept(there, &db, None, Deadline(SOON)),
    );
    (dialled.unwrap(), accepted.unwrap())
}

async fn links() -> (Link<Dialer>, Link<Acceptor>) {
    let (dialled, accepted) = sessions().await;
    let mut dialer = Link::new(dialled.records, Dialer::new(BUDGET));
    let mut acceptor = Link::new(accepted.records, Acceptor::new(BUDGET));
    let (one, other) =
        tokio::join!(dialer.greet(&[], SOON, |_| ()), acceptor.greet(&[], SOON, |_| ()));
    one.unwrap();
    other.unwrap();
    (dialer, acceptor)
}

/// Opens and accepts the next use.
async fn open(dialer: &mut Link<Dialer>, acceptor: &mut Link<Acceptor>) {
    dialer.control(Dialer::open).unwrap();
    dialer.flush().await.unwrap();
    let opened = acceptor.event(SOON, |event| matches!(event, Event::Opened(_))).await;
    assert!(opened.unwrap().unwrap());
    acceptor.control(Acceptor::accept).unwrap();
}

/// A use to its end, and what follows it in the product: our fin leaves, the workload's stream ends.
async fn use_up<M: crate::wire::Side>(
    link: &mut Link<M>,
    workload: &TcpStream,
    meter: &Count,
) -> Ending<()> {
    let ending = run(link, workload, meter, LIMITS, Said::default(), pending::<()>()).await;
    link.flush().await.unwrap();
    // It may have gone first.
    let _ = socket2::SockRef::from(workload).shutdown(std::net::Shutdown::Write);
    ending
}

/// Sends `bytes`, ends its half, and returns what came back.
async fn say(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut read, mut write) = stream.split();
    let mut heard = Vec::new();
    let (sent, got) = tokio::join!(
        async {
            write.write_all(bytes).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut heard),
    );
    sent?;
    got?;
    Ok(heard)
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[tokio::test]
async fn one_connection_carries_uses_one_after_the_other_whole() {
    let (mut dialer, mut acceptor) = links().await;
    for round in 0..3_u8 {
        open(&mut dialer, &mut acceptor).await;
        let (client, near) = connection().await;
        let (far, server) = connection().await;
        let (question, answer) = (pattern(3_000_001, round), pattern(2_000_003, round + 100));
        let counted = Count::default();
        let uncounted = Count::default();
        let (one, other, heard, asked) = tokio::join!(
            use_up(&mut dialer, &near, &counted),
            use_up(&mut acceptor, &far, &uncounted),
            say(client, &question),
            say(server, &answer),
        );
        assert!(matches!(one, Ending::Completed), "{one:?}");
        assert!(matches!(other, Ending::Completed), "{other:?}");
        assert!(heard.unwrap() == answer && asked.unwrap() == question);
        assert_eq!(counted.sent.get(), question.len());
        assert_eq!(counted.received.get(), answer.len());
        let (one, other) = tokio::join!(dialer.settle(SOON), acceptor.settle(SOON));
        assert!(one.unwrap() && other.unwrap());
    }
}

#[tokio::test]
async fn half_close_passes_while_the_other_direction_goes_on() {
    let (mut dialer, mut acceptor) = links().await;
    open(&mut dialer, &mut acceptor).await;
    let (mut client, near) = connection().await;
    let (far, mut server) = connection().await;
    let meter = Count::default();
    let talk = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"question");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
    };
    let (one, other, ()) = tokio::join!(
        use_up(&mut dialer, &near, &meter),
        use_up(&mut acceptor, &far, &meter),
        talk,
    );
    assert!(matches!((one, other), (Ending::Completed, Ending::Completed)));
}

#[tokio::test]
async fn a_workload_that_dies_is_an_error_at_the_other_end_and_no_clean_end() {
    let (mut dialer, mut acceptor) = links().await;
    open(&mut dialer, &mut acceptor).await;
    let (_client, near) = connection().await;
    let (far, mut server) = connection().await;
    let meter = Count::default();
    server.write_all(b"half an ans").await.unwrap();
    let dies = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        crate::net::reset(server);
    };
    let (one, other, ()) = tokio::join!(
        run(&mut dialer, &near, &meter, LIMITS, Said::default(), pending::<()>()),
        run(&mut acceptor, &far, &meter, LIMITS, Said::default(), pending::<()>()),
        dies,
    );
    assert!(matches!(other, Ending::WorkloadReset), "{other:?}");
    assert!(matches!(one, Ending::PeerReset), "{one:?}");
}

#[tokio::test]
async fn a_stream_cut_without_close_notify_is_never_a_clean_end() {
    let (mut dialer, mut acceptor) = links().await;
    open(&mut dialer, &mut acceptor).await;
    let (_client, near) = connection().await;
    let meter = Count::default();
    // A plain FIN, as a man in the middle could forge it.
    drop(acceptor.into_records().into_tcp());
    let ending = run(&mut dialer, &near, &meter, LIMITS, Said::default(), pending::<()>()).await;
    let Ending::Broken(error) = ending else { panic!("{ending:?}") };
    assert!(matches!(error, LinkError::Record(_)), "{error}");
}

#[tokio::test]
async fn an_interrupt_ends_a_running_use_with_a_reset() {
    let (mut dialer, mut acceptor) = links().await;
    open(&mut dialer, &mut acceptor).await;
    let (_client, near) = connection().await;
    let (far, _server) = connection().await;
    let meter = Count::default();
    let soon = tokio::time::sleep(Duration::from_millis(20));
    let (one, other) = tokio::join!(
        run(&mut dialer, &near, &meter, LIMITS, Said::default(), pending::<()>()),
        run(&mut acceptor, &far, &meter, LIMITS, Said::default(), soon),
    );
    assert!(matches!(other, Ending::Interrupted(())), "{other:?}");
    assert!(matches!(one, Ending::PeerReset), "{one:?}");
}

#[tokio::test]
async fn a_stalled_workload_stalls_the_sender_and_no_memory_grows() {
    let (mut dialer, mut acceptor) = links().await;
    open(&mut dialer, &mut acceptor).await;
    let (client, near) = connection().await;
    let (far, _stalled) = connection().await;
    let meter = Count::default();
    let chunk = pattern(64 * 1024, 7);
    let uncounted = Count::default();
    // Writes until everything between the two workloads is full.
    let fill = async {
        let mut written = 0;
        loop {
            let ready = tokio::time::timeout(QUIET, client.writable()).await;
            if ready.is_err() {
                return written;
            }
            match client.try_write(&chunk) {
                Ok(bytes) => written += bytes,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    };
    let written = tokio::select! {
        written = fill => written,
        ending = run(&mut dialer, &near, &meter, LIMITS, Said::default(), pending::<()>()) => panic!("{ending:?}"),
        ending = run(&mut acceptor, &far, &uncounted, LIMITS, Said::default(), pending::<()>()) => {
            panic!("{ending:?}")
        }
    };
    // Three TCP connections' buffers, and what the relay itself may hold: nothing like a gigabyte.
    assert!(written < 64 * 1024 * 1024, "{written} bytes vanished somewhere");
    assert!(!dialer.records.has_room());
}

#[tokio::test]
async fn a_workload_that_stalls_and_reads_on_gets_everything() {
    let (mut dialer, mut acceptor) = links().await;
    open(&mut dialer, &mut acceptor).await;
    let (client, near) = connection().await;
    let (far, mut server) = connection().await;
    let (meter, uncounted) = (Count::default(), Count::default());
    let bulk = pattern(32 * 1024 * 1024, 5);
    let slow = async {
        // Long enough for every buffer between the two to fill.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        server.shutdown().await.unwrap();
        heard
    };
    let (one, other, answer, heard) = tokio::join!(
        use_up(&mut dialer, &near, &meter),
        use_up(&mut acceptor, &far, &uncounted),
        say(client, &bulk),
        slow,
    );
    assert!(matches!((one, other), (Ending::Completed, Ending::Completed)));
    assert!(heard == bulk && answer.unwrap().is_empty());
}

#[tokio::test]
async fn an_idle_link_is_quiet_until_the_peer_says_anything_or_is_gone() {
    let (mut dialer, mut acceptor) = links().await;
    assert!(dialer.is_quiet());
    acceptor.control(Acceptor::retire).unwrap();
    acceptor.flush().await.unwrap();
    dialer.records().tcp().readable().await.unwrap();
    assert!(!dialer.is_quiet());

    let (mut dialer, acceptor) = links().await;
    drop(acceptor);
    dialer.records().tcp().readable().await.unwrap();
    assert!(!dialer.is_quiet());

    let (mut dialer, acceptor) = links().await;
    crate::net::reset(acceptor.into_records().into_tcp());
    dialer.records().tcp().readable().await.unwrap();
    assert!(!dialer.is_quiet());
}

#[tokio::test]
async fn a_link_that_parts_ends_cleanly_for_its_peer() {
    let (dialer, mut acceptor) = links().await;
    dialer.part();
    assert!(acceptor.event(SOON, |_| ()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_declared_peer_gets_its_bytes_as_they_are() {
    let (dialled, accepted) = sessions().await;
    let (mut one, mut other) = (Bare::new(dialled.records), Bare::new(accepted.records));
    let (client, near) = connection().await;
    let (far, server) = connection().await;
    let meter = Count::default();
    let (question, answer) = (pattern(300_001, 1), pattern(200_003, 2));
    let (ended, too, heard, asked) = tokio::join!(
        run(&mut one, &near, &meter, LIMITS, Said::default(), pending::<()>()),
        run(&mut other, &far, &meter, LIMITS, Said::default(), pending::<()>()),
        say(client, &question),
        say(server, &answer),
    );
    assert!(matches!((ended, too), (Ending::Completed, Ending::Completed)));
    assert!(heard.unwrap() == answer && asked.unwrap() == question);
}

#[test]
fn the_future_of_one_use_stays_small() {
    // It is kept for each open connection: what is in it is paid ten thousand times.
    assert!(size_of::<Link<Dialer>>() < 2_048, "{}", size_of::<Link<Dialer>>());
}
