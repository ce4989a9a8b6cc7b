//! What a CA tells those who watch it, over the real API: bundle, deny list, directory.
//!
//! Never: waits without a bound.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::net::IpAddr;
use std::time::Duration;

use harness::*;
use myelin_identity::issuance::{BundleUpdate, DirectoryAnswer, DirectoryQuestion, proto};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// Far above a heartbeat: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn next<T>(stream: &mut Streaming<T>) -> Result<T, tonic::Status> {
    timeout(PATIENCE, stream.message())
        .await
        .expect("an answer in time")
        .map(|message| message.unwrap())
}

async fn ask_directory(
    connected: &mut Connected,
) -> (mpsc::Sender<proto::DirectoryQuestion>, Streaming<proto::DirectoryAnswer>) {
    let (sender, questions) = mpsc::channel(8);
    let answers = connected.client.watch_directory(ReceiverStream::new(questions)).await.unwrap();
    (sender, answers.into_inner())
}

fn question(address: &str, port: u16) -> proto::DirectoryQuestion {
    DirectoryQuestion { address: address.parse::<IpAddr>().unwrap(), port, forget: false }.into()
}

async fn answer(stream: &mut Streaming<proto::DirectoryAnswer>) -> DirectoryAnswer {
    next(stream).await.unwrap().try_into().unwrap()
}

#[tokio::test]
async fn watcher_without_an_svid_is_refused() {
    let ca = TestCa::start().await;
    let mut bare = ca.target().connect(None).await;
    let (_open, acks) = mpsc::channel(1);
    let refused = bare.client.watch_bundle(ReceiverStream::new(acks)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let (_open, questions) = mpsc::channel(1);
    let refused = bare.client.watch_directory(ReceiverStream::new(questions)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn bundle_comes_at_once_signed_and_again_with_each_heartbeat_and_alarm() {
    let ca = TestCa::start().await;
    let (_, watcher) = join(&ca, WEB, "10.0.0.7").await;
    let (host, held) = join(&ca, WEB, "10.0.0.8").await;
    let mut connected = ca.target().connect(Some(&watcher)).await;
    let (_open, acks) = mpsc::channel(1);
    let mut updates =
        connected.client.watch_bundle(ReceiverStream::new(acks)).await.unwrap().into_inner();

    let first = BundleUpdate::try_from(next(&mut updates).await.unwrap()).unwrap();
    assert_eq!(first.bundle.unwrap(), *ca.bundle());
    let signed = first.deny_list.unwrap();
    assert_eq!(signed.verify(&ca.bundle(), ca.clock().now()).unwrap().epoch(), 0);

    // A heartbeat without any change.
    let beat = BundleUpdate::try_from(next(&mut updates).await.unwrap()).unwrap();
    assert!(beat.deny_list.unwrap().list.said_at() >= signed.list.said_at());

    issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
    issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await.map(|_| ()).unwrap_err();
    let alarmed = loop {
        let update = BundleUpdate::try_from(next(&mut updates).await.unwrap()).unwrap();
        let signed = update.deny_list.unwrap();
        if signed.list.epoch() == 1 {
            break signed;
        }
    };
    let list = alarmed.verify(&ca.bundle(), ca.clock().now()).unwrap();
    assert_eq!(list.entries().count(), 2);
}

#[tokio::test]
async fn denied_watcher_is_cut_off() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, "10.0.0.7").await;
    let mut connected = ca.target().connect(Some(&held)).await;
    let (_open, acks) = mpsc::channel(1);
    let mut updates =
        connected.client.watch_bundle(ReceiverStream::new(acks)).await.unwrap().into_inner();
    next(&mut updates).await.unwrap();
    issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
    issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await.map(|_| ()).unwrap_err();
    let ended = loop {
        if let Err(status) = next(&mut updates).await {
            break status;
        }
    };
    assert_eq!((ended.code(), reason(&ended)), (Code::PermissionDenied, "denied"));
}

#[tokio::test]
async fn directory_answers_at_once_on_change_and_at_expiry() {
    let ca = TestCa::start().await;
    let (_, watcher) = join(&ca, WEB, "10.0.0.7").await;
    let mut connected = ca.target().connect(Some(&watcher)).await;
    let (questions, mut answers) = ask_directory(&mut connected).await;

    questions.send(question("10.0.0.7", 80)).await.unwrap();
    let here = answer(&mut answers).await;
    assert_eq!(
        (here.id.unwrap().as_str(), here.protocol.as_str(), here.port),
        (WEB, "myelin/1", 80)
    );

    questions.send(question("::ffff:10.0.0.9", 5432)).await.unwrap();
    let nobody = answer(&mut answers).await;
    assert_eq!((nobody.address, nobody.id), ("10.0.0.9".parse().unwrap(), None));

    let db = "spiffe://prod.example/ns/shop/sa/db";
    let token = ca.token(db, "10.0.0.9").await;
    let mut intent = Intent::new();
    intent.lifetime_seconds = 300;
    issue(&ca.target(), &Host::new(), By::Token(&token), &intent).await.unwrap();
    let moved_in = answer(&mut answers).await;
    assert_eq!(moved_in.id.unwrap().as_str(), db);

    ca.advance(Duration::from_secs(301));
    let gone = answer(&mut answers).await;
    assert_eq!((gone.address, gone.id), ("10.0.0.9".parse().unwrap(), None));
}

#[tokio::test]
async fn too_many_addresses_on_one_stream_end_it() {
    let ca = TestCa::start().await;
    let (_, watcher) = join(&ca, WEB, "10.0.0.7").await;
    let mut connected = ca.target().connect(Some(&watcher)).await;
    let (questions, mut answers) = ask_directory(&mut connected).await;
    tokio::spawn(async move {
        for index in 0..=4096_u32 {
            let [_, _, high, low] = index.to_be_bytes();
            // The last ones may find the stream ended.
            let _ = questions.send(question(&format!("10.1.{high}.{low}"), 80)).await;
        }
        questions.closed().await;
    });
    let mut told = 0;
    let ended = loop {
        match next(&mut answers).await {
            Ok(_) => told += 1,
            Err(status) => break status,
        }
    };
    assert!(told <= 4096);
    assert_eq!(ended.code(), Code::ResourceExhausted, "{ended:?}");
}
