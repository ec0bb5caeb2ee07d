//! Bases that are root file system archives, in the context or behind a URL.

use std::path::Path;

use box_store::digest::Digest;
use box_store::transfer::http::Validators;

use crate::context::resolve;
use crate::error::StepError;
use crate::files::{EntryKind, FileTree, FilesError};
use crate::progress::StepId;
use crate::steps::archive::{self, Archive};
use crate::steps::{Tools, Unpacked, fetch};
use crate::url::without_credentials;

/// The layer of an archive in the context.
///
/// # Errors
/// When it is not there, can't be read, or is not what its checksum says; when it can't be unpacked.
pub(crate) fn from_context(
    tools: &Tools<'_>,
    id: StepId,
    path: &str,
    checksum: Option<&Digest>,
) -> Result<Unpacked, StepError> {
    let context = tools.context;
    let not_found = || FilesError::NotFound {
        path: path.to_owned(),
        tree: context.describe(),
        ignored: false,
    };
    let (found, meta) = resolve(context, Path::new(path))?.ok_or_else(not_found)?;
    if meta.kind != EntryKind::File {
        return Err(StepError::NotAFile {
            what: path.to_owned(),
        });
    }
    let digest = context.facts(&found, &meta)?.digest;
    check(path, checksum, digest)?;
    let open = || {
        let file = context.open(&found, &meta)?;
        Ok(Archive {
            file,
            size: meta.size,
            name: path.to_owned(),
        })
    };
    unpack(tools, id, digest, open)
}

/// The layer of an archive behind a URL.
///
/// # Errors
/// When it can't be fetched, is not what its checksum says, or can't be unpacked.
pub(crate) fn from_url(
    tools: &Tools<'_>,
    id: StepId,
    url: &str,
    checksum: Option<&Digest>,
) -> Result<Unpacked, StepError> {
    let known = |digest: &Digest, _: Option<&Validators>| {
        Ok(archive::known(tools.store, digest)?.map(|archive| archive.layer))
    };
    fetch::layer(tools, id, (url, checksum), &known, |file| {
        let (digest, size, name) = (file.digest, file.size, without_credentials(url));
        let open = move || {
            Ok(Archive {
                file: file.file,
                size,
                name,
            })
        };
        unpack(tools, id, digest, open)
    })
}

/// Unpacks an archive, which is work, unless it was unpacked before.
fn unpack(
    tools: &Tools<'_>,
    id: StepId,
    digest: Digest,
    open: impl FnOnce() -> Result<Archive, StepError>,
) -> Result<Unpacked, StepError> {
    if let Some(known) = archive::known(tools.store, &digest)? {
        return Ok(known.into_layer());
    }
    let _turn = tools.turn(id)?;
    Ok(archive::unpack(tools, id, digest, open)?.into_layer())
}

fn check(what: &str, expected: Option<&Digest>, found: Digest) -> Result<(), StepError> {
    match expected {
        Some(expected) if *expected != found => Err(StepError::Checksum {
            what: what.to_owned(),
            expected: *expected,
            found,
        }),
        _ => Ok(()),
    }
}
