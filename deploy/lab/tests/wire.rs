//! The capture, seen from outside: it finds what is readable, and reads TLS 1.3 as what it is.
//! Needs root or `unshare --user --map-root-user`; `MYELIN_SKIP_NETNS=1` skips it.
//! Never: asks the capture about bytes that did not cross a real veth.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use myelin_lab::wire::{Capture, CaptureOptions, WireReport};
use myelin_lab::{Lab, Pod, Stream, addresses, ground};
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CANARY: &str = "canary-of-the-wire-suite";

fn two_pods() -> Option<(Lab, Pod, Pod)> {
    ground::enter_unless_skipped().unwrap()?;
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.pod("a", &addresses(1)).unwrap(), lab.pod("b", &addresses(2)).unwrap());
    Some((lab, a, b))
}

async fn connect(a: &Pod, b: &Pod, family: usize, port: u16) -> (TcpStream, TcpStream) {
    let on = SocketAddr::new(b.addresses()[family], port);
    let listener = b.tcp_listen(on).await.unwrap();
    let to = listener.local_addr().unwrap();
    let (client, served) = tokio::join!(a.tcp_connect(to), listener.accept());
    (client.unwrap(), served.unwrap().0)
}

/// Sends `pieces` as segments of their own (each is read before the next is sent).
async fn send(client: &mut TcpStream, served: &mut TcpStream, pieces: &[&[u8]]) {
    client.set_nodelay(true).unwrap();
    for piece in pieces {
        client.write_all(piece).await.unwrap();
        let mut seen = vec![0; piece.len()];
        served.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, piece);
    }
}

fn watch(lab: &Lab) -> Capture {
    Capture::start(lab, CaptureOptions::canaries([CANARY])).unwrap()
}

#[tokio::test]
async fn plaintext_canary_is_found_over_both_families() {
    let Some((lab, a, b)) = two_pods() else {
        return;
    };
    for family in [0, 1] {
        let capture = watch(&lab);
        let (mut client, mut served) = connect(&a, &b, family, 0).await;
        send(&mut client, &mut served, &[format!("GET /{CANARY}").as_bytes()]).await;
        let report = capture.report().await.unwrap();
        let hits = &report.canaries[0];
        assert_eq!((hits.in_frames, hits.in_streams), (1, 1), "{report:?}");
        assert_eq!((report.flows, report.non_tls_flows), (1, 1), "{report:?}");
        let (from, to) = report.non_tls.keys().next().unwrap();
        assert_eq!((*from, to.ip()), (addresses(1)[family], addresses(2)[family]));
        assert!(report.is_complete());
    }
}

#[tokio::test]
async fn canary_over_two_segments_is_found() {
    let Some((lab, a, b)) = two_pods() else {
        return;
    };
    let capture = watch(&lab);
    let (mut client, mut served) = connect(&a, &b, 0, 0).await;
    let (head, tail) = CANARY.as_bytes().split_at(9);
    send(&mut client, &mut served, &[head, tail]).await;
    let report = capture.report().await.unwrap();
    assert_eq!((report.canaries[0].in_frames, report.canaries[0].in_streams), (0, 1));
}

#[tokio::test]
async fn bulk_is_counted_once_and_whole() {
    const MEGABYTES: usize = 64;
    let Some((lab, a, b)) = two_pods() else {
        return;
    };
    let capture = watch(&lab);
    let (mut client, mut served) = connect(&a, &b, 1, 0).await;
    let reader =
        tokio::spawn(async move { tokio::io::copy(&mut served, &mut tokio::io::sink()).await });
    let mut block = vec![b'.'; 1 << 20];
    block[500..500 + CANARY.len()].copy_from_slice(CANARY.as_bytes());
    for _ in 0..MEGABYTES {
        client.write_all(&block).await.unwrap();
    }
    drop(client);
    reader.await.unwrap().unwrap();
    let report = capture.report().await.unwrap();
    if report.dropped == 0 {
        assert_eq!(report.canaries[0].in_streams, MEGABYTES as u64, "{report:?}");
        let payload = (MEGABYTES << 20) as u64;
        assert!((payload..payload + payload / 10).contains(&report.bytes), "{report:?}");
        assert_eq!(report.gaps, 0);
    } else {
        // Without privilege on the host the queue is small: then the loss must be admitted.
        assert!(!report.is_complete());
        assert!(report.objections(|_| true).iter().any(|text| text.contains("lost")));
    }
}

