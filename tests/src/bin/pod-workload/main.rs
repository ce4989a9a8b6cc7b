//! What the pods of the suite `pods` run in place of somebody's service: a server, a client that asks
//! once, a client that asks without a pause. It knows nothing of a mesh. Started by podman.
//!
//! Never: TLS, a retry, or code of the mesh's.

// SPDX-License-Identifier: Apache-2.0

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output is its log")]

mod fetch;
mod health;
mod load;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// The word that is served and expected: in a file, so that no object of the cluster names it.
const WORD: &str = "/word/word";

const USAGE: &str = "\
pod-workload serve PORT [GRPC-PORT]      serves the word, and health by HTTP and gRPC
pod-workload get ADDRESS:PORT PATH       asks once, and expects the word or nothing
pod-workload load FILE CLIENTS           asks the servers that the file lists, until SIGTERM
pod-workload true                        does nothing, well";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[&str]) -> Result<()> {
    match args {
        ["serve", port] => serve::serve(port.parse()?, None).await,
        ["serve", port, grpc] => serve::serve(port.parse()?, Some(grpc.parse()?)).await,
        ["get", server, path] => {
            let server: SocketAddr = server.parse()?;
            fetch::word(server, path).await?;
            println!("{server} has answered");
            Ok(())
        }
        ["load", file, clients] => load::load(PathBuf::from(file), clients.parse()?).await,
        ["true"] => Ok(()),
        _ => bail!("{USAGE}"),
    }
}

/// What `/last` answers: more than fits between two programs, so that much of it is on its way when the
/// server has ended.
const LAST_BYTES: usize = 16 * 1024 * 1024;

/// The whole answer to a request for this path.
fn answer(path: &str) -> Result<String> {
    let word = word()?;
    Ok(match path {
        "/last" => word.repeat(LAST_BYTES / word.len()),
        "/break" => String::new(),
        _ => word,
    })
}

fn word() -> Result<String> {
    std::fs::read_to_string(WORD).with_context(|| format!("cannot read {WORD}"))
}
