//! Starts the CA and the sidecars as an operator would: by their command lines and one small file.
//! Called by the story.
//! Never: reaches into either of them; whatever the demo shows, an operator can do.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use myelin_lab::{Pod, Stream};
use tokio::time::{Duration, Instant, sleep};

use super::scrape::{self, CA_OPS};
use super::stage::{START_LIMIT, Sidecar, Stage};

pub(super) const TRUST_DOMAIN: &str = "demo.example";
pub(super) const CA_PORT: u16 = 15010;

/// How often something that starts is asked whether it is there.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Stage {
    pub(super) fn pod_of(&self, name: &str) -> &Pod {
        if name == "client" { &self.pods.client } else { &self.pods.server }
    }

    /// Starts the CA, for the first time or again on the same data.
    pub(super) async fn start_ca(&mut self) -> Result<()> {
        let data = self.path("ca");
        let serving = self
            .pods
            .ca
            .command(&self.binaries.ca)
            .args(["serve", "--trust-domain", TRUST_DOMAIN, "--data"])
            .arg(&data)
            .args(["--listen", &format!("[::]:{CA_PORT}")])
            .args(["--ops-listen", &format!("[::]:{CA_OPS}")])
            .arg("--allow-short-lifetimes")
            .label("ca")
            .tee(self.log("ca"))
            .spawn()?;
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = scrape::ca_ready(&self.pods.ca).await {
            if !serving.is_running() || Instant::now() > deadline {
                bail!("the CA does not come up: {error:#}; {}", serving.last_words());
            }
            sleep(ASK_AGAIN).await;
        }
        self.ca = Some(serving);
        Ok(())
    }

    /// Rules first, then the sidecar: from the first moment nothing passes unprotected.
    pub(super) async fn start_sidecars(&mut self) -> Result<()> {
        for name in ["client", "server"] {
            self.apply_rules(name).await?;
            let sidecar = self.start_sidecar(name).await?;
            self.sidecars.push(sidecar);
        }
        for sidecar in &self.sidecars {
            let deadline = Instant::now() + START_LIMIT;
            while let Err(error) = scrape::ready(self.pod_of(sidecar.name)).await {
                if !sidecar.proc.is_running() || Instant::now() > deadline {
                    let words = sidecar.proc.last_words();
                    bail!("the sidecar of {} does not get ready: {error:#}; {words}", sidecar.name);
                }
                sleep(ASK_AGAIN).await;
            }
        }
        Ok(())
    }

    async fn apply_rules(&self, name: &str) -> Result<()> {
        let rules = self
            .pod_of(name)
            .command(&self.binaries.sidecar)
            .args(["intercept", "apply", "--proxy-uid", &self.ground.proxy_uid().to_string()])
            .label(format!("{name}/intercept"))
            .tee(self.log(&format!("{name}-intercept")))
            .spawn()?;
        rules.wait_success(START_LIMIT).await.context("cannot write the interception rules")
    }

    async fn start_sidecar(&self, name: &'static str) -> Result<Sidecar> {
        let uid = self.ground.proxy_uid();
        let owner = self.ground.tells_uids_apart().then_some(uid);
        let home = self.make_dir(name, owner)?;
        let state = self.make_dir(&format!("{name}/state"), owner)?;
        let (admin, file) = (home.join("admin.sock"), home.join("sidecar.toml"));
        let token = self.token(name, &home, owner).await?;
        let text = self.configuration(name, &state, &admin, &token);
        self.write(&file, &text, owner)?;
        let proc = self
            .pod_of(name)
            .command(&self.binaries.sidecar)
            .args(["run", "--config"])
            .arg(&file)
            .sidecar_identity(uid)
            .label(format!("{name}/sidecar"))
            .tee(self.log(&format!("{name}-sidecar")))
            .spawn()?;
        Ok(Sidecar { name, admin, proc })
    }

    fn configuration(&self, name: &str, state: &Path, admin: &Path, token: &Path) -> String {
        let pod = self.pod_of(name);
        format!(
            "# The sidecar of the {name} pod, as `myelin demo` wrote it.\n\
             trust_domain = \"{TRUST_DOMAIN}\"\n\
             id = \"{id}\"\n\
             mesh_cidrs = [\"10.77.0.0/24\", \"fd77::/64\"]\n\
             addresses = [\"{v4}\", \"{v6}\"]\n\
             state_dir = \"{state}\"\n\n\
             [ca]\n\
             address = \"{ca}:{CA_PORT}\"\n\
             join_token_file = \"{token}\"\n\
             # Only for show: a real mesh uses hours.\n\
             lifetime = \"15s\"\n\
             allow_short_lifetimes = true\n\n\
             [listen]\n\
             admin = \"{admin}\"\n\n\
             [intercept]\n\
             proxy_uid = {uid}\n",
            id = id(name),
            v4 = pod.v4(),
            v6 = pod.v6(),
            ca = self.pods.ca.v4(),
            state = state.display(),
            token = token.display(),
            admin = admin.display(),
            uid = self.ground.proxy_uid(),
        )
    }

    /// A one-time join token, made by the CA's operator and carried to the pod in a file.
    async fn token(&self, name: &str, home: &Path, owner: Option<u32>) -> Result<PathBuf> {
        let pod = self.pod_of(name);
        let made = self
            .pods
            .ca
            .command(&self.binaries.ca)
            .args(["token", "create", "--data"])
            .arg(self.path("ca"))
            .args(["--id", &id(name), "--ttl", "10m"])
            .args(["--address", &pod.v4().to_string(), "--address", &pod.v6().to_string()])
            .label("ca/token")
            .spawn()?;
        made.wait_success(START_LIMIT).await.context("cannot make a join token")?;
        let file = home.join("join-token");
        self.write(&file, &made.text(Stream::Out), owner)?;
        Ok(file)
    }

    /// A file that only its owner may read.
    fn write(&self, path: &Path, text: &str, owner: Option<u32>) -> Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        file.write_all(text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        file.set_permissions(Permissions::from_mode(0o600)).context("cannot set a file's mode")?;
        self.give(path, owner)
    }
}

pub(super) fn id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/demo/sa/{name}")
}
