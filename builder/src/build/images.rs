//! Images of registries: what they are must be known before the stages are lowered; their layers may come later.

use std::collections::BTreeMap;

use box_store::{Reference, StoreError};

use crate::error::BuildError;
use crate::graph::StageGraph;
use crate::lower::Loaded;
use crate::request::{NamedContext, Platform};

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
    let mut wanted = graph.images();
    for context in request.contexts.values() {
        if let NamedContext::Image(name) = context {
            wanted.push((name.clone(), None));
        }
    }
    let mut missing: BTreeMap<String, (Reference, Platform)> = BTreeMap::new();
    for (name, platform) in wanted {
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
        let platform = platform.and_then(|platform| platform.parse().ok());
        let platform = platform.unwrap_or_else(|| request.platform.clone());
        missing.insert(name, (reference, platform));
    }
    way.pull(missing, loaded);
    Ok(())
}
