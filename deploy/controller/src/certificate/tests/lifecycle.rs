//! From the first certificate over its renewal to what came after it.
//!
//! Never: a wait for time.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use myelin_fake_api::{Fault, Trouble};

use super::*;

#[tokio::test]
async fn two_replicas_at_once_end_with_one_certificate() {
    let stage = Stage::installed().await;
    let (mut one, mut other) = (stage.replica().await, stage.replica().await);
    // Whoever is first, one write of each comes too late.
    stage.api.trouble(Trouble::next(2, Fault::Answer(409)).on("PUT"));
    stage.api.trouble(Trouble::next(1, Fault::Answer(409)).on("PATCH"));
    let (first, second) = tokio::join!(one.look(START), other.look(START));
    first.unwrap();
    second.unwrap();
    for replica in [&mut one, &mut other] {
        replica.look(START + 1).await.unwrap();
        assert!(replica.is_believed());
        assert_eq!(replica.serves(), stage.field("tls.crt"));
        assert!(admits(replica.address, &stage.ca_bundle(), START).await);
    }
    assert_eq!(stage.ca_bundle(), [der(&one.serves())]);
    assert_eq!(stage.secret().unwrap()["metadata"]["labels"]["kept"], "x", "not ours to touch");
    // A third one finds what is there, and writes nothing.
    stage.api.forget_requests();
    let mut third = stage.replica().await;
    third.look(START + DAY).await.unwrap();
    assert!(third.is_believed() && third.serves() == one.serves());
    assert!(stage.api.requests().iter().all(|request| request.method == "GET"));
}

#[tokio::test]
async fn no_admission_fails_while_the_certificate_is_renewed() {
    let stage = Stage::installed().await;
    let (mut one, mut other) = (stage.replica().await, stage.replica().await);
    one.look(START).await.unwrap();
    other.look(START).await.unwrap();
    let old = one.serves();
    let due = START + 60 * DAY;
    // The API server heard of the registration as it was up to two minutes ago.
    let mut heard = vec![stage.ca_bundle(); 3];
    let mut most = 0;
    for minute in 0..90 {
        let now = due - 2 * MINUTE + minute * MINUTE;
        // Neither looks every minute, and they change places.
        if minute % 2 == 0 {
            one.look(now).await.unwrap();
        }
        if minute % 3 != 1 {
            other.look(now).await.unwrap();
        }
        heard.insert(0, stage.ca_bundle());
        heard.truncate(3);
        most = most.max(heard[0].len());
        for (replica, late) in [(&one, 0), (&one, 2), (&other, 0), (&other, 2)] {
            assert!(
                admits(replica.address, &heard[late], now).await,
                "minute {minute}, {late} late"
            );
            assert!(replica.is_believed());
        }
    }
    assert_eq!(one.serves(), other.serves());
    assert_ne!(one.serves(), old);
    assert_eq!(most, 2, "old and new beside each other");
    assert_eq!(stage.ca_bundle(), [der(&one.serves())], "and at last the new one alone");
    assert!(!admits(one.address, &[der(&old)], due).await, "the twin: nobody serves the old one");
}

static CLOCK: AtomicU64 = AtomicU64::new(START);

