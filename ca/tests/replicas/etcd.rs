//! A real etcd cluster on loopback, and links to it that can be cut.
//!
//! Never: skips when etcd is not there.

// SPDX-License-Identifier: Apache-2.0

use std::io::{Read as _, Write as _};
use std::net::TcpListener as StdListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Members that end with their test.
pub(crate) struct Etcd {
    members: Vec<Member>,
    _dir: tempfile::TempDir,
}

struct Member {
    process: Child,
    client: u16,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    /// Starts so many members and waits until one leads.
    pub(crate) async fn start(size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // All held at once, so that they differ; freed just before etcd takes them.
        let free: Vec<_> =
            (0..2 * size).map(|_| StdListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|it| it.local_addr().unwrap().port()).collect();
        drop(free);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> =
            (0..size).map(|at| format!("m{at}={}", url(ports[size + at]))).collect();
        let start = |at: usize| {
            let (client, peer) = (url(ports[at]), url(ports[size + at]));
            let process = Command::new("etcd")
                .args(["--name", &format!("m{at}"), "--data-dir"])
                .arg(dir.path().join(at.to_string()))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &all.join(",")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("etcd runs: install Debian's etcd-server, or run tests/run, which does");
            Member { process, client: ports[at] }
        };
        let etcd = Self { members: (0..size).map(start).collect(), _dir: dir };
        etcd.leader_among(&(0..size).collect::<Vec<_>>()).await;
        etcd
    }

    pub(crate) fn endpoints(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// Which of these members leads, once one does.
    pub(crate) async fn leader_among(&self, members: &[usize]) -> usize {
        for _ in 0..300 {
            for &at in members {
                if leads(self.members[at].client) {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no member leads");
    }

    /// Kills one member for good.
    pub(crate) fn kill(&mut self, at: usize) {
        self.members[at].process.kill().unwrap();
        self.members[at].process.wait().unwrap();
    }

    /// Every member stands still, as behind a network that is gone.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        for member in &self.members {
            let pid = i32::try_from(member.process.id()).unwrap();
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    }
}

/// Asked of its own metrics page.
fn leads(port: u16) -> bool {
    let asked = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    asked().is_ok_and(|page| page.contains("\netcd_server_is_leader 1\n"))
}

/// The only way from one replica to one member: while it is cut, nothing passes and nothing is said
/// about it.
pub(crate) struct Link {
    pub(crate) port: u16,
    cut: watch::Sender<bool>,
}

impl Link {
    pub(crate) async fn to(member: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(carry(from, member, is_cut.clone()));
            }
        });
        Self { port, cut }
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub(crate) fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn carry(mut from: TcpStream, member: u16, mut is_cut: watch::Receiver<bool>) {
    if !*is_cut.borrow()
        && let Ok(mut to) = TcpStream::connect(("127.0.0.1", member)).await
    {
        tokio::select! {
            _ = copy_bidirectional(&mut from, &mut to) => return,
            _ = is_cut.wait_for(|cut| *cut) => {}
        }
    }
    // Silence, until the link is mended; then this connection is broken, as after a long cut.
    let _ = is_cut.wait_for(|cut| !*cut).await;
}
