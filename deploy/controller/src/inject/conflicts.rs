//! What in a pod cannot stand beside a sidecar: its names, its ports, its user, and privileges by
//! which a workload gets around it. Called by the room's door.
//!
//! Never: looks into images; what a Dockerfile's USER says is seen by nobody here.

// SPDX-License-Identifier: Apache-2.0

use myelin_sidecar::intercept::defaults;

use super::pod::Pod;
use super::settings::Privileges;
use super::{Refusal, containers};

/// Ports of the pod that are the sidecar's.
const PORTS: [(u16, &str); 4] = [
    (defaults::OUTBOUND_PORT, "outbound listener"),
    (defaults::INBOUND_PORT, "inbound listener"),
    (defaults::OPS_PORT, "ops port"),
    (defaults::PROBE_PORT, "probe port"),
];

/// Capabilities by which a process sets the sidecar's user or writes rules and packets of its own.
/// ALL holds them all.
const CAPABILITIES: [&str; 4] = ["NET_ADMIN", "NET_RAW", "SETUID", "ALL"];

/// Nothing of the workload's bears a name of ours, and nobody but the sidecar mounts its identity.
pub(super) fn names(pod: &Pod) -> Result<(), Refusal> {
    let taken = |what, name: &str| Refusal::NameTaken { what, name: name.to_owned() };
    let injected = pod.is_injected();
    for container in &pod.spec.containers {
        if containers::is_ours(&container.name) {
            return Err(taken("container", &container.name));
        }
    }
    if !injected {
        let init = pod.spec.init_containers.iter().find(|init| containers::is_ours(&init.name));
        if let Some(init) = init {
            return Err(taken("init container", &init.name));
        }
        let volumes = &pod.spec.volumes;
        if let Some(volume) = volumes.iter().find(|volume| containers::is_own_volume(&volume.name))
        {
            return Err(taken("volume", &volume.name));
        }
    }
    for (_, container) in pod.workload() {
        let mounts = &container.volume_mounts;
        if let Some(mount) = mounts.iter().find(|mount| containers::is_own_volume(&mount.name)) {
            let (container, volume) = (container.name.clone(), mount.name.clone());
            return Err(Refusal::OwnVolume { container, volume });
        }
    }
    Ok(())
}

pub(super) fn ports(pod: &Pod) -> Result<(), Refusal> {
    for (_, container) in pod.workload() {
        let tcp = container
            .ports
            .iter()
            .filter(|port| port.protocol.is_empty() || port.protocol == "TCP");
        for port in tcp {
            let own = PORTS.iter().find(|(own, _)| i64::from(*own) == port.container_port);
            if let Some((_, whose)) = own {
                let (container, port) = (container.name.clone(), port.container_port);
                return Err(Refusal::PortTaken { container, port, whose });
            }
        }
    }
    Ok(())
}

/// In a pod the sidecar's user alone exempts it from the rules, so whoever shares that user is not
/// meshed at all: never a matter of a warning.
pub(super) fn users(pod: &Pod) -> Result<(), Refusal> {
    let of_pod = pod.spec.security_context.run_as_user;
    for (_, container) in pod.workload() {
        let uid = container.security_context.run_as_user.or(of_pod);
        if let Some(uid) = uid.filter(|uid| *uid == i64::from(defaults::PROXY_UID)) {
            return Err(Refusal::SidecarsUser { container: container.name.clone(), uid });
        }
    }
    Ok(())
}

pub(super) fn privileges(
    pod: &Pod,
    policy: Privileges,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let mut found = Vec::new();
    if pod.spec.share_process_namespace {
        found.push(
            "shareProcessNamespace lets root of the workload look into the sidecar".to_owned(),
        );
    }
    if pod.spec.host_pid {
        found.push("hostPID lets root of the workload look into the sidecar".to_owned());
    }
    for (_, container) in pod.workload() {
        let name = &container.name;
        if container.security_context.privileged == Some(true) {
            found.push(format!("container {name} is privileged and can get around the sidecar"));
            continue;
        }
        let added = &container.security_context.capabilities.add;
        let bare = |capability: &String| {
            let upper = capability.to_ascii_uppercase();
            upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
        };
        let strong = added.iter().map(bare).find(|added| CAPABILITIES.contains(&added.as_str()));
        if let Some(capability) = strong {
            found.push(format!(
                "container {name} adds {capability}, by which it can get around the sidecar"
            ));
        }
    }
    match policy {
        Privileges::Refuse => match found.into_iter().next() {
            Some(what) => Err(Refusal::Privileged { what }),
            None => Ok(()),
        },
        Privileges::Warn => {
            warnings.extend(found.into_iter().map(|what| format!("myelin: {what}")));
            Ok(())
        }
    }
}
