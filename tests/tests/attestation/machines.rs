//! Sidecars that attest with a machine's own certificate, made by openssl as a corporate CA would,
//! with RSA keys.
//!
//! Never: a certificate of our own making.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;

use anyhow::{Result, ensure};
use myelin_tests::binaries::installed;
use myelin_tests::{Mesh, Options, Spec, Workload};

use crate::{attempts, says, shared, talk};

const MACHINE: &str =
    "machine_certificate_file = \"DIR/machine.crt\"\nmachine_key_file = \"DIR/machine.key\"";

fn openssl(dir: &Path, script: &str) -> Result<()> {
    let program = installed("openssl", "openssl")?;
    let status = std::process::Command::new("sh")
        .args(["-ec", script])
        .env("OPENSSL", program)
        .current_dir(dir)
        .output()?;
    ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    Ok(())
}

/// A root and an intermediate for one site, as such hierarchies are.
fn corporation(dir: &Path) -> Result<()> {
    openssl(
        dir,
        "$OPENSSL req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 3650 \
           -subj '/O=Corporation/CN=Corporation root' \
           -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign'
         $OPENSSL req -newkey rsa:2048 -nodes -keyout site.key -out site.csr \
           -subj '/O=Corporation/CN=Site 1'
         printf 'basicConstraints=critical,CA:TRUE,pathlen:0\\nkeyUsage=critical,keyCertSign\\n' >site.ext
         $OPENSSL x509 -req -in site.csr -CA root.pem -CAkey root.key -CAcreateserial -days 365 \
           -extfile site.ext -out site.pem",
    )
}

/// The machine's certificate with its intermediate, and its key.
fn machine(dir: &Path, of: &Workload, name: &str, usage: &str) -> Result<()> {
    let address = of.pod.v4();
    openssl(
        dir,
        &format!(
            "$OPENSSL req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj '/CN={name}'
             printf 'subjectAltName=DNS:{name}.corp.test,IP:{address}\\nextendedKeyUsage={usage}\\n' >{name}.ext
             $OPENSSL x509 -req -in {name}.csr -CA site.pem -CAkey site.key -CAcreateserial -days 30 \
               -extfile {name}.ext -out {name}.pem
             cat site.pem >>{name}.pem"
        ),
    )?;
    of.write("machine.crt", &std::fs::read_to_string(dir.join(format!("{name}.pem")))?)?;
    of.write("machine.key", &std::fs::read_to_string(dir.join(format!("{name}.key")))?)
}

#[tokio::test]
async fn a_machine_gets_the_id_of_its_entry_and_loses_it_with_the_entry() -> Result<()> {
    let dir = shared()?;
    corporation(dir.path())?;
    let root = dir.path().join("root.pem").display().to_string();
    let ca_flags = vec!["--machine-ca".to_owned(), root];
    let options = Options { ca_flags, ..Options::lifetime(20) };
    let Some(mesh) = Mesh::start(options).await? else { return Ok(()) };
    let peer = mesh.workload("peer").await?;
    let vm = mesh.prepare(Spec::new("vm").path("/ns/fleet/sa/vm-1").attests(MACHINE)).await?;
    machine(dir.path(), &vm, "vm-1", "serverAuth")?;
    vm.start()?;
    says(&vm, "machine_usage").await?;
    machine(dir.path(), &vm, "vm-1", "clientAuth")?;
    says(&vm, "entry_missing").await?;

    let id = vm.spec.id();
    let selector = "x509:san:dns:vm-1.corp.test";
    let made = ["entry", "create", "vm-1", "--id", &id, "--selector", selector];
    let made = [&made[..], &["--address-from", "certificate"]].concat();
    let said = mesh.ca.operate(&made).await?;
    ensure!(said.contains("at the certificate's addresses"), "{said}");
    vm.ready().await?;
    talk(&vm, &peer).await?;
    talk(&peer, &vm).await?;
    attempts(&vm, "renewed", 1.0).await?;
    ensure!(mesh.ca.said("attestor=\"machine\""), "the audit line does not name the attestor");

    // The key of another machine under this one's certificate.
    let own = std::fs::read_to_string(dir.path().join("vm-1.key"))?;
    vm.write("machine.key", &std::fs::read_to_string(dir.path().join("site.key"))?)?;
    says(&vm, "machine_signature").await?;
    vm.write("machine.key", &own)?;

    mesh.ca.operate(&["entry", "delete", "vm-1"]).await?;
    attempts(&vm, "ca_refused", 2.0).await?;
    ensure!(mesh.ca.operate(&["entry", "list"]).await?.trim().is_empty());
    mesh.demand_clean_wire().await.map(drop)
}
