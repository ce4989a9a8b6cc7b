//! Probes of every kind against real servers on loopback, and the redirects' rule as a table.
//!
//! Never: a namespace; that the port is reached beside the rules is tested end to end.

// SPDX-License-Identifier: Apache-2.0

mod servers;

use std::net::{Ipv4Addr, SocketAddr};

use hyper::header::{HeaderMap, LOCATION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::redirect::{Next, Nowhere, Place, next};
use super::*;

fn http(port: u16, target: &'static str) -> HttpProbe {
    let target = PathAndQuery::from_static(target);
    HttpProbe { port, https: false, target, headers: Vec::new() }
}

fn probe(action: Action) -> Probe {
    let (container, timeout) = ("web".to_owned(), Duration::from_secs(1));
    Probe { container, kind: Kind::Liveness, timeout, action }
}

/// The probe port with one probe, and what metrics say.
fn serve(action: Action) -> (SocketAddr, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let any = ListenAddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let port = ProbePort::bind(any, vec![probe(action)], Arc::clone(&metrics)).unwrap();
    let address = port.local_address().unwrap().0;
    tokio::spawn(port.serve());
    (address, metrics)
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

/// The status of the one probe, as the kubelet sees it.
async fn status_of(action: Action) -> u16 {
    let (address, _) = serve(action);
    let said = ask(address, "GET", "/probe/web/liveness").await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "", "only the status is told: {said}");
    assert!(!head.to_ascii_lowercase().contains("secret"), "{said}");
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn http_probe_gets_the_workloads_own_status() {
    let port = servers::web(None).await;
    for (path, expected) in [
        ("/ok", 200),
        ("/ok?deep=1", 200),
        ("/broken", 503),
        ("/teapot", 418),
        // Followed on the same host, relative or by the address that was dialled.
        ("/moved", 200),
        ("/moved-to-broken", 503),
        ("/moved-by-address", 200),
        // Elsewhere it is an answer, which the kubelet takes for success; nobody is asked there.
        ("/moved-away", 302),
        ("/moved-without-a-place", 302),
        ("/moved-in-circles", 502),
        ("/hangs-up", 502),
        // A body that stops in the middle is a failure, as it is to the kubelet.
        ("/half", 502),
        ("/endless", 200),
    ] {
        assert_eq!(status_of(Action::Http(http(port, path))).await, expected, "{path}");
    }
}

#[tokio::test]
async fn http_probe_asks_as_the_kubelet_would() {
    let port = servers::web(None).await;
    let mut asked = http(port, "/headers");
    // The server answers 200 to exactly these.
    asked.headers = [("x-probe", "yes"), ("host", "shop.example"), ("accept", "")]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .to_vec();
    assert_eq!(status_of(Action::Http(asked.clone())).await, 200);
    asked.headers.remove(0);
    assert_eq!(status_of(Action::Http(asked)).await, 400, "the twin");
    assert_eq!(status_of(Action::Http(http(port, "/default-headers"))).await, 200);
}

#[tokio::test]
async fn https_probe_takes_whoever_answers_in_either_http() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let port = servers::web(Some(alpn)).await;
        let https = |target| Action::Http(HttpProbe { https: true, ..http(port, target) });
        assert_eq!(status_of(https("/ok")).await, 200, "{alpn:?}");
        assert_eq!(status_of(https("/broken")).await, 503, "{alpn:?}");
        // In the clear, a TLS port is no HTTP.
        assert_ne!(status_of(Action::Http(http(port, "/ok"))).await, 200, "{alpn:?}");
    }
    let plain = servers::web(None).await;
    let https = HttpProbe { https: true, ..http(plain, "/ok") };
    assert_eq!(status_of(Action::Http(https)).await, 502);
}

#[tokio::test]
async fn tcp_probe_passes_where_somebody_listens() {
    let port = servers::web(None).await;
    assert_eq!(status_of(Action::Tcp { port }).await, 200);
    assert_eq!(status_of(Action::Tcp { port: servers::nobody().await }).await, 502);
}

