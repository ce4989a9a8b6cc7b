//! The flags that say whom to believe about callers from outside the mesh.
//!
//! Never: opens a file or a socket.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::Args;

use super::ConfigError;

/// Whom to believe about pods and machines. Without these flags only join tokens attest.
#[derive(Clone, Debug, Default, Args)]
pub struct AttestArgs {
    /// Issuer of the cluster's service-account tokens, exactly as the tokens' `iss` has it. Pods
    /// then attest with a projected token for the audience myelin-ca/<trust domain>.
    #[arg(long, value_name = "ISSUER", requires = "kubernetes_jwks")]
    pub kubernetes_issuer: Option<String>,
    /// The issuer's public keys (a JWKS): a file, or an https URL such as
    /// https://10.96.0.1/openid/v1/jwks.
    #[arg(long, value_name = "FILE-OR-URL", requires = "kubernetes_issuer")]
    pub kubernetes_jwks: Option<String>,
    /// CA certificates (PEM) by which the server of an https --kubernetes-jwks is recognised.
    #[arg(long, value_name = "FILE", requires = "kubernetes_jwks")]
    pub kubernetes_jwks_ca: Option<PathBuf>,
    /// File with a bearer token to show to that server; read again at each request.
    #[arg(long, value_name = "FILE", requires = "kubernetes_jwks")]
    pub kubernetes_jwks_bearer_file: Option<PathBuf>,
    /// Ask the Kubernetes API about every token and its pod (TokenReview, get pods): a pod that is
    /// gone is refused at once, and its addresses are those of its status. Reached as a pod does, or
    /// by --kubeconfig. While it is away, pods that were seen before go on by the keys alone.
    #[arg(long, requires = "kubernetes_issuer")]
    pub kubernetes_review: bool,
    /// Namespace of which every service account gets its own ID, /ns/<namespace>/sa/<service
    /// account>, at the address that the request comes from, without a registration entry. May be
    /// repeated.
    #[arg(
        long = "kubernetes-allow-namespace",
        value_name = "NAMESPACE",
        requires = "kubernetes_issuer"
    )]
    pub kubernetes_namespaces: Vec<String>,
    /// CA certificates (PEM) whose machines attest with their own certificates. Who gets which ID
    /// is said by registration entries (`myelin-ca entry create`).
    #[arg(long, value_name = "FILE")]
    pub machine_ca: Option<PathBuf>,
}

/// Whom to believe, as `app` opens it.
#[derive(Clone, Debug, Default)]
pub struct AttestConfig {
    pub kubernetes: Option<KubernetesConfig>,
    pub machine_ca: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    pub issuer: String,
    pub keys: KeysConfig,
    pub review: Option<ReviewConfig>,
}

/// How the API server is reached that is asked about tokens.
#[derive(Clone, Debug)]
pub struct ReviewConfig {
    /// None: as a pod does.
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub enum KeysConfig {
    File(PathBuf),
    Https { url: String, ca: PathBuf, bearer_file: Option<PathBuf> },
}

impl AttestArgs {
    pub(super) fn config(&self, kubeconfig: Option<&PathBuf>) -> Result<AttestConfig, ConfigError> {
        let review =
            self.kubernetes_review.then(|| ReviewConfig { kubeconfig: kubeconfig.cloned() });
        let kubernetes = match (&self.kubernetes_issuer, &self.kubernetes_jwks) {
            (Some(issuer), Some(keys)) => {
                Some(KubernetesConfig { issuer: issuer.clone(), keys: self.keys(keys)?, review })
            }
            _ => None,
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let named = |name: &&String| !(1..=63).contains(&name.len()) || !name.bytes().all(plain);
        if let Some(wrong) = self.kubernetes_namespaces.iter().find(named) {
            return Err(ConfigError::Namespace(wrong.clone()));
        }
        Ok(AttestConfig { kubernetes, machine_ca: self.machine_ca.clone() })
    }

    fn keys(&self, text: &str) -> Result<KeysConfig, ConfigError> {
        if text.starts_with("http://") {
            return Err(ConfigError::PlainJwks(text.to_owned()));
        }
        if !text.starts_with("https://") {
            // A forgotten s, or a flag too many: it would be ignored without a word.
            let (ca, bearer) = (&self.kubernetes_jwks_ca, &self.kubernetes_jwks_bearer_file);
            if ca.is_some() || bearer.is_some() {
                let flag = if ca.is_some() { "-ca" } else { "-bearer-file" };
                return Err(ConfigError::JwksOfFile { file: text.to_owned(), flag });
            }
            return Ok(KeysConfig::File(PathBuf::from(text)));
        }
        let ca = self.kubernetes_jwks_ca.clone().ok_or(ConfigError::JwksCa)?;
        let bearer_file = self.kubernetes_jwks_bearer_file.clone();
        Ok(KeysConfig::Https { url: text.to_owned(), ca, bearer_file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_settings_or_one_line_with_the_fix() {
        let args = |jwks: &str, namespace: &str| AttestArgs {
            kubernetes_issuer: Some("https://issuer".to_owned()),
            kubernetes_jwks: Some(jwks.to_owned()),
            kubernetes_namespaces: vec![namespace.to_owned()],
            ..AttestArgs::default()
        };
        let file = args("/etc/jwks.json", "shop");
        let ca = AttestArgs { kubernetes_jwks_ca: Some("/ca.crt".into()), ..file.clone() };
        let bearer =
            AttestArgs { kubernetes_jwks_bearer_file: Some("/token".into()), ..file.clone() };
        for (ignored, flag) in
            [(ca, "--kubernetes-jwks-ca is"), (bearer, "--kubernetes-jwks-bearer-file is")]
        {
            let error = ignored.config(None).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
        let config = file.config(None).unwrap();
        assert!(matches!(config.kubernetes.unwrap().keys, KeysConfig::File(_)));
        for (jwks, namespace, expected) in [
            ("http://10.0.0.1/jwks", "shop", "https://"),
            ("https://10.0.0.1/jwks", "shop", "--kubernetes-jwks-ca"),
            ("/etc/jwks.json", "shop-*", "--kubernetes-allow-namespace"),
        ] {
            let error = args(jwks, namespace).config(None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
