//! Reads frames one by one into numbers, keeping only what the next frame may need. Called by the capture's
//! thread with each frame.
//! Never: touches a socket or a clock, and never grows with the bytes that pass.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::net::SocketAddr;

use super::canary::{Canaries, Tail};
use super::frame::{self, Segment};
use super::hello::{self, Hello};
use super::report::{CanaryHits, WireReport};
use super::stream::{Piece, Stream};
use super::tls::{Reading, Records, Sight};

/// Flows tracked at once; ended ones make room. A suite opens some thousands, and an idle one weighs
/// less than 2 KiB.
const MAX_FLOWS: usize = 65_536;

/// Pairs listed as speaking no TLS: more would not be read by anybody.
const MAX_LISTED: usize = 256;

/// Host names listed: a mesh shows none at all.
const MAX_NAMES: usize = 64;

/// The running judgement.
#[derive(Debug)]
pub(crate) struct Analysis {
    canaries: Canaries,
    sums: Sums,
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
}

/// What does not depend on flows that are still open.
#[derive(Debug)]
struct Sums {
    report: WireReport,
    in_frames: Vec<u64>,
    in_streams: Vec<u64>,
}

/// One TCP connection. Index 0 is the side with the smaller address.
#[derive(Debug, Default)]
struct Flow {
    sides: [Side; 2],
    /// Which side sent the SYN; without one the capture came too late.
    opener: Option<usize>,
    chosen_version: Option<u16>,
    gaps: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Side {
    stream: Stream,
    tail: Tail,
    records: Records,
    fin: bool,
}

impl Analysis {
    pub(crate) fn new(canaries: &[Vec<u8>]) -> Self {
        let name = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let canary = |bytes| CanaryHits { canary: name(bytes), in_frames: 0, in_streams: 0 };
        let report =
            WireReport { canaries: canaries.iter().map(canary).collect(), ..WireReport::default() };
        let zeros = vec![0; canaries.len()];
        Self {
            canaries: Canaries::new(canaries),
            sums: Sums { report, in_frames: zeros.clone(), in_streams: zeros },
            flows: HashMap::new(),
        }
    }

    pub(crate) fn frame(&mut self, bytes: &[u8]) {
        self.sums.report.frames += 1;
        self.sums.report.bytes += bytes.len() as u64;
        self.canaries.count(bytes, &mut self.sums.in_frames);
        if let Some(segment) = frame::segment(bytes) {
            self.segment(segment);
        }
    }

    /// The numbers so far; flows that are still open are judged as they stand.
    pub(crate) fn report(&self) -> WireReport {
        let mut report = self.sums.report.clone();
        for (ends, flow) in &self.flows {
            flow.add_to(&mut report, *ends);
        }
        for (at, hits) in report.canaries.iter_mut().enumerate() {
            hits.in_frames = self.sums.in_frames[at];
            hits.in_streams = self.sums.in_streams[at];
        }
        report
    }

    fn segment(&mut self, segment: Segment<'_>) {
        let side = usize::from(segment.from > segment.to);
        let ends = (segment.from.min(segment.to), segment.from.max(segment.to));
        let opens = segment.syn && !segment.ack;
        if opens && self.flows.get(&ends).is_some_and(|flow| flow.is_other_than(side, segment.seq))
        {
            self.fold(ends);
        }
        if !self.flows.contains_key(&ends) {
            let says_something = segment.syn || !segment.payload.is_empty();
            if !says_something {
                return;
            }
            if !self.make_room() {
                self.sums.report.untracked_segments += 1;
                return;
            }
        }
        let flow = self.flows.entry(ends).or_default();
        flow.take(side, segment, &self.canaries, &mut self.sums);
    }

    /// Whether there is room for one more flow, after ended ones were folded into the sums.
    fn make_room(&mut self) -> bool {
        if self.flows.len() < MAX_FLOWS {
            return true;
        }
        let closed = self.flows.iter().filter(|(_, flow)| flow.closed).map(|(ends, _)| *ends);
        for ends in closed.collect::<Vec<_>>() {
            self.fold(ends);
        }
        self.flows.len() < MAX_FLOWS
    }

    fn fold(&mut self, ends: (SocketAddr, SocketAddr)) {
        if let Some(flow) = self.flows.remove(&ends) {
            flow.add_to(&mut self.sums.report, ends);
        }
    }
}

impl Flow {
    /// Whether a SYN with this number begins another connection between the same two ports.
    fn is_other_than(&self, side: usize, seq: u32) -> bool {
        self.opener != Some(side) || !self.sides[side].stream.began_with(seq)
    }

    fn take(&mut self, at: usize, segment: Segment<'_>, canaries: &Canaries, sums: &mut Sums) {
        if segment.syn {
            let side = &mut self.sides[at];
            if !side.stream.has_started() {
                side.stream.start(segment.seq);
            }
            if !segment.ack {
                self.opener = Some(at);
            }
        }
        let Self { sides, chosen_version, gaps, .. } = self;
        let Side { stream, tail, records, fin } = &mut sides[at];
        // Data on a SYN (TCP Fast Open) begins one number later.
        let seq = segment.seq.wrapping_add(u32::from(segment.syn));
        stream.push(seq, segment.payload, |piece| match piece {
            Piece::Gap => {
                *gaps += 1;
                tail.cut();
                records.lose();
            }
            Piece::Bytes(bytes) => {
                canaries.count_stream(tail, bytes, &mut sums.in_streams);
                records.read(bytes, |sight| note(sight, chosen_version, &mut sums.report));
            }
        });
        *fin |= segment.fin;
        self.closed |= segment.rst || self.sides.iter().all(|side| side.fin);
    }

