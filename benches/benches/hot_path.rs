//! The time that the parts of the hot path take, by criterion, everything on one thread. Run by
//! `cargo bench -p myelin-benches`.
//!
//! Never: a verdict; machines differ, and `budget` is the guard.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use myelin_benches::credentials::{Domain, NOW, Sides};
use myelin_benches::handshake::{bare, handshake, meet};
use myelin_benches::mesh::Crossing;
use myelin_benches::traffic::Traffic;
use myelin_identity::UnixTime;
use myelin_identity::verify::{self, Role};
use rustls::NamedGroup;

fn handshakes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake");
    for (name, only) in [("x25519mlkem768", None), ("x25519", Some(NamedGroup::X25519))] {
        let sides = Sides::new(only);
        group.bench_function(name, |bencher| bencher.iter(|| handshake(&sides)));
    }
    group.bench_function("first_meeting", |bencher| {
        bencher.iter_batched(
            || Sides::new(None),
            |sides| (handshake(&sides), sides),
            BatchSize::SmallInput,
        );
    });
    let (dialer, acceptor) = bare();
    group.bench_function("rustls_bare", |bencher| bencher.iter(|| meet(&dialer, &acceptor)));
    group.finish();
}

fn verifier(criterion: &mut Criterion) {
    let domain = Domain::new();
    let peer = domain.issue("web");
    let remembering = domain.issue("orders").configs(&domain.bundle, None);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let mut group = criterion.benchmark_group("verifier");
    group.bench_function("chain", |bencher| {
        bencher.iter(|| verify::peer(&peer.chain, &domain.bundle, now, Role::Client));
    });
    group.bench_function("remembered", |bencher| {
        bencher.iter(|| remembering.peer(&peer.chain, Role::Client));
    });
    group.finish();
}

fn relay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay");
    for (name, bytes) in
        [("one_way_1_kib", 1024), ("one_way_16_kib", 16 * 1024), ("one_way_1_mib", 1024 * 1024)]
    {
        let mut traffic = Traffic::new(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| bencher.iter(|| traffic.one_way()));
    }
    let mut traffic = Traffic::new(1024);
    group.throughput(Throughput::Elements(1));
    group.bench_function("round_trip_1_kib", |bencher| bencher.iter(|| traffic.round_trip()));
    group.finish();
}

fn connection(criterion: &mut Criterion) {
    let mut crossing = Crossing::new();
    let mut group = criterion.benchmark_group("connection");
    group.bench_function("tcp_only", |bencher| bencher.iter(|| crossing.tcp()));
    group.bench_function("new_mesh_connection", |bencher| bencher.iter(|| crossing.connect()));
    group.bench_function("one_more_use", |bencher| bencher.iter(|| crossing.one_more_use()));
    group.finish();
}

criterion_group!(hot_path, handshakes, verifier, relay, connection);
criterion_main!(hot_path);
