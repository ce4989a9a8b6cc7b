//! Where to look when the demo stays up. Called at the end of `demo --keep`.
//! Never: starts or stops anything.

// SPDX-License-Identifier: Apache-2.0

#![expect(clippy::print_stdout, reason = "this room is output")]

use super::scrape::{CA_OPS, SIDECAR_OPS};
use super::stage::Stage;

/// Addresses, sockets, and three things to try.
pub(super) fn where_to_look(stage: &Stage) {
    let inside = |pid: u32| {
        let user = if stage.ground.tells_uids_apart() { "" } else { " -U --preserve-credentials" };
        format!("nsenter -t {pid}{user} -n")
    };
    println!("\nEverything still runs. Ctrl-C ends it and cleans up.\n");
    let mut rows = Vec::new();
    if let Some(ca) = &stage.ca {
        rows.push(("ca", ca.pid(), CA_OPS, stage.path("ca").join("admin.sock")));
    }
    for sidecar in &stage.sidecars {
        rows.push((sidecar.name, sidecar.proc.pid(), SIDECAR_OPS, sidecar.admin.clone()));
    }
    for (name, pid, port, admin) in &rows {
        println!("{name}");
        println!("  metrics       {} curl -s http://127.0.0.1:{port}/metrics", inside(*pid));
        println!("  admin socket  {}", admin.display());
    }
    println!(
        "\nWho holds a certificate now, asked of the CA as its operator:\n  {} svid list --data {}",
        stage.binaries.ca.display(),
        stage.path("ca").display()
    );
    let [_, client, server] = rows.as_slice() else { return };
    let web = format!("http://{}:8080/", stage.pods.server.v4());
    println!("\nThree things to try:");
    println!("  1. which certificate is in use, and who talks to whom:");
    println!("       curl -s --unix-socket {} http://x/certs", server.3.display());
    println!("       curl -s --unix-socket {} http://x/connections", server.3.display());
    println!("  2. be a workload, and listen on the wire at the same time:");
    println!("       {} curl -s {web}", inside(client.1));
    println!("       {} tcpdump -n -A -i eth0 port 8080", inside(client.1));
    println!(
        "  3. be a stranger: from the CA's pod, which has no sidecar, the service does not answer:"
    );
    println!("       {} curl -s {web}; echo \"exit code $?\"", inside(rows[0].1));
    println!("\nLogs of all processes: {}", stage.path("logs").display());
}
