//! Caches on other machines: opened as the command line says, read by a build, written after it.

use std::path::Path;
use std::sync::Arc;

use box_builder::cache::BuildUses;
use box_builder::exec::CancelToken;
use box_builder::progress::{Event, EventSink};
use box_store::Store;
use box_store::remote::{
    Backend, BucketBackend, BucketOptions, ExportOptions, Exported, Imports, IndexKey, LocalBackend,
    RegistryBackend, RemoteError, Uses,
};

use crate::app;
use crate::cli::RegistryArgs;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure, chain};
use crate::registries::{self, Registries};
use crate::ui::human;
use crate::values::{CacheFrom, CacheMode, CachePlace, CacheTo};

/// What opening a cache takes.
pub(crate) struct Travel<'a> {
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a RegistryArgs,
    pub(crate) cancel: &'a CancelToken,
}

impl Travel<'_> {
    /// What a build looks into; none where nothing is asked for.
    pub(crate) fn imports(&self, caches: &[CacheFrom]) -> Result<Option<Arc<Imports>>, Failure> {
        if caches.is_empty() {
            return Ok(None);
        }
        let open = |cache: &CacheFrom| -> Result<_, Failure> {
            let key = cache.key_file.as_deref().map(key).transpose()?;
            Ok((self.backend(&cache.place, false)?, key))
        };
        let caches = caches.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let cancel = self.cancel.clone();
        let cancelled = Arc::new(move || cancel.is_cancelled());
        Ok(Some(Imports::new(self.store, caches, cancelled)))
    }

    /// Writes what a build used. That a cache can't be written is told, and a failure only where that is asked for.
    pub(crate) fn export(
        &self,
        uses: &BuildUses,
        caches: &[CacheTo],
        events: &dyn EventSink,
    ) -> Result<(), Failure> {
        for cache in caches {
            let steps = match cache.mode {
                CacheMode::Min => &uses.result,
                CacheMode::Max => &uses.all,
            };
            let suspects = uses.suspects.clone();
            let uses = Uses {
                records: steps.records.clone(),
                layers: steps.layers.clone(),
                mounts: if cache.mounts {
                    uses.mounts.clone()
                } else {
                    Vec::new()
                },
                suspects,
            };
            self.export_one(&uses, cache, events)?;
        }
        Ok(())
    }

    fn export_one(&self, uses: &Uses, cache: &CacheTo, events: &dyn EventSink) -> Result<(), Failure> {
        let options = ExportOptions {
            key: cache.key_file.as_deref().map(key).transpose()?,
            max_size: cache.max_size,
        };
        let backend = self.backend(&cache.place, true)?;
        let cancelled = || self.cancel.is_cancelled();
        match box_store::remote::export(self.store, &*backend, uses, &options, &cancelled) {
            Ok(exported) => tell(&*backend, &exported, events),
            Err(error) if cache.ignores_errors && !cancelled() => {
                let place = backend.describe();
                let text = format!("warning: cannot write the cache {place}: {}", chain(&error));
                events.event(Event::Note(&text));
            }
            Err(error) => return Err(failed(&*backend, &error)),
        }
        Ok(())
    }

    fn backend(&self, place: &CachePlace, writes: bool) -> Result<Arc<dyn Backend>, Failure> {
        let cancel = self.cancel.clone();
        let cancelled = Arc::new(move || cancel.is_cancelled());
        match place {
            CachePlace::Local(dir) => Ok(Arc::new(LocalBackend::new(dir, cancelled))),
            CachePlace::Registry(name) => {
                let access = Arc::new(Registries::new(self.registry)?);
                Ok(Arc::new(RegistryBackend::new(
                    access,
                    name.clone(),
                    writes,
                    cancelled,
                )))
            }
            CachePlace::Bucket(place) => {
                let options = BucketOptions {
                    bucket: place.bucket.clone(),
                    prefix: place.prefix.clone(),
                    options: place.with_environment(),
                    proxies: registries::proxies(),
                };
                let backend = BucketBackend::new(&options, cancelled);
                Ok(Arc::new(backend.map_err(|e| Failure::of(EXIT_BOX, &e))?))
            }
        }
    }
}

fn tell(backend: &dyn Backend, exported: &Exported, events: &dyn EventSink) {
    let place = backend.describe();
    for note in &exported.notes {
        events.event(Event::Note(&format!("warning: cache {place}: {note}")));
    }
    let what = format!(
        "cache {place}: {} new layers and cache mounts, {} sent",
        exported.streams,
        human::bytes(exported.sent)
    );
    events.event(Event::Note(&what));
}

fn failed(backend: &dyn Backend, error: &RemoteError) -> Failure {
    let place = backend.describe();
    Failure::input(format!("cannot write the cache {place}: {}", chain(error)))
        .hint("without ignore-error=false this is a warning, and the build succeeds")
}

fn key(path: &Path) -> Result<IndexKey, Failure> {
    let key = IndexKey::new(&app::read_file(path)?);
    key.ok_or_else(|| {
        let text = format!("{} holds fewer than 16 bytes, which is no key", path.display());
        Failure::new(EXIT_INPUT, text).hint("openssl rand -hex 32 makes one")
    })
}
