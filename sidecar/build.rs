//! Generates gRPC stubs: the clients of the CA's API and of the controller's from the proto files that
//! are shared with them (their messages live in `myelin-identity`), and the servers of the Workload API and of
//! Envoy's secret discovery; and has the binary's relocations packed. Called by cargo.
//!
//! Never: generates a server of the CA, needs a `protoc`, writes outside `OUT_DIR`.

// SPDX-License-Identifier: Apache-2.0

const CA: &str = "../ca/identity/proto/myelin.proto";
const SERVICES: &str = "../ca/identity/proto/services.proto";
const POLICY: &str = "../ca/identity/proto/policy.proto";
const WORKLOAD: &str = "proto/workload.proto";
const SECRETS: &str = "proto/sds.proto";

/// The addresses that a position-independent program has in its tables, as a bitmap: 7 KiB to read
/// and keep at start instead of 320.
const PACK_RELOCATIONS: &str = "-Wl,-z,pack-relative-relocs";
/// The first glibc that reads the bitmap; an older one refuses the program with one line.
const READS_PACKED: (u32, u32) = (2, 36);
/// Set it to build for machines whose glibc is older than that of the machine that builds.
const FOR_OLDER_GLIBC: &str = "MYELIN_FOR_OLDER_GLIBC";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile([CA], ["../ca/identity/proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .extern_path(".myelin.v1", "::myelin_identity::issuance::proto")
        .compile_fds(files)?;
    let files = protox::compile([SERVICES, POLICY], ["../ca/identity/proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .extern_path(".myelin.services.v1", "::myelin_identity::services::proto")
        .extern_path(".myelin.policy.v1", "::myelin_identity::policy::proto")
        .compile_fds(files)?;
    let files = protox::compile([WORKLOAD, SECRETS], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        // They carry keys: none of them can be logged.
        .skip_debug(["."])
        .compile_fds(files)?;
    for proto in [CA, SERVICES, POLICY, WORKLOAD, SECRETS] {
        println!("cargo::rerun-if-changed={proto}");
    }
    println!("cargo::rerun-if-env-changed={FOR_OLDER_GLIBC}");
    if may_pack_relocations() {
        println!("cargo::rustc-link-arg-bins={PACK_RELOCATIONS}");
    }
    Ok(())
}

/// Only for the glibc of this very machine: of any other nothing is known.
fn may_pack_relocations() -> bool {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let native = std::env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    let here = native && is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_OS", "linux");
    here && std::env::var_os(FOR_OLDER_GLIBC).is_none()
        && glibc().is_some_and(|version| version >= READS_PACKED)
}

/// `glibc 2.36`
fn glibc() -> Option<(u32, u32)> {
    let said = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
