//! Clients with wrong certificates at the inbound side of a real sidecar: T1, T3 to T9, T11.
//!
//! Never: a refusal without the same client in its right shape being let in.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_tests::Spec;
use myelin_tests::forge::{Credential, now, pkcs8, svid, valid};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::stage::{GREETING, Stage, client, declared, stage};

const ID: &str = "spiffe://mesh.test/ns/test/sa/stranger";

impl Stage {
    fn bent(&self, bend: impl FnOnce(&mut CertificateParams)) -> Result<Credential> {
        let mut params = svid(ID, self.stranger.addresses())?;
        bend(&mut params);
        self.forge.leaf(params)
    }

    async fn demand_bent_refused(
        &mut self,
        name: &str,
        word: &str,
        bend: impl FnOnce(&mut CertificateParams),
    ) -> Result<()> {
        let own = self.bent(bend)?;
        let config = client(&self.forge, Some(&own), &[])?;
        self.demand_refused(name, config, word).await
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn replace_uri(params: &mut CertificateParams, with: &[SanType]) {
    params.subject_alt_names.retain(|san| !matches!(san, SanType::URI(_)));
    params.subject_alt_names.extend_from_slice(with);
}

/// The twin of every refusal below.
#[tokio::test]
async fn a_client_with_a_genuine_svid_is_let_in() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let own = stage.genuine()?;
    let answer = stage.speak(client(&stage.forge, Some(&own), &[])?, b"let me in").await?;
    ensure!(answer == GREETING);
    ensure!(stage.heard() == [b"let me in"]);
    Ok(())
}

/// T1
#[tokio::test]
async fn a_client_without_a_certificate_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let config = client(&stage.forge, None, &[])?;
    stage.demand_refused("no certificate", config, "no_certificate").await
}

/// T3 to T6: what the certificate says, or does not.
#[tokio::test]
async fn a_certificate_that_is_not_exactly_one_id_of_this_trust_domain_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let foreign = uri("spiffe://other.test/ns/test/sa/stranger");
    let table: [(&str, &str, &[SanType]); 4] = [
        ("T3: another trust domain under the same root", "wrong_trust_domain", &[foreign]),
        ("T4: no URI", "no_spiffe_id", &[]),
        ("T4: two URIs", "many_uris", &[uri(ID), uri("spiffe://mesh.test/ns/test/sa/other")]),
        ("T5: the ID as a DNS name", "no_spiffe_id", &[SanType::DnsName(ID.try_into()?)]),
    ];
    for (name, word, sans) in table {
        stage.demand_bent_refused(name, word, |params| replace_uri(params, sans)).await?;
    }
    stage
        .demand_bent_refused("T5: the ID only in the CN", "no_spiffe_id", |params| {
            replace_uri(params, &[]);
            params.distinguished_name.push(DnType::CommonName, ID);
        })
        .await
}

/// T6: IDs that are nearly right.
#[tokio::test]
async fn a_malformed_id_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let long = format!("spiffe://mesh.test/ns/{}/sa/x", "n".repeat(2_048));
    for id in [
        "spiffe://mesh.test:443/ns/test/sa/x",
        "spiffe://mesh.test/ns/test/sa/x?query",
        "spiffe://mesh.test/ns/test/sa/x#fragment",
        "spiffe://mesh.test/ns/%2e%2e/sa/x",
        "spiffe://mesh.test/ns/../sa/x",
        "spiffe://mesh.test/ns//sa/x",
        "spiffe://MESH.test/ns/test/sa/x",
        "spiffe://mesh.test/ns/te\0st/sa/x",
        "https://mesh.test/ns/test/sa/x",
        &long,
    ] {
        let name = format!("T6: {}", &id[..id.len().min(60)]);
        stage
            .demand_bent_refused(&name, "malformed_id", |params| replace_uri(params, &[uri(id)]))
            .await?;
    }
    Ok(())
}

/// T7
#[tokio::test]
async fn a_client_whose_certificate_is_for_servers_only_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    for (name, usages) in [
        ("serverAuth only", vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ("no extended key usage at all", Vec::new()),
    ] {
        stage
            .demand_bent_refused(name, "wrong_usage", |params| {
                params.extended_key_usages = usages;
            })
            .await?;
    }
    // The twin: clientAuth alone is enough for a client.
    let own = stage
        .bent(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])?;
    let answer = stage.speak(client(&stage.forge, Some(&own), &[])?, b"hello").await?;
    ensure!(answer == GREETING);
    Ok(())
}

