//! Reads one Ethernet frame down to its TCP segment. Called by `analysis`.
//! Never: copies, allocates, panics on short frames, or verifies checksums (veth leaves them unfinished).

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;

/// One TCP segment, borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) syn: bool,
    pub(crate) ack: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) payload: &'a [u8],
}

/// The TCP segment in `frame`; `None` for everything else (ARP, ICMP, UDP, fragments, IPv6 with
/// extension headers).
pub(crate) fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let (from, to, tcp) = match be16(frame, 12)? {
        ETHERTYPE_V4 => v4(packet)?,
        ETHERTYPE_V6 => v6(packet)?,
        _ => return None,
    };
    let header = usize::from(*tcp.get(12)? >> 4) * 4;
    let flags = *tcp.get(13)?;
    if header < 20 {
        return None;
    }
    Some(Segment {
        from: SocketAddr::new(from, be16(tcp, 0)?),
        to: SocketAddr::new(to, be16(tcp, 2)?),
        seq: u32::from(be16(tcp, 4)?) << 16 | u32::from(be16(tcp, 6)?),
        fin: flags & 0x01 != 0,
        syn: flags & 0x02 != 0,
        rst: flags & 0x04 != 0,
        ack: flags & 0x10 != 0,
        payload: tcp.get(header..)?,
    })
}

fn v4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(be16(packet, 2)?);
    // The low 13 bits are the fragment offset, bit 13 is "more fragments" (RFC 791).
    let fragmented = be16(packet, 6)? & 0x3fff != 0;
    if header < 20 || fragmented || *packet.get(9)? != PROTOCOL_TCP {
        return None;
    }
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    // The total length cuts off what Ethernet pads short frames with.
    let tcp = packet.get(header..total)?;
    Some((Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into(), tcp))
}

fn v6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    const HEADER: usize = 40;
    let length = usize::from(be16(packet, 4)?);
    if *packet.get(6)? != PROTOCOL_TCP {
        return None;
    }
    let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let tcp = packet.get(HEADER..HEADER + length)?;
    Some((Ipv6Addr::from(from).into(), Ipv6Addr::from(to).into(), tcp))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame over IPv4 as the wire would carry it, padded to Ethernet's minimum.
    pub(crate) fn frame_v4(from: &str, to: &str, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let (IpAddr::V4(a), IpAddr::V4(b)) = (from.ip(), to.ip()) else { panic!("IPv4 wanted") };
        let total = u16::try_from(40 + payload.len()).unwrap();
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_V4.to_be_bytes());
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0]);
        frame.extend(a.octets());
        frame.extend(b.octets());
        frame.extend(from.port().to_be_bytes());
        frame.extend(to.port().to_be_bytes());
        frame.extend(seq.to_be_bytes());
        frame.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    #[test]
    fn tcp_over_v4_is_read_without_ethernet_padding() {
        let frame = frame_v4("10.77.0.1:1000", "10.77.0.2:80", 7, 0x18, b"hi");
        let seen = segment(&frame).unwrap();
        assert_eq!((seen.from.to_string().as_str(), seen.seq), ("10.77.0.1:1000", 7));
        assert_eq!((seen.payload, seen.ack, seen.syn), (&b"hi"[..], true, false));
    }

    #[test]
    fn other_and_cut_frames_are_no_segments() {
        let frame = frame_v4("10.77.0.1:1000", "10.77.0.2:80", 7, 0x18, &[b'x'; 40]);
        for length in 0..frame.len() {
            assert_eq!(segment(&frame[..length]), None, "cut to {length}");
        }
        let mut fragment = frame.clone();
        fragment[20] = 0x20;
        assert_eq!(segment(&fragment), None);
        let mut udp = frame;
        udp[23] = 17;
        assert_eq!(segment(&udp), None);
    }
}
