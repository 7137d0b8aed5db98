//! What is being removed: that may take long, and the owner waits for nothing. It is put aside first, so that nobody waits
//! for its end who makes something at the same place again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_runtime::{Runtime, Task};
use tokio::sync::watch;

/// What stands in the name of a directory that was put aside, before a random number.
const ASIDE: &str = ".removed-";

/// Removes what an earlier run has put aside in a directory. Blocks.
pub(super) fn clear<D: Disk>(disk: &D, directory: &Path) -> Result<(), DiskError> {
    let entries = match disk.list(directory) {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.into_iter().filter(|entry| entry.name.contains(ASIDE)) {
        disk.remove_directory(&directory.join(entry.name))?;
    }
    Ok(())
}

/// The removals that are under way.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// What is closed when nothing is there any more. Who makes something at such a path again waits for it.
    places: BTreeMap<PathBuf, watch::Receiver<()>>,
    /// What is closed when all is gone.
    all: Vec<watch::Receiver<()>>,
}

impl Removals {
    /// Removes what is at a path once its users have ended: else they could make it anew, or make something in it just
    /// then. What an executor that dies meanwhile leaves aside is [cleared](clear) when it starts again.
    pub(super) fn begin<R: Runtime>(
        &mut self,
        runtime: &R,
        path: PathBuf,
        users: Vec<Task<()>>,
        remove: fn(&R::Disk, &Path) -> Result<(), DiskError>,
    ) {
        self.places.retain(|_, removed| removed.has_changed().is_ok());
        self.all.retain(|removed| removed.has_changed().is_ok());
        let earlier = self.end_of(&path);
        let (clearing, cleared) = watch::channel(());
        let (removing, removed) = watch::channel(());
        self.places.insert(path.clone(), cleared);
        self.all.push(removed);
        let (world, disk) = (runtime.clone(), runtime.disk().clone());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!("{name}{ASIDE}{:016x}", runtime.random_u64()));
        runtime.spawn("removal", async move {
            earlier.await;
            for user in users {
                user.join().await;
            }
            let (from, to, moving) = (path.clone(), aside.clone(), disk.clone());
            let there = match world.blocking(move || moving.rename(&from, &to)).await {
                Ok(()) => aside,
                // It goes where it is, while whoever needs the place waits.
                Err(_) => path.clone(),
            };
            let clearing = (there == path).then_some(clearing);
            if let Err(error) = world.blocking(move || remove(&disk, &there)).await
                && error.kind != DiskErrorKind::NotFound
            {
                tracing::warn!(%error, "what nobody needs any more could not be removed");
            }
            drop((clearing, removing));
        });
    }

    /// Waits until a path that is being removed is gone.
    pub(super) fn end_of(&self, path: &Path) -> impl Future<Output = ()> + Send + use<> {
        let removed = self.places.get(path).cloned();
        async move {
            if let Some(removed) = removed {
                closed(removed).await;
            }
        }
    }

    /// Waits for all of them.
    pub(super) async fn ended(self) {
        for removed in self.all {
            closed(removed).await;
        }
    }
}

async fn closed(mut removed: watch::Receiver<()>) {
    while removed.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, OnceLock};

    use situ_runtime::real::RealRuntime;

    use super::*;

    /// What a removal waits for, so that it is under way for as long as the test likes.
    static GATE: OnceLock<(Mutex<Receiver<()>>, Sender<()>)> = OnceLock::new();

    #[tokio::test]
    async fn who_needs_the_place_does_not_wait_until_all_that_was_there_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = RealRuntime::new(None).unwrap();
        let path = directory.path().join("job-1");
        std::fs::create_dir_all(path.join("work")).unwrap();
        let (open, gate) = channel();
        GATE.set((Mutex::new(gate), open)).unwrap();
        let mut removals = Removals::default();
        removals.begin(&runtime, path.clone(), Vec::new(), |disk, path| {
            GATE.get().unwrap().0.lock().unwrap().recv().unwrap();
            Disk::remove_directory(disk, path)
        });
        removals.end_of(&path).await;
        assert!(!path.exists());
        std::fs::create_dir(&path).unwrap();
        GATE.get().unwrap().1.send(()).unwrap();
        removals.ended().await;
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [path]);
    }
}
