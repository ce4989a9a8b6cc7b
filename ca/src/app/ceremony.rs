//! The commands around a root that is elsewhere, from arguments to what is said. `main` prints it.
//!
//! Never: asks a question back; what was only shown is signed by the same command with `--yes`.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use myelin_identity::id::TrustDomain;
use serde_json::{Value, json};

use super::{AppError, ask_offline_or_online, keys};
use crate::clock::{Clock, UnixSeconds, rfc3339 as at};
use crate::config::{
    ConfigError, IssuerCommand, IssuerImportArgs, IssuerRequestArgs, Keys, RootCommand,
    RootInitArgs, RootSignArgs, SealKeySource,
};
use crate::datadir::read_bounded_text;
use crate::offline_root::{Intermediate, OfflineRoot};
use crate::operator::{Answer, Ask, IssuerAnswer, IssuerAsk, IssuerStatus, RootKey};
use crate::signer::Vault;

/// Largest file that is taken for a certificate: sixteen of the largest kind, in PEM.
const MAX_CERTIFICATE_FILE_BYTES: u64 = 256 * 1024;

/// What a command says, for people and for programs.
pub struct Said {
    pub text: String,
    pub json: Value,
}

/// `myelin-ca root ...`: on the offline machine.
pub fn root(command: &RootCommand, clock: &Clock) -> Result<Said, AppError> {
    match command {
        RootCommand::Init(args) => root_init(args, clock.seconds()),
        RootCommand::Sign(args) => root_sign(args, clock.seconds()),
    }
}

/// `myelin-ca issuer ...`: on the CA.
pub async fn issuer(command: &IssuerCommand, clock: &Clock) -> Result<Said, AppError> {
    match command {
        IssuerCommand::Request(args) => request(args, clock).await,
        IssuerCommand::Import(args) => import(args, clock).await,
        IssuerCommand::Status(args) => {
            match ask(&args.data, IssuerAsk::Status, &Keys::default(), clock).await? {
                IssuerAnswer::Status(status) => Ok(status_said(&status, clock.seconds())),
                _ => Err(other_answer()),
            }
        }
    }
}

fn root_init(args: &RootInitArgs, now: UnixSeconds) -> Result<Said, AppError> {
    let name = args.trust_domain.clone();
    let trust_domain =
        TrustDomain::parse(&name).map_err(|why| ConfigError::TrustDomain { name, why })?;
    let root = OfflineRoot::open_or_make(&args.dir)?;
    let keys = args.keys.keys();
    let vault = root_vault(&root, &keys)?;
    let shown = root.init(&trust_domain, args.lifetime, &vault, now)?;
    let mut text = format!(
        "root of {}\n  certificate  {}\n  sha256       {}\n  ends         {}\n\
         Carry the certificate to the CA and start it: myelin-ca serve --root-cert root.crt ...\n",
        shown.trust_domain,
        shown.certificate.display(),
        shown.sha256,
        at(shown.not_after)
    );
    if keys.seal_key == SealKeySource::DataDir && keys.token.is_none() {
        text.push_str("NOTE: the seal key lies beside the key that it seals: whoever copies the directory has the root. --seal-key-file keeps it elsewhere.\n");
    }
    Ok(Said { text, json: json!(shown) })
}

fn root_sign(args: &RootSignArgs, now: UnixSeconds) -> Result<Said, AppError> {
    let root = OfflineRoot::open(&args.dir)?;
    let plan = root.plan(&args.requests, &args.out, args.lifetime, now)?;
    let mut text: String = plan.iter().map(planned).collect();
    if args.yes {
        let vault = root_vault(&root, &args.keys.keys())?;
        root.sign(&plan, &vault, now)?;
        text.push_str(&format!(
            "signed {}; carry them back: myelin-ca issuer import --data DIRECTORY FILE...\n",
            plan.len()
        ));
    } else {
        text.push_str("NOTHING WAS SIGNED. Compare each key and extension with what the CA showed, then run it again with --yes.\n");
    }
    Ok(Said { text, json: json!({ "signed": args.yes, "intermediates": plan }) })
}

fn planned(one: &Intermediate) -> String {
    format!(
        "intermediate of {}\n  request      {}\n  key sha256   {}\n{}  subject      {}\n  \
         serial       {}\n  may issue    SVIDs only (path length {})\n  begins       {}\n  \
         ends         {}\n  certificate  {}\n",
        one.trust_domain,
        one.request.display(),
        one.key,
        extensions(&one.extensions),
        one.subject,
        one.serial,
        one.path_length,
        at(one.not_before),
        at(one.not_after),
        one.certificate.display(),
    )
}

/// The same lines on both machines, so that they can be compared.
fn extensions(shown: &[String]) -> String {
    if shown.is_empty() {
        return "  extension    none\n".to_owned();
    }
    shown.iter().map(|one| format!("  extension    {one}\n")).collect()
}

