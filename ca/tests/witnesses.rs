//! A real CA and test witnesses of its logs: who is asked, what their answers are worth, and what is
//! handed out when too few of them cosign.
//!
//! Never: a sidecar; what peers make of cosignatures is in the workspace's `tests`.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use harness::witness::{Manner, TestWitness};
use harness::*;
use myelin_ca::config::WitnessConfig;
use myelin_identity::log::{
    Chain, Checkpoint, LogRefusal, Note, Verified, WitnessKey, Witnesses, cosigned_by, verify,
};
use tonic::Code;

const LATER: Code = Code::Unavailable;

/// Test witnesses by the names `a`, `bb`, `ccc`, ...
fn witnesses(manners: &[Manner]) -> Vec<TestWitness> {
    let named = manners.iter().zip('a'..);
    let name = |at: usize, letter: char| letter.to_string().repeat(at + 1);
    let started = named.enumerate();
    started.map(|(at, (manner, letter))| TestWitness::start(&name(at, letter), *manner)).collect()
}

/// A CA that asks them, and whose logs they know.
async fn ca(witnesses: &[TestWitness], quorum: usize) -> TestCa {
    let named = witnesses.iter().map(TestWitness::named).collect();
    let ca = TestCa::start_witnessed(WitnessConfig { named, quorum, roots: None }).await;
    introduce(&ca, witnesses);
    ca
}

fn introduce(ca: &TestCa, witnesses: &[TestWitness]) {
    let logs = ca.running.authority().logs();
    for witness in witnesses {
        witness.know(logs.issuing.key());
        witness.know(logs.root.key());
    }
}

fn keys(witnesses: &[TestWitness]) -> Vec<WitnessKey> {
    witnesses.iter().map(|witness| witness.key.clone()).collect()
}

/// As a peer judges it that demands so many cosignatures of these.
fn judge(
    ca: &TestCa,
    held: &Held,
    keys: Vec<WitnessKey>,
    quorum: usize,
) -> Result<Verified, LogRefusal> {
    let (leaf, intermediate) = (&held.response.chain[0], &held.response.chain[1]);
    let bundle = ca.bundle();
    let root = bundle.roots().next().unwrap();
    let chain = Chain { leaf, intermediate, root };
    verify(&held.response.log_proof, &chain, None, &Witnesses { keys, quorum })
}

async fn http(ca: &TestCa, path: &str) -> String {
    let (address, path) = (ca.running.ops.to_string(), path.to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    });
    asked.await.unwrap()
}

/// How often a witness' question ended so.
async fn answers(ca: &TestCa, witness: &TestWitness, outcome: &str) -> usize {
    let name = witness.key.name();
    let line =
        format!("myelin_ca_log_witness_answers_total{{outcome=\"{outcome}\",witness=\"{name}\"}} ");
    let metrics = http(ca, "/metrics").await;
    let count = metrics.lines().find_map(|found| found.strip_prefix(&line));
    count.map_or(0, |count| count.parse().unwrap())
}

/// Waits until it is so.
async fn until(so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "it does not come to pass");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_handed_out_and_served_carries_the_cosignatures() {
    let three = witnesses(&[Manner::Honest; 3]);
    let ca = ca(&three, 2).await;
    let (host, token, intent) = (Host::new(), ca.token(WEB, "10.0.0.7").await, Intent::new());
    let asked = async || issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    let held = asked().await;
    let seen = judge(&ca, &held, keys(&three), 2).unwrap();
    // The reply was lost: a proof that is made again has them too.
    judge(&ca, &asked().await, keys(&three), 2).unwrap();
    assert_eq!(
        judge(&ca, &held, keys(&three[..1]), 2).unwrap_err().word(),
        "log_witnesses_missing"
    );
    let strangers = keys(&witnesses(&[Manner::Honest; 5])[3..]);
    assert_eq!(judge(&ca, &held, strangers, 1).unwrap_err().word(), "log_witnesses_missing");
    for (path, log) in
        [("/log/checkpoint", &seen.leaf.log), ("/root-log/checkpoint", &seen.issuer.log)]
    {
        let all = async || {
            let note = http(&ca, path).await;
            let checkpoint = Checkpoint::open(note.as_bytes(), log).unwrap();
            assert!(checkpoint.size > 0);
            cosigned_by(&Note::parse(note.as_bytes()).unwrap(), &keys(&three)).unwrap().len() == 3
        };
        until(all).await;
    }
    let file = ca.directory.path().join("data/log/checkpoint");
    until(async || std::fs::read_to_string(&file).unwrap() == http(&ca, "/log/checkpoint").await)
        .await;
    assert!(http(&ca, "/metrics").await.contains("\nmyelin_ca_log_witnessed_entries 2\n"));
}

