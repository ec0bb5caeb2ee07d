//! Images of registries, brought into the store before the stages are lowered: their configs are needed then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use box_store::{Reference, Store, StoreError};

use crate::error::BuildError;
use crate::graph::StageGraph;
use crate::lower::Loaded;
use crate::progress::EventSink;
use crate::request::{BuildRequest, NamedContext, Platform};

/// The most images that are pulled at once; each has several connections.
const PULLS: usize = 4;

/// Asks for the images that are not here (or for all, if the puller says so), each once, several at a time. What can't be had is noted, and told of
/// where the image is named.
///
/// # Errors
/// When the store can't be read.
pub(super) fn pull(
    store: &Store,
    request: &BuildRequest,
    graph: &StageGraph,
    loaded: &mut Loaded,
    events: &dyn EventSink,
) -> Result<(), BuildError> {
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
    let missing: Vec<_> = missing.into_iter().collect();
    let next = AtomicUsize::new(0);
    let pulled = Mutex::new(&mut loaded.pulled);
    let work = || {
        while let Some((name, (reference, platform))) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            if request.cancel.is_cancelled() {
                return;
            }
            let failed = puller.pull(store, reference, platform, events).err();
            let mut pulled = pulled.lock().unwrap_or_else(PoisonError::into_inner);
            pulled.insert(name.clone(), failed);
        }
    };
    let pulls = match request.jobs {
        0 | 1 => 1,
        _ => missing.len().min(PULLS),
    };
    std::thread::scope(|scope| {
        for _ in 1..pulls {
            // Without another thread this one does it all.
            let thread = std::thread::Builder::new().name("box-pull".into());
            let _ = thread.spawn_scoped(scope, work);
        }
        work();
    });
    Ok(())
}