/// A root's own seal key lies in its directory unless it is named.
fn root_vault(root: &OfflineRoot, keys: &Keys) -> Result<Vault, AppError> {
    keys::vault(root.directory(), keys, root.exists())
}

async fn request(args: &IssuerRequestArgs, clock: &Clock) -> Result<Said, AppError> {
    if !args.out.is_dir() {
        let cause = io::ErrorKind::NotADirectory.into();
        return Err(AppError::File { path: args.out.clone(), cause });
    }
    let question = match args.again {
        true => IssuerAsk::Again,
        false => IssuerAsk::Request { count: args.count },
    };
    let answer = ask(&args.operator.data, question, &args.keys.keys(), clock).await?;
    let IssuerAnswer::Requested(made) = answer else { return Err(other_answer()) };
    let (mut text, mut files) = (String::new(), Vec::new());
    for request in made {
        let name = format!("issuer-{}.csr", &request.key[..16.min(request.key.len())]);
        let path = args.out.join(name);
        write_request(&path, &request.csr_pem)
            .map_err(|cause| AppError::RequestFile { path: path.clone(), cause })?;
        let (path_shown, shown) = (path.display(), extensions(&request.extensions));
        text.push_str(&format!("{path_shown}\n  key sha256   {}\n{shown}", request.key));
        files
            .push(json!({ "request": path, "key": request.key, "extensions": request.extensions }));
    }
    if files.is_empty() {
        return Err(AppError::Refused("no request waits for an answer".to_owned()));
    }
    text.push_str("Carry these to the root's machine: myelin-ca root sign --dir DIRECTORY --out DIRECTORY FILE...\n");
    Ok(Said { text, json: Value::Array(files) })
}

async fn import(args: &IssuerImportArgs, clock: &Clock) -> Result<Said, AppError> {
    let (mut text, mut taken) = (String::new(), Vec::new());
    for path in &args.certificates {
        let pem = read_bounded_text(path, MAX_CERTIFICATE_FILE_BYTES)
            .map_err(|cause| AppError::File { path: path.clone(), cause })?;
        let question = IssuerAsk::Import { pem };
        let answer = ask(&args.operator.data, question, &args.keys.keys(), clock).await;
        let named = |error: AppError| AppError::Refused(format!("{}: {error}", path.display()));
        let IssuerAnswer::Imported(imported) = answer.map_err(named)? else {
            return Err(other_answer());
        };
        let role = if imported.waits { "waits for its turn" } else { "issues from now on" };
        text.push_str(&format!(
            "{}\n  key sha256  {}\n  begins      {}\n  ends        {}\n  {role}\n",
            path.display(),
            imported.key,
            at(imported.not_before),
            at(imported.not_after)
        ));
        taken.push(json!(imported));
    }
    Ok(Said { text, json: Value::Array(taken) })
}

fn status_said(status: &IssuerStatus, now: UnixSeconds) -> Said {
    let root = match status.root_key {
        RootKey::Here => "its key is here: this CA signs its own intermediates",
        RootKey::Elsewhere => "its key is not here",
    };
    let mut text = format!(
        "trust domain  {}\nroot          {root}\nbundle        {}\n",
        status.trust_domain, status.bundle
    );
    match &status.issuing {
        None => text.push_str("issuing       none: the CA waits for its first intermediate\n"),
        Some(line) => {
            text.push_str(&format!("issuing       {} until {}\n", line.key, at(line.not_after)));
        }
    }
    for line in &status.successors {
        let (from, until) = (at(line.not_before), at(line.not_after));
        text.push_str(&format!("successor     {} from {from} until {until}\n", line.key));
    }
    for line in &status.requests {
        text.push_str(&format!("requested     {} at {}\n", line.key, at(line.created)));
    }
    if let Some(until) = status.covered_until {
        let days = until.saturating_sub(now) / (24 * 3600);
        text.push_str(&format!("covered       until {} ({days} days)\n", at(until)));
    }
    if let Some(percent) = status.alarm {
        text.push_str(&format!("ALARM         at most {percent} % of an intermediate's life is left and no successor waits\n"));
    }
    Said { text, json: json!(status) }
}

async fn ask(
    data: &Path,
    question: IssuerAsk,
    keys: &Keys,
    clock: &Clock,
) -> Result<IssuerAnswer, AppError> {
    match ask_offline_or_online(data, Ask::Issuer(question), keys, clock).await? {
        Answer::Issuer(answer) => Ok(answer),
        _ => Err(other_answer()),
    }
}

fn other_answer() -> AppError {
    AppError::Refused("the server answered another question; use its version of myelin-ca".into())
}

/// Writes a request over nothing else. One that lies there whole is good; half of one is not left.
fn write_request(path: &Path, text: &str) -> io::Result<()> {
    if read_bounded_text(path, MAX_CERTIFICATE_FILE_BYTES).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}
