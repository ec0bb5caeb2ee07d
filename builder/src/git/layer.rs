//! A checkout as a layer.

use std::fs::{DirEntry, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use box_store::Store;
use box_store::layer::Layer;
use box_store::snapshot::{Attrs, LayerWriter, PrepareOptions};

use super::command::Git;
use super::{GitError, Wanted};

/// Writes the files, of root, with the two modes that git knows. Nobody else writes in the checkout; still no link is followed.
pub(super) fn write(
    store: &Store,
    git: &Git<'_>,
    wanted: &Wanted<'_>,
    options: &PrepareOptions,
    mtime: Option<i64>,
) -> Result<Layer, GitError> {
    let subdir = wanted.address.subdir.as_deref().unwrap_or_default();
    let top = inside(&git.work_tree(), subdir).ok_or_else(|| GitError::NoDirectory {
        repository: git.shown().to_owned(),
        subdir: subdir.to_owned(),
    })?;
    let mut writer = store.layer_writer(&[], options)?;
    let mut ahead = vec![PathBuf::new()];
    while let Some(directory) = ahead.pop() {
        let entries = std::fs::read_dir(top.join(&directory)).map_err(|source| git.io(source))?;
        for entry in entries {
            let entry = entry.map_err(|source| git.io(source))?;
            if entry.file_name() == ".git" && !wanted.keep_git_dir {
                continue;
            }
            let path = directory.join(entry.file_name());
            match put(&mut writer, &entry, &path, mtime) {
                Ok(true) => ahead.push(path),
                Ok(false) => {}
                Err(Put::Io(source)) => return Err(git.io(source)),
                Err(Put::Store(error)) => return Err(error.into()),
            }
        }
    }
    Ok(writer.commit()?)
}

enum Put {
    Io(io::Error),
    Store(box_store::error::StoreError),
}

impl From<io::Error> for Put {
    fn from(source: io::Error) -> Put {
        Put::Io(source)
    }
}

impl From<box_store::error::StoreError> for Put {
    fn from(source: box_store::error::StoreError) -> Put {
        Put::Store(source)
    }
}

/// Writes an entry; says whether it is a directory.
fn put(writer: &mut LayerWriter, entry: &DirEntry, path: &Path, mtime: Option<i64>) -> Result<bool, Put> {
    let metadata = entry.metadata()?;
    let attrs = |mode| Attrs {
        mode,
        mtime,
        ..Attrs::default()
    };
    if metadata.is_dir() {
        writer.directory(path, &attrs(0o755))?;
    } else if metadata.is_symlink() {
        let target = std::fs::read_link(entry.path())?;
        writer.symlink(path, target.as_os_str(), &attrs(0o777))?;
    } else {
        let is_executable = metadata.permissions().mode() & 0o100 != 0;
        let mode = if is_executable { 0o755 } else { 0o644 };
        writer.file(path, &attrs(mode), &mut File::open(entry.path())?)?;
    }
    Ok(metadata.is_dir())
}

/// A directory below `top` that no link leads to.
fn inside(top: &Path, subdir: &str) -> Option<PathBuf> {
    let mut path = top.to_owned();
    for component in Path::new(subdir).components() {
        match component {
            Component::Normal(name) if name != ".git" => path.push(name),
            Component::RootDir | Component::CurDir => continue,
            _ => return None,
        }
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return None;
        }
    }
    Some(path)
}
