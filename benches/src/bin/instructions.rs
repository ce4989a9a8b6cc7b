//! Instruction counts of the hot path under valgrind, taken by gungraun: nearly the same on a busy
//! machine and an idle one. Run by `budget`, which compares them with what is kept.
//!
//! Never: counts what prepares a bench; counts the kernel; has a closure or an async block in the
//! body of a bench, since gungraun would take its name for the bench's and stop counting there.

// SPDX-License-Identifier: Apache-2.0

#![allow(unused_qualifications, reason = "gungraun's macros qualify what they are given")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use myelin_benches::ROUNDS;
use myelin_benches::credentials::{Domain, NOW, Sides};
use myelin_benches::handshake as in_memory;
use myelin_benches::mesh::Crossing;
use myelin_benches::proofs::{Court, Logged, Proven};
use myelin_benches::traffic::Traffic;
use myelin_identity::UnixTime;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::verify::{self, Role};
use myelin_sidecar::tls::Configs;
use rustls::NamedGroup;
use rustls::pki_types::CertificateDer;

/// Sides that have met before, so that each remembers the other's chain.
fn known(only: Option<NamedGroup>) -> Vec<Sides> {
    let sides = Sides::new(only);
    in_memory::handshake(&sides);
    vec![sides]
}

/// As many pairs as rounds, none of which has met.
fn strangers() -> Vec<Sides> {
    // What the crypto library sets up at its first use is not the handshake's.
    in_memory::handshake(&Sides::new(None));
    (0..ROUNDS).map(|_| Sides::new(None)).collect()
}

#[library_benchmark]
#[bench::x25519mlkem768(args = (None), setup = known)]
#[bench::x25519(args = (Some(NamedGroup::X25519)), setup = known)]
#[bench::first_meeting(setup = strangers)]
fn handshake(sides: Vec<Sides>) -> Vec<Sides> {
    for sides in sides.iter().cycle().take(ROUNDS) {
        black_box(in_memory::handshake(sides));
    }
    sides
}

struct Presented {
    chain: Vec<CertificateDer<'static>>,
    bundle: Arc<TrustBundle>,
    remembering: Configs,
}

fn presented() -> Presented {
    let domain = Domain::new();
    let peer = domain.issue("web");
    let remembering = domain.issue("orders").configs(&domain.bundle, None);
    remembering.peer(&peer.chain, Role::Client).expect("the peer is a good one");
    Presented { chain: peer.chain, bundle: domain.bundle, remembering }
}

#[library_benchmark]
#[bench::chain(setup = presented)]
fn verifier(presented: Presented) -> Presented {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    for _ in 0..ROUNDS {
        let peer = verify::peer(&presented.chain, &presented.bundle, now, Role::Client);
        black_box(peer).expect("the peer is a good one");
    }
    presented
}

#[library_benchmark]
#[bench::verified(setup = presented)]
fn remembered(presented: Presented) -> Presented {
    for _ in 0..ROUNDS {
        let peer = presented.remembering.peer(&presented.chain, Role::Client);
        black_box(peer).expect("the peer is a good one");
    }
    presented
}

/// As many judges as rounds, none of which has seen the peer; or one that has.
fn proven(cosignatures: u8, known: bool) -> (Logged, Proven, Vec<Court>) {
    let logged = Logged::new(cosignatures);
    let peer = logged.svid("web");
    // What the crypto library sets up at its first use is not the judge's.
    logged.judged(&logged.court(), &peer);
    let courts: Vec<Court> = match known {
        false => (0..ROUNDS).map(|_| logged.court()).collect(),
        true => vec![logged.court()],
    };
    if known {
        logged.judged(&courts[0], &peer);
    }
    (logged, peer, courts)
}

#[library_benchmark]
#[bench::first_sight(args = (0, false), setup = proven)]
#[bench::first_sight_2_witnesses(args = (2, false), setup = proven)]
#[bench::remembered(args = (2, true), setup = proven)]
fn proof(set: (Logged, Proven, Vec<Court>)) -> (Logged, Proven, Vec<Court>) {
    let (logged, peer, courts) = &set;
    for court in courts.iter().cycle().take(ROUNDS) {
        black_box(logged.judged(court, peer));
    }
    set
}

/// Warm: buffers have grown and both workloads have been polled once.
fn traffic(bytes: usize) -> Traffic {
    let mut traffic = Traffic::new(bytes);
    traffic.round_trip();
    traffic
}

#[library_benchmark]
#[bench::round_trip_1_kib(args = (1024), setup = traffic)]
fn relay(mut traffic: Traffic) -> Traffic {
    for _ in 0..ROUNDS {
        traffic.round_trip();
    }
    traffic
}

#[library_benchmark]
#[bench::one_way_1_mib(args = (1024 * 1024), setup = traffic)]
fn relay_bulk(mut traffic: Traffic) -> Traffic {
    for _ in 0..ROUNDS {
        traffic.one_way();
    }
    traffic
}

#[library_benchmark]
#[bench::new_mesh_connection(setup = Crossing::new)]
fn connect(crossing: Crossing) -> Crossing {
    for _ in 0..ROUNDS {
        black_box(crossing.connect());
    }
    crossing
}

#[library_benchmark]
#[bench::one_more_use(setup = Crossing::new)]
fn recycle(mut crossing: Crossing) -> Crossing {
    for _ in 0..ROUNDS {
        crossing.one_more_use();
    }
    crossing
}

library_benchmark_group!(
    name = hot_path;
    benchmarks = handshake, verifier, remembered, proof, relay, relay_bulk, connect, recycle
);

main!(
    // Only instructions are kept, and without a simulated cache valgrind is twice as fast.
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["cache-sim=no"]));
    library_benchmark_groups = hot_path
);
