//! A lock made anew: what everything that a Boxfile names stands for now. Nothing is built, and no layer fetched.

use box_store::{Reference, Store, StoreError};

use crate::error::{BuildError, StepError};
use crate::git::{GitError, Wanted};
use crate::lockfile::{Lock, LockedImage, is_lockable, lockable_image};
use crate::lower::{Loaded, LowerError, Plan, lower};
use crate::plan::{Action, BasePlan, CopySourcePlan, Place};
use crate::progress::{Event, EventSink};
use crate::request::{BuildRequest, ImagePuller, Platform};
use crate::steps::fetch;
use crate::url::without_credentials;

use super::front::Front;
use super::{boxfile_error, images, layouts, open_context};

/// What `request` would build on, fetch and check out, for its target, platform and build arguments. What `old` has stays as it is
/// there; what else it holds is kept, since another target or platform may need it.
///
/// An image of the store that no registry gave is locked to its id. Others are asked for at their registry.
///
/// # Errors
/// What is wrong with the Boxfile; what can't be had, and where it is named.
pub fn lock(
    store: &Store,
    request: &BuildRequest,
    old: &Lock,
    events: &dyn EventSink,
) -> Result<Lock, BuildError> {
    // What the lock is made of must not come from a lock.
    let request = &BuildRequest {
        lock: None,
        ..request.clone()
    };
    let context = open_context(store, request)?;
    let front = Front::read(store, request, &context).map_err(boxfile_error)?;
    let mut locking = Locking {
        store,
        request,
        events,
        lock: old.clone(),
        loaded: Loaded::default(),
    };
    layouts::load_contexts(store, request, &mut locking.loaded)?;
    let graph = loop {
        let graph = front.built_graph(&locking.loaded)?;
        let before = locking.count();
        layouts::load_stages(store, request, &context, &graph, &mut locking.loaded)?;
        for (name, platform) in images::wanted(request, &graph) {
            locking.image(&name, &platform)?;
        }
        if locking.count() == before {
            break graph;
        }
    };
    let plan = lower(&graph, request, store, &locking.loaded).map_err(|error| match error {
        LowerError::Boxfile { diagnostics, .. } => front.error(diagnostics),
        LowerError::Store(error) => BuildError::Store(error),
    })?;
    locking.sources(&plan)?;
    Ok(locking.lock)
}

struct Locking<'a> {
    store: &'a Store,
    request: &'a BuildRequest,
    events: &'a dyn EventSink,
    lock: Lock,
    loaded: Loaded,
}

