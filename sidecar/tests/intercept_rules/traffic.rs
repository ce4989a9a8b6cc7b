//! Where connections really go: a pod namespace with the rules, a peer namespace behind a veth, and
//! listeners in the sidecar's and the peer's place. Part of the `intercept_rules` suite.
//!
//! Never: the sidecar itself; the end-to-end suite has that.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use myelin_sidecar::intercept::{Applying, Config, Plan, apply, remove};
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, SockRef, Socket, Type};

use crate::lab::{in_new_netns, run as sh};

/// Nothing here leaves the machine; this only ends a test whose expectation is wrong.
const LIMIT: Duration = Duration::from_secs(2);
const POD: [&str; 2] = ["10.9.0.1", "fd09::1"];
const PEER: [&str; 2] = ["10.9.0.2", "fd09::2"];

/// The test process runs as root, so that is the proxy's UID here: only the mark tells it apart.
fn plan(config: Config) -> Plan {
    Plan::new(Config { proxy_uid: 0, ..config }).unwrap()
}

#[test]
fn outbound_connections_reach_the_sidecar_with_their_destination() {
    in_pod(|_| {
        apply(&plan(Config::default())).unwrap();
        let sidecar = listen(15001);
        for peer in PEER {
            let to = address(peer, 80);
            let _workload = dial(to, None).unwrap();
            assert_eq!(original_destination(&accept(&sidecar).unwrap()), to);
        }
    });
}

#[test]
fn outbound_connections_are_refused_while_the_sidecar_is_dead() {
    in_pod(|peer| {
        let real = peer.run(|| listen(80));
        apply(&plan(Config::default())).unwrap();
        for to in PEER {
            let refused = dial(address(to, 80), None).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
        }
        assert_eq!(
            accept(&real).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "nothing left the pod"
        );
    });
}

#[test]
fn marked_connections_of_the_proxy_uid_leave_and_unmarked_ones_do_not() {
    in_pod(|peer| {
        let real = peer.run(|| listen(80));
        apply(&plan(Config::default())).unwrap();
        for to in PEER {
            dial(address(to, 80), Some(0x6d79)).unwrap();
            accept(&real).unwrap();
            for wrong in [None, Some(0x6d78), Some(0x796d_0000)] {
                assert!(dial(address(to, 80), wrong).is_err(), "{to} {wrong:?}");
            }
        }
        let other_uid = Config { proxy_uid: 1337, ..Config::default() };
        apply(&Plan::new(other_uid).unwrap()).unwrap();
        assert!(dial(address(PEER[0], 80), Some(0x6d79)).is_err(), "the mark alone is not enough");
    });
}

#[test]
fn exclusions_leave_directly_and_their_neighbours_do_not() {
    in_pod(|peer| {
        let real = peer.run(|| [listen(80), listen(81)]);
        let reaches = |to: &str, port: u16| dial(address(to, port), None).is_ok();
        apply(&plan(Config { exclude_outbound_ports: vec![81], ..Config::default() })).unwrap();
        for to in PEER {
            assert!(reaches(to, 81) && !reaches(to, 80), "{to}: by port");
        }
        for (range, other) in [(PEER[0], PEER[1]), (PEER[1], PEER[0])] {
            let exclude_cidrs = vec![range.parse::<IpAddr>().unwrap().into()];
            apply(&plan(Config { exclude_cidrs, ..Config::default() })).unwrap();
            assert!(reaches(range, 80) && !reaches(other, 80), "{range}: by range");
        }
        let by_user = Config { exclude_uids: vec![0], ..Config::default() };
        apply(&Plan::new(by_user).unwrap()).unwrap();
        assert!(reaches(PEER[0], 80), "by UID");
        let by_user = Config { exclude_uids: vec![1], ..Config::default() };
        apply(&Plan::new(by_user).unwrap()).unwrap();
        assert!(!reaches(PEER[0], 80), "by another UID");
        drop(real);
    });
}

/// What a closed socket still has to send has no user any more: whose traffic is direct must not be
/// told by him alone once its connection is there.
#[test]
fn what_was_sent_before_a_close_arrives_whole() {
    let mark = Config::default().mark;
    let marked = Config { proxy_uid: 0, ..Config::default() };
    let by_user = Config { exclude_uids: vec![0], ..Config::default() };
    for (config, mark) in [(marked, Some(mark)), (by_user, None)] {
        in_pod(move |peer| {
            let real = peer.run(|| listen(80));
            apply(&Plan::new(config).unwrap()).unwrap();
            for to in PEER {
                let mut direct = dial(address(to, 80), mark).unwrap();
                let mut far = accept(&real).unwrap();
                direct.set_nonblocking(true).unwrap();
                let mut sent = 0;
                // As much as the kernel takes of what nobody reads yet.
                while let Ok(taken) = direct.write(&[7; 65_536]) {
                    sent += taken;
                }
                drop(direct);
                far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut heard = Vec::new();
                far.read_to_end(&mut heard).unwrap();
                assert!(sent > 65_536, "nothing was left to send at the close");
                assert_eq!(heard.len(), sent);
            }
        });
    }
}

#[test]
fn loopback_and_own_addresses_are_not_captured() {
    in_pod(|_| {
        apply(&plan(Config::default())).unwrap();
        let workload = listen(8080);
        for own in ["127.0.0.1", "::1"].into_iter().chain(POD) {
            dial(address(own, 8080), None).unwrap();
            accept(&workload).unwrap();
        }
    });
}