fn clock() -> u64 {
    CLOCK.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_renewal_under_running_admissions_fails_none_of_them() {
    let stage = Stage::installed().await;
    let (one, other) = (stage.replica().await, stage.replica().await);
    let addresses = [one.address, other.address];
    let identities = [Arc::clone(&one.identity), Arc::clone(&other.identity)];
    let tasks = [tokio::spawn(one.keeper.follow(clock)), tokio::spawn(other.keeper.follow(clock))];
    let until = async |met: &dyn Fn() -> bool| {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let served = || identities.each_ref().map(|identity| identity.load_full());
    until(&|| served().iter().all(Option::is_some) && stage.ca_bundle().len() == 1).await;
    let first = served();
    // Each admission believes what was registered when it began.
    let (api, kubeconfig) = (stage.api.clone(), tempfile::NamedTempFile::new().unwrap());
    let asking = tokio::spawn(async move {
        let asked = Stage { api, kubeconfig };
        let mut admitted = 0_u32;
        loop {
            for address in addresses {
                let roots = asked.ca_bundle();
                assert!(admits(address, &roots, clock()).await, "after {admitted} admissions");
                admitted += 1;
            }
            tokio::task::yield_now().await;
        }
    });
    // Somebody touches the Secret: both look.
    let touched = || {
        let mut secret = stage.secret().unwrap();
        secret["metadata"]["annotations"]["touched"] = json!(clock().to_string());
        stage.api.put(&secrets(), secret);
    };
    let looks = || {
        let requests = stage.api.requests();
        requests.iter().filter(|it| it.path.ends_with("/secrets/myelin-webhook")).count()
    };
    CLOCK.fetch_add(61 * DAY, Ordering::SeqCst);
    touched();
    until(&|| stage.ca_bundle().len() == 2).await;
    while served()
        .iter()
        .zip(&first)
        .any(|(now, then)| Arc::ptr_eq(now.as_ref().unwrap(), then.as_ref().unwrap()))
    {
        CLOCK.fetch_add(MINUTE, Ordering::SeqCst);
        touched();
        let before = looks();
        until(&|| looks() > before).await;
    }
    assert!(!asking.is_finished(), "{:?}", asking.await);
    asking.abort();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_overwritten_ca_bundle_is_mended_while_we_follow() {
    let stage = Stage::installed().await;
    let replica = stage.replica().await;
    let following = tokio::spawn(replica.keeper.follow(|| START));
    let mended = async || {
        while stage.ca_bundle() != [der(&stage.field("tls.crt"))] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    while stage.field("tls.crt").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mended().await;
    for with in [json!("bm9uZQ=="), json!(""), Value::Null, json!("no base64")] {
        let mut object = stage.api.read(&registrations(), "", CONFIGURATION).unwrap();
        object["webhooks"][0]["clientConfig"]["caBundle"] = with.clone();
        object["webhooks"][2]["clientConfig"]["caBundle"] = with;
        object["webhooks"][2]["timeoutSeconds"] = json!(7);
        stage.api.put(&registrations(), object);
        let before = stage.api.version();
        while stage.api.version() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        mended().await;
    }
    let object = stage.api.read(&registrations(), "", CONFIGURATION).unwrap();
    assert_eq!(object["webhooks"][2]["timeoutSeconds"], 7, "theirs stays theirs");
    following.abort();
}

#[tokio::test]
async fn a_lost_secret_is_put_back_and_renewed_and_no_admission_fails() {
    let stage = Stage::installed().await;
    let (mut one, mut other) = (stage.replica().await, stage.replica().await);
    one.look(START).await.unwrap();
    other.look(START).await.unwrap();
    let (old, key) = (one.serves(), stage.field("tls.key"));
    // Emptied, filled with what is of no use, filled with another's.
    for data in [json!({}), json!({ "tls.crt": "eA==", "tls.key": "eA==" })] {
        stage.put_secret(data);
        one.look(START + MINUTE).await.unwrap();
        other.look(START + MINUTE).await.unwrap();
        assert_eq!((stage.field("tls.crt"), stage.field("tls.key")), (old.clone(), key.clone()));
        assert_eq!(stage.ca_bundle().len(), 2);
        assert!(admits(one.address, &stage.ca_bundle(), START).await);
    }
    let next = stage.field("next.crt");
    for now in [START + 7 * MINUTE, START + 8 * MINUTE] {
        one.look(now).await.unwrap();
        other.look(now).await.unwrap();
        assert!(admits(one.address, &stage.ca_bundle(), now).await);
        assert!(admits(other.address, &stage.ca_bundle(), now).await);
    }
    assert_eq!([one.serves(), other.serves()], [next.clone(), next]);
    // Another replica, that knew nothing, made one of its own meanwhile: ours stays published as long
    // as we serve it.
    let mut stranger = stage.replica().await;
    stage.put_secret(json!({}));
    stranger.look(START + DAY).await.unwrap();
    let mut seen = BTreeSet::new();
    for minute in 0..10 {
        let now = START + DAY + minute * MINUTE;
        one.look(now).await.unwrap();
        stranger.look(now).await.unwrap();
        seen.insert(one.serves());
        assert!(admits(one.address, &stage.ca_bundle(), now).await, "minute {minute}");
    }
    assert_eq!((seen.len(), one.serves()), (2, stranger.serves()));
}
