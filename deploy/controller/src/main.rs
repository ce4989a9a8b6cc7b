//! The process: arguments, exit code. Everything else is in the library.
//!
//! Never: logic that a test could want to call.

// SPDX-License-Identifier: Apache-2.0

mod args;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use myelin_controller::offline::{self, Asked};
use myelin_controller::{app, cluster, config, preflight};

use args::{Args, Command, InjectArgs, PreflightArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(&Args::parse()).and_then(|(text, code)| Ok((say(&text)?, code))) {
        Ok(((), code)) => ExitCode::from(code),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// What to print, and the exit code.
fn run(args: &Args) -> anyhow::Result<(String, u8)> {
    match &args.command {
        Command::Run { config: path, kubeconfig } => {
            app::run(path, kubeconfig.as_deref())?;
            Ok((String::new(), 0))
        }
        Command::Inject(args) => Ok((inject(args)?, 0)),
        Command::Preflight(args) => look(args),
        Command::Check { config: path } => {
            config::load(path)?;
            Ok((format!("{}: every key is understood\n", path.display()), 0))
        }
    }
}

fn inject(args: &InjectArgs) -> anyhow::Result<String> {
    let InjectArgs { file, config, namespace, bundle, ca_address } = args.clone();
    let asked = Asked { config, manifests: file, namespace, bundle, ca: ca_address };
    let answer = offline::inject(&asked)?;
    for note in &answer.notes {
        complain(note);
    }
    Ok(answer.text)
}

fn look(args: &PreflightArgs) -> anyhow::Result<(String, u8)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let needs = runtime.block_on(async {
        let cluster = cluster::Cluster::connect(args.kubeconfig.as_deref()).await;
        preflight::look(cluster, &args.namespace).await
    });
    let text = if args.json {
        format!("{}\n", preflight::json(&needs))
    } else {
        needs.iter().map(|need| format!("{}\n", need.line())).collect()
    };
    Ok((text, preflight::exit_code(&needs)))
}

/// What a command prints is its result. A reader that has enough (`| head`) makes no mistake.
fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

#[expect(clippy::print_stderr, reason = "what failed, and what there is to say beside an answer")]
fn complain(text: &str) {
    eprintln!("myelin-controller: {text}");
}
