//! Pods as others will use them: sockets, processes and identities inside network namespaces.
//! Needs root or `unshare --user --map-root-user`; `MYELIN_SKIP_NETNS=1` skips it.
//! Never: sleeps, and never reaches the host's network.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use myelin_lab::{Ground, Lab, Pod, Stream, addresses, ground};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Far beyond what anything here takes; a hang must end some day.
const LIMIT: Duration = Duration::from_secs(20);

fn two_pods() -> Option<(Ground, Lab, Pod, Pod)> {
    let ground = ground::enter_unless_skipped().unwrap()?;
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.pod("a", &addresses(1)).unwrap(), lab.pod("b", &addresses(2)).unwrap());
    Some((ground, lab, a, b))
}

/// A shell inside `pod` that runs `script`.
fn shell(pod: &Pod, script: &str) -> myelin_lab::Command {
    pod.command("sh").args(["-c", script])
}

#[tokio::test]
async fn bytes_cross_the_wire_over_both_families() {
    let Some((_, _lab, a, b)) = two_pods() else {
        return;
    };
    for address in addresses(2) {
        let listener = b.tcp_listen(SocketAddr::new(address, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        let (client, served) = tokio::join!(a.tcp_connect(to), listener.accept());
        let (mut client, (mut served, from)) = (client.unwrap(), served.unwrap());
        assert!(addresses(1).contains(&from.ip()));
        client.write_all(b"ping").await.unwrap();
        let mut seen = [0; 4];
        served.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"ping");
    }
}

#[tokio::test]
async fn pod_without_a_listener_refuses() {
    let Some((_, _lab, a, _b)) = two_pods() else {
        return;
    };
    let error = a.tcp_connect(SocketAddr::new(addresses(2)[0], 9)).await.unwrap_err();
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
}

#[tokio::test]
async fn unplugged_pod_is_silent_and_replugged_pod_answers() {
    let Some((_, _lab, a, b)) = two_pods() else {
        return;
    };
    let listener = b.tcp_listen(SocketAddr::new(b.v4(), 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    b.unplug().unwrap();
    let attempt = tokio::time::timeout(Duration::from_millis(300), a.tcp_connect(to)).await;
    assert!(!matches!(attempt, Ok(Ok(_))), "an unplugged pod answered");
    b.replug().unwrap();
    a.tcp_connect(to).await.unwrap();
}

#[tokio::test]
async fn pod_has_its_own_links_only() {
    let Some((_, _lab, a, _)) = two_pods() else {
        return;
    };
    let proc = shell(&a, "cat /proc/net/dev").spawn().unwrap();
    proc.wait_success(LIMIT).await.unwrap();
    let links = proc.text(Stream::Out);
    let named: Vec<&str> =
        links.lines().filter_map(|l| l.split_once(':')).map(|l| l.0.trim()).collect();
    assert_eq!(named, ["lo", "eth0"]);
}

#[tokio::test]
async fn lines_are_kept_teed_and_waited_for() {
    let Some((_, _lab, a, _)) = two_pods() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let proc = shell(&a, "echo one; echo two >&2; exec sleep 600").tee(&log).spawn().unwrap();
    assert_eq!(proc.wait_line("one", LIMIT).await.unwrap(), "one");
    assert_eq!(proc.wait_line("two", LIMIT).await.unwrap(), "two");
    assert_eq!(proc.text(Stream::Err), "two");
    let mark = proc.mark();
    let error = proc.wait_line_after(mark, "one", Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().contains("did not say"), "{error}");
    proc.terminate();
    assert!(!proc.wait(LIMIT).await.unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("one\n") && log.contains("two\n"), "{log}");
}

#[tokio::test]
async fn program_that_ends_early_is_reported_with_its_last_words() {
    let Some((_, _lab, a, _)) = two_pods() else {
        return;
    };
    let proc = shell(&a, "echo no such key >&2; exit 3").spawn().unwrap();
    let error = proc.wait_line("ready", LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such key"), "{error}");
    let error = proc.wait_success(LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("failed with"), "{error}");
}

#[tokio::test]
async fn dropped_program_takes_its_children_along() {
    let Some((_, _lab, a, _)) = two_pods() else {
        return;
    };
    let proc = shell(&a, "sleep 600 & echo child $!; wait").spawn().unwrap();
    let line = proc.wait_line("child", LIMIT).await.unwrap();
    let child = line.rsplit(' ').next().unwrap().to_owned();
    drop(proc);
    let deadline = tokio::time::Instant::now() + LIMIT;
    while is_alive(&child) {
        assert!(tokio::time::Instant::now() < deadline, "the child of a dropped program lives");
        tokio::task::yield_now().await;
    }
}

/// A killed orphan may wait as a zombie for whoever inherits it: that counts as dead.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn sidecar_identity_has_the_proxy_uid_and_net_admin_alone() {
    let Some((ground, _lab, a, _)) = two_pods() else {
        return;
    };
    let script = "id -u; grep CapEff /proc/self/status; grep Groups /proc/self/status";
    let proc = shell(&a, script).sidecar_identity(ground.proxy_uid()).spawn().unwrap();
    proc.wait_success(LIMIT).await.unwrap();
    let out = proc.text(Stream::Out);
    if !ground.tells_uids_apart() {
        assert!(out.starts_with("0\n"), "{out}");
        return;
    }
    assert!(out.starts_with("1337\n"), "{out}");
    assert!(out.contains("CapEff:\t0000000000001000"), "{out}");
    assert!(out.trim_end().ends_with("Groups:"), "{}", out.escape_debug());
}

#[tokio::test]
async fn plain_identity_has_no_capability() {
    let Some((ground, _lab, a, _)) = two_pods() else {
        return;
    };
    if !ground.tells_uids_apart() {
        let error = shell(&a, "true").identity(33, 33).spawn().unwrap_err();
        assert!(format!("{error:#}").contains("proxy_uid"), "{error:#}");
        return;
    }
    let script = "id -u; grep CapEff /proc/self/status";
    let proc = shell(&a, script).identity(33, 33).spawn().unwrap();
    proc.wait_success(LIMIT).await.unwrap();
    assert_eq!(proc.text(Stream::Out), "33\nCapEff:\t0000000000000000");
}
