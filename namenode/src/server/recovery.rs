//! How a namenode comes back: the newest good image, then the edit log from there on.

use std::path::Path;

use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, Space};
use situ_runtime::journal::{Journal, JournalOptions};
use situ_wire::codec;
use situ_wire::ids::{ClusterId, TxId};

use super::directory::{images_path, journal_path};
use super::image::Image;
use super::image_writer::remove;
use super::images::{Found, Good, image_numbers, image_path};
use crate::config::NamenodeConfig;
use crate::core::{CoreConfig, Edit, ImageSlot, Namesystem};
use crate::error::{ImageError, StartError};

/// What a namenode starts from.
pub(super) struct Recovered<D: Disk> {
    /// The namespace at the end of the log.
    pub(super) namesystem: Namesystem,
    /// The log, ready for the next edit.
    pub(super) journal: Journal<D>,
    /// How much room that has.
    pub(super) room: Space,
    /// The images.
    pub(super) images: Found,
}

/// How the log of `cluster` is kept.
pub(super) fn journal_options(cluster: ClusterId, segment_len_bytes: u64) -> JournalOptions {
    JournalOptions { segment_len_bytes, ..JournalOptions::new(cluster.0.to_be_bytes()) }
}

/// What the log holds.
#[derive(Clone, Copy)]
struct Extent {
    first: TxId,
    last: TxId,
}

/// Reads everything back. Blocks.
///
/// # Errors
/// When the log is damaged, or the images are and the log does not reach back to the beginning: nothing that was
/// acknowledged is ever left out silently.
pub(super) fn recover<R: Runtime>(
    runtime: &R,
    config: &NamenodeConfig,
    core: &CoreConfig,
) -> Result<Recovered<R::Disk>, StartError> {
    let disk = runtime.disk();
    let directory = config.directory.as_path();
    let path = journal_path(directory);
    disk.create_directory(&path)?;
    let (journal, opened) =
        Journal::open(disk.clone(), &path, journal_options(core.cluster, config.segment_len_bytes))?;
    if let Some(cut) = &opened.cut {
        tracing::warn!(journal = %path.display(), ?cut, "the edit log ended in the middle of a record, which nobody was told is done: cut it off");
    }
    let extent = Extent { first: TxId(opened.first), last: TxId(opened.last) };
    let (mut namesystem, images) = restore(runtime, directory, core, extent)?;
    replay(&journal, &path, &mut namesystem)?;
    // They can never be used and take room, but as long as nothing else was good they were all that there is.
    remove(disk, &images.unfinished);
    assert_eq!(namesystem.last_tx(), extent.last, "every edit of the log is applied");
    tracing::info!(last = %namesystem.last_tx(), digest = %namesystem.digest(), "the namespace is back");
    let room = journal.room()?;
    Ok(Recovered { namesystem, journal, room, images })
}

/// Restores the newest image that is good; without one, an empty namespace if the log reaches back to it.
fn restore<R: Runtime>(
    runtime: &R,
    directory: &Path,
    config: &CoreConfig,
    log: Extent,
) -> Result<(Namesystem, Found), StartError> {
    let images = images_path(directory);
    runtime.disk().create_directory(&images)?;
    let (mut refused, mut unfinished) = (Vec::new(), Vec::new());
    let mut refuse = |number: u64, error: &ImageError| {
        let path = image_path(&images, number);
        tracing::warn!(image = %path.display(), %error, "refused an image");
        refused.push(format!("{number}: {error}"));
        if matches!(error, ImageError::NoHeader | ImageError::InProgress) {
            unfinished.push(path);
        }
    };
    let numbers = image_numbers(runtime.disk(), &images)?;
    let mut candidates = Vec::new();
    for &number in &numbers {
        match Image::open(runtime, &image_path(&images, number), config.cluster) {
            Ok(image) => candidates.push((number, image)),
            Err(error) => refuse(number, &error),
        }
    }
    // The newest first.
    candidates.sort_by_key(|(number, image)| std::cmp::Reverse((image.header.tx, *number)));
    for (number, image) in candidates {
        let tx = image.header.tx;
        if tx > log.last {
            return Err(StartError::LogBehindImage {
                image: image_path(&images, number),
                image_tx: tx,
                journal: journal_path(directory),
                last: log.last,
            });
        }
        let loaded = if tx.next() < log.first {
            Err(ImageError::Gap { tx, first: log.first })
        } else {
            image.load(config.clone())
        };
        match loaded {
            Ok(mut namesystem) => {
                namesystem.reset_image(ImageSlot::B);
                let others = numbers.iter().copied().filter(|other| *other != number).collect();
                tracing::info!(image = number, %tx, "restored an image");
                return Ok((
                    namesystem,
                    Found { directory: images, loaded: Some(Good { number, tx }), others, unfinished },
                ));
            }
            Err(error) => refuse(number, &error),
        }
    }
    if log.first > TxId(1) {
        return Err(StartError::NoImage { images, refused, first: log.first });
    }
    let mut namesystem = Namesystem::new(config.clone());
    namesystem.reset_image(ImageSlot::A);
    namesystem.reset_image(ImageSlot::B);
    Ok((namesystem, Found { directory: images, loaded: None, others: numbers, unfinished }))
}

/// Applies what the log has beyond the namespace.
fn replay<D: Disk>(journal: &Journal<D>, path: &Path, namesystem: &mut Namesystem) -> Result<(), StartError> {
    journal.replay(namesystem.last_tx().next().0, |sequence, record| {
        let tx = TxId(sequence);
        codec::decode::<Edit>(record)
            .map_err(|error| error.to_string())
            .and_then(|edit| namesystem.apply(tx, &edit).map_err(|error| error.to_string()))
            .map_err(|reason| StartError::Edit { journal: path.to_owned(), tx, reason })
    })
}
