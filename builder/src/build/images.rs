//! Images of registries: what they are must be known before the stages are lowered; their layers may come later.

use std::collections::BTreeMap;

use box_store::{Image, Reference, Store, StoreError};

use crate::error::BuildError;
use crate::graph::StageGraph;
use crate::lower::{Loaded, Locked, locked_anywhere, locked_image};
use crate::request::{BuildRequest, NamedContext, Platform};

use super::pulls::Puller;

/// Asks for the images that are not here (or for all, if the puller says so), each once, several at a time. What can't be had is noted, and told of
/// where the image is named.
///
/// # Errors
/// When the store can't be read.
pub(super) fn pull(way: Puller<'_, '_>, graph: &StageGraph, loaded: &mut Loaded) -> Result<(), BuildError> {
    let Puller { store, request, .. } = way;
    let Some(puller) = &request.puller else {
        return Ok(());
    };
    let mut missing: BTreeMap<String, (Reference, Platform)> = BTreeMap::new();
    for (name, platform) in wanted(request, graph) {
        match locked_image(store, request, &name, &platform)? {
            Locked::Free => {}
            Locked::Missing if request.lock.as_ref().is_none_or(|lock| !lock.is_strict) => {}
            Locked::Elsewhere(pinned) => {
                let name = pinned.full();
                if !loaded.pulled.contains_key(&name) {
                    missing.insert(name, (pinned, platform));
                }
                continue;
            }
            // What is locked stays what it is, and what must be locked is told of later.
            Locked::Missing | Locked::Here(_) | Locked::Gone(_) => continue,
        }
        if loaded.pulled.contains_key(&name) || missing.contains_key(&name) {
            continue;
        }
        // What is no name is told of later; an id can only be here.
        let Ok(reference) = Reference::parse(&name) else {
            continue;
        };
        let found = match store.resolve_base(&name) {
            // It may well be here.
            Err(error @ StoreError::Io { .. }) => return Err(error.into()),
            found => found.ok().flatten(),
        };
        if found.is_some() {
            let is_name = || -> Result<bool, BuildError> {
                Ok(store.names()?.iter().any(|known| known.reference == reference))
            };
            if !puller.asks_always() || !is_name()? {
                continue;
            }
        }
        missing.insert(name, (reference, platform));
    }
    way.pull(missing, loaded);
    Ok(())
}

/// The images that a build names, each with the platform it is wanted for.
pub(super) fn wanted(request: &BuildRequest, graph: &StageGraph) -> Vec<(String, Platform)> {
    let contexts = request.contexts.values().filter_map(|context| match context {
        NamedContext::Image(name) => Some((name.clone(), None)),
        NamedContext::Directory(_) | NamedContext::Layout { .. } => None,
    });
    let all = graph.images().into_iter().chain(contexts);
    let platform = |platform: Option<String>| platform.and_then(|platform| platform.parse().ok());
    all.map(|(name, asked)| (name, platform(asked).unwrap_or_else(|| request.platform.clone())))
        .collect()
}

/// The image of a name, if it is known by now.
///
/// # Errors
/// When the store can't be read.
pub(super) fn find(
    store: &Store,
    request: &BuildRequest,
    loaded: &Loaded,
    name: &str,
) -> Result<Option<Image>, StoreError> {
    let mut resolved = loaded.resolved.iter();
    if let Some((_, image)) = resolved.find(|((known, _), _)| known == name) {
        return Ok(Some(image.clone()));
    }
    match locked_anywhere(store, request, name)? {
        Locked::Here(image) => Ok(Some(*image)),
        Locked::Elsewhere(pinned) => Ok(loaded.coming.get(&pinned.full()).cloned()),
        Locked::Gone(_) => Ok(None),
        Locked::Free | Locked::Missing => store.resolve_base(name),
    }
}