#[tokio::test]
async fn issuance_goes_on_or_is_refused_as_the_quorum_says() {
    use Manner::{Ahead, Forger, Garbled, Honest, Hung, Talkative};
    for (manners, dead, quorum, goes_on) in [
        ([Honest, Honest, Honest], 1, 2, true),
        ([Honest, Honest, Hung], 0, 2, true),
        ([Honest, Honest, Forger], 0, 2, true),
        ([Hung, Forger, Honest], 0, 0, true),
        ([Honest, Hung, Honest], 1, 2, false),
        ([Honest, Forger, Honest], 1, 2, false),
        ([Honest, Talkative, Garbled], 0, 2, false),
        ([Honest, Ahead, Honest], 1, 2, false),
    ] {
        let case = format!("{manners:?}, {dead} dead, {quorum} required");
        let mut three = witnesses(&manners);
        let count = three.len();
        let config = |three: &[TestWitness]| WitnessConfig {
            named: three.iter().map(TestWitness::named).collect(),
            quorum,
            roots: None,
        };
        let mut config = config(&three);
        for at in count - dead..count {
            // Nobody listens there any more.
            config.named[at].url = dead_url();
        }
        let ca = TestCa::start_witnessed(config).await;
        introduce(&ca, &three);
        let token = ca.token(WEB, "10.0.0.7").await;
        let asked = issue(&ca.target(), &Host::new(), By::Token(&token), &Intent::new()).await;
        if goes_on {
            let held = asked.unwrap_or_else(|error| panic!("{case}: {error}"));
            let honest: Vec<TestWitness> = three.drain(..2).collect();
            judge(&ca, &held, keys(&honest), quorum)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
        } else {
            assert_refused(asked, LATER, "log_witnesses_missing");
        }
    }
}

fn dead_url() -> myelin_ca::https::HttpsUrl {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/add-checkpoint", listener.local_addr().unwrap());
    myelin_ca::https::HttpsUrl::parse_or_loopback(&url).unwrap()
}

#[tokio::test]
async fn missing_witness_lets_nothing_be_logged_in_vain_and_issuance_goes_on_when_it_is_back() {
    let one = witnesses(&[Manner::Garbled]);
    let ca = ca(&one, 1).await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let host = Host::new();
    let asked = async || issue(&ca.target(), &host, By::Token(&token), &Intent::new()).await;
    assert_refused(asked().await, LATER, "log_witnesses_missing");
    let logged = ca.running.authority().logs().issuing.published().size;
    for _ in 0..3 {
        assert_refused(asked().await, LATER, "log_witnesses_missing");
    }
    assert!(ca.running.authority().logs().issuing.published().size <= logged + 1);
    assert!(answers(&ca, &one[0], "unreachable").await > 0);
    // The CA's own certificate does not wait: no peer asks for its proof.
    ca.running.authority().issue_own().await.unwrap();
    one[0].behave(Manner::Honest);
    let held = asked().await.unwrap();
    judge(&ca, &held, keys(&one), 1).unwrap();
}

#[tokio::test]
async fn witness_is_told_what_it_missed_and_refuses_another_history() {
    let one = witnesses(&[Manner::Honest]);
    let ca = ca(&one, 1).await;
    for n in 1..4 {
        join(&ca, WEB, &format!("10.0.0.{n}")).await;
    }
    let log = ca.running.authority().logs().issuing.key().clone();
    let before = one[0].size_of(&log).unwrap();
    // After a restart the CA does not know what the witness knows, and is told.
    let ca = ca.restart().await;
    let (_, held) = join(&ca, WEB, "10.0.0.9").await;
    judge(&ca, &held, keys(&one), 1).unwrap();
    let asked = one[0].asked(&log);
    let told = asked.iter().position(|asked| *asked == (409, 0)).unwrap();
    assert_eq!(asked[told + 1], (200, before), "{asked:?}");

    let size = one[0].size_of(&log).unwrap();
    for other in [size - 1, size, size + 5] {
        one[0].saw(&log, other);
        let token = ca.token(WEB, "10.0.0.10").await;
        let refused = issue(&ca.target(), &Host::new(), By::Token(&token), &Intent::new()).await;
        assert_refused(refused, LATER, "log_witnesses_missing");
    }
    assert!(answers(&ca, &one[0], "conflict").await > 1, "it knows as many, or fewer");
    assert!(answers(&ca, &one[0], "ahead").await > 0, "it knows more than there are");
}