/// T8
#[tokio::test]
async fn a_ca_as_a_leaf_and_a_leaf_as_a_ca_are_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    stage
        .demand_bent_refused("a CA as a leaf", "ca_as_leaf", |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        })
        .await?;
    // A genuine leaf's key signs another leaf.
    let (genuine, key) = {
        let key = KeyPair::generate()?;
        let der = stage.forge.sign(svid(ID, stage.stranger.addresses())?, &key)?;
        (der, key)
    };
    let template = svid(ID, stage.stranger.addresses())?;
    let signer = Issuer::from_params(&template, key);
    let leaf_key = KeyPair::generate()?;
    let leaf = svid("spiffe://mesh.test/ns/test/sa/admin", stage.stranger.addresses())?
        .signed_by(&leaf_key, &signer)?;
    let chain = vec![leaf.der().clone(), genuine, stage.forge.intermediate.clone()];
    let own = Credential { chain, key: pkcs8(&leaf_key) };
    let config = client(&stage.forge, Some(&own), &[])?;
    stage.demand_refused("a leaf that signed a leaf", config, "leaf_as_ca").await
}

/// T8: the intermediate may sign leaves, not further CAs.
#[tokio::test]
async fn a_chain_longer_than_its_ca_permits_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let mut below = CertificateParams::default();
    below.distinguished_name.push(DnType::CommonName, "below");
    below.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    below.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    valid(&mut below, now() - 60, now() + 3_600);
    let key = KeyPair::generate()?;
    let below_der = stage.forge.sign(below.clone(), &key)?;
    let issuer = Issuer::from_params(&below, key);
    let leaf_key = KeyPair::generate()?;
    let leaf = svid(ID, stage.stranger.addresses())?.signed_by(&leaf_key, &issuer)?;
    let chain = vec![leaf.der().clone(), below_der, stage.forge.intermediate.clone()];
    let own = Credential { chain, key: pkcs8(&leaf_key) };
    let config = client(&stage.forge, Some(&own), &[])?;
    stage.demand_refused("path length", config, "path_length").await
}

#[tokio::test]
async fn an_expired_and_a_future_certificate_are_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    stage
        .demand_bent_refused("expired", "expired", |params| {
            valid(params, now() - 7_200, now() - 60);
        })
        .await?;
    stage
        .demand_bent_refused("of tomorrow", "not_yet_valid", |params| {
            valid(params, now() + 3_600, now() + 7_200);
        })
        .await?;
    // T43: the line has now, notBefore and notAfter.
    let log = stage.server.log()?;
    ensure!(log.contains("notBefore") && log.contains("notAfter"), "{log}");
    Ok(())
}

/// T9: names are compared whole.
#[tokio::test]
async fn a_policy_for_one_name_lets_no_similar_name_in() -> Result<()> {
    let tables = "[[inbound.port]]\nport = 7000\nplain_mtls = true\n\
                  [[inbound.allow]]\nname = \"one\"\nports = [7000]\n\
                  ids = [\"spiffe://mesh.test/ns/test/sa/a.b\"]\n";
    let spec = Spec::new("server").tables(tables);
    let Some(mut stage) = stage(spec).await? else { return Ok(()) };
    for similar in ["aXb", "a.b2", "a", "A.b", "a.b.c"] {
        let id = format!("spiffe://mesh.test/ns/test/sa/{similar}");
        let own = stage.forge.svid(&id, stage.stranger.addresses())?;
        let config = client(&stage.forge, Some(&own), &[])?;
        stage.demand_refused(similar, config, "policy_denied").await?;
    }
    let own = stage.forge.svid("spiffe://mesh.test/ns/test/sa/a.b", stage.stranger.addresses())?;
    let answer = stage.speak(client(&stage.forge, Some(&own), &[])?, b"it is me").await?;
    ensure!(answer == GREETING);
    Ok(())
}

/// An SVID that is used from an address that it is not bound to.
#[tokio::test]
async fn a_genuine_svid_at_another_address_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let own = stage.forge.svid(ID, &["10.77.0.200".parse()?])?;
    let config = client(&stage.forge, Some(&own), &[])?;
    stage.demand_refused("another address", config, "wrong_address").await
}

/// T11: nothing is ever resumed, so no session outlives the trust that it was made under.
#[tokio::test]
async fn a_second_handshake_with_the_same_client_is_a_full_one() -> Result<()> {
    let Some(stage) = stage(declared()).await? else { return Ok(()) };
    let own = stage.genuine()?;
    let config = client(&stage.forge, Some(&own), &[])?;
    for _ in 0..2 {
        ensure!(stage.speak(config.clone(), b"again").await? == GREETING);
    }
    let metrics = stage.server.metrics().await?;
    let handshakes = |resumed: &str| {
        metrics.sum("myelin_handshakes_total", &[("direction", "inbound"), ("resumed", resumed)])
    };
    ensure!(handshakes("true") == 0.0, "a session was resumed");
    ensure!(handshakes("false") >= 2.0, "the handshakes were not counted");
    Ok(())
}

/// An unknown critical extension is nothing to look past.
#[tokio::test]
async fn an_unknown_critical_extension_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    stage
        .demand_bent_refused("a critical extension", "chain_malformed", |params| {
            let mut extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        })
        .await
}
