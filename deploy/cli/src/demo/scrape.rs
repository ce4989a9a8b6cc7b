//! Asks the sidecars and the CA what they show to everybody (metrics, readiness) and to operators
//! (the admin socket). Called by the stage, the story and the chapters.
//! Never: asks over the wire; each question is asked inside the pod of the one who answers.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use myelin_lab::Pod;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Answers come from the same machine; a loaded one may take a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Metrics of one sidecar with its bounded label sets stay far below this.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The sidecar's port for `/live`, `/ready` and `/metrics`, and the CA's.
pub(super) const SIDECAR_OPS: u16 = 15020;
pub(super) const CA_OPS: u16 = 15011;

/// One scrape in the Prometheus text format.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics(Vec<Series>);

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    pub(super) async fn of(pod: &Pod, port: u16) -> Result<Self> {
        let (status, text) = ops(pod, port, "/metrics").await?;
        ensure!(status.is_success(), "/metrics of {} answered {status}", pod.name());
        Ok(Self(text.lines().filter_map(series).collect()))
    }

    /// The sum of all series of this name that carry all these labels.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |series: &Series| {
            let has = |wanted: &(&str, &str)| {
                series.labels.iter().any(|(key, value)| (key.as_str(), value.as_str()) == *wanted)
            };
            series.name == name && labels.iter().all(has)
        };
        self.0.iter().filter(|series| carries(series)).map(|series| series.value).sum()
    }

    /// As [`Metrics::sum`], for counters.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and never negative, and stay far below 2^53 here"
    )]
    pub(super) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// The values of one label over all series of this name that are not zero.
    pub(super) fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let alive = self.0.iter().filter(|series| series.name == name && series.value > 0.0);
        alive
            .flat_map(|series| series.labels.iter())
            .filter(|(key, _)| key == label)
            .map(|(_, value)| value.clone())
            .collect()
    }
}

/// The sidecar's readiness, with its own words if it is not.
pub(super) async fn ready(pod: &Pod) -> Result<()> {
    let (status, said) = ops(pod, SIDECAR_OPS, "/ready").await?;
    ensure!(status.is_success(), "not ready: {}", said.trim());
    Ok(())
}

/// The CA's readiness.
pub(super) async fn ca_ready(pod: &Pod) -> Result<()> {
    let (status, said) = ops(pod, CA_OPS, "/readyz").await?;
    ensure!(status.is_success(), "not ready: {}", said.trim());
    Ok(())
}

/// The serial numbers of the certificates that the sidecar holds, from its admin socket.
pub(super) async fn serials(admin: &Path) -> Result<Vec<String>> {
    let stream = timeout(ANSWER_LIMIT, UnixStream::connect(admin))
        .await
        .context("no answer")?
        .with_context(|| format!("cannot connect to {}", admin.display()))?;
    let (status, text) = get(stream, "/certs").await?;
    ensure!(status.is_success(), "/certs answered {status}");
    let answer: Value = serde_json::from_str(&text).context("/certs is no JSON")?;
    let mut found = Vec::new();
    collect(&answer, "serial", &mut found);
    Ok(found)
}

async fn ops(pod: &Pod, port: u16, path: &str) -> Result<(StatusCode, String)> {
    let stream = pod.tcp_connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    get(stream, path).await
}

pub(super) async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
) -> Result<(StatusCode, String)> {
    let work = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request =
            Request::get(path).header(header::HOST, "localhost").body(Empty::<Bytes>::new())?;
        let asking = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
            let bytes = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
        };
        tokio::pin!(connection, asking);
        tokio::select! {
            answer = &mut asking => answer,
            ended = &mut connection => match ended {
                Ok(()) => asking.await,
                Err(error) => Err(error.into()),
            },
        }
    };
    match timeout(ANSWER_LIMIT, work).await {
        Ok(answer) => answer.with_context(|| format!("cannot get {path}")),
        Err(_) => bail!("{path} did not answer within {ANSWER_LIMIT:?}"),
    }
}

/// Reads `name{key="value",...} 1.5`; comments and what is malformed yield nothing.
fn series(line: &str) -> Option<Series> {
    let (head, value) = line.rsplit_once(' ')?;
    if head.starts_with('#') {
        return None;
    }
    let value = value.parse().ok()?;
    let Some((name, rest)) = head.split_once('{') else {
        return Some(Series { name: head.to_owned(), labels: Vec::new(), value });
    };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while let Some((key, after)) = rest.split_once("=\"") {
        let end = after.find('"')?;
        labels.push((key.trim_start_matches(',').to_owned(), after[..end].to_owned()));
        rest = &after[end + 1..];
    }
    Some(Series { name: name.to_owned(), labels, value })
}

/// The texts under every key of this name, however deep.
fn collect(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                match inner {
                    Value::String(text) if name == key => found.push(text.clone()),
                    _ => collect(inner, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| collect(inner, key, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\n\
        myelin_renewals_total{outcome=\"renewed\"} 3\n\
        myelin_renewals_total{outcome=\"ca_unreachable\"} 2\n\
        closed{direction=\"inbound\",outcome=\"ok\",peer=\"spiffe://a/ns/b/sa/c\"} 7\n\
        myelin_ready 1\n";

    fn read() -> Metrics {
        Metrics(TEXT.lines().filter_map(series).collect())
    }

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let metrics = read();
        assert_eq!(metrics.count("myelin_renewals_total", &[]), 5);
        assert_eq!(metrics.count("myelin_renewals_total", &[("outcome", "renewed")]), 3);
        assert_eq!(metrics.count("closed", &[("direction", "inbound"), ("outcome", "ok")]), 7);
        assert_eq!(metrics.count("myelin_ready", &[]), 1);
    }

    #[test]
    fn series_of_other_labels_count_nothing() {
        let metrics = read();
        assert_eq!(metrics.count("myelin_renewals_total", &[("outcome", "attested")]), 0);
        assert_eq!(metrics.count("closed", &[("direction", "outbound")]), 0);
    }

    #[test]
    fn serials_are_found_at_any_depth() {
        let answer = serde_json::json!({"svid": {"serial": "0a"}, "bundle": [{"serial": "0b"}]});
        let mut found = Vec::new();
        collect(&answer, "serial", &mut found);
        found.sort();
        assert_eq!(found, ["0a", "0b"]);
    }
}
