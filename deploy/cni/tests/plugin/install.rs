//! The plugin on a node: into the chain, kept there, and out of it again.
//!
//! Never: the machine's own CNI directories.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::front::Front;
use crate::stage::{CONFIGURATION, Node, PREVIOUS, Said, program};

const FLANNEL: &str = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[
  {"type":"flannel","delegate":{"isDefaultGateway":true}},{"type":"portmap"}]}"#;
/// Many looks of a second each.
const SOON: Duration = Duration::from_secs(20);

/// The directories of a node, with a network plugin on it.
struct Host {
    dir: PathBuf,
    server: String,
    _held: tempfile::TempDir,
}

impl Host {
    fn new() -> Result<Self> {
        let held = tempfile::tempdir()?;
        let dir = held.path().to_owned();
        for name in ["bin", "net.d", "account"] {
            fs::create_dir(dir.join(name))?;
        }
        fs::write(dir.join("account/token"), "token-1")?;
        fs::write(dir.join("account/ca.crt"), "PEM")?;
        let host = Self { dir, server: "https://127.0.0.1:1".to_owned(), _held: held };
        fs::write(host.list(), FLANNEL)?;
        fs::set_permissions(host.list(), fs::Permissions::from_mode(0o640))?;
        Ok(host)
    }

    fn list(&self) -> PathBuf {
        self.dir.join("net.d/10-flannel.conflist")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("net.d/myelin-cni.kubeconfig")
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut args = vec![
            "install".to_owned(),
            format!("--bin-dir={}", at("bin")),
            format!("--conf-dir={}", at("net.d")),
            format!("--node-conf-dir={}", at("net.d")),
            format!("--account-dir={}", at("account")),
            format!("--api-server={}", self.server),
        ];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    async fn once(&self) -> Result<Said> {
        let args = self.args(&["--once"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        program(env!("CARGO_BIN_EXE_myelin-cni"), &args, Vec::new(), "").await
    }

    /// ADD as libcni does it: the installed program, the chain's entry with the list's name and version
    /// and the last result.
    async fn add(&self, node: &Node) -> Result<Said> {
        let mut entry = self.plugins()?.pop().context("an empty chain")?;
        entry["name"] = "cbr0".into();
        entry["cniVersion"] = "1.0.0".into();
        entry["prevResult"] = serde_json::from_str(PREVIOUS)?;
        let netns = node.netns.path().display().to_string();
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "abc"),
            ("CNI_NETNS", netns.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        program(self.dir.join("bin/myelin-cni"), &[], variables.into(), &entry.to_string()).await
    }

    fn keeping(&self, more: &[&str]) -> Result<Keeping> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin-cni"));
        let child = command.args(self.args(more)).stdout(Stdio::null()).spawn()?;
        Ok(Keeping(child))
    }

    fn plugins(&self) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&fs::read_to_string(self.list())?)?;
        Ok(list["plugins"].as_array().cloned().unwrap_or_default())
    }

    fn is_chained(&self) -> bool {
        self.plugins().is_ok_and(|all| all.last().is_some_and(|last| last["type"] == "myelin-cni"))
    }

    fn names(&self, dir: &str) -> Result<Vec<String>> {
        let listed = fs::read_dir(self.dir.join(dir))?.flatten();
        let mut names: Vec<String> =
            listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }
}

/// An installer that runs; it does not outlive its test.
struct Keeping(Child);

impl Keeping {
    fn end(mut self) -> Result<bool> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGTERM)?;
        Ok(self.0.wait()?.success())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, held).await.with_context(|| format!("not in time: {what}"))
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

#[tokio::test]
async fn install_chains_the_program_last_and_a_second_time_changes_nothing() -> Result<()> {
    let host = Host::new()?;
    let said = host.once().await?;
    ensure!(said.success, "{said:?}");
    let plugins = host.plugins()?;
    let types: Vec<&str> = plugins.iter().filter_map(|plugin| plugin["type"].as_str()).collect();
    ensure!(types == ["flannel", "portmap", "myelin-cni"], "{types:?}");
    ensure!(plugins[0]["delegate"]["isDefaultGateway"] == true);
    ensure!(plugins[2]["kubeconfig"] == json!(host.kubeconfig()));
    ensure!(plugins[2]["exclude_namespaces"] == json!(["kube-system", "myelin-system"]));
    ensure!(mode(&host.list())? == 0o640 && mode(&host.kubeconfig())? == 0o600);
    ensure!(fs::read_to_string(host.kubeconfig())?.contains("token-1"));
    ensure!(host.names("net.d")? == ["10-flannel.conflist", "myelin-cni.kubeconfig"]);
    ensure!(
        host.names("bin")? == ["myelin-cni"] && mode(&host.dir.join("bin/myelin-cni"))? == 0o755
    );
    let before = fs::read(host.list())?;
    let again = host.once().await?;
    ensure!(again.success && again.out.is_empty() && fs::read(host.list())? == before, "{again:?}");
    Ok(())
}

