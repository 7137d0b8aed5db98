//! What is being removed: that may take long, and the owner waits for nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use situ_runtime::disk::{DiskError, DiskErrorKind};
use situ_runtime::{Runtime, Task};
use tokio::sync::watch;

/// The removals that are under way, each with what is closed at its end. Who makes something at such a path again waits
/// for it.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeMap<PathBuf, watch::Receiver<()>>);

impl Removals {
    /// Removes what is at a path once its users have ended: else they could make it anew, or make something in it just
    /// then.
    pub(super) fn begin<R: Runtime>(
        &mut self,
        runtime: &R,
        path: PathBuf,
        users: Vec<Task<()>>,
        remove: fn(&R::Disk, &Path) -> Result<(), DiskError>,
    ) {
        self.0.retain(|_, removed| removed.has_changed().is_ok());
        let earlier = self.end_of(&path);
        let (removing, removed) = watch::channel(());
        self.0.insert(path.clone(), removed);
        let (world, disk) = (runtime.clone(), runtime.disk().clone());
        runtime.spawn("removal", async move {
            earlier.await;
            for user in users {
                user.join().await;
            }
            if let Err(error) = world.blocking(move || remove(&disk, &path)).await
                && error.kind != DiskErrorKind::NotFound
            {
                tracing::warn!(%error, "what nobody needs any more could not be removed");
            }
            drop(removing);
        });
    }

    /// Waits until a path that is being removed is gone.
    pub(super) fn end_of(&self, path: &Path) -> impl Future<Output = ()> + Send + use<> {
        let removed = self.0.get(path).cloned();
        async move {
            if let Some(removed) = removed {
                closed(removed).await;
            }
        }
    }

    /// Waits for all of them.
    pub(super) async fn ended(self) {
        for removed in self.0.into_values() {
            closed(removed).await;
        }
    }
}

async fn closed(mut removed: watch::Receiver<()>) {
    while removed.changed().await.is_ok() {}
}
