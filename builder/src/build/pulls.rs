//! Images on their way: what they are is known, and their layers come beside what is built meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

use box_store::digest::ImageId;
use box_store::image::Image;
use box_store::{Reference, Store};

use crate::error::StepError;
use crate::exec::CancelToken;
use crate::lower::Loaded;
use crate::progress::EventSink;
use crate::request::{BuildRequest, Platform, Pulling};

/// The most images that are pulled at once; each has several connections.
const PULLS: usize = 6;

/// All that were asked for, by the names in the Boxfile. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Pulls(Arc<Shared>);

#[derive(Default)]
struct Shared {
    coming: Mutex<BTreeMap<String, Coming>>,
    changed: Condvar,
}

#[derive(Default)]
struct Coming {
    /// What it is, known before its layers are here.
    image: Option<Image>,
    /// Whether all of it is here, or why not.
    end: Option<Result<(), String>>,
}

impl Pulls {
    fn found(&self, name: &str, image: Image) {
        self.coming().entry(name.to_owned()).or_default().image = Some(image);
        self.0.changed.notify_all();
    }

    fn ended(&self, name: &str, end: Result<(), String>) {
        self.coming().entry(name.to_owned()).or_default().end = Some(end);
        self.0.changed.notify_all();
    }

    /// Waits until it is known what the image is, or that it can't be had; an image that is here by then is found in the store.
    fn known(&self, name: &str) -> Result<Option<Image>, String> {
        let mut coming = self.coming();
        loop {
            match coming.get(name) {
                Some(Coming { end: Some(end), .. }) => return end.clone().map(|()| None),
                Some(Coming {
                    image: Some(image), ..
                }) => return Ok(Some(image.clone())),
                Some(_) | None => {
                    coming = self
                        .0
                        .changed
                        .wait(coming)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Waits until the layers of an image are here, if they are on their way. [`Pulls::wake`] must be called when the token is cancelled:
    /// what is pulled may go on for the next attempt.
    ///
    /// # Errors
    /// [`StepError::Pull`], [`StepError::Cancelled`].
    pub(super) fn wait(&self, id: &ImageId, cancel: &CancelToken) -> Result<(), StepError> {
        let mut coming = self.coming();
        loop {
            if cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            let is_it = |coming: &&Coming| coming.image.as_ref().is_some_and(|image| image.id == *id);
            let found = coming.iter().find(|(_, coming)| is_it(coming));
            match found {
                None => return Ok(()),
                Some((
                    _,
                    Coming {
                        end: Some(Ok(())), ..
                    },
                )) => return Ok(()),
                Some((
                    name,
                    Coming {
                        end: Some(Err(reason)),
                        ..
                    },
                )) => {
                    return Err(StepError::Pull {
                        name: name.clone(),
                        reason: reason.clone(),
                    });
                }
                Some((_, Coming { end: None, .. })) => {
                    coming = self
                        .0
                        .changed
                        .wait(coming)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Has all who wait look whether they still should.
    pub(super) fn wake(&self) {
        let _coming = self.coming();
        self.0.changed.notify_all();
    }

    fn coming(&self) -> MutexGuard<'_, BTreeMap<String, Coming>> {
        self.0.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who pulls, and as long as what.
#[derive(Clone, Copy)]
pub(super) struct Puller<'scope, 'env> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) store: &'env Store,
    pub(super) request: &'env BuildRequest,
    pub(super) events: &'env dyn EventSink,
    pub(super) pulls: &'env Pulls,
    pub(super) cancel: &'env CancelToken,
}

type Wanted = (String, (Reference, Platform));

impl<'scope> Puller<'scope, '_> {
    /// Begins to pull these, several at a time, and waits until it is known what each is. With one job nothing happens beside: then all is
    /// here when this returns.
    pub(super) fn pull(self, wanted: BTreeMap<String, (Reference, Platform)>, loaded: &mut Loaded) {
        let names: Vec<String> = wanted.keys().cloned().collect();
        let queue: Arc<Mutex<VecDeque<Wanted>>> = Arc::new(Mutex::new(wanted.into_iter().collect()));
        let threads = match self.request.jobs {
            0 | 1 => 0,
            _ => names.len().min(PULLS),
        };
        let mut started = 0;
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let thread = Builder::new().name("box-pull".into());
            let spawned = thread.spawn_scoped(self.scope, move || self.work(&queue));
            started += usize::from(spawned.is_ok());
        }
        if started == 0 {
            self.work(&queue);
        }
        for name in names {
            let failed = match self.pulls.known(&name) {
                Ok(Some(image)) => {
                    loaded.coming.insert(name.clone(), image);
                    None
                }
                Ok(None) => None,
                Err(reason) => Some(reason),
            };
            loaded.pulled.insert(name, failed);
        }
    }

    fn work(self, queue: &Mutex<VecDeque<Wanted>>) {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((name, (reference, platform))) = next else {
                return;
            };
            // Whoever waits for it must not wait for ever, whatever happens.
            let end = Ending {
                pulls: self.pulls,
                name: &name,
            };
            let found = |image| self.pulls.found(&name, image);
            let pulling = Pulling {
                cancel: self.cancel,
                events: self.events,
                found: &found,
            };
            let result = match &self.request.puller {
                Some(puller) if !self.cancel.is_cancelled() => {
                    puller.pull(self.store, &reference, &platform, pulling)
                }
                _ => Err("interrupted".to_owned()),
            };
            self.pulls.ended(&name, result);
            drop(end);
        }
    }
}

struct Ending<'a> {
    pulls: &'a Pulls,
    name: &'a str,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.pulls.ended(self.name, Err("it was given up".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use box_store::digest::Digest;
    use box_store::image::ImageConfig;

    use super::*;

    #[test]
    fn who_waits_for_a_pull_ends_with_its_attempt() {
        let (pulls, cancel) = (Pulls::default(), CancelToken::new());
        let id = ImageId(Digest::of(b"image"));
        let image = Image {
            id,
            config: ImageConfig::default(),
            built: 0,
        };
        pulls.found("base", image);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pulls.wait(&id, &cancel));
            let own = pulls.clone();
            let _wake = cancel.on_cancel(move || own.wake());
            cancel.cancel();
            assert!(matches!(waiting.join().unwrap(), Err(StepError::Cancelled)));
        });
        // The next attempt gets what came meanwhile.
        pulls.ended("base", Ok(()));
        assert!(pulls.wait(&id, &CancelToken::new()).is_ok());
    }
}
