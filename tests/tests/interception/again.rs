//! A port that is used again. Connection tracking remembers a connection for a while after its end;
//! the next one between the same addresses and ports must not be treated as that one was: a
//! workload's is captured although the sidecar's was not, and the other way round.
//!
//! Never: a port that the kernel chose; both sides of each pair use the same.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::Pod;
use myelin_tests::programs::LIMIT;
use myelin_tests::{Mesh, Options, Workload};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Uid, setfsuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// What exempts a sidecar's sockets, together with its UID.
const MARK: u32 = 0x6d79;
const PORT: u16 = 7_000;
/// Outside the range from which the kernel draws.
const FIRST_PORT: u16 = 20_000;

/// How a connection ended that left its traces. Who resets or closes matters to connection tracking.
#[derive(Clone, Copy, Debug)]
enum End {
    ServerResets,
    ServerCloses,
    ClientResets,
}

const ENDS: [End; 3] = [End::ServerResets, End::ServerCloses, End::ClientResets];

#[tokio::test]
async fn workload_on_a_port_that_the_sidecar_used_is_captured_all_the_same() -> Result<()> {
    let Some((mesh, client, outsider)) = stage().await? else { return Ok(()) };
    for (listener, ports) in listeners(&outsider).await?.iter().zip([0, 10]) {
        for (end, port) in ENDS.into_iter().zip(FIRST_PORT + ports..) {
            let refused = refusals(&client).await?;
            leave_traces(&mesh, &client, listener, port, end).await?;
            let socket = bound(&client.pod, listener, port, None)?;
            let ended = timeout(LIMIT, talk(socket, listener, mesh.canary())).await;
            let ended = ended.context("it hangs")?;
            ensure!(ended.is_err(), "{end:?}: the workload was answered: {ended:?}");
            let arrived = timeout(Duration::from_millis(50), listener.accept()).await;
            ensure!(arrived.is_err(), "{end:?}: the workload's connection left as it was");
            client.outcome("outbound", "unbound_address", refused + 1.0).await?;
        }
    }
    ensure!(mesh.watch.report().await?.canary_hits() == 0, "the workload was readable");
    Ok(())
}

#[tokio::test]
async fn sidecar_on_a_port_that_a_workload_used_goes_out_directly() -> Result<()> {
    let Some((mesh, client, outsider)) = stage().await? else { return Ok(()) };
    for (listener, port) in listeners(&outsider).await?.iter().zip([FIRST_PORT, FIRST_PORT + 1]) {
        let socket = bound(&client.pod, listener, port, None)?;
        ensure!(talk(socket, listener, "hello").await.is_err(), "the workload was answered");
        let uid = mesh.ground().proxy_uid();
        let (sidecar, arrived) = direct(&client.pod, listener, port, uid).await?;
        ensure!(arrived.peer_addr()? == sidecar.local_addr()?);
    }
    Ok(())
}

/// A workload's connection, which the sidecar resets: it knows nobody there.
async fn talk(socket: TcpSocket, to: &TcpListener, words: &str) -> io::Result<usize> {
    let mut workload = socket.connect(to.local_addr()?).await?;
    workload.write_all(words.as_bytes()).await?;
    workload.read(&mut [0; 1]).await
}

/// A workload with a sidecar, and a pod that has none and whom nobody knows.
async fn stage() -> Result<Option<(Mesh, Workload, Pod)>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let client = mesh.workload("client").await?;
    let outsider = mesh.pod("outsider")?;
    Ok(Some((mesh, client, outsider)))
}

async fn listeners(outsider: &Pod) -> Result<[TcpListener; 2]> {
    let v4 = outsider.tcp_listen(SocketAddr::new(outsider.v4(), PORT)).await?;
    Ok([v4, outsider.tcp_listen(SocketAddr::new(outsider.v6(), PORT)).await?])
}

async fn refusals(of: &Workload) -> Result<f64> {
    Ok(of.metrics().await?.outcome("outbound", "unbound_address"))
}

/// One connection as a sidecar makes it, which ended so.
async fn leave_traces(
    mesh: &Mesh,
    client: &Workload,
    listener: &TcpListener,
    port: u16,
    end: End,
) -> Result<()> {
    let uid = mesh.ground().proxy_uid();
    let (mut sidecar, mut server) = direct(&client.pod, listener, port, uid).await?;
    match end {
        End::ServerResets => {
            server.set_zero_linger()?;
            drop(server);
            ensure!(sidecar.read(&mut [0; 1]).await.is_err(), "no reset");
        }
        End::ServerCloses => {
            server.shutdown().await?;
            ensure!(sidecar.read(&mut [0; 1]).await? == 0, "no end");
            sidecar.shutdown().await?;
            ensure!(server.read(&mut [0; 1]).await? == 0, "no end back");
        }
        End::ClientResets => {
            sidecar.set_zero_linger()?;
            drop(sidecar);
            ensure!(server.read(&mut [0; 1]).await.is_err(), "no reset");
        }
    }
    Ok(())
}

/// A connection as the sidecar makes them, and the other end of it.
async fn direct(
    pod: &Pod,
    listener: &TcpListener,
    port: u16,
    uid: u32,
) -> Result<(TcpStream, TcpStream)> {
    let socket = bound(pod, listener, port, Some(uid))?;
    let connect = timeout(LIMIT, socket.connect(listener.local_addr()?));
    let sidecar = connect.await.context("the sidecar's own does not arrive")??;
    let arrived = timeout(LIMIT, listener.accept()).await;
    Ok((sidecar, arrived.context("the sidecar's own went elsewhere")??.0))
}

/// A socket inside the pod on this port of its own; with a UID, one of the sidecar's.
fn bound(pod: &Pod, to: &TcpListener, port: u16, sidecar: Option<u32>) -> Result<TcpSocket> {
    let is_v4 = to.local_addr()?.is_ipv4();
    let own = SocketAddr::new(if is_v4 { pod.v4() } else { pod.v6() }, port);
    pod.run(move || {
        // A socket belongs to the user as whom this thread acts on files at that moment.
        let before = sidecar.map(|uid| setfsuid(Uid::from_raw(uid)));
        let socket = if is_v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        before.map(setfsuid);
        let socket = socket?;
        if sidecar.is_some() {
            setsockopt(&socket.as_fd(), sockopt::Mark, &MARK).context("cannot set the mark")?;
        }
        socket.set_reuseaddr(true)?;
        socket.bind(own)?;
        Ok(socket)
    })?
}
