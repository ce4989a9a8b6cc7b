//! How fast one CA issues, and how it starts over what it issued: attestation by token, journal and
//! fsync included, the caller's own work (keys, CSRs, signatures, TLS) left out. Run by hand under
//! the release profile; prints a table.
//!
//! Never: passes or fails; the numbers are for reading.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::print_stdout, reason = "this is the room that talks to the terminal")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use clap::Parser;
use myelin_ca::app::{Builder, Running};
use myelin_ca::attest::{Caller, RemoteAddr, prove};
use myelin_ca::authority::Authority;
use myelin_ca::authority::tokens::TokenRequest;
use myelin_ca::config::{Cli, Command as CaCommand};
use myelin_ca::operator::{Answer, Ask};
use myelin_identity::issuance::{JoinToken, RequestKey, proto, sign_host_proof};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Callers at once: what a storm of renewals looks like to the authority.
const AT_ONCE: usize = 256;
const EXPORTER: [u8; 32] = [7; 32];

#[derive(Parser)]
struct Args {
    /// SVIDs to issue, each to a host of its own with a token of its own.
    #[arg(long, default_value_t = 100_000)]
    svids: usize,
    /// Where the CA's data lies; its disk is part of what is measured.
    #[arg(long)]
    data: PathBuf,
    /// Only start over what is there, and say how that went.
    #[arg(long, hide = true)]
    restart: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("no runtime")?;
    if args.restart {
        return runtime.block_on(restart(&args.data));
    }
    runtime.block_on(issue_all(&args))?;
    let me = std::env::current_exe()?;
    let said = Command::new(me).arg("--restart").arg("--data").arg(&args.data).output()?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    print!("{}", String::from_utf8_lossy(&said.stdout));
    Ok(())
}

/// A request that is ready to be sent, and of which host.
type Prepared = (proto::IssueRequest, usize);

async fn start(data: &Path) -> Result<Running> {
    let data = data.to_str().context("the data directory's name is text")?;
    let line = ["myelin-ca", "serve", "--trust-domain", "bench.test", "--listen", "127.0.0.1:0"];
    let more = ["--ops-listen", "127.0.0.1:0", "--data", data];
    let CaCommand::Serve(serve) = Cli::try_parse_from(line.iter().chain(&more))?.command else {
        bail!("serve was asked for");
    };
    Ok(Builder::new(serve.config()?).start().await?)
}

async fn issue_all(args: &Args) -> Result<()> {
    let running = start(&args.data).await?;
    let running = Arc::new(running);
    println!("preparing {} requests", args.svids);
    let mut prepared = prepare(&running, args.svids).await?;
    let authority = running.authority().clone();

    let late = prepared.split_off(args.svids - args.svids / 10);
    let (count, cpu, wall) = (prepared.len(), cpu_seconds()?, Instant::now());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for one in prepared {
        let place = places.clone().acquire_owned().await?;
        let authority = authority.clone();
        tasks.spawn(async move {
            let _place = place;
            issue(&authority, one).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let (cpu, wall) = (cpu_seconds()? - cpu, wall.elapsed().as_secs_f64());
    let rate = count as f64 / wall;
    println!("issued                 {count} with {AT_ONCE} at once");
    println!("SVIDs/s                {rate:.0} (one worker, and the store's thread)");
    println!(
        "SVIDs/s per core       {:.0} ({:.0} us of CPU each)",
        count as f64 / cpu,
        cpu / count as f64 * 1e6
    );
    at_half_rate(&authority, late, rate / 2.0).await?;
    drop(authority);
    let running = Arc::into_inner(running).context("nobody else holds the CA")?;
    running.stop().await;
    Ok(())
}

/// Requests that arrive by the clock, whether or not earlier ones are answered.
async fn at_half_rate(authority: &Arc<Authority>, late: Vec<Prepared>, rate: f64) -> Result<()> {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for (at, one) in late.into_iter().enumerate() {
        let due = begin + Duration::from_secs_f64(at as f64 / rate);
        tokio::time::sleep_until(due).await;
        let authority = authority.clone();
        tasks.spawn(async move {
            issue(&authority, one).await?;
            Ok::<_, anyhow::Error>(due.elapsed())
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.push(done??);
    }
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "at half that rate      p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

async fn issue(authority: &Authority, (request, n): Prepared) -> Result<()> {
    let remote = RemoteAddr(SocketAddr::new(address(n), 40_000));
    let caller = Caller { remote, peer: None, exporter: EXPORTER };
    let proven = prove(request, &caller)?;
    authority.issue(&caller, &proven).await?;
    Ok(())
}

async fn prepare(running: &Arc<Running>, count: usize) -> Result<Vec<Prepared>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for n in 0..count {
        let place = places.clone().acquire_owned().await?;
        let running = running.clone();
        tasks.spawn(async move {
            let _place = place;
            let request = TokenRequest {
                spiffe_id: format!("spiffe://bench.test/ns/shop/sa/w{n}"),
                addresses: vec![address(n)],
                ports: vec![],
                protocol: String::new(),
                ttl_seconds: 3600,
            };
            match running.ask(Ask::CreateToken(request)).await? {
                Answer::Token(made) => Ok((request_of(&made.token.parse()?)?, n)),
                other => bail!("{other:?}"),
            }
        });
    }
    let mut prepared = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        prepared.push(done??);
    }
    Ok(prepared)
}

fn request_of(token: &JoinToken) -> Result<proto::IssueRequest> {
    let host = KeyPair::generate()?;
    let host_spki = host.subject_public_key_info();
    let host = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, host.serialized_der())?;
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate()?)?;
    let csr_der = csr.der().to_vec();
    let request_key = RequestKey::random()?;
    let host_signature = sign_host_proof(&host, &EXPORTER, &csr_der, &request_key)?;
    let secret = token.secret.reveal().to_vec();
    let attestation = proto::JoinToken { secret, host_spki };
    Ok(proto::IssueRequest {
        csr_der,
        request_key: request_key.as_bytes().to_vec(),
        attestation: Some(proto::issue_request::Attestation::JoinToken(attestation)),
        host_signature,
        lifetime_seconds: 0,
    })
}

async fn restart(data: &Path) -> Result<()> {
    let begin = Instant::now();
    let running = start(data).await?;
    let took = begin.elapsed();
    let live = running.authority().live().count(running.authority().clock().seconds());
    let size = std::fs::metadata(data.join("store.redb"))?.len() >> 20;
    println!(
        "restart                {live} live SVIDs, a store of {size} MiB: serving after {:.2} s",
        took.as_secs_f64()
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
    {
        println!(
            "memory                 {}",
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    running.stop().await;
    Ok(())
}

/// The `n`th host's address, each its own.
fn address(n: usize) -> IpAddr {
    let [_, a, b, c] = (n as u32 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, a, b, c))
}

/// CPU time of this process so far, all threads.
fn cpu_seconds() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