/// From the installer to a pod's rules: TLS by the account's roots, its token, the chain's own entry.
#[tokio::test]
async fn what_the_installer_left_on_the_node_answers_a_runtime() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    let front = Front::before(&node.api, "token-1").await?;
    let mut host = Host::new()?;
    host.server = format!("https://{}", front.address);
    fs::write(host.dir.join("account/ca.crt"), &front.root_pem)?;
    ensure!(host.once().await?.success);
    node.injected(CONFIGURATION);
    ensure!(host.add(&node).await?.success);
    ensure!(node.call("CHECK").await?.success);
    // A token that has ended, and roots that are others: nothing starts.
    node.intercept(&["remove"])?;
    *front.token.lock().unwrap() = "token-2".to_owned();
    let (code, text) = host.add(&node).await?.refusal()?;
    ensure!(code == 11 && text.contains("401"), "{code} {text}");
    fs::write(host.dir.join("account/token"), "token-2\n")?;
    ensure!(host.once().await?.success && host.add(&node).await?.success, "the twin");
    node.intercept(&["remove"])?;
    let other = Front::before(&node.api, "token-2").await?;
    fs::write(host.dir.join("account/ca.crt"), &other.root_pem)?;
    ensure!(host.once().await?.success);
    let (code, text) = host.add(&node).await?.refusal()?;
    ensure!(code == 11 && text.contains("certificate"), "{code} {text}");
    ensure!(node.has_no_rules()?);
    Ok(())
}

#[tokio::test]
async fn what_others_overwrite_is_repaired_and_stays_at_the_end() -> Result<()> {
    let host = Host::new()?;
    fs::remove_file(host.list())?;
    let keeping = host.keeping(&[])?;
    // The network plugin comes later than we do.
    eventually("kubeconfig", || host.kubeconfig().exists()).await?;
    ensure!(!host.list().exists());
    for _ in 0..2 {
        fs::write(host.list(), FLANNEL)?;
        eventually("chained (again)", || host.is_chained()).await?;
    }
    fs::write(host.dir.join("account/token"), "token-2")?;
    let renewed = || fs::read_to_string(host.kubeconfig()).is_ok_and(|it| it.contains("token-2"));
    eventually("the kubelet's new token", renewed).await?;
    let installed = host.dir.join("bin/myelin-cni");
    let own = fs::read(env!("CARGO_BIN_EXE_myelin-cni"))?;
    fs::write(&installed, "damaged")?;
    eventually("the program", || fs::read(&installed).is_ok_and(|it| it == own)).await?;
    ensure!(keeping.end()?);
    // An upgrade must not leave a gap: all is where it was.
    ensure!(host.is_chained() && host.kubeconfig().exists() && installed.exists());
    Ok(())
}

#[tokio::test]
async fn it_takes_itself_out_at_the_end_only_if_it_was_told_to() -> Result<()> {
    let host = Host::new()?;
    let keeping = host.keeping(&["--remove-at-end"])?;
    eventually("chained", || host.is_chained()).await?;
    ensure!(keeping.end()?);
    let value = |text: &str| serde_json::from_str::<Value>(text);
    ensure!(value(&fs::read_to_string(host.list())?)? == value(FLANNEL)?, "as it was before");
    ensure!(!host.kubeconfig().exists());
    ensure!(host.dir.join("bin/myelin-cni").exists(), "pods of before still have to be ended");
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_nobody_can_join_is_left_alone_and_named() -> Result<()> {
    for (name, text, named) in [
        ("05-single.conf", r#"{"cniVersion":"1.0.0","type":"bridge"}"#, "single plugin"),
        ("05-old.conflist", r#"{"cniVersion":"0.2.0","plugins":[{"type":"bridge"}]}"#, "0.2.0"),
        ("05-torn.conflist", r#"{"cniVersion":"1.0.0","plugins":[{"#, "cannot be read"),
    ] {
        let host = Host::new()?;
        // Runtimes take the first by name, so that to be in the second would protect nobody.
        fs::write(host.dir.join("net.d").join(name), text)?;
        let said = host.once().await?;
        ensure!(!said.success && said.err.contains(named) && said.err.contains(name), "{said:?}");
        ensure!(fs::read_to_string(host.dir.join("net.d").join(name))? == text);
        ensure!(!host.is_chained());
    }
    let host = Host::new()?;
    fs::remove_file(host.dir.join("account/token"))?;
    let said = host.once().await?;
    ensure!(!said.success && said.err.contains("token"), "{said:?}");
    ensure!(!host.is_chained(), "in the chain without a way to the API: no pod would start");
    Ok(())
}
