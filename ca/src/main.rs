//! The process: command line, logs, signals, exit code. Everything else is the library's.
//!
//! Never: more than one line on stderr for one mistake.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::print_stderr, reason = "this is the room that talks to the terminal")]

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use myelin_ca::app::ceremony::Said;
use myelin_ca::app::{self, AppError};
use myelin_ca::clock::rfc3339;
use myelin_ca::config::{
    BundleCommand, Cli, Command, EntryCommand, FederationAddArgs, FederationCommand, IssuerCommand,
    Keys, LogArgs, LogCommand, LogFormat, LogVerifyArgs, OperatorArgs, RootCommand, RotateCommand,
    ServeArgs, SvidCommand, TokenCommand, Withdrawal,
};
use myelin_ca::datadir::read_bounded_text;
use myelin_ca::federation::AddRequest;
use myelin_ca::log::Progress;
use myelin_ca::operator::{Answer, Ask, FederationAsk, RotateAsk, Rotated};
use myelin_ca::{lockdown, scheduling};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A mistake of configuration, as sysexits.h numbers it.
const EXIT_CONFIG: u8 = 78;
/// Files that an operator hands over in a question: a bundle takes at most as much.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

/// The log is not what it should be.
const EXIT_DAMAGED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Serve(_)) {
        scheduling::in_batches();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(perform(cli.command)),
        Err(error) => Err(format!(
            "cannot start the runtime: {error}; are there threads and file descriptors left?"
        )),
    };
    match ended {
        Ok(code) => code,
        Err(line) => {
            eprintln!("myelin-ca: {line}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Does it, and says how the process ends.
async fn perform(command: Command) -> Result<ExitCode, String> {
    let done = match command {
        Command::Serve(args) => serve(*args).await,
        Command::Root(command) => {
            lock_down();
            let json = match &command {
                RootCommand::Init(args) => args.json,
                RootCommand::Sign(args) => args.json,
            };
            say(app::ceremony::root(&command, &app::system_clock()), json)
        }
        Command::Issuer(command) => {
            lock_down();
            let json = match &command {
                IssuerCommand::Request(args) => args.operator.json,
                IssuerCommand::Import(args) => args.operator.json,
                IssuerCommand::Status(args) => args.json,
            };
            say(app::ceremony::issuer(&command, &app::system_clock()).await, json)
        }
        Command::Log(LogCommand::Verify(args)) => {
            let whole = verify_log(&args).await?;
            return Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGED) });
        }
        Command::Log(LogCommand::Keys(args)) => {
            print(&ask(&args.data, Ask::ListLogKeys).await?, args.json)
        }
        Command::Token(TokenCommand::Create(args)) => {
            let answer = ask(&args.operator.data, Ask::CreateToken(args.request())).await?;
            print(&answer, args.operator.json)
        }
        Command::Token(TokenCommand::List(args)) => {
            print(&ask(&args.data, Ask::ListTokens).await?, args.json)
        }
        Command::Svid(SvidCommand::List(args)) => {
            print(&ask(&args.data, Ask::ListSvids).await?, args.json)
        }
        Command::Entry(command) => {
            let (operator, question) = about_entries(command)?;
            print(&ask(&operator.data, question).await?, operator.json)
        }
        Command::Revoke(args) => {
            let (operator, wanted) = args.wanted().map_err(|error| error.to_string())?;
            let question = match wanted {
                Withdrawal::Revoke(request) => Ask::Revoke(request),
                Withdrawal::List => Ask::ListDenials,
                Withdrawal::Undo(number) => Ask::UndoRevocation(number),
            };
            print(&ask(&operator.data, question).await?, operator.json)
        }
        Command::Federation(command) => federation(command).await,
        Command::Rotate(command) => rotate(&command).await,
        Command::Bundle(BundleCommand::Show(args)) => {
            let Answer::Bundle(bundle) = ask(&args.data, Ask::ShowBundle).await? else {
                return Err(
                    "the server answered another question; use its version of myelin-ca".to_owned()
                );
            };
            out(if args.json { format!("{}\n", bundle.spiffe_json) } else { bundle.pem })
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn say(said: Result<Said, AppError>, json: bool) -> Result<(), String> {
    let said = said.map_err(one_line)?;
    out(if json { format!("{}\n", said.json) } else { said.text })
}

/// The answer to a command. Whoever reads it through a pipe and has enough (`| head`) makes no mistake.
fn out(text: String) -> Result<(), String> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write the answer: {error}; is there room where it goes?"))
        }
        _ => Ok(()),
    }
}