/// Replicas share the root's log, and each asks about what it knows of it.
#[tokio::test]
async fn witness_that_another_replica_told_more_is_asked_about_the_newest_and_is_no_conflict() {
    let one = witnesses(&[Manner::Garbled]);
    let ca = ca(&one, 0).await;
    let (_, held) = join(&ca, WEB, "10.0.0.7").await;
    // Both logs were asked about.
    until(async || answers(&ca, &one[0], "unreachable").await > 1).await;
    let root = &ca.running.authority().logs().root;
    let bundle = ca.bundle();
    let other = root.enter(&held.response.chain[0], bundle.roots().next().unwrap()).await.unwrap();
    let theirs = Checkpoint::open(&other.checkpoint, root.key()).unwrap();
    one[0].saw_tree(root.key(), theirs.size, theirs.root);
    one[0].behave(Manner::Honest);
    until(async || one[0].asked(root.key()).iter().any(|(status, _)| *status == 200)).await;
    assert_eq!(one[0].asked(root.key()), [(409, 0), (409, 0), (200, 2)]);
    assert_eq!(answers(&ca, &one[0], "overtaken").await, 1);
    for alarm in ["conflict", "ahead", "refused"] {
        assert_eq!(answers(&ca, &one[0], alarm).await, 0, "{alarm}");
    }
    let all = async || {
        let note = http(&ca, "/root-log/checkpoint").await;
        let count = cosigned_by(&Note::parse(note.as_bytes()).unwrap(), &keys(&one)).unwrap().len();
        (count, Checkpoint::open(note.as_bytes(), root.key()).unwrap().size) == (1, 2)
    };
    until(all).await;
}

#[tokio::test]
async fn witness_that_refuses_at_once_is_asked_after_pauses_that_grow_whoever_waits() {
    let one = witnesses(&[Manner::Stranger]);
    let ca = ca(&one, 1).await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let host = Host::new();
    let asked = async || issue(&ca.target(), &host, By::Token(&token), &Intent::new()).await;
    // An issue asks about the root's log first.
    let root = ca.running.authority().logs().root.key().clone();
    while one[0].pauses(&root).len() < 4 {
        let all = futures_util::future::join_all((0..4).map(|_| asked())).await;
        all.into_iter().for_each(|one| assert_refused(one, LATER, "log_witnesses_missing"));
    }
    let pauses = one[0].pauses(&root);
    let least = [50, 100, 200, 400].map(Duration::from_millis);
    assert!(pauses.iter().zip(least).all(|(pause, least)| *pause >= least), "{pauses:?}");
    // It is known now; whoever waits sees its next answer.
    one[0].behave(Manner::Honest);
    let held = asked().await.unwrap();
    judge(&ca, &held, keys(&one), 1).unwrap();
}

#[tokio::test]
async fn line_of_a_late_witness_is_kept_served_and_proven_and_one_on_an_older_checkpoint_is_not() {
    let two = witnesses(&[Manner::Honest, Manner::Late]);
    let ca = ca(&two, 1).await;
    let both = |held: &Held| judge(&ca, held, keys(&two), 2).map(|_| ());
    let (host, token, intent) = (Host::new(), ca.token(WEB, "10.0.0.7").await, Intent::new());
    let asked = async || issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    let held = asked().await;
    judge(&ca, &held, keys(&two), 1).unwrap();
    assert_eq!(both(&held).unwrap_err().word(), "log_witnesses_missing");
    // While it thinks about the first checkpoint, there is a second.
    join(&ca, WEB, "10.0.0.8").await;
    let log = ca.running.authority().logs().issuing.key().clone();
    let size = ca.running.authority().logs().issuing.published().size;
    assert_eq!(two[1].size_of(&log), None);
    two[1].behave(Manner::Honest);
    for (path, log) in [
        ("/log/checkpoint", &log),
        ("/root-log/checkpoint", ca.running.authority().logs().root.key()),
    ] {
        let all = async || {
            let note = http(&ca, path).await;
            // What it signs of the older one is nothing below the newer.
            Checkpoint::open(note.as_bytes(), log).unwrap();
            cosigned_by(&Note::parse(note.as_bytes()).unwrap(), &keys(&two)).unwrap().len() == 2
        };
        until(all).await;
    }
    assert_eq!(two[1].size_of(&log), Some(size));
    let file = ca.directory.path().join("data/log/checkpoint");
    until(async || std::fs::read_to_string(&file).unwrap() == http(&ca, "/log/checkpoint").await)
        .await;
    // The same certificate, proven again, carries both lines in both logs.
    both(&asked().await).unwrap();
    assert_eq!(ca.running.authority().logs().issuing.published().size, size);
}

#[tokio::test]
async fn witness_that_nobody_waits_for_cosigns_in_the_background() {
    let two = witnesses(&[Manner::Honest, Manner::Hung]);
    let ca = ca(&two, 0).await;
    join(&ca, WEB, "10.0.0.7").await;
    let log = ca.running.authority().logs().issuing.key().clone();
    until(async || {
        let note = http(&ca, "/log/checkpoint").await;
        let found = cosigned_by(&Note::parse(note.as_bytes()).unwrap(), &keys(&two)).unwrap().len();
        found == 1 && Checkpoint::open(note.as_bytes(), &log).unwrap().size == 2
    })
    .await;
    until(async || answers(&ca, &two[1], "deadline").await > 0).await;
}