#[tokio::test]
async fn queue_that_is_too_small_admits_its_loss() {
    let Some((lab, a, b)) = two_pods() else {
        return;
    };
    let capture = Capture::start(&lab, CaptureOptions::default().queue(4096)).unwrap();
    let (mut client, mut served) = connect(&a, &b, 1, 0).await;
    let reader =
        tokio::spawn(async move { tokio::io::copy(&mut served, &mut tokio::io::sink()).await });
    client.write_all(&vec![b'.'; 32 << 20]).await.unwrap();
    drop(client);
    reader.await.unwrap().unwrap();
    let report = capture.report().await.unwrap();
    assert!(report.dropped > 0 && !report.is_complete(), "{report:?}");
    assert!(report.objections(|_| true).iter().any(|text| text.contains("lost")));
}

#[tokio::test]
async fn both_sides_of_a_local_connection_stay_off_the_wire() {
    let Some((lab, a, _b)) = two_pods() else {
        return;
    };
    let capture = watch(&lab);
    let (mut client, mut served) = connect(&a, &a, 0, 0).await;
    send(&mut client, &mut served, &[CANARY.as_bytes()]).await;
    let report = capture.report().await.unwrap();
    assert_eq!((report.flows, report.canary_hits()), (0, 0), "{report:?}");
}

fn tls(group: &'static dyn SupportedKxGroup) -> (TlsConnector, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["wire.example".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = CryptoProvider { kx_groups: vec![group], ..aws_lc_rs::default_provider() };
    let provider = Arc::new(provider);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (Arc::new(client).into(), Arc::new(server).into())
}

/// Two TLS connections one after the other (the second resumes the first) that carry the canary.
async fn talk_tls(a: &Pod, b: &Pod, group: &'static dyn SupportedKxGroup) {
    let (connector, acceptor) = tls(group);
    for _ in 0..2 {
        let (client, served) = connect(a, b, 1, 4433).await;
        let name = ServerName::try_from("wire.example").unwrap();
        let (client, served) =
            tokio::join!(connector.connect(name, client), acceptor.accept(served));
        let (mut client, mut served) = (client.unwrap(), served.unwrap());
        client.write_all(CANARY.as_bytes()).await.unwrap();
        let mut seen = vec![0; CANARY.len()];
        served.read_exact(&mut seen).await.unwrap();
        served.write_all(&seen).await.unwrap();
        served.shutdown().await.unwrap();
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, CANARY.as_bytes());
        client.shutdown().await.unwrap();
    }
}

fn count(map: &std::collections::BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    map.iter().map(|(name, count)| (name.as_str(), *count)).collect()
}

#[tokio::test]
async fn tls13_is_recognised_and_hides_the_canary() {
    let Some((lab, a, b)) = two_pods() else {
        return;
    };
    let capture = watch(&lab);
    talk_tls(&a, &b, X25519MLKEM768).await;
    let report: WireReport = capture.report().await.unwrap();
    assert_eq!(report.objections(|_| false), Vec::<String>::new(), "{report:?}");
    assert_eq!((report.flows, report.tls13_flows, report.handshakes), (2, 2, 2), "{report:?}");
    assert_eq!(report.resumed, 1, "{report:?}");
    assert_eq!(count(&report.versions), [("TLS 1.3", 2)]);
    assert_eq!(count(&report.groups), [("X25519MLKEM768", 2)]);
    assert_eq!(count(&report.ciphers), [("TLS_AES_256_GCM_SHA384", 2)]);
    assert!(report.records["application_data"] >= 4 && report.records["handshake"] == 4);
    assert!(report.server_names.contains("wire.example"));
}

#[tokio::test]
async fn classical_group_is_told_from_the_hybrid_one() {
    let Some((lab, a, b)) = two_pods() else {
        return;
    };
    let capture = watch(&lab);
    talk_tls(&a, &b, X25519).await;
    assert_eq!(count(&capture.report().await.unwrap().groups), [("X25519", 2)]);
}

#[tokio::test]
async fn pcap_file_is_read_by_tshark_as_tls13() {
    let Some((lab, a, b)) = two_pods() else {
        return;
    };
    let capture = watch(&lab);
    talk_tls(&a, &b, X25519MLKEM768).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wire.pcap");
    let written = capture.to_pcap(&path).await.unwrap();
    assert!(written.frames > 10 && written.left_out == 0, "{written:?}");
    let shark = a
        .command("tshark")
        .args(["-d", "tcp.port==4433,tls", "-Y", "tls.handshake.type==2", "-T", "fields"])
        .args([
            "-e",
            "tls.handshake.ciphersuite",
            "-e",
            "tls.handshake.extensions.supported_version",
        ])
        .arg("-r")
        .arg(&path)
        .spawn();
    let Ok(shark) = shark else { return }; // Not installed: the file's form is a unit test anyway.
    shark.wait_success(Duration::from_secs(60)).await.unwrap();
    assert_eq!(shark.text(Stream::Out), "0x1302\t0x0304\n0x1302\t0x0304");
}
