//! An acceptor of our own with a genuine certificate, to see what a dialer does to it: on which
//! connection each use comes, under which certificate, and what happens to one handed back.
//!
//! Never: a sidecar in the test's own process; only its library rooms on the far side.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Result, bail, ensure};
use myelin_sidecar::relay::{Carrier, Link, Step};
use myelin_sidecar::wire::{Acceptor, Event};
use myelin_tests::genuine::Genuine;
use myelin_tests::{Mesh, Options, Spec, declared_peer};
use tokio::net::{TcpListener, TcpStream};

use crate::{PORT, SOON, ask, uses};

/// What came in: the connection's number and the dialer's certificate, for each use taken, and how
/// many were handed back.
#[derive(Debug, Default)]
struct Seen {
    taken: Vec<(usize, String)>,
    handed_back: usize,
}

/// Serves connections until the test ends. The uses whose numbers (from 1, over all connections)
/// are in `hand_back` are answered with `retiring`.
async fn serve(
    listener: TcpListener,
    identity: Genuine,
    hand_back: &'static [usize],
    seen: Arc<Mutex<Seen>>,
) {
    let identity = Arc::new(identity);
    for number in 0.. {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let (identity, seen) = (Arc::clone(&identity), Arc::clone(&seen));
        tokio::spawn(async move { connection(tcp, number, &identity, hand_back, &seen).await });
    }
}

async fn connection(
    tcp: TcpStream,
    number: usize,
    identity: &Genuine,
    hand_back: &[usize],
    seen: &Mutex<Seen>,
) -> Result<()> {
    let (mut link, peer) = identity.accept(tcp).await?;
    let serial = peer.serial.to_string();
    loop {
        let is_open = |event: Event<'_>| matches!(event, Event::Opened(_));
        if link.event(6 * SOON, is_open).await? != Some(true) {
            return Ok(());
        }
        let is_taken = {
            let mut seen = seen.lock().unwrap();
            let this = seen.taken.len() + seen.handed_back + 1;
            let is_taken = !hand_back.contains(&this);
            if is_taken {
                seen.taken.push((number, serial.clone()));
            } else {
                seen.handed_back += 1;
            }
            is_taken
        };
        if !is_taken {
            link.control(Acceptor::retire)?;
            link.close(SOON).await;
            return Ok(());
        }
        link.control(Acceptor::accept)?;
        echo_use(&mut link).await?;
        if !link.settle(SOON).await? {
            return Ok(());
        }
    }
}

/// Says back what the use says, once it is whole.
async fn echo_use(link: &mut Link<Acceptor>) -> Result<()> {
    let mut heard = Vec::new();
    loop {
        link.flush().await?;
        if Carrier::records(link).chunk().is_empty() {
            std::future::poll_fn(|cx| Carrier::records(link).poll_read(cx)).await?;
            continue;
        }
        match link.step()? {
            Step::Deliver(bytes) => {
                heard.extend_from_slice(&Carrier::records(link).chunk()[..bytes]);
                Carrier::records(link).consume(bytes);
            }
            Step::PeerFin => break,
            other => bail!("expected the use's bytes, got {other:?}"),
        }
    }
    link.send(&heard)?;
    link.send_fin()?;
    Ok(link.flush().await?)
}

struct Play {
    mesh: Mesh,
    client: myelin_tests::Workload,
    to: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// A client with a sidecar, and our acceptor as the peer that it dials.
async fn play(options: Options, hand_back: &'static [usize]) -> Result<Option<Play>> {
    let Some(mesh) = Mesh::start(options).await? else { return Ok(None) };
    let pod = mesh.pod("acceptor")?;
    let id = "spiffe://mesh.test/ns/test/sa/acceptor";
    let to = SocketAddr::new(pod.v4(), PORT);
    let peer = declared_peer(pod.v4(), id, "");
    let client = mesh.workload_of(Spec::new("client").tables(&peer)).await?;
    let identity = Genuine::enrol(&mesh, &pod, id).await?;
    let listener = pod.tcp_listen(to).await?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    tokio::spawn(serve(listener, identity, hand_back, Arc::clone(&seen)));
    Ok(Some(Play { mesh, client, to, seen }))
}

/// T52's twin: the acceptor said that it never took the use, so it is opened again, on a new
/// connection, with all that the workload has said; and no other use is.
#[tokio::test]
async fn a_use_that_was_handed_back_is_opened_on_another_connection() -> Result<()> {
    let Some(play) = play(Options::default(), &[2, 5, 6]).await? else { return Ok(()) };
    for round in 0..6 {
        ask(&play.client.pod, play.to, &format!("round {round}")).await?;
    }
    let seen = play.seen.lock().unwrap();
    ensure!(seen.handed_back == 3, "{seen:?}");
    ensure!(seen.taken.len() == 6, "each use was taken once: {seen:?}");
    drop(play.mesh);
    Ok(())
}

/// An acceptor that never takes anything: the workload is told, after a bounded number of tries.
#[tokio::test]
async fn a_use_that_everybody_hands_back_ends_in_a_reset() -> Result<()> {
    let Some(play) = play(Options::default(), &[1, 2, 3]).await? else { return Ok(()) };
    let refused = ask(&play.client.pod, play.to, "anybody?").await;
    ensure!(refused.is_err(), "somebody answered");
    play.client.outcome("outbound", "handed_back", 1.0).await?;
    // The twin: the next use is taken.
    ask(&play.client.pod, play.to, "now?").await?;
    ensure!(play.seen.lock().unwrap().handed_back == 3);
    Ok(())
}

/// The dialer's certificate is renewed several times; each use comes under the one that it has then.
#[tokio::test]
async fn after_a_rotation_the_next_use_comes_under_the_new_svid() -> Result<()> {
    let Some(play) = play(Options::lifetime(12), &[]).await? else { return Ok(()) };
    let mut serials = Vec::new();
    let enough = tokio::time::Instant::now() + 6 * SOON;
    while serials.len() < 4 {
        ensure!(tokio::time::Instant::now() < enough, "the SVID is not renewed: {serials:?}");
        let before = serial(&play.client).await?;
        ask(&play.client.pod, play.to, "who am I?").await?;
        let after = serial(&play.client).await?;
        let used = play.seen.lock().unwrap().taken.last().map(|(_, serial)| serial.clone());
        // A renewal may fall between the two questions.
        let is_present = used.as_ref() == Some(&before) || used.as_ref() == Some(&after);
        ensure!(is_present, "under {used:?}, while the SVID was {before} and then {after}");
        serials.push(after);
        serials.dedup();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    ensure!(uses(&play.client, "recycled").await? >= 20.0, "hardly any connection was recycled");
    Ok(())
}

/// The serial of the client's current SVID, as its operator sees it.
async fn serial(workload: &myelin_tests::Workload) -> Result<String> {
    let socket = workload.admin_socket();
    let page = myelin_tests::http::over_socket(&socket, "GET", "/certs", "").await?;
    let certs: serde_json::Value = serde_json::from_str(&page.body)?;
    find(&certs).ok_or_else(|| anyhow::anyhow!("no serial in {certs}"))
}

fn find(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Object(map) => {
            let own = map.get("serial").and_then(serde_json::Value::as_str).map(str::to_owned);
            own.or_else(|| map.values().find_map(find))
        }
        serde_json::Value::Array(items) => items.iter().find_map(find),
        _ => None,
    }
}
