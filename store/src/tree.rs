//! A read-only merged view of layers, without a mount: what a container on these layers would see.
//!
//! Understands overlayfs' whiteouts and opaque directories. Symbolic links are followed inside the view only
//! ([`Tree::resolve`]); every look into a layer goes beneath that layer's directory and follows nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::beneath::{self, Kind, Metadata};
use crate::error::{IoContext, Result, StoreError};
use crate::layer::tar::kept_xattrs;
use crate::layer::{DirAttrs, Layer};

/// How many symbolic links one path may lead through.
const MAX_LINKS: usize = 255;

/// A merged view of layers.
#[derive(Debug)]
pub struct Tree {
    /// Top first.
    layers: Vec<Layer>,
    dirs: Mutex<HashMap<PathBuf, Option<Merged>>>,
}

/// The layers (by index, top first) that a directory is merged from.
type Merged = Arc<[usize]>;

/// An entry of the view.
#[derive(Debug, Clone)]
pub struct TreeEntry {
    /// Its path, relative to the root; empty for the root.
    pub path: PathBuf,
    /// What it is.
    pub metadata: Metadata,
    /// The layer it is from; none for the root of no layers.
    pub layer: Option<Layer>,
}

impl TreeEntry {
    /// The time that a canonical tar gives it, in seconds since 1970.
    pub fn canonical_mtime(&self) -> i64 {
        let mtime = self.metadata.mtime;
        self.layer
            .as_ref()
            .map_or(mtime.sec, |layer| layer.facts().times.canonical(mtime))
    }
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The path with links followed, relative to the root, without `.` and `..`.
    pub path: PathBuf,
    /// What is there; none if nothing is.
    pub entry: Option<TreeEntry>,
}

impl Tree {
    /// The view of these layers, bottom first.
    pub fn new(layers: &[Layer]) -> Tree {
        Tree {
            layers: (crate::layer::visible(layers).iter().rev())
                .flat_map(Layer::pieces)
                .collect(),
            dirs: Mutex::default(),
        }
    }

    /// What is at this path, following no link (`lstat`); none if nothing is. The path must hold no `..`.
    pub fn lookup(&self, path: &Path) -> Result<Option<TreeEntry>> {
        self.find(&relative(path)?)
    }

