//! The operators' door: a Unix socket in the data directory, one JSON line in, one out. Only our
//! own uid and root enter.
//!
//! Never: listens on a network, or trusts the file's mode alone: the kernel says who is calling.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::{Stopping, accept};
use crate::authority::Authority;
use crate::operator::{Answer, Ask, Issuers, answer_running};

/// Longest question: a federation with a bundle and web roots of 64 KiB each, escaped for JSON.
const MAX_ASK_BYTES: u64 = 256 * 1024;
/// Longest answer that a client reads: 10,000 SVIDs at 200 bytes, eight times over.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;
/// Operators at once.
const MAX_OPERATORS: usize = 8;
/// One question and its answer; a list of everything on a slow disk included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Binds the socket. The caller holds the store's lock, so a file that is there is a dead server's.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Who answers a question.
pub type Answers = Arc<dyn Fn(Ask) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The answers of a CA that issues.
pub fn answers(authority: Arc<Authority>) -> Answers {
    Arc::new(move |ask| {
        let authority = authority.clone();
        async move { reply(&authority, ask).await }.boxed()
    })
}

/// Answers operators until the process is to end.
pub async fn serve(listener: UnixListener, answers: Answers, stopping: Stopping) {
    let answer = |(stream, _)| {
        let answers = answers.clone();
        async move {
            match timeout(DEADLINE, converse(stream, &answers)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::info!(%error, "an operator's connection failed"),
                Err(_) => tracing::info!("an operator's connection took too long"),
            }
        }
    };
    accept::each(|cx| listener.poll_accept(cx), MAX_OPERATORS, stopping, answer).await;
}

async fn converse(mut stream: UnixStream, answers: &Answers) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let ours = nix::unistd::geteuid().as_raw();
    let reply = if uid != ours && uid != 0 {
        tracing::warn!(target: "audit", outcome = "operator_refused", uid, "operator refused");
        Answer::Refused(format!("uid {uid} may not administer this CA; run as uid {ours} or root"))
    } else {
        let mut line = String::new();
        BufReader::new((&mut stream).take(MAX_ASK_BYTES)).read_line(&mut line).await?;
        match serde_json::from_str::<Ask>(&line) {
            Ok(ask) => answers(ask).await,
            Err(error) => Answer::Refused(format!(
                "cannot read the question ({error}); use a myelin-ca of the server's version"
            )),
        }
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

async fn reply(authority: &Authority, ask: Ask) -> Answer {
    if let Ask::Issuer(ask) = ask {
        let now = authority.clock().seconds();
        let answer = issuers(authority).answer(now, ask).await;
        return answer.map_or_else(|error| Answer::Refused(error.to_string()), Answer::Issuer);
    }
    let told = match answer_running(authority, ask).await {
        Ok(answer) => answer,
        Err(error) => Answer::Refused(error.to_string()),
    };
    // A revocation leaves at once. If it cannot be read now, the next tick says why and tries again.
    if let Err(error) = authority.hear_denials().await {
        tracing::error!(%error, "cannot read what is denied");
    }
    told
}

/// What the `issuer` commands work on.
pub fn issuers(authority: &Authority) -> Issuers {
    Issuers {
        journal: authority.journal().clone(),
        replica: authority.replica().clone(),
        vault: Some(authority.vault().clone()),
        bundle: authority.bundle(),
    }
}

/// Asks a running server. `None`: nobody listens there.
pub async fn ask(path: &Path, question: &Ask) -> io::Result<Option<Answer>> {
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut reply = Vec::new();
    timeout(DEADLINE, stream.take(MAX_ANSWER_BYTES).read_to_end(&mut reply)).await??;
    Ok(Some(serde_json::from_slice(&reply)?))
}
