//! Which service-account tokens are genuine: TokenReview says so, TokenRequest makes some.
//!
//! Never: signs anything; a token is a text that a test or this server made known.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value, json};

use crate::objects::Objects;
use crate::path::{Resource, Target};
use crate::status::Refused;

/// What a reviewer who names no audience asks about.
const API_AUDIENCE: &str = "https://kubernetes.default.svc";

/// A genuine token of a service account, bound to a pod or not.
#[derive(Clone, Debug, Default)]
pub struct PodToken {
    pub audiences: Vec<String>,
    pub namespace: String,
    pub service_account: String,
    /// Name and uid; as long as the object of that name has another uid or is not there, the token
    /// is no good.
    pub pod: Option<(String, String)>,
    pub node: Option<String>,
    /// Whether it is taken even when its pod is gone, as servers did before bound tokens.
    pub outlives_its_pod: bool,
}

#[derive(Default)]
pub(crate) struct Tokens {
    known: BTreeMap<String, PodToken>,
    made: u64,
}

impl Tokens {
    pub(crate) fn allow(&mut self, text: &str, token: PodToken) {
        self.known.insert(text.to_owned(), token);
    }

    pub(crate) fn revoke(&mut self, text: &str) {
        self.known.remove(text);
    }

    /// The review with its status.
    pub(crate) fn review(&self, mut review: Value, objects: &Objects) -> Result<Value, Refused> {
        let text = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
        if text.is_empty() {
            return Err(Refused::invalid("spec.token: Invalid value: cannot be empty"));
        }
        let mut asked = texts(&review["spec"]["audiences"]);
        if asked.is_empty() {
            asked.push(API_AUDIENCE.to_owned());
        }
        review["status"] = match self.judged(text, &asked, objects) {
            Ok((token, audiences)) => {
                json!({"authenticated": true, "audiences": audiences, "user": token.user()})
            }
            Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
        };
        Ok(review)
    }

    fn judged(
        &self,
        text: &str,
        asked: &[String],
        objects: &Objects,
    ) -> Result<(&PodToken, Vec<String>), &'static str> {
        let token = self.known.get(text).ok_or("invalid bearer token")?;
        let both: Vec<_> =
            token.audiences.iter().filter(|audience| asked.contains(audience)).cloned().collect();
        if both.is_empty() {
            return Err("token audiences do not match");
        }
        if let Some((name, uid)) = &token.pod
            && !token.outlives_its_pod
        {
            let pod = objects.read(&Resource::core("pods").key(&token.namespace, name));
            let found = pod.and_then(|pod| pod["metadata"]["uid"].as_str());
            if found != Some(uid) {
                return Err("the pod that the token is bound to is gone");
            }
        }
        Ok((token, both))
    }

    /// A token for this service account, as the request for it says.
    pub(crate) fn request(&mut self, target: &Target, mut request: Value) -> Value {
        self.made += 1;
        let audiences = match texts(&request["spec"]["audiences"]) {
            none if none.is_empty() => vec![API_AUDIENCE.to_owned()],
            some => some,
        };
        let text = |pointer: &str| {
            request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let bound = (text("/spec/boundObjectRef/name"), text("/spec/boundObjectRef/uid"));
        let token = PodToken {
            audiences,
            namespace: target.namespace.clone(),
            service_account: target.name.clone().unwrap_or_default(),
            pod: (!bound.0.is_empty()).then_some(bound),
            node: None,
            outlives_its_pod: false,
        };
        let made = format!("{}.{}", token.unsigned(self.made), encoded(b"not signed"));
        self.known.insert(made.clone(), token);
        request["status"] = json!({"token": made, "expirationTimestamp": "2027-01-01T00:00:00Z"});
        request
    }
}

impl PodToken {
    fn user(&self) -> Value {
        let (namespace, account) = (&self.namespace, &self.service_account);
        let mut extra = json!({});
        if let Some((name, uid)) = &self.pod {
            extra["authentication.kubernetes.io/pod-name"] = json!([name]);
            extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
        }
        if let Some(node) = &self.node {
            extra["authentication.kubernetes.io/node-name"] = json!([node]);
        }
        json!({
            "username": format!("system:serviceaccount:{namespace}:{account}"),
            "uid": format!("uid-of-{account}"),
            "groups": [
                "system:serviceaccounts",
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated",
            ],
            "extra": extra,
        })
    }

    /// In the shape of a JWT, up to its signature.
    fn unsigned(&self, number: u64) -> String {
        let (namespace, account) = (&self.namespace, &self.service_account);
        let mut claims = json!({
            "aud": self.audiences, "jti": number.to_string(),
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account}},
        });
        if let Some((name, uid)) = &self.pod {
            claims["kubernetes.io"]["pod"] = json!({"name": name, "uid": uid});
        }
        format!("{}.{}", encoded(br#"{"alg":"none"}"#), encoded(claims.to_string().as_bytes()))
    }
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}
