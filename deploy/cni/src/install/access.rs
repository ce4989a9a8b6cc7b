//! The kubeconfig by which the plugin, which the node runs, reaches the API: with the token of the
//! installing pod, which the kubelet renews. Called by `install`.
//!
//! Never: a token in a log; a server's name, since the program resolves none.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::files;

/// The kubeconfig's text (JSON is YAML too).
pub(super) fn kubeconfig(account: &Path, server: &str) -> Result<String, String> {
    let text = |name: &str| {
        let path = account.join(name);
        match files::read(&path) {
            Ok(Some(text)) if !text.trim().is_empty() => Ok(text),
            Ok(_) => Err(format!("{} is not there, or empty", path.display())),
            Err(why) => Err(format!("{} cannot be read: {why}", path.display())),
        }
    };
    let (token, roots) = (text("token")?, text("ca.crt")?);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "cluster",
            "cluster": { "server": server, "certificate-authority-data": BASE64.encode(roots) },
        }],
        "users": [{ "name": "myelin-cni", "user": { "token": token.trim() } }],
        "contexts": [{
            "name": "cluster",
            "context": { "cluster": "cluster", "user": "myelin-cni" },
        }],
        "current-context": "cluster",
    });
    Ok(format!("{config:#}\n"))
}

/// The API server as Kubernetes tells every pod.
pub(super) fn server(variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let [host, port] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"].map(|name| {
        variable(name)
            .ok_or_else(|| format!("{name} is not set; name --api-server https://ADDRESS:PORT"))
    });
    let (host, port) = (host?, port?);
    match host.parse() {
        Ok(IpAddr::V4(address)) => Ok(format!("https://{address}:{port}")),
        Ok(IpAddr::V6(address)) => Ok(format!("https://[{address}]:{port}")),
        Err(_) => Err(format!("KUBERNETES_SERVICE_HOST is {host:?}, expected an address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_is_an_address() {
        let of = |host: &'static str| {
            server(|name| Some(if name.ends_with("HOST") { host } else { "443" }.to_owned()))
        };
        assert_eq!(of("10.96.0.1").unwrap(), "https://10.96.0.1:443");
        assert_eq!(of("fd00::1").unwrap(), "https://[fd00::1]:443");
        assert!(of("kubernetes.default").unwrap_err().contains("expected an address"));
        assert!(server(|_| None).unwrap_err().contains("--api-server"));
    }

    #[test]
    fn a_kubeconfig_has_the_token_of_the_moment_and_the_roots() {
        let account = tempfile::tempdir().unwrap();
        let path = account.path();
        assert!(kubeconfig(path, "https://x").unwrap_err().contains("token"));
        std::fs::write(path.join("token"), "secret\n").unwrap();
        std::fs::write(path.join("ca.crt"), "PEM").unwrap();
        let text = kubeconfig(path, "https://10.96.0.1:443").unwrap();
        let read = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://10.96.0.1:443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("UEVN"));
        assert!(text.contains("\"token\": \"secret\""));
    }
}
