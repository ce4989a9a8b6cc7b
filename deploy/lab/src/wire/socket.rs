//! The packet socket: opened inside the wire's namespace, yields each frame once, when it enters a port of
//! the bridge. Called by `capture`.
//! Never: puts a frame onto the wire; the marker stays on a link of its own.

// SPDX-License-Identifier: Apache-2.0

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::link::Tap;

/// An IPv4 packet has 64 KiB at most, and the lab does not turn on larger ones for IPv6.
const LARGEST_FRAME: usize = 128 * 1024;

/// How often a quiet capture looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(100);

/// The queue of frames.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    tap: Tap,
    frame: Vec<u8>,
    control: Vec<u8>,
    truncated: u64,
}

/// One look into the queue.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) what: What<'a>,
    /// Frames lost since the socket was opened, as far as is known by now.
    pub(crate) dropped: u64,
}

#[derive(Debug)]
pub(crate) enum What<'a> {
    /// A frame, with the time since the Unix epoch that the kernel noted.
    Frame(Duration, &'a [u8]),
    /// A frame that our own marker link delivered.
    Marker(&'a [u8]),
    Nothing,
}

impl PacketSocket {
    /// Opens the socket. Call it inside the wire's namespace.
    pub(crate) fn open(tap: Tap, queue_bytes: usize) -> Result<Self> {
        let all = i32::from(u16::to_be(0x0003)); // ETH_P_ALL, packet(7)
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))
            .context("cannot open a packet socket: it needs CAP_NET_RAW in the wire's namespace")?;
        socket.attach_filter(&filter(tap)).context("cannot attach a filter to a packet socket")?;
        socket.set_read_timeout(Some(GLANCE)).context("cannot set a read timeout")?;
        // Beyond the host's limit with CAP_NET_ADMIN on the host, else up to that limit; what the
        // smaller queue then loses is counted.
        if setsockopt(&socket, sockopt::RcvBufForce, &queue_bytes).is_err() {
            socket.set_recv_buffer_size(queue_bytes).context("cannot size a packet socket")?;
        }
        setsockopt(&socket, sockopt::RxqOvfl, &1).context("cannot ask for the count of drops")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .context("cannot ask for timestamps")?;
        Ok(Self {
            fd: socket.into(),
            tap,
            frame: vec![0; LARGEST_FRAME],
            control: cmsg_space!(TimeSpec, u32),
            truncated: 0,
        })
    }

    /// The next frame, or nothing within a short while.
    pub(crate) fn next(&mut self, dropped: u64) -> Result<Seen<'_>> {
        let mut slices = [IoSliceMut::new(&mut self.frame)];
        let fd = self.fd.as_raw_fd();
        let control = Some(self.control.as_mut_slice());
        let message = match recvmsg::<LinkAddr>(fd, &mut slices, control, MsgFlags::empty()) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => {
                return Ok(Seen { what: What::Nothing, dropped });
            }
            Err(errno) => bail!("cannot read from the packet socket ({errno})"),
        };
        let (mut at, mut lost) = (Duration::ZERO, dropped.saturating_sub(self.truncated));
        for control in message.cmsgs().context("control messages were cut")? {
            match control {
                ControlMessageOwned::ScmTimestampns(time) => at = time.into(),
                ControlMessageOwned::RxqOvfl(count) => lost = u64::from(count),
                _ => {}
            }
        }
        let link = message.address.context("a frame came without its link's address")?;
        let (index, kind, length) = (link.ifindex(), link.pkttype(), message.bytes);
        self.truncated += u64::from(message.flags.contains(MsgFlags::MSG_TRUNC));
        let dropped = lost + self.truncated;
        let what = classify(self.tap, index, kind).pick(at, &self.frame[..length]);
        Ok(Seen { what, dropped })
    }
}

/// Which of the frames that a packet socket sees is the one to count.
enum Class {
    OfPods,
    OfMarker,
    Copy,
}

impl Class {
    fn pick<'a>(self, at: Duration, bytes: &'a [u8]) -> What<'a> {
        match self {
            Self::OfPods => What::Frame(at, bytes),
            Self::OfMarker => What::Marker(bytes),
            Self::Copy => What::Nothing,
        }
    }
}

/// A frame enters a port (count it), may be handed up to the bridge's own link (a copy) and leaves by
/// another port (a copy, marked as outgoing). The filter says the same inside the kernel, but it was
/// attached a moment after the socket was opened.
fn classify(tap: Tap, index: usize, kind: u8) -> Class {
    let is = |link: u32| u32::try_from(index) == Ok(link);
    if kind == libc::PACKET_OUTGOING || kind == libc::PACKET_LOOPBACK {
        Class::Copy
    } else if is(tap.arrive) {
        Class::OfMarker
    } else if is(tap.bridge) || is(tap.inject) {
        Class::Copy
    } else {
        Class::OfPods
    }
}

/// Classic BPF: copies never enter the queue, so that it holds twice as much.
fn filter(tap: Tap) -> [SockFilter; 7] {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let ancillary = |what: i32| (libc::SKF_AD_OFF + what).cast_unsigned();
    [
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_PKTTYPE)),
        SockFilter::new(JUMP_EQUAL, 4, 0, u32::from(libc::PACKET_OUTGOING)),
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_IFINDEX)),
        SockFilter::new(JUMP_EQUAL, 2, 0, tap.bridge),
        SockFilter::new(JUMP_EQUAL, 1, 0, tap.inject),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