    /// What is in the directory at this path, following no link; sorted by name.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<(OsString, TreeEntry)>> {
        let path = relative(path)?;
        let merged = self
            .merged(&path)?
            .ok_or_else(|| StoreError::NotADirectory { path: path.clone() })?;
        let mut entries: BTreeMap<OsString, Option<TreeEntry>> = BTreeMap::new();
        for &index in &*merged {
            let layer = &self.layers[index];
            let dir = beneath::open_dir(layer.dir()?, &path).at("open", &path)?;
            for name in beneath::names(&dir).at("read", &path)? {
                if entries.contains_key(&name) {
                    continue;
                }
                let Some(metadata) = beneath::stat(&dir, &name).at("read", path.join(&name))? else {
                    continue;
                };
                let entry = TreeEntry {
                    path: path.join(&name),
                    metadata,
                    layer: Some(layer.clone()),
                };
                let entry = if entry.metadata.is_whiteout() {
                    None
                } else {
                    Some(self.effective(entry)?)
                };
                entries.insert(name, entry);
            }
        }
        Ok(entries
            .into_iter()
            .filter_map(|(name, entry)| Some((name, entry?)))
            .collect())
    }

    /// Opens the regular file at this path, following no link.
    pub fn open_file(&self, path: &Path) -> Result<File> {
        let path = relative(path)?;
        let entry = self
            .find(&path)?
            .ok_or_else(|| StoreError::NotFound { path: path.clone() })?;
        let Some(layer) = &entry.layer else {
            return Err(StoreError::NotFound { path });
        };
        beneath::open_file(layer.dir()?, &path).at("open", &path)
    }

    /// The target of the symbolic link at this path.
    pub fn read_link(&self, path: &Path) -> Result<OsString> {
        let path = relative(path)?;
        let entry = self
            .find(&path)?
            .ok_or_else(|| StoreError::NotFound { path: path.clone() })?;
        let Some(layer) = &entry.layer else {
            return Err(StoreError::NotFound { path });
        };
        beneath::read_link(layer.dir()?, &path).at("read link", &path)
    }

    /// The extended attributes (those that a tar keeps) of the entry at this path, sorted by name.
    pub fn xattrs(&self, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
        let path = relative(path)?;
        let Some(name) = path.file_name() else {
            return Ok(self.root_attrs().xattrs);
        };
        let entry = self
            .find(&path)?
            .ok_or_else(|| StoreError::NotFound { path: path.clone() })?;
        let Some(layer) = &entry.layer else {
            return Ok(Vec::new());
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = beneath::open_dir(layer.dir()?, parent).at("open", parent)?;
        kept_xattrs(&dir, name, &path)
    }

    /// Follows a path (absolute in the view; `.` and `..` are fine) through symbolic links, which never lead out of the
    /// view: `..` at the root stays there. With `follow_last` a link at the end is followed too. What does not exist is
    /// taken as it is written; going through something that is neither directory nor link is an error.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> Result<Resolved> {
        self.resolve_watched(path, follow_last, &mut |_| ())
    }

    /// As [`Tree::resolve`]; `watch` is told every path that was looked at.
    pub(crate) fn resolve_watched(
        &self,
        path: &Path,
        follow_last: bool,
        watch: &mut dyn FnMut(&Path),
    ) -> Result<Resolved> {
        let mut links = 0;
        let mut at = PathBuf::new();
        let mut rest: VecDeque<OsString> = steps(path).collect();
        while let Some(step) = rest.pop_front() {
            if step == ".." {
                at.pop();
                continue;
            }
            at.push(&step);
            watch(&at);
            let Some(entry) = self.find(&at)? else { continue };
            match entry.metadata.kind {
                Kind::Symlink if follow_last || !rest.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(StoreError::TooManyLinks {
                            path: path.to_owned(),
                        });
                    }
                    let target = PathBuf::from(self.read_link(&at)?);
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                    steps(&target)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .for_each(|step| rest.push_front(step));
                }
                Kind::Directory => {}
                _ if rest.is_empty() => {}
                _ => {
                    return Err(StoreError::NotADirectory {
                        path: Path::new("/").join(at),
                    });
                }
            }
        }
        let entry = self.find(&at)?;
        Ok(Resolved { path: at, entry })
    }

    /// The root directory's attributes.
    pub fn root_attrs(&self) -> DirAttrs {
        self.layers
            .iter()
            .find_map(|layer| layer.facts().root.clone())
            .unwrap_or_default()
    }

    /// The attributes of the directory at this path; none if there is no directory.
    pub fn dir_attrs(&self, path: &Path) -> Result<Option<(DirAttrs, TreeEntry)>> {
        let path = relative(path)?;
        let is_dir = |entry: &TreeEntry| entry.metadata.kind == Kind::Directory;
        let Some(entry) = self.find(&path)?.filter(is_dir) else {
            return Ok(None);
        };
        if path.as_os_str().is_empty() {
            return Ok(Some((self.root_attrs(), entry)));
        }
        let Metadata { mode, uid, gid, .. } = entry.metadata;
        let attrs = DirAttrs {
            mode,
            uid,
            gid,
            xattrs: self.entry_xattrs(&entry)?,
        };
        Ok(Some((attrs, entry)))
    }

    /// Of a directory that its layer only implies: the topmost entry that a layer lists, if one does.
    fn effective(&self, entry: TreeEntry) -> Result<TreeEntry> {
        let implied = |layer: &Layer| layer.facts().implies(&entry.path);
        if entry.metadata.kind != Kind::Directory || !entry.layer.as_ref().is_some_and(implied) {
            return Ok(entry);
        }
        Ok(self.listed_dir(&entry.path)?.unwrap_or(entry))
    }

    /// The topmost entry of a directory whose layer lists it, instead of only implying it.
    fn listed_dir(&self, path: &Path) -> Result<Option<TreeEntry>> {
        let Some(merged) = self.merged(path)? else {
            return Ok(None);
        };
        for &index in &*merged {
            let layer = &self.layers[index];
            if layer.facts().implies(path) {
                continue;
            }
            if let Some(metadata) = beneath::lookup(layer.dir()?, path).at("read", path)? {
                return Ok(Some(TreeEntry {
                    path: path.to_owned(),
                    metadata,
                    layer: Some(layer.clone()),
                }));
            }
        }
        Ok(None)
    }

    fn entry_xattrs(&self, entry: &TreeEntry) -> Result<Vec<(OsString, Vec<u8>)>> {
        let (Some(layer), Some(name)) = (&entry.layer, entry.path.file_name()) else {
            return Ok(Vec::new());
        };
        let parent = entry.path.parent().unwrap_or(Path::new(""));
        let dir = beneath::open_dir(layer.dir()?, parent).at("open", parent)?;
        kept_xattrs(&dir, name, &entry.path)
    }

    /// The layers of the view, top first.
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn find(&self, path: &Path) -> Result<Option<TreeEntry>> {
        self.topmost(path)?.map(|entry| self.effective(entry)).transpose()
    }

    /// The entry of the topmost layer that has one, be it only implied.
    pub(crate) fn topmost(&self, path: &Path) -> Result<Option<TreeEntry>> {
        let Some(parent) = path.parent() else {
            return Ok(Some(self.root()));
        };
        let Some(merged) = self.merged(parent)? else {
            return Ok(None);
        };
        for &index in &*merged {
            let layer = &self.layers[index];
            if let Some(metadata) = beneath::lookup(layer.dir()?, path).at("read", path)? {
                let entry = TreeEntry {
                    path: path.to_owned(),
                    metadata,
                    layer: Some(layer.clone()),
                };
                return Ok(Some(entry).filter(|entry| !entry.metadata.is_whiteout()));
            }
        }
        Ok(None)
    }

    fn root(&self) -> TreeEntry {
        let DirAttrs { mode, uid, gid, .. } = self.root_attrs();
        let mtime = crate::stamp::Stamp::new(0, 0);
        let (nlink, size, inode, device) = (1, 0, (0, 0), (0, 0));
        let metadata = Metadata {
            kind: Kind::Directory,
            mode,
            uid,
            gid,
            size,
            mtime,
            nlink,
            inode,
            device,
        };
        TreeEntry {
            path: PathBuf::new(),
            metadata,
            layer: None,
        }
    }

    /// The layers that the directory at `path` is merged from; none if there is no directory.
    fn merged(&self, path: &Path) -> Result<Option<Merged>> {
        let Some(parent) = path.parent() else {
            return Ok(Some((0..self.layers.len()).collect()));
        };
        if let Some(known) = self.dirs.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(known.clone());
        }
        let merged = match self.merged(parent)? {
            Some(above) => self.merge(&above, path)?,
            None => None,
        };
        self.dirs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.to_owned(), merged.clone());
        Ok(merged)
    }

    fn merge(&self, parent: &[usize], path: &Path) -> Result<Option<Merged>> {
        let mut merged = Vec::new();
        for &index in parent {
            let layer = &self.layers[index];
            match beneath::lookup(layer.dir()?, path).at("read", path)? {
                None => {}
                Some(metadata) if metadata.kind == Kind::Directory => {
                    merged.push(index);
                    if layer.is_opaque(path)? {
                        break;
                    }
                }
                Some(_) => break,
            }
        }
        Ok((!merged.is_empty()).then(|| merged.into()))
    }
}

fn relative(path: &Path) -> Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(StoreError::BadPath {
                    path: path.to_owned(),
                });
            }
        }
    }
    Ok(plain)
}

/// The steps of a path; a slash at the end asks for a directory and is left out here.
fn steps(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    let parts = path.as_os_str().as_bytes().split(|&byte| byte == b'/');
    parts
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsStr::from_bytes(part).to_owned())
}
