//! How connections end: half-close is kept, and what was cut never looks whole (T47).
//!
//! Never: an ending that depends on timing.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Stage, stage};

/// Well beyond what the buffers of two sidecars and three sockets hold.
const LONG: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn half_close_by_the_client_lets_the_answer_through() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    for to in [stage.server.v4(7000), stage.server.v6(7000)] {
        let listener = stage.server.pod.tcp_listen(to).await?;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let mut heard = String::new();
            // Only the client's end of stream lets this return.
            stream.read_to_string(&mut heard).await?;
            stream.write_all(format!("heard {heard}").as_bytes()).await?;
            anyhow::Ok(())
        });
        let mut stream = stage.client.pod.tcp_connect(to).await?;
        stream.write_all(stage.mesh.canary().as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        server.await??;
        ensure!(answer == format!("heard {}", stage.mesh.canary()), "the answer was {answer:?}");
    }
    stage.mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn half_close_by_the_server_lets_the_request_through() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let to = stage.server.v4(7000);
    let listener = stage.server.pod.tcp_listen(to).await?;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(b"all that I say").await?;
        stream.shutdown().await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        anyhow::Ok(heard)
    });
    let mut stream = stage.client.pod.tcp_connect(to).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer == "all that I say", "the answer was {answer:?}");
    stream.write_all(stage.mesh.canary().as_bytes()).await?;
    stream.shutdown().await?;
    ensure!(server.await?? == stage.mesh.canary(), "the request was cut");
    stage.mesh.demand_clean_wire().await.map(drop)
}

/// A server program in the pod that says so much and then waits, to be killed there.
async fn killed_in_the_middle(stage: &Stage, kill_sidecar: bool) -> Result<std::io::Error> {
    let script = format!(
        "import socket,sys,time\n\
         s=socket.create_server(('{}',7000))\n\
         print('listens',flush=True)\n\
         c,_=s.accept()\n\
         c.recv(1)\n\
         c.sendall(b'x'*100000)\n\
         while len(c.recv(8,socket.MSG_PEEK))<4: time.sleep(.01)\n\
         print('asked again',flush=True)\n\
         time.sleep(600)\n",
        stage.server.pod.v4()
    );
    let server = stage.server.pod.command("/usr/bin/python3").args(["-c", &script]).spawn()?;
    server.wait_line("listens", myelin_tests::programs::LIMIT).await?;
    let mut stream = stage.client.pod.tcp_connect(stage.server.v4(7000)).await?;
    stream.write_all(b"?").await?;
    let mut answer = vec![0; 100_000];
    stream.read_exact(&mut answer).await?;
    if kill_sidecar {
        stage.server.kill9();
    } else {
        // A killed process with unread bytes in its socket resets; ask, so that there are some.
        stream.write_all(b"more").await?;
        server.wait_line("asked again", myelin_tests::programs::LIMIT).await?;
        server.kill9();
    }
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest).await {
        Ok(_) => bail!("a cut answer ended cleanly"),
        Err(error) => Ok(error),
    }
}

#[tokio::test]
async fn upstream_killed_in_the_middle_of_its_answer_is_an_error_downstream() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let error = killed_in_the_middle(&stage, false).await?;
    ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "the error was {error}");
    stage.server.outcome("inbound", "workload_reset", 1.0).await?;
    stage.client.outcome("outbound", "peer_reset", 1.0).await
}

#[tokio::test]
async fn sidecar_killed_in_the_middle_of_an_answer_is_an_error_downstream() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let error = killed_in_the_middle(&stage, true).await?;
    ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "the error was {error}");
    stage.client.outcome("outbound", "peer_vanished", 1.0).await
}

#[tokio::test]
async fn client_that_resets_in_the_middle_is_a_reset_upstream() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let to = stage.server.v4(7000);
    let listener = stage.server.pod.tcp_listen(to).await?;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        match stream.write_all(&vec![b'x'; LONG]).await {
            Ok(()) => stream.read_to_end(&mut Vec::new()).await,
            Err(error) => Err(error),
        }
    });
    let mut stream = stage.client.pod.tcp_connect(to).await?;
    stream.read_exact(&mut [0; 1000]).await?;
    // Closed with unread bytes in its buffer: Linux answers with a reset.
    drop(stream);
    let Err(error) = server.await? else { bail!("a reset client looked like an end of stream") };
    let broken = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe];
    ensure!(broken.contains(&error.kind()), "the error was {error}");
    stage.client.outcome("outbound", "workload_reset", 1.0).await
}

/// SIGTERM: what runs may finish, nothing new begins, and the process ends well.
#[tokio::test]
async fn a_sidecar_that_is_told_to_end_lets_a_use_finish_and_takes_no_other() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let to = stage.server.v4(7000);
    let listener = stage.server.pod.tcp_listen(to).await?;
    let mut stream = stage.client.pod.tcp_connect(to).await?;
    stream.write_all(b"before").await?;
    let (mut workload, _) = listener.accept().await?;
    workload.read_exact(&mut [0; 6]).await?;
    let Some(sidecar) = stage.server.take() else { bail!("the sidecar is down") };
    sidecar.terminate();
    sidecar.wait_line("leaving", myelin_tests::programs::LIMIT).await?;
    // The reset may come before connect has returned, or right after.
    if let Ok(mut late) = stage.client.pod.tcp_connect(to).await {
        let refused = late.read_to_end(&mut Vec::new()).await;
        ensure!(refused.is_err(), "a connection after SIGTERM ended cleanly");
    }
    // The use that was running goes on in both directions, to its own end.
    workload.write_all(b"and after").await?;
    workload.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer == "and after", "the answer was {answer:?}");
    stream.shutdown().await?;
    sidecar.wait_success(myelin_tests::programs::LIMIT).await
}
