//! The whole ground without root: a program of its own, as a user namespace can be entered only before the
//! threads of a test harness start. It speaks as much of the harness' language as nextest needs.
//! Never: keeps the privilege that it was started with.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::SocketAddr;
use std::time::Duration;

use myelin_lab::ground::Standing;
use myelin_lab::wire::{Capture, CaptureOptions};
use myelin_lab::{Lab, Stream, addresses, ground};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "pods_and_capture_work_in_a_user_namespace";
const CANARY: &str = "canary-without-root";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
    if has("--list") {
        if !has("--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    if std::env::var_os("MYELIN_SKIP_NETNS").is_some_and(|value| value == "1") {
        return;
    }
    let ground = ground::enter_user_namespace().unwrap();
    assert_eq!(ground.standing(), Standing::UserNamespace);
    assert!(!ground.tells_uids_apart());
    assert_eq!(ground.proxy_uid(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tell());
    println!("test {NAME} ... ok");
}

async fn tell() {
    let again = ground::enter().unwrap();
    assert_eq!(again.proxy_uid(), 0, "entering twice must not change what is known about UIDs");
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.pod("a", &addresses(1)).unwrap(), lab.pod("b", &addresses(2)).unwrap());
    let capture = Capture::start(&lab, CaptureOptions::canaries([CANARY])).unwrap();
    for address in addresses(2) {
        let listener = b.tcp_listen(SocketAddr::new(address, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        let (client, served) = tokio::join!(a.tcp_connect(to), listener.accept());
        let (mut client, mut served) = (client.unwrap(), served.unwrap().0);
        client.write_all(CANARY.as_bytes()).await.unwrap();
        let mut seen = [0; CANARY.len()];
        served.read_exact(&mut seen).await.unwrap();
    }
    let report = capture.report().await.unwrap();
    assert_eq!((report.flows, report.canary_hits(), report.dropped), (2, 2, 0), "{report:?}");
    let shell = a.command("sh").args(["-c", "id -u"]).sidecar_identity(0).spawn().unwrap();
    shell.wait_success(Duration::from_secs(20)).await.unwrap();
    assert_eq!(shell.text(Stream::Out), "0");
}
