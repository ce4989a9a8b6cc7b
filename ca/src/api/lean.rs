//! Streams that sleep for hours, in thousands: their buffers begin small and grow by what is said. Used
//! by the generated stubs (as their codec) and by the watches.
//!
//! Never: a limit; those are the server's.

// SPDX-License-Identifier: Apache-2.0

use std::marker::PhantomData;

use futures_util::StreamExt as _;
use futures_util::stream::Map;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// An acknowledgement or a question fits, an issue takes one step more. Tonic's own 8 KiB, twice a
/// stream, would be a third of what a watch costs.
const BUFFER_BYTES: usize = 1024;
/// When what was encoded goes out though more is ready; tonic's own.
const YIELD_BYTES: usize = 32 * 1024;

/// A message where it waits. The channel has room for 32 from its start: for boxes that is nothing.
type Waiting<T> = Box<Result<T, Status>>;

/// Where a watch says something.
pub(super) type Sender<T> = mpsc::Sender<Waiting<T>>;

/// The stream of it.
pub(super) type Told<T> = Map<ReceiverStream<Waiting<T>>, fn(Waiting<T>) -> Result<T, Status>>;

/// A channel for a watch, in which so many messages may wait.
pub(super) fn channel<T: Send>(waiting: usize) -> (Sender<T>, Told<T>) {
    let (sender, receiver) = mpsc::channel(waiting);
    let open: fn(Waiting<T>) -> Result<T, Status> = |waiting| *waiting;
    (sender, ReceiverStream::new(receiver).map(open))
}

/// Protocol buffers as tonic's own codec writes and reads them.
pub(super) struct LeanCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for LeanCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LeanCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
