//! One thing from a server over HTTP, bounded in time and size. Called by `servers` and `reader`.
//! Never: judges what came.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A busy CA answers within a second; a dead one never.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The CA ends connections after five minutes, and a whole log may take longer.
const TRIES: u32 = 3;

/// One server, with one connection that is opened again when it ends.
pub(super) struct Server {
    url: String,
    authority: String,
    /// What its paths begin with: empty, or that of a copy that is not at the top.
    prefix: String,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

/// What a server that can be reached says.
pub(super) enum Answer {
    Body(Vec<u8>),
    Refusal(StatusCode),
}

impl Server {
    /// From `http://host:port`, below which are `/log/` and `/root-log/`.
    pub(super) fn new(url: &str) -> Result<Self> {
        let hint = "write it as http://ca:15011, the CA's ops port, without /log";
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL; {hint}"))?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let is_base = !prefix.ends_with("/log") && !prefix.ends_with("/root-log");
        let plain = uri.scheme_str() == Some("http") && uri.query().is_none() && is_base;
        let authority = uri.authority().filter(|_| plain);
        let authority = authority.with_context(|| format!("{url} cannot be used; {hint}"))?;
        let port = authority.port_u16().map_or(":80", |_| "");
        let authority = format!("{authority}{port}");
        Ok(Self { url: format!("http://{authority}{prefix}"), authority, prefix, connection: None })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The body at `path`, of at most `most` bytes.
    pub(super) async fn body(&mut self, path: &str, most: usize) -> Result<Vec<u8>> {
        match self.get(path, most).await? {
            Answer::Body(body) => Ok(body),
            Answer::Refusal(status) => bail!("{}{path} answered {status}", self.url),
        }
    }

    /// What the server says to `path`; an error only if it cannot be reached.
    pub(super) async fn get(&mut self, path: &str, most: usize) -> Result<Answer> {
        let mut last = None;
        for _ in 0..TRIES {
            match timeout(ANSWER_WITHIN, self.ask(path, most)).await {
                Ok(Ok((StatusCode::OK, body))) => return Ok(Answer::Body(body)),
                Ok(Ok((status, _))) => return Ok(Answer::Refusal(status)),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(anyhow::anyhow!("no answer within {ANSWER_WITHIN:?}")),
            }
            self.connection = None;
        }
        let last = last.unwrap_or_else(|| anyhow::anyhow!("not asked"));
        Err(last.context(format!("cannot read {}{path}", self.url)))
    }

    async fn ask(&mut self, path: &str, most: usize) -> Result<(StatusCode, Vec<u8>)> {
        let requests = match self.connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let requests = self.connection.insert(requests);
        requests.ready().await?;
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(header::HOST, &self.authority)
            .body(Empty::<Bytes>::new())?;
        let response = requests.send_request(request).await?;
        let status = response.status();
        if status != StatusCode::OK {
            // Whatever page comes with it, of whatever length.
            self.connection = None;
            return Ok((status, Vec::new()));
        }
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|why| anyhow::anyhow!("{why}"))?.to_bytes().to_vec();
        ensure!(body.len() <= most, "more than {most} bytes");
        Ok((status, body))
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>> {
        let tcp = TcpStream::connect(&self.authority).await?;
        let (requests, connection) = http1::handshake(TokioIo::new(tcp)).await?;
        // It ends with the requests' handle, and a broken one shows at the next request.
        tokio::spawn(connection);
        Ok(requests)
    }
}
