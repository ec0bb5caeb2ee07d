//! An archive's blobs are put beside each other first: a tar may have them in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::docker;
use super::error::ArchiveError;
use super::layout::{Layout, check_version};
use crate::digest::{Digest, Hasher};
use crate::error::IoContext;
use crate::layer::apply::{ApplyError, EntryName, Kind, Limits, Members};
use crate::layer::decompress::Decompressor;
use crate::store::Store;
use crate::transfer::document::DOCUMENT_LIMIT;
use crate::trash::TempDir;

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
    docker: Option<Vec<u8>>,
    /// The other files, by name: those of a Docker archive.
    parts: BTreeMap<String, docker::Part>,
}

/// What an entry's name means.
enum Part {
    Index,
    Version,
    Docker,
    Blob(Digest),
    Other,
}

/// Reads the whole archive, OCI's or Docker's; each blob is compared with its name.
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
            (Kind::Directory, _) => {}
            (Kind::File(content), Part::Other) if content.map.is_none() => {
                staged.write_other(&member.name, &mut members, &mut documents)?;
            }
            (Kind::Symlink(target), Part::Other) => {
                if let Some((name, target)) = text(&member.name).zip(std::str::from_utf8(target).ok()) {
                    documents
                        .parts
                        .insert(name, docker::Part::Link(target.to_owned()));
                }
            }
            (_, Part::Other) => {}
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
    match (documents.index, documents.docker) {
        (Some(index), _) => {
            let version = documents
                .version
                .ok_or(ArchiveError::NotOci("it has no oci-layout file"))?;
            check_version(&version)?;
            staged.index = index;
        }
        (None, Some(manifest)) => {
            // In newer archives the files of the layout are those that it names.
            let blobs = staged.blobs.iter();
            for digest in blobs {
                let size = staged.size(digest)?;
                let part = docker::Part::File(*digest, size);
                documents
                    .parts
                    .insert(format!("blobs/sha256/{}", digest.hex()), part);
            }
            let made = docker::layout(&manifest, &documents.parts)?;
            staged.index = made.index;
            for document in made.documents {
                staged.put(&document)?;
            }
        }
        (None, None) => return Err(ArchiveError::NotOci("it has no index.json and no manifest.json")),
    }
    Ok(staged)
}

/// A name as text, clean.
fn text(name: &[u8]) -> Option<String> {
    docker::plain(std::str::from_utf8(name).ok()?)
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
        Part::Docker => documents.docker = Some(document(members, "manifest.json")?),
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

    fn size(&self, digest: &Digest) -> Result<u64, ArchiveError> {
        let path = self.path(digest);
        let metadata = std::fs::metadata(&path);
        metadata
            .map(|metadata| metadata.len())
            .map_err(|source| ArchiveError::Read { path, source })
    }

    /// A small blob of our own.
    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        std::fs::write(&path, bytes).at("write", &path)?;
        self.blobs.insert(digest);
        Ok(())
    }

    /// A file that is known by its name; what it is called in a layout follows from its bytes.
    fn write_other<R: Read>(
        &mut self,
        name: &[u8],
        members: &mut Members<'_, R>,
        documents: &mut Documents,
    ) -> Result<(), ArchiveError> {
        let Some(name) = text(name) else { return Ok(()) };
        let path = self.temp.path().join("other");
        let (digest, size) = write(&path, members)?;
        let place = self.path(&digest);
        std::fs::rename(&path, &place).at("rename to", &place)?;
        self.blobs.insert(digest);
        documents.parts.insert(name, docker::Part::File(digest, size));
        Ok(())
    }

    fn write<R: Read>(&mut self, digest: &Digest, members: &mut Members<'_, R>) -> Result<(), ArchiveError> {
        let path = self.path(digest);
        let (found, _) = write(&path, members)?;
        let expected = *digest;
        if expected != found {
            return Err(ArchiveError::Blob { expected, found });
        }
        self.blobs.insert(expected);
        Ok(())
    }
}

/// Writes an entry's bytes; gives their digest and number.
fn write<R: Read>(path: &Path, members: &mut Members<'_, R>) -> Result<(Digest, u64), ArchiveError> {
    let mut file = File::create(path).at("create", path)?;
    let (mut hasher, mut size) = (Hasher::new(), 0);
    each_chunk(members, |chunk| {
        hasher.update(chunk);
        size += chunk.len() as u64;
        Ok(file.write_all(chunk).at("write", path)?)
    })?;
    Ok((hasher.finish(), size))
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