impl Locking<'_> {
    /// Grows with everything that was loaded, or can't be.
    fn count(&self) -> usize {
        let Loaded {
            stages,
            pulled,
            resolved,
            ..
        } = &self.loaded;
        stages.len() + pulled.len() + resolved.len()
    }

    /// Locks an image. What can't be had is noted, and told of where it is named.
    fn image(&mut self, name: &str, platform: &Platform) -> Result<(), StoreError> {
        let key = (name.to_owned(), platform.to_string());
        let Some(reference) = lockable_image(name) else {
            return self.pinned(name, platform, key);
        };
        if self.loaded.resolved.contains_key(&key) || self.loaded.pulled.contains_key(name) {
            return Ok(());
        }
        let known = self.lock.image(&reference, &key.1);
        let here = self.store.resolve_base(name)?;
        let image = match (known, here, &self.request.puller) {
            // An image that no registry gave is not asked for: another one may have its name there.
            (None, Some(image), _) if self.store.manifest_of(&image.id)?.is_none() => {
                self.lock.set_image(&reference, &key.1, LockedImage::Id(image.id));
                image
            }
            (Some(LockedImage::Id(id)), _, _) => match self.store.image(&id)? {
                Some(image) => image,
                None => {
                    return self.lacks(
                        name,
                        format!("it is locked to the image {id}, which is not in the store"),
                    );
                }
            },
            (known, here, Some(puller)) => {
                let wanted = match known {
                    Some(LockedImage::Manifest(digest)) => {
                        Reference::parse(&format!("{}@{digest}", reference.repository()))?
                    }
                    _ => reference.clone(),
                };
                // What is locked, and here by this name, need not be asked for.
                let is_same = |image: &box_store::Image| {
                    let manifest = self.store.manifest_of(&image.id).ok().flatten();
                    manifest.is_some() && manifest == wanted.digest().copied()
                };
                match here.filter(is_same) {
                    Some(image) => image,
                    None => match self.ask(puller.as_ref(), &wanted, platform) {
                        Ok((manifest, image)) => {
                            self.lock.set_image(&reference, &key.1, manifest);
                            image
                        }
                        Err(reason) => return self.lacks(name, reason),
                    },
                }
            }
            (_, _, None) => return self.lacks(name, "nothing may be asked of a registry".to_owned()),
        };
        self.loaded.resolved.insert(key, image);
        Ok(())
    }

    /// An image that says its digest needs no lock, but its config is needed to go on.
    fn pinned(&mut self, name: &str, platform: &Platform, key: (String, String)) -> Result<(), StoreError> {
        let (Ok(reference), Some(puller)) = (Reference::parse(name), &self.request.puller) else {
            return Ok(());
        };
        let is_known = self.loaded.resolved.contains_key(&key) || self.loaded.pulled.contains_key(name);
        if is_known || self.store.resolve_base(name)?.is_some() {
            return Ok(());
        }
        match self.ask(puller.as_ref(), &reference, platform) {
            Ok((_, image)) => drop(self.loaded.resolved.insert(key, image)),
            Err(reason) => self.lacks(name, reason)?,
        }
        Ok(())
    }

    fn ask(
        &self,
        puller: &dyn ImagePuller,
        name: &Reference,
        platform: &Platform,
    ) -> Result<(LockedImage, box_store::Image), String> {
        self.events.event(Event::Note(&format!("asking for {name}")));
        let (manifest, image) = puller.resolve(name, platform, &self.request.cancel)?;
        Ok((LockedImage::Manifest(manifest), image))
    }

    fn lacks(&mut self, name: &str, reason: String) -> Result<(), StoreError> {
        self.loaded.pulled.insert(name.to_owned(), Some(reason));
        Ok(())
    }

    /// Locks URLs and commits.
    fn sources(&mut self, plan: &Plan) -> Result<(), BuildError> {
        for stage in &plan.stages {
            if let BasePlan::Url { url, checksum: None } = &stage.base {
                self.url(&stage.from, url)?;
            }
            for step in &stage.steps {
                let Action::Copy(copy) = &step.action else {
                    continue;
                };
                for source in &copy.sources {
                    self.source(&step.place, source)?;
                }
            }
        }
        Ok(())
    }

    fn source(&mut self, place: &Place, source: &CopySourcePlan) -> Result<(), BuildError> {
        match source {
            CopySourcePlan::Url {
                url, checksum: None, ..
            } => self.url(place, url),
            CopySourcePlan::Git { address, .. }
                if is_lockable(address) && self.lock.commit(address).is_none() =>
            {
                let what = without_credentials(&address.with_fragment(false));
                self.events.event(Event::Note(&format!("asking for {what}")));
                let wanted = Wanted {
                    address,
                    keep_git_dir: false,
                    is_offline: false,
                };
                let commit =
                    wanted
                        .commit(self.store, &self.request.cancel)
                        .map_err(|error| match error {
                            GitError::Cancelled => BuildError::Cancelled,
                            error => failed(place, error.into()),
                        })?;
                self.lock.set_commit(address, &commit);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn url(&mut self, place: &Place, url: &str) -> Result<(), BuildError> {
        if self.lock.url(url).is_some() {
            return Ok(());
        }
        let note = format!("fetching {}", without_credentials(url));
        self.events.event(Event::Note(&note));
        let digest =
            fetch::digest(self.store, self.request, url).map_err(|error| failed(place, error.into()))?;
        self.lock.set_url(url, digest);
        Ok(())
    }
}

fn failed(place: &Place, error: StepError) -> BuildError {
    BuildError::Lock {
        place: Box::new(place.clone()),
        source: Box::new(error),
    }
}
