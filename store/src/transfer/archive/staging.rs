//! An archive's blobs are put beside each other first: a tar may have them in any order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use super::error::ArchiveError;
use super::layout::{Layout, check_version};
use crate::digest::{Digest, Hasher};
use crate::layer::apply::{ApplyError, EntryName, Kind, Limits, Members};
use crate::layer::decompress::Decompressor;
use crate::root::TempDir;
use crate::store::Store;
use crate::transfer::document::DOCUMENT_LIMIT;

/// The parts of an archive.
pub(super) struct Staged {
    temp: TempDir,
    blobs: BTreeSet<Digest>,
    index: Vec<u8>,
}

#[derive(Default)]
struct Documents {
    index: Option<Vec<u8>>,
    version: Option<Vec<u8>>,
    docker: bool,
}

/// What an entry's name means.
enum Part {
    Index,
    Version,
    Docker,
    Blob(Digest),
    Other,
}

/// Reads the whole archive; each blob is compared with its name.
pub(super) fn stage(store: &Store, archive: impl Read, limits: &Limits) -> Result<Staged, ArchiveError> {
    let read = |source| ApplyError::Read { offset: 0, source };
    let plain = Decompressor::new(archive).map_err(read)?;
    let mut members = Members::new(plain, limits, true);
    let temp = store.parts().0.temp_dir()?;
    let mut staged = Staged {
        temp,
        blobs: BTreeSet::new(),
        index: Vec::new(),
    };
    let mut documents = Documents::default();
    while let Some(member) = members.next()? {
        let part = part(&member.name);
        match (&member.kind, part) {
            (Kind::Directory, _) | (_, Part::Other) => {}
            (Kind::File(content), part) if content.map.is_none() => {
                take(part, &mut members, &mut staged, &mut documents)?;
            }
            _ => {
                return Err(ArchiveError::EntryKind {
                    entry: EntryName::new(member.name).to_string(),
                });
            }
        }
    }
    members.finish()?;
    let no_index = if documents.docker {
        ArchiveError::DockerArchive
    } else {
        ArchiveError::NotOci("it has no index.json")
    };
    staged.index = documents.index.ok_or(no_index)?;
    check_version(
        &documents
            .version
            .ok_or(ArchiveError::NotOci("it has no oci-layout file"))?,
    )?;
    Ok(staged)
}

fn part(name: &[u8]) -> Part {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    match name {
        b"index.json" => Part::Index,
        b"oci-layout" => Part::Version,
        b"manifest.json" => Part::Docker,
        _ => blob_name(name).map_or(Part::Other, Part::Blob),
    }
}

fn blob_name(name: &[u8]) -> Option<Digest> {
    let hex = std::str::from_utf8(name.strip_prefix(b"blobs/sha256/")?).ok()?;
    Digest::from_hex(hex).ok()
}

fn take<R: Read>(
    part: Part,
    members: &mut Members<'_, R>,
    staged: &mut Staged,
    documents: &mut Documents,
) -> Result<(), ArchiveError> {
    match part {
        Part::Index => documents.index = Some(document(members, "index.json")?),
        Part::Version => documents.version = Some(document(members, "oci-layout")?),
        Part::Docker => documents.docker = true,
        Part::Blob(digest) => staged.write(&digest, members)?,
        Part::Other => {}
    }
    Ok(())
}

fn document<R: Read>(members: &mut Members<'_, R>, what: &str) -> Result<Vec<u8>, ArchiveError> {
    let limit = DOCUMENT_LIMIT;
    let mut bytes = Vec::new();
    each_chunk(members, |chunk| {
        bytes.extend_from_slice(chunk);
        match bytes.len() as u64 > limit {
            true => Err(ArchiveError::TooLarge {
                what: what.to_owned(),
                limit,
            }),
            false => Ok(()),
        }
    })?;
    Ok(bytes)
}

fn each_chunk<R: Read>(
    members: &mut Members<'_, R>,
    mut each: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut buf = vec![0; 128 << 10];
    loop {
        match members.read_data(&mut buf)? {
            0 => return Ok(()),
            n => each(&buf[..n])?,
        }
    }
}

impl Staged {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.temp.path().join(digest.hex())
    }

    fn write<R: Read>(&mut self, digest: &Digest, members: &mut Members<'_, R>) -> Result<(), ArchiveError> {
        let path = self.path(digest);
        let failed = |source| ArchiveError::Read {
            path: path.clone(),
            source,
        };
        let mut file = File::create(&path).map_err(failed)?;
        let mut hasher = Hasher::new();
        each_chunk(members, |chunk| {
            hasher.update(chunk);
            file.write_all(chunk).map_err(failed)
        })?;
        let (expected, found) = (*digest, hasher.finish());
        if expected != found {
            return Err(ArchiveError::Blob { expected, found });
        }
        self.blobs.insert(expected);
        Ok(())
    }
}

impl Layout for Staged {
    fn index(&self) -> &[u8] {
        &self.index
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>, ArchiveError> {
        if !self.blobs.contains(digest) {
            return Ok(None);
        }
        let path = self.path(digest);
        File::open(&path)
            .map(Some)
            .map_err(|source| ArchiveError::Read { path, source })
    }
}
