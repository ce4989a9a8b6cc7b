//! Where to look when the demo stays up. Called at the end of `demo --keep`.
//! Never: starts or stops anything.

// SPDX-License-Identifier: Apache-2.0

use super::scrape::{CA_OPS, SIDECAR_OPS};
use super::stage::Stage;
use super::view::say;

/// Addresses, sockets, and three things to try.
pub(super) fn where_to_look(stage: &Stage) {
    let inside = |pid: u32| {
        let user = if stage.ground.tells_uids_apart() { "" } else { " -U --preserve-credentials" };
        format!("nsenter -t {pid}{user} -n")
    };
    let line = |text: &str| say(format_args!("{text}\n"));
    line("\nEverything still runs. Ctrl-C ends it and cleans up.\n");
    let mut pods = Vec::new();
    if let Some(ca) = &stage.ca {
        pods.push(("ca", inside(ca.pid()), CA_OPS, stage.path("ca").join("admin.sock")));
    }
    for sidecar in &stage.sidecars {
        pods.push((sidecar.name, inside(sidecar.proc.pid()), SIDECAR_OPS, sidecar.admin.clone()));
    }
    for (name, inside, port, admin) in &pods {
        line(&format!("{name:<8}metrics       {inside} curl -s http://127.0.0.1:{port}/metrics"));
        line(&format!("        admin socket  {}", admin.display()));
    }
    if let Some(prometheus) = &stage.prometheus {
        line(&format!("Prometheus          http://{}", prometheus.address));
    }
    let [(_, in_ca, ..), (_, in_client, ..), (.., server_admin)] = pods.as_slice() else { return };
    let web = format!("http://{}:8080/", stage.pods.server.v4());
    let (admin, ca) = (server_admin.display(), stage.binaries.ca.display());
    line("\nThree things to try:");
    line("  1. Which certificate is in use, who talks to whom, and whom the CA has certified:");
    line(&format!("       curl -s --unix-socket {admin} http://x/certs"));
    line(&format!("       curl -s --unix-socket {admin} http://x/connections"));
    line(&format!("       {ca} svid list --data {}", stage.path("ca").display()));
    line("  2. Be a workload, and listen on the wire at the same time:");
    line(&format!("       {in_client} curl -s {web}"));
    line(&format!("       {in_client} tcpdump -n -A -i eth0 port 8080"));
    line("  3. Be a stranger (the CA's pod has no sidecar): the service resets the connection:");
    line(&format!("       {in_ca} curl -s {web}; echo \"exit code $?\""));
    line(&format!("\nLogs of all processes: {}", stage.path("logs").display()));
}