/// For a command that holds a key for a moment; a server says the same in its log.
fn lock_down() {
    lockdown::apply().iter().for_each(|missing| eprintln!("myelin-ca: {missing}"));
}

async fn rotate(command: &RotateCommand) -> Result<(), String> {
    let question = match command.asked() {
        None => RotateAsk::Status,
        Some((asked, broken)) => RotateAsk::Move { asked, broken },
    };
    let operator = command.operator();
    print(&ask(&operator.data, Ask::Rotate(question)).await?, operator.json)
}

async fn federation(command: FederationCommand) -> Result<(), String> {
    use FederationCommand as C;
    let (operator, question) = match command {
        C::Add(args) => {
            let request = federation_request(&args)?;
            (args.operator, FederationAsk::Add(request))
        }
        C::List(operator) => (operator, FederationAsk::List),
        C::Show(args) => (args.operator, FederationAsk::Show(args.trust_domain)),
        C::Refresh(args) => (args.operator, FederationAsk::Refresh(args.trust_domain)),
        C::Remove(args) => (args.operator, FederationAsk::Remove(args.trust_domain)),
    };
    print(&ask(&operator.data, Ask::Federation(question)).await?, operator.json)
}

/// The files are read here, by the operator's own right to read them.
fn federation_request(args: &FederationAddArgs) -> Result<AddRequest, String> {
    let text = |flag: &str, path: &Option<PathBuf>| match path {
        None => Ok(None),
        Some(path) => read_bounded_text(path, MAX_INPUT_BYTES)
            .map(Some)
            .map_err(|error| format!("cannot read {} ({flag}): {error}", path.display())),
    };
    Ok(AddRequest {
        trust_domain: args.trust_domain.clone(),
        profile: args.profile.into(),
        url: args.url.clone(),
        endpoint_spiffe_id: args.endpoint_spiffe_id.clone(),
        address: args.address,
        bundle: text("--bundle", &args.bundle)?,
        web_roots_pem: text("--web-roots", &args.web_roots)?,
        unlogged: args.unlogged,
    })
}

/// Replays the log; says whether it is whole.
async fn verify_log(args: &LogVerifyArgs) -> Result<bool, String> {
    let shown = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let tell = |Progress { done, of }| {
        // A line for every 64 bundles; on a terminal they overwrite each other.
        if done == of || done % 16_384 == 0 {
            eprint!("verified {done} of {of} entries{}", if shown { "\r" } else { "\n" });
        }
    };
    let (operator, clock) = (&args.operator, app::system_clock());
    let store = args.store().map_err(|error| error.to_string())?;
    let found = app::verify_log(&operator.data, &store, &clock, tell).await.map_err(one_line)?;
    if shown {
        eprintln!();
    }
    let whole = found.damages.is_empty();
    if operator.json {
        let json = serde_json::to_string(&found);
        let json = json.map_err(|error| format!("cannot print the findings: {error}"))?;
        out(format!("{json}\n"))?;
        return Ok(whole);
    }
    out(found.to_string())?;
    Ok(whole)
}

fn about_entries(command: EntryCommand) -> Result<(OperatorArgs, Ask), String> {
    Ok(match command {
        EntryCommand::Create(args) => {
            let entry = args.entry().map_err(|error| error.to_string())?;
            (args.operator, Ask::CreateEntry(entry))
        }
        EntryCommand::List(operator) => (operator, Ask::ListEntries),
        EntryCommand::Show(named) => (named.operator, Ask::ShowEntry(named.name)),
        EntryCommand::Delete(named) => (named.operator, Ask::DeleteEntry(named.name)),
    })
}

async fn serve(args: ServeArgs) -> Result<(), String> {
    start_logs(&args.logs)?;
    let missing = lockdown::apply().into_iter().chain(scheduling::missing());
    missing.for_each(|missing| tracing::warn!("{missing}"));
    let config = args.config().map_err(|error| error.to_string())?;
    let (mut terminate, mut interrupt) = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)))
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    app::run(config, shutdown).await.map_err(one_line)
}

