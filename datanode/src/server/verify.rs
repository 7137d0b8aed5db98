//! Reading a replica at a rate and checking it.

use std::sync::Arc;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_wire::block::Block;

use crate::storage::{Verdict, Verifier, Volume};

/// Reads the final replica of `block` from end to end, at most `rate_bytes` a second.
pub(super) async fn verify<R: Runtime>(
    runtime: &R,
    volume: Arc<Volume<R::Disk>>,
    block: Block,
    rate_bytes: Option<u64>,
) -> Verdict {
    let mut verifier = match runtime.blocking(move || Verifier::open(&volume, block)).await {
        Ok(verifier) => verifier,
        Err(error) => return Verdict::from(&error),
    };
    loop {
        let (back, piece) = runtime
            .blocking(move || {
                let piece = verifier.next_piece();
                (verifier, piece)
            })
            .await;
        verifier = back;
        match piece {
            Ok(Some(piece)) => {
                if let Some(rate_bytes) = rate_bytes {
                    let wait_ms = (piece.len() as u64).saturating_mul(1000) / rate_bytes.max(1);
                    runtime.clock().sleep(Duration::from_millis(wait_ms)).await;
                }
            }
            Ok(None) => return Verdict::Good,
            Err(error) => return Verdict::from(&error),
        }
    }
}
