//! A real API server, as KUBECONFIG names it: asked by `kubectl` and `helm`, which nobody here wrote, and
//! by our programs under the service accounts that the chart makes. Called by the stories of this suite.
//!
//! Never: a fake; another context than the current one; a namespace that the suite did not make.

// SPDX-License-Identifier: Apache-2.0

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use myelin_tests::binaries;
use myelin_tests::programs::random_word;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What `kubectl` may wait for one answer.
const REQUEST_TIMEOUT: &str = "--request-timeout=20s";

pub(crate) struct Api {
    kubeconfig: PathBuf,
    dir: TempDir,
    _alone: fs::File,
}

/// A namespace of this test's own. It goes with the test.
pub(crate) struct Namespace<'a> {
    pub(crate) name: String,
    api: &'a Api,
}

impl Api {
    /// The one that KUBECONFIG names. Without it this is a failure: `tests/run` leaves the suite out by
    /// name, and whoever runs it all the same is told.
    pub(crate) fn named() -> Result<Self> {
        let named = env::var_os("KUBECONFIG").filter(|named| !named.is_empty());
        ensure!(
            named.is_some(),
            "KUBECONFIG names no API server: this suite needs a real one (tests/tests/cluster/main.rs)"
        );
        // A cluster has room for one Myelin: the tests of this suite take their turns.
        let alone = fs::File::create(env::temp_dir().join("myelin-cluster.lock"))?;
        alone.lock()?;
        let dir = tempfile::Builder::new().prefix("myelin-cluster-").tempdir()?;
        // One file with all that it says, whatever it was put together from: our programs take one.
        let view = ["config", "view", "--raw", "--flatten", "--minify", "--output=json"];
        let whole = said(kubectl()?.args(view), None)?;
        let api = Self { kubeconfig: dir.path().join("kubeconfig"), dir, _alone: alone };
        private(&api.kubeconfig, &whole)?;
        api.kubectl(&["get", "--raw=/readyz"]).context("the API server is not ready")?;
        Ok(api)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `kubectl` with these arguments; what it printed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        said(self.command()?.args(args), None)
    }

    /// The same, with something on its standard input.
    pub(crate) fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        said(self.command()?.args(args), Some(input))
    }

    /// What must not work; yields why it did not.
    pub(crate) fn refused(&self, args: &[&str], input: &str) -> Result<String> {
        let output = run(self.command()?.args(args), Some(input))?;
        ensure!(!output.status.success(), "kubectl {args:?} was not refused");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// One object or list by its path.
    pub(crate) fn read(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", "--raw", path])?)?)
    }

    /// Makes objects; they must not be there yet.
    pub(crate) fn create(&self, objects: &[Value]) -> Result<()> {
        let all = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.kubectl_with(&["create", "--filename=-"], &all.to_string()).map(drop)
    }

    /// `helm` with these arguments; what it printed.
    pub(crate) fn helm(&self, args: &[&str]) -> Result<String> {
        let helm = binaries::of_the_chart("helm")?;
        said(Command::new(helm).args(args).env("KUBECONFIG", &self.kubeconfig), None)
    }

    /// Where the current context leads.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's address, as a URL.
    pub(crate) fn url(&self) -> Result<String> {
        Ok(self.text(&["clusters", "0", "cluster", "server"])?.trim_end_matches('/').to_owned())
    }

    /// Makes a namespace with these labels; its name begins with `word`.
    pub(crate) fn namespace(&self, word: &str, labels: &[(&str, &str)]) -> Result<Namespace<'_>> {
        let name = format!("myelin-{word}-{}", &random_word()?[..8]);
        let mut object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            // Servers since 1.21 add this one themselves.
            "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
        });
        for (label, value) in labels {
            object["metadata"]["labels"][label] = json!(value);
        }
        self.create(&[object])?;
        Ok(Namespace { name, api: self })
    }

    /// A kubeconfig under which a program is this service account, by a token of the API server's own.
    pub(crate) fn as_account(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let asked = ["create", "token", account, "--namespace", namespace, "--duration=1h"];
        let token = self.kubectl(&asked)?;
        let mut config: Value = serde_json::from_slice(&fs::read(&self.kubeconfig)?)?;
        let user = config.pointer_mut("/users/0/user").context("the kubeconfig names no user")?;
        *user = json!({ "token": token.trim() });
        let path = self.dir().join(format!("{namespace}-{account}"));
        private(&path, &config.to_string())?;
        Ok(path)
    }

    fn text(&self, path: &[&str]) -> Result<String> {
        let config: Value = serde_json::from_slice(&fs::read(&self.kubeconfig)?)?;
        let found = config.pointer(&format!("/{}", path.join("/"))).and_then(Value::as_str);
        found.map(str::to_owned).with_context(|| format!("the kubeconfig has no {path:?}"))
    }

    fn command(&self) -> Result<Command> {
        let mut command = kubectl()?;
        command.arg(REQUEST_TIMEOUT).arg("--kubeconfig").arg(&self.kubeconfig);
        Ok(command)
    }
}

impl Namespace<'_> {
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.api.kubectl(&[&["--namespace", &self.name], args].concat())
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // What lies in it is the cluster's to clear away; without its controllers it stays, as named.
        let _ = self.api.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

fn kubectl() -> Result<Command> {
    Ok(Command::new(binaries::of_the_chart("kubectl")?))
}

/// A file that only we may read: a credential is in it.
fn private(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn run(command: &mut Command, input: Option<&str>) -> Result<Output> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = PathBuf::from(command.get_program());
    let mut child = command.spawn().with_context(|| format!("{program:?} cannot be started"))?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // Who refuses may not read to the end.
        let _ = pipe.write_all(input.as_bytes());
    }
    Ok(child.wait_with_output()?)
}

fn said(command: &mut Command, input: Option<&str>) -> Result<String> {
    let output = run(command, input)?;
    if !output.status.success() {
        let args: Vec<_> = command.get_args().skip(3).take(6).collect();
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{:?} {args:?}: {}", command.get_program(), why.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
