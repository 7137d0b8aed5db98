use bytes::Bytes;
use situ_runtime::rpc::{FrameReceiver, RpcError};
use situ_runtime::transport::ReceiveStream;
use situ_wire::block::Block;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::DatanodeId;
use situ_wire::limits::PACKET_LEN_BYTES;
use situ_wire::messages::datanode::PacketHeader;
use situ_wire::tree::root_of;
use tokio::sync::mpsc;

use super::disk::ToDisk;
use super::{FailedMember, Failure};

/// One packet as it goes on.
pub(super) struct Packet {
    pub(super) header: PacketHeader,
    pub(super) bytes: Vec<Bytes>,
}

/// Takes packets from the upstream, checks them, and hands them on.
pub(super) struct PacketReceiver<T> {
    pub(super) receive: FrameReceiver<T>,
    pub(super) me: DatanodeId,
    pub(super) block: Block,
    /// What there is of the block.
    pub(super) len_bytes: u64,
    /// What it may hold.
    pub(super) limit_bytes: u64,
    pub(super) to_disk: mpsc::Sender<ToDisk>,
    /// None at the end of the pipeline.
    pub(super) to_next: Option<mpsc::Sender<Packet>>,
}

impl<T: ReceiveStream> PacketReceiver<T> {
    /// Hands all packets on, the one that finishes the block included.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        loop {
            let header = self.receive.expect::<PacketHeader>("the block was finished").await;
            let header = header.map_err(|error| self.received_badly(error))?;
            match header {
                PacketHeader::Data { offset, len_bytes, crc32c } => self.data(offset, len_bytes, crc32c).await?,
                PacketHeader::Finish { .. } => return self.finish(header).await,
            }
        }
    }

    async fn data(&mut self, offset: u64, len_bytes: u32, crc32c: u32) -> Result<(), Failure> {
        let len = len_bytes as usize;
        if offset != self.len_bytes || len == 0 || len > PACKET_LEN_BYTES {
            return Err(self.failure(
                ErrorCode::Malformed,
                format!(
                    "a packet of {len} bytes at offset {offset}; expected 1 to {PACKET_LEN_BYTES} bytes at {}",
                    self.len_bytes
                ),
            ));
        }
        if self.limit_bytes - self.len_bytes < u64::from(len_bytes) {
            let message = format!("{len} bytes behind {offset}; the block was opened for {}", self.limit_bytes);
            return Err(self.failure(ErrorCode::TooMuch, message));
        }
        let bytes = self.receive.exactly(len).await.map_err(Failure::Upstream)?;
        let found = bytes.iter().fold(0, |sum, piece| crc32c::crc32c_append(sum, piece));
        if found != crc32c {
            let message = format!(
                "the {len} bytes at offset {offset} have the checksum {found:08x}, their packet says {crc32c:08x}; \
                 they were changed on the way"
            );
            return Err(self.failure(ErrorCode::Corrupt, message));
        }
        self.len_bytes += u64::from(len_bytes);
        // A queue that nobody reads any more belongs to a task that has failed, and has said so.
        if let Some(next) = &self.to_next {
            let header = PacketHeader::Data { offset, len_bytes, crc32c };
            let _ = next.send(Packet { header, bytes: bytes.clone() }).await;
        }
        let _ = self.to_disk.send(ToDisk::Bytes(bytes)).await;
        Ok(())
    }

    async fn finish(&mut self, header: PacketHeader) -> Result<(), Failure> {
        let PacketHeader::Finish { len_bytes, root, leaves } = &header else { return Ok(()) };
        if *len_bytes != self.len_bytes {
            let message = format!("the block ends at {len_bytes}, but {} bytes have come", self.len_bytes);
            return Err(self.failure(ErrorCode::Malformed, message));
        }
        if root_of(leaves, *len_bytes) != Some(*root) {
            let message = format!("its {} leaves do not merge into the root {root:?}", leaves.len());
            return Err(self.failure(ErrorCode::Corrupt, message));
        }
        let to_disk = ToDisk::Finish { root: *root, leaves: leaves.clone() };
        if let Some(next) = &self.to_next {
            let _ = next.send(Packet { header, bytes: Vec::new() }).await;
        }
        let _ = self.to_disk.send(to_disk).await;
        Ok(())
    }

    fn failure(&self, code: ErrorCode, message: String) -> Failure {
        FailedMember { datanode: self.me, error: RemoteError::new(code, self.block, message) }.into()
    }

    /// What is not a packet is answered; a stream that is gone is not.
    fn received_badly(&self, error: RpcError) -> Failure {
        match error {
            RpcError::Codec(error) => self.failure(ErrorCode::Malformed, error.to_string()),
            error => Failure::Upstream(error),
        }
    }
}