    fn add_to(&self, report: &mut WireReport, ends: (SocketAddr, SocketAddr)) {
        let holes = self.sides.iter().filter(|side| side.stream.has_hole()).count() as u64;
        let readings = [self.sides[0].records.reading(), self.sides[1].records.reading()];
        report.flows += 1;
        report.gaps += self.gaps + holes;
        let Some(opener) = self.opener else {
            report.unjudged_flows += 1;
            return;
        };
        if readings.contains(&Reading::NotTls) {
            report.non_tls_flows += 1;
            let (client, server) = if opener == 0 { (ends.0, ends.1) } else { (ends.1, ends.0) };
            let key = (client.ip(), server);
            if report.non_tls.len() < MAX_LISTED || report.non_tls.contains_key(&key) {
                *report.non_tls.entry(key).or_default() += 1;
            }
        } else if holes > 0 || readings.contains(&Reading::Lost) {
            report.unjudged_flows += 1;
        } else if readings == [Reading::Empty; 2] {
            report.silent_flows += 1;
        } else {
            match self.chosen_version {
                Some(0x0304) => report.tls13_flows += 1,
                Some(_) => report.older_tls_flows += 1,
                None => report.half_open_flows += 1,
            }
        }
    }
}

fn note(sight: Sight, chosen_version: &mut Option<u16>, report: &mut WireReport) {
    match sight {
        Sight::Record(kind) => *report.records.entry(kind.name()).or_default() += 1,
        Sight::Hello(Hello::Retry) => report.retries += 1,
        Sight::Hello(Hello::Client { server_name }) => {
            if let Some(name) = server_name
                && report.server_names.len() < MAX_NAMES
            {
                report.server_names.insert(name);
            }
        }
        Sight::Hello(Hello::Server(server)) => {
            *chosen_version = Some(server.version);
            report.handshakes += 1;
            report.resumed += u64::from(server.resumed);
            *report.versions.entry(hello::version_name(server.version)).or_default() += 1;
            *report.ciphers.entry(hello::cipher_name(server.cipher)).or_default() += 1;
            let group = server.group.map_or_else(|| "none".to_owned(), hello::group_name);
            *report.groups.entry(group).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::frame_v4;
    use super::*;

    const CLIENT: &str = "10.77.0.1:40000";
    const SERVER: &str = "10.77.0.2:80";
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    fn judge(canaries: &[&str], frames: &[Vec<u8>]) -> WireReport {
        let canaries: Vec<Vec<u8>> = canaries.iter().map(|c| c.as_bytes().to_vec()).collect();
        let mut analysis = Analysis::new(&canaries);
        frames.iter().for_each(|frame| analysis.frame(frame));
        analysis.report()
    }

    fn opened(client_seq: u32, server_seq: u32) -> Vec<Vec<u8>> {
        vec![
            frame_v4(CLIENT, SERVER, client_seq, SYN, b""),
            frame_v4(SERVER, CLIENT, server_seq, SYN | ACK, b""),
        ]
    }

    #[test]
    fn canary_split_over_two_segments_is_found_in_the_stream_alone() {
        let mut frames = opened(100, 900);
        frames.push(frame_v4(CLIENT, SERVER, 101, ACK, b"GET /can"));
        frames.push(frame_v4(CLIENT, SERVER, 109, ACK, b"ary HTTP"));
        let report = judge(&["canary"], &frames);
        let hits = &report.canaries[0];
        assert_eq!((hits.in_frames, hits.in_streams, report.canary_hits()), (0, 1, 1));
        assert_eq!((report.flows, report.non_tls_flows), (1, 1));
        let server: SocketAddr = SERVER.parse().unwrap();
        assert_eq!(report.non_tls.keys().next().unwrap().1, server);
        let objections = report.objections(|_| false);
        assert!(objections.iter().any(|o| o.contains("canary")), "{objections:?}");
        assert!(objections.iter().any(|o| o.contains("not TLS")), "{objections:?}");
    }

    #[test]
    fn directions_are_not_mixed() {
        let mut frames = opened(100, 900);
        frames.push(frame_v4(CLIENT, SERVER, 101, ACK, b"can"));
        frames.push(frame_v4(SERVER, CLIENT, 901, ACK, b"ary"));
        assert_eq!(judge(&["canary"], &frames).canary_hits(), 0);
    }

    #[test]
    fn lost_segment_is_a_gap_and_makes_the_flow_unjudged() {
        let mut frames = opened(100, 900);
        frames.push(frame_v4(CLIENT, SERVER, 101, ACK, &[23, 3, 3, 0, 9]));
        frames.push(frame_v4(CLIENT, SERVER, 120, ACK, b"xx"));
        let report = judge(&[], &frames);
        assert_eq!((report.gaps, report.unjudged_flows), (1, 1));
        assert!(!report.is_complete());
    }

    #[test]
    fn flow_without_its_beginning_is_unjudged() {
        let report = judge(&[], &[frame_v4(CLIENT, SERVER, 7, ACK, &[23, 3, 3, 0, 1, 0])]);
        assert_eq!((report.flows, report.unjudged_flows, report.tls13_flows), (1, 1, 0));
    }

    #[test]
    fn reused_ports_are_two_flows() {
        let mut frames = opened(100, 900);
        frames.extend(opened(100, 900));
        frames.push(frame_v4(CLIENT, SERVER, 101, ACK, b"hello"));
        frames.extend(opened(5000, 7000));
        frames.push(frame_v4(SERVER, CLIENT, 7001, ACK, b"hello"));
        let report = judge(&[], &frames);
        assert_eq!((report.flows, report.non_tls_flows, report.gaps), (2, 2, 0));
    }

    #[test]
    fn empty_wire_proves_nothing() {
        assert_eq!(judge(&["canary"], &[]).objections(|_| false).len(), 1);
    }
}