#[test]
fn inbound_connections_reach_the_sidecar_on_every_port_but_the_named_ones() {
    in_pod(|peer| {
        let config = Config { exclude_inbound_ports: vec![22], ..Config::default() };
        apply(&plan(config)).unwrap();
        let sidecar = listen(15006);
        let direct: Vec<_> = [22, 15020].map(|port| (port, listen(port))).into_iter().collect();
        let _bypassed = [listen(8080), listen(15001)];
        for pod in POD {
            // The sidecar's own ports too: it sees them as destination and refuses the loop.
            for port in [8080, 9, 15001, 15006] {
                let _client = peer.run(move || dial(address(pod, port), None).unwrap());
                let to = original_destination(&accept(&sidecar).unwrap());
                assert_eq!(to, address(pod, port));
            }
            for (port, listener) in &direct {
                let port = *port;
                let _client = peer.run(move || dial(address(pod, port), None).unwrap());
                accept(listener).unwrap();
            }
        }
    });
}

#[test]
fn inbound_connections_are_refused_while_the_sidecar_is_dead() {
    in_pod(|peer| {
        apply(&plan(Config::default())).unwrap();
        let workload = listen(8080);
        for pod in POD {
            let refused = peer.run(move || dial(address(pod, 8080), None).unwrap_err());
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{pod}");
        }
        assert_eq!(accept(&workload).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// Connection tracking is told to call packets from the middle of unknown connections invalid:
/// translation then passes them over, and only the guard stands before the wire.
#[test]
fn packets_that_cannot_be_redirected_do_not_leave() {
    for (exclude_outbound_ports, leaves) in [(vec![], false), (vec![80], true)] {
        in_pod(move |peer| {
            let real = peer.run(|| listen(80));
            let mut workload = dial(address(PEER[0], 80), None).unwrap();
            let mut far = accept(&real).unwrap();
            apply(&plan(Config { exclude_outbound_ports, ..Config::default() })).unwrap();
            std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0").unwrap();
            workload.write_all(b"canary").unwrap();
            far.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
            assert_eq!(far.read(&mut [0; 16]).is_ok(), leaves);
            if !leaves {
                let rules = sh("nft", "list chain inet myelin outbound_guard");
                assert!(!rules.contains("meta l4proto tcp counter packets 0 "), "{rules}");
                // The twin: it is our guard and nothing else that held it back.
                remove().unwrap();
                far.set_read_timeout(Some(LIMIT)).unwrap();
                assert!(far.read(&mut [0; 16]).is_ok());
            }
        });
    }
}

/// Translation must not lapse between the old rules and the new, or plaintext would leave.
#[test]
fn redirected_connections_outlive_a_replacement_of_the_rules() {
    in_pod(|peer| {
        peer.run(|| {
            sh("nft", "add table inet watch");
            sh("nft", "add chain inet watch seen { type filter hook prerouting priority 0 ; }");
            sh("nft", "add rule inet watch seen meta l4proto tcp counter");
        });
        apply(&plan(Config::default())).unwrap();
        let sidecar = listen(15001);
        for to in PEER {
            let mut workload = dial(address(to, 80), None).unwrap();
            let mut captured = accept(&sidecar).unwrap();
            captured.set_read_timeout(Some(LIMIT)).unwrap();
            for port in 1..20 {
                let config = Config { exclude_outbound_ports: vec![port], ..Config::default() };
                assert_eq!(apply(&plan(config)).unwrap(), Applying::Replaced);
                workload.write_all(&[7]).unwrap();
                captured.read_exact(&mut [0]).unwrap();
            }
        }
        let watch = peer.run(|| sh("nft", "list table inet watch"));
        assert!(watch.contains("counter packets 0 bytes 0"), "{watch}");
    });
}

/// A namespace at the other end of the pod's veth.
struct Peer(File);

impl Peer {
    /// Runs something there; what it opens stays there.
    fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let there = self.0.try_clone().unwrap();
        let done = thread::spawn(move || {
            setns(there, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        done.join().unwrap()
    }
}

/// Runs `test` in a namespace that a veth joins with a peer's; both have IPv4 and IPv6 addresses.
fn in_pod(test: impl FnOnce(&Peer) + Send + 'static) {
    in_new_netns(move || {
        let there = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            sh("ip", "link set lo up");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let peer = Peer(there.join().unwrap());
        sh("ip", "link add pod0 type veth peer name peer0");
        move_link(&peer);
        for (name, addresses) in [("pod0", POD), ("peer0", PEER)] {
            let set_up = move || {
                for (address, len) in addresses.into_iter().zip([24, 64]) {
                    sh("ip", &format!("address add {address}/{len} dev {name} nodad"));
                }
                sh("ip", &format!("link set {name} up"));
            };
            if name == "pod0" { set_up() } else { peer.run(set_up) }
        }
        test(&peer);
    });
}

/// `ip` takes a path for a namespace: the peer's file as this process sees it.
fn move_link(peer: &Peer) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), peer.0.as_raw_fd());
    sh("ip", &format!("link set peer0 netns {path}"));
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// On all addresses of both families, as the sidecar listens.
fn listen(port: u16) -> TcpListener {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    // Linux applies it to `accept` too.
    SockRef::from(&listener).set_read_timeout(Some(LIMIT)).unwrap();
    listener
}

/// The next connection; `WouldBlock` when none comes in time.
fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    listener.accept().map(|(stream, _)| stream)
}

fn dial(to: SocketAddr, mark: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.connect_timeout(&to.into(), LIMIT)?;
    Ok(socket.into())
}

/// As the sidecar asks for it: by the family that the peer really speaks.
fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let found = match stream.peer_addr().unwrap().ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    found.unwrap().as_socket().unwrap()
}