fn start_logs(args: &LogArgs) -> Result<(), String> {
    let level = &args.log_level;
    let wrong = |why: &str| {
        format!(
            "--log-level {level:?}: {why}; expected error, warn, info, debug or trace, or a list \
             such as info,audit=debug"
        )
    };
    // The library takes a word that is no level for the name of a target, and silences all others.
    let is_level =
        |word: &&str| word.contains('=') || !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if let Some(word) = level.split(',').find(|word| !is_level(word)) {
        return Err(wrong(&format!("{word:?} is no level")));
    }
    let filter = level.parse::<Targets>().map_err(|error| wrong(&error.to_string()))?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let lines: Box<dyn Layer<_> + Send + Sync> = match args.log_format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Registry::default().with(lines.with_filter(filter)).init();
    Ok(())
}

async fn ask(data: &Path, question: Ask) -> Result<Answer, String> {
    app::ask_offline_or_online(data, question, &Keys::default(), &app::system_clock())
        .await
        .map_err(one_line)
}

fn print(answer: &Answer, json: bool) -> Result<(), String> {
    if json {
        let value = match answer {
            Answer::Token(made) => serde_json::to_string(made),
            Answer::Tokens(lines) => serde_json::to_string(lines),
            Answer::Svids(lines) => serde_json::to_string(lines),
            Answer::Bundle(shown) => serde_json::to_string(shown),
            Answer::Issuer(answer) => serde_json::to_string(answer),
            Answer::Revoked(revoked) => serde_json::to_string(revoked),
            Answer::Denials(lines) => serde_json::to_string(lines),
            Answer::Undone(line) => serde_json::to_string(line),
            Answer::Federation(answer) => serde_json::to_string(answer),
            Answer::Entry(entry) => serde_json::to_string(entry),
            Answer::Entries(entries) => serde_json::to_string(entries),
            Answer::LogKeys(keys) => serde_json::to_string(keys),
            Answer::Log(answer) => serde_json::to_string(answer),
            Answer::Rotated(Rotated::Status(ladder)) => serde_json::to_string(ladder),
            Answer::Rotated(Rotated::Moved(moved)) => serde_json::to_string(moved),
            Answer::Refused(why) => serde_json::to_string(why),
        };
        let value = value.map_err(|error| format!("cannot print the answer: {error}"))?;
        return out(format!("{value}\n"));
    }
    out(match answer {
        // The token alone, so that a script can take it.
        Answer::Token(made) => format!("{}\n", made.token),
        Answer::Tokens(tokens) => lines(tokens, |line| {
            let (name, until) = (&line.name[..16.min(line.name.len())], rfc3339(line.expires));
            let (state, id, addresses) = (&line.state, &line.spiffe_id, &line.addresses);
            format!("{name}  {state:8}  {id}  {addresses:?}  until {until}")
        }),
        Answer::Svids(svids) => lines(svids, |line| {
            let port = line.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
            let (address, id, serial) = (&line.address, &line.spiffe_id, &line.serial);
            let until = rfc3339(line.not_after);
            format!("{address} port {port}  {id}  serial {serial}  until {until}")
        }),
        Answer::Bundle(shown) => shown.pem.clone(),
        // The `issuer` commands and `log verify` say it in their own words.
        Answer::Issuer(_) | Answer::Log(_) => String::new(),
        Answer::Revoked(revoked) => format!("{revoked}\n"),
        Answer::Denials(denials) => lines(denials, ToString::to_string),
        Answer::Entry(entry) => format!("{entry}\n"),
        Answer::Entries(entries) => lines(entries, ToString::to_string),
        Answer::LogKeys(keys) => lines(keys, |line| format!("{}  {}", line.log, line.key)),
        Answer::Undone(line) => format!("taken back: {line}\n"),
        Answer::Federation(answer) => answer.to_string(),
        Answer::Rotated(rotated) => rotated.to_string(),
        Answer::Refused(why) => return Err(why.clone()),
    })
}

fn lines<T>(all: &[T], line: impl Fn(&T) -> String) -> String {
    all.iter().map(|one| line(one) + "\n").collect()
}

fn one_line(error: AppError) -> String {
    error.to_string().replace('\n', " ")
}
