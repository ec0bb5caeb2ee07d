//! Where blobs are known to be, so that they need not be sent there twice.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::StoreError;
use crate::record::RecordKind;
use crate::reference::Reference;
use crate::store::Store;

/// Repositories that are remembered of a blob, at most.
const MAX_PLACES: usize = 8;

/// Repositories where a blob is known to be.
#[derive(Default, Serialize, Deserialize)]
struct Places {
    repositories: Vec<String>,
}

fn places_key(name: &Reference, digest: &Digest) -> Digest {
    Digest::of(format!("box places 1\n{}\n{digest}\n", name.domain()).as_bytes())
}

fn places(store: &Store, name: &Reference, digest: &Digest) -> Result<Places, StoreError> {
    let record = store.get_record(&RecordKind::new("places")?, &places_key(name, digest))?;
    Ok(record
        .and_then(|record| serde_json::from_slice(&record.bytes).ok())
        .unwrap_or_default())
}

/// Another repository of the registry that has the blob.
pub(super) fn known_place(
    store: &Store,
    name: &Reference,
    digest: &Digest,
) -> Result<Option<String>, StoreError> {
    let places = places(store, name, digest)?.repositories;
    Ok(places.into_iter().rev().find(|place| place != name.path()))
}

/// Notes that a repository has a blob.
pub(super) fn remember_place(store: &Store, name: &Reference, digest: &Digest) -> Result<(), StoreError> {
    let mut places = places(store, name, digest)?;
    if places.repositories.last().is_some_and(|last| last == name.path()) {
        return Ok(());
    }
    places.repositories.retain(|place| place != name.path());
    places.repositories.push(name.path().to_owned());
    let excess = places.repositories.len().saturating_sub(MAX_PLACES);
    places.repositories.drain(..excess);
    let bytes = serde_json::to_vec(&places).unwrap_or_default();
    store.put_record(
        &RecordKind::new("places")?,
        &places_key(name, digest),
        &bytes,
        &[],
    )
}
