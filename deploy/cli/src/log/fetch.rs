//! One thing from the CA's port over HTTP, bounded in time and size. Called by `reader` and `monitor`.
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
    authority: String,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Server {
    /// From `http://host:port`.
    pub(super) fn new(url: &str) -> Result<Self> {
        let hint = "write it as http://ca:15011, the CA's ops port";
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL; {hint}"))?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        let authority = uri.authority().filter(|_| plain && uri.query().is_none());
        let authority = authority.with_context(|| format!("{url} cannot be used; {hint}"))?;
        let port = authority.port_u16().map_or(":80", |_| "");
        Ok(Self { authority: format!("{authority}{port}"), connection: None })
    }

    /// The body at `path`, of at most `most` bytes.
    pub(super) async fn get(&mut self, path: &str, most: usize) -> Result<Vec<u8>> {
        let mut last = None;
        for _ in 0..TRIES {
            match timeout(ANSWER_WITHIN, self.ask(path, most)).await {
                Ok(Ok((StatusCode::OK, body))) => return Ok(body),
                Ok(Ok((status, _))) => bail!("http://{}{path} answered {status}", self.authority),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(anyhow::anyhow!("no answer within {ANSWER_WITHIN:?}")),
            }
            self.connection = None;
        }
        let last = last.unwrap_or_else(|| anyhow::anyhow!("not asked"));
        Err(last.context(format!("cannot read http://{}{path}", self.authority)))
    }

    async fn ask(&mut self, path: &str, most: usize) -> Result<(StatusCode, Vec<u8>)> {
        let requests = match self.connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let requests = self.connection.insert(requests);
        requests.ready().await?;
        let request =
            Request::get(path).header(header::HOST, &self.authority).body(Empty::<Bytes>::new())?;
        let response = requests.send_request(request).await?;
        let status = response.status();
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