#[tokio::test]
async fn grpc_probe_passes_only_while_serving() {
    let port = servers::health().await;
    for (service, expected) in [
        ("", 200),
        ("shop.Orders", 200),
        ("not-serving", 503),
        ("unknown", 503),
        ("two-messages", 503),
        ("no-trailers", 503),
        ("junk", 503),
    ] {
        let action = Action::Grpc { port, service: service.to_owned() };
        assert_eq!(status_of(action).await, expected, "{service}");
    }
    let web = Action::Grpc { port: servers::web(None).await, service: String::new() };
    assert_ne!(status_of(web).await, 200);
}

#[tokio::test]
async fn probe_that_takes_too_long_is_ended_and_counted() {
    let port = servers::web(None).await;
    let (address, metrics) = serve(Action::Http(http(port, "/stalls")));
    let said = ask(address, "GET", "/probe/web/liveness").await;
    assert!(said.starts_with("HTTP/1.1 504 "), "{said}");
    let line = "myelin_probes_total{kind=\"liveness\",outcome=\"timed_out\"} 1";
    assert!(metrics.render().contains(line), "{}", metrics.render());
}

#[tokio::test]
async fn only_configured_probes_are_run_and_only_by_get() {
    let port = servers::web(None).await;
    let (address, metrics) = serve(Action::Http(http(port, "/ok")));
    for (method, path, expected) in [
        ("GET", "/probe/web/liveness", "200"),
        ("GET", "/probe/web/liveness?x=1", "200"),
        ("GET", "/probe/web/readiness", "404"),
        ("GET", "/probe/db/liveness", "404"),
        ("GET", "/probe/web/liveness/", "404"),
        ("GET", "/probe/web/liveness/../../ok", "404"),
        ("GET", "/probe//liveness", "404"),
        ("GET", "/ok", "404"),
        ("GET", "/", "404"),
        ("GET", "http://169.254.169.254/probe/web/startup", "404"),
        ("POST", "/probe/web/liveness", "405"),
        ("DELETE", "/probe/web/liveness", "405"),
    ] {
        let said = ask(address, method, path).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {expected} ")), "{method} {path}: {said}");
    }
    let runs = "myelin_probes_total{kind=\"liveness\",outcome=\"passed\"} 2";
    assert!(metrics.render().contains(runs), "{}", metrics.render());
}

#[test]
fn redirects_are_followed_on_the_same_host_only() {
    let at = |https, port, target: &str| Place { https, port, target: target.parse().unwrap() };
    let from = at(false, 8080, "/a/b?c=d");
    let ip = "10.1.2.3".parse().unwrap();
    let go = |status: u16, location: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        next(StatusCode::from_u16(status).unwrap(), &headers, &from, ip)
    };
    let follow = |place, absolute| Ok(Some(Next { place, absolute }));
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(go(status, "/x"), follow(at(false, 8080, "/x"), false), "{status}");
    }
    for status in [200, 204, 300, 304, 404, 503] {
        assert_eq!(go(status, "/x"), Ok(None), "{status}");
    }
    for (location, expected) in [
        ("x", follow(at(false, 8080, "/a/x"), false)),
        ("?e=f", follow(at(false, 8080, "/a/b?e=f"), false)),
        ("/x#part", follow(at(false, 8080, "/x"), false)),
        ("http://10.1.2.3:9090/x?y", follow(at(false, 9090, "/x?y"), true)),
        ("https://10.1.2.3/x", follow(at(true, 443, "/x"), true)),
        ("//10.1.2.3/x", follow(at(false, 80, "/x"), true)),
        ("http://10.1.2.4/x", Ok(None)),
        ("http://localhost:8080/x", Ok(None)),
        ("http://10.1.2.3.example/x", Ok(None)),
        ("http://user@10.1.2.4/x", Ok(None)),
        ("//example.org/x", Ok(None)),
        ("", Ok(None)),
        ("ftp://10.1.2.3/x", Err(Nowhere)),
        ("file:/etc/passwd", Err(Nowhere)),
    ] {
        assert_eq!(go(302, location), expected, "{location}");
    }
    let (six, v6) = ("fd00::3".parse().unwrap(), "http://[fd00::3]:9090/x");
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, v6.parse().unwrap());
    let followed = next(StatusCode::FOUND, &headers, &from, six);
    assert_eq!(followed, follow(at(false, 9090, "/x"), true));
}
