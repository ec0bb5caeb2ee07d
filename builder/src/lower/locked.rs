//! What the lock says of what a Boxfile names.

use box_store::digest::{Digest, ImageId};
use box_store::error::StoreError;
use box_store::image::Image;
use box_store::{Reference, Store};

use crate::diagnostic::Diagnostic;
use crate::git_ref::GitRef;
use crate::lockfile::{LockedImage, git_key, is_lockable, lockable_image};
use crate::request::{BuildRequest, Platform};
use crate::source::Span;
use crate::url::without_credentials;

use super::Lowering;

/// What the lock says of an image's name.
pub(crate) enum Locked {
    /// Nothing, and it need not.
    Free,
    /// Nothing, though there is a lock.
    Missing,
    /// It is this image.
    Here(Box<Image>),
    /// It is an image of this name, which says its digest and is not in the store.
    Elsewhere(Reference),
    /// It is an image that no registry has, and the store has not.
    Gone(ImageId),
}

/// What the lock says of an image's name. An image that is locked for another platform alone is not locked for this one.
///
/// # Errors
/// When the store can't be read.
pub(crate) fn locked_image(
    store: &Store,
    request: &BuildRequest,
    name: &str,
    platform: &Platform,
) -> Result<Locked, StoreError> {
    let (Some(lock), Some(reference)) = (&request.lock, lockable_image(name)) else {
        return Ok(Locked::Free);
    };
    match lock.lock.image(&reference, &platform.to_string()) {
        None => Ok(Locked::Missing),
        Some(image) => find(store, &reference, image),
    }
}

/// The image that a name is locked to, on whatever platform: its triggers are the same on all.
pub(crate) fn locked_anywhere(
    store: &Store,
    request: &BuildRequest,
    name: &str,
) -> Result<Locked, StoreError> {
    let (Some(lock), Some(reference)) = (&request.lock, lockable_image(name)) else {
        return Ok(Locked::Free);
    };
    let own = lock.lock.image(&reference, &request.platform.to_string());
    match own.or_else(|| lock.lock.image_anywhere(&reference)) {
        None => Ok(Locked::Missing),
        Some(image) => find(store, &reference, image),
    }
}

fn find(store: &Store, name: &Reference, image: LockedImage) -> Result<Locked, StoreError> {
    let digest = match image {
        LockedImage::Manifest(digest) => digest,
        LockedImage::Id(id) => {
            let image = store.image(&id)?;
            return Ok(image.map_or(Locked::Gone(id), |image| Locked::Here(Box::new(image))));
        }
    };
    let pinned = Reference::parse(&format!("{}@{digest}", name.repository()))?;
    if let Some(image) = store.resolve_base(&pinned.full())? {
        return Ok(Locked::Here(Box::new(image)));
    }
    // It may have come by its tag.
    let tagged = store.resolve_base(&name.full())?;
    let tagged =
        tagged.filter(|image| matches!(store.manifest_of(&image.id), Ok(Some(found)) if found == digest));
    Ok(match tagged {
        Some(image) => Locked::Here(Box::new(image)),
        None => Locked::Elsewhere(pinned),
    })
}

impl Lowering<'_> {
    /// The image that the lock names; `Err` where the lock says nothing of it. None if it is not to be had (which is noted).
    pub(super) fn image_of_lock(
        &mut self,
        name: &str,
        span: Span,
        platform: &Platform,
    ) -> Result<Result<Option<Image>, ()>, StoreError> {
        let problem = match locked_image(self.store, self.request, name, platform)? {
            Locked::Free => return Ok(Err(())),
            Locked::Missing => {
                if self.lacks_lock(span, &format!("{name} for {platform}")) {
                    return Ok(Err(()));
                }
                self.lacks_image = true;
                return Ok(Ok(None));
            }
            Locked::Here(image) => return Ok(Ok(Some(*image))),
            Locked::Elsewhere(pinned) if self.loaded.coming.contains_key(&pinned.full()) => {
                return Ok(Ok(self.loaded.coming.get(&pinned.full()).cloned()));
            }
            Locked::Elsewhere(pinned) => match self.loaded.pulled.get(&pinned.full()) {
                Some(Some(reason)) => format!("cannot pull {pinned}, to which {name} is locked: {reason}"),
                _ if self.request.offline => {
                    format!(
                        "{name} is locked to {pinned}, which is not in the store, and --offline forbids to pull it"
                    )
                }
                _ => format!("{name} is locked to {pinned}, which is not in the store"),
            },
            Locked::Gone(id) => {
                format!(
                    "{name} is locked to the image {id}, which is not in the store and which no registry gave"
                )
            }
        };
        self.lacks_image = true;
        self.problems.push(Diagnostic::error(span, problem));
        Ok(Ok(None))
    }

    /// What a URL must hash to, as the lock has it; `checksum` is what the Boxfile says.
    ///
    /// # Errors
    /// The lock must have it and has not (which is noted).
    pub(super) fn url_of_lock(
        &mut self,
        url: &str,
        span: Span,
        checksum: Option<Digest>,
    ) -> Result<Option<Digest>, ()> {
        let (None, Some(lock)) = (checksum, &self.request.lock) else {
            return Ok(checksum);
        };
        match lock.lock.url(url) {
            Some(digest) => Ok(Some(digest)),
            None if self.lacks_lock(span, &without_credentials(url)) => Ok(None),
            None => Err(()),
        }
    }

    /// Makes an address one of the commit that it is locked to.
    ///
    /// # Errors
    /// The lock must have it and has not (which is noted).
    pub(super) fn lock_commit(&mut self, address: &mut GitRef, span: Span) -> Result<(), ()> {
        let Some(lock) = self.request.lock.as_ref().filter(|_| is_lockable(address)) else {
            return Ok(());
        };
        match lock.lock.commit(address) {
            Some(commit) => {
                address.checksum = Some(commit.to_owned());
                address.fetch_by_commit = true;
                Ok(())
            }
            None if self.lacks_lock(span, &git_key(address)) => Ok(()),
            None => Err(()),
        }
    }

    /// Notes that something is not in the lock; says whether the build may go on without.
    fn lacks_lock(&mut self, span: Span, what: &str) -> bool {
        let Some(lock) = &self.request.lock else {
            return true;
        };
        let message = format!("{what} is not in {}", lock.name);
        let cure = "`box lock`, with the options of this build, adds it";
        match lock.is_strict {
            true => {
                let problem = Diagnostic::error(span, format!("{message}, and --locked asks for it"));
                self.problems.push(problem.suggest(cure));
            }
            false => self
                .warnings
                .push(Diagnostic::warning(span, message).suggest(cure)),
        }
        !lock.is_strict
    }
}
