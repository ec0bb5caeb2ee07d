//! Containers that are kept: what they are, where they write, and how they ended.
//!
//! `containers/<id>/` has `config` and `state` (sealed records, whose content the store does not understand), `upper/` and `work/` for the
//! overlay, and what the caller keeps beside them (logs). It appears whole, by a rename, and goes the same way. The config keeps the
//! layers it lies on from the collector.

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::disk::Durability;
use crate::error::{IoContext, Result, StoreError};
use crate::layer::{Layer, visible};
use crate::record::{self, Record};
use crate::root::{Root, entries};
use crate::snapshot::{MountStub, OverlayDirs, set_dir_attrs};
use crate::store::Store;
use crate::tree::Tree;

const CONFIG: &str = "container";
const STATE: &str = "container-state";
/// The largest config or state that is read.
const LIMIT: u64 = 16 << 20;
/// Its presence says that the container goes when it has ended.
const TRANSIENT: &str = "transient";

/// A container that is about to be kept.
#[derive(Debug, Clone, Copy)]
pub struct NewContainer<'a> {
    /// 64 hexadecimal digits.
    pub id: &'a str,
    /// What it is; opaque.
    pub config: &'a [u8],
    /// Its first state; opaque.
    pub state: &'a [u8],
    /// What it lies on, bottom first.
    pub layers: &'a [Layer],
    /// It goes when it has ended, so nothing of it needs to be durable.
    pub is_transient: bool,
}

/// A container's id is a name in the file system: hexadecimal digits, nothing else.
fn check_id(id: &str) -> Result<()> {
    match Digest::from_hex(id) {
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::NoSuchContainer { id: id.to_owned() }),
    }
}

impl Store {
    /// Keeps a new container. When this returns it is durable, unless it is transient.
    pub fn create_container(&self, new: &NewContainer<'_>) -> Result<()> {
        check_id(new.id)?;
        let (root, _) = self.parts();
        // Whole, or not at all.
        let temp = root.step_dir()?;
        let dir = temp.path();
        let upper = dir.join("upper");
        root.disk.make_dir(&upper)?;
        root.disk.make_dir(&dir.join("work"))?;
        set_dir_attrs(&upper, &Tree::new(new.layers).root_attrs())?;
        let keeps = new.layers.iter().map(|layer| layer.diff_id().map(|id| id.0));
        let keeps = keeps.collect::<Result<Vec<Digest>>>()?;
        let files = [
            ("config", CONFIG, new.config, keeps),
            ("state", STATE, new.state, vec![]),
        ];
        for (name, class, bytes, keeps) in files {
            let path = dir.join(name);
            let mut file = root.disk.create_file(&path)?;
            root.disk
                .write(&mut file, &path, &record::seal(class, new.id, &keeps, bytes))?;
        }
        if new.is_transient {
            root.disk.create_file(&dir.join(TRANSIENT))?;
        } else {
            // Its layers, too, may be of this command.
            self.sync()?;
            sync_files(root, dir)?;
        }
        let place = root.layout.container(new.id);
        if !root.disk.rename_new(dir, &place)? {
            return Err(StoreError::Damaged {
                what: "container",
                name: new.id.to_owned(),
                reason: "a container of this id is there already; try again".to_owned(),
            });
        }
        temp.forget();
        root.wrote();
        match new.is_transient {
            true => Ok(()),
            false => root.disk.sync_parent(&place),
        }
    }

    /// The ids of all containers, sorted.
    pub fn container_ids(&self) -> Result<Vec<String>> {
        let (root, _) = self.parts();
        ids(root)
    }

    /// What a container is. None if there is no such container; an error if what is kept of it is damaged.
    pub fn container_config(&self, id: &str) -> Result<Option<Record>> {
        self.container_file(id, "config", CONFIG)
    }

    /// Its state, as it was written last.
    pub fn container_state(&self, id: &str) -> Result<Option<Record>> {
        self.container_file(id, "state", STATE)
    }

    fn container_file(&self, id: &str, name: &str, class: &str) -> Result<Option<Record>> {
        check_id(id)?;
        let (root, _) = self.parts();
        let path = root.layout.container(id).join(name);
        match root.disk.read(&path, LIMIT)? {
            None => Ok(None),
            Some(sealed) => match record::open(class, id, &sealed) {
                Some(record) => Ok(Some(record)),
                None => Err(damaged(id, name)),
            },
        }
    }

    /// Changes what a container is (its name, its limits); what it lies on stays. Durable when it returns.
    pub fn set_container_config(&self, id: &str, config: &[u8]) -> Result<()> {
        let old = self.container_config(id)?;
        let old = old.ok_or_else(|| StoreError::NoSuchContainer { id: id.to_owned() })?;
        self.replace(
            id,
            "config",
            &record::seal(CONFIG, id, &old.keeps, config),
            Durability::Now,
        )
    }

    /// Writes the state of a container that is there. Durable if asked for.
    pub fn set_container_state(&self, id: &str, state: &[u8], durability: Durability) -> Result<()> {
        self.replace(id, "state", &record::seal(STATE, id, &[], state), durability)
    }

    fn replace(&self, id: &str, name: &str, sealed: &[u8], durability: Durability) -> Result<()> {
        check_id(id)?;
        let (root, _) = self.parts();
        let dir = root.layout.container(id);
        // Not made again when it was removed meanwhile: the rename makes missing directories.
        if !dir.is_dir() {
            return Err(StoreError::NoSuchContainer { id: id.to_owned() });
        }
        root.disk
            .replace(&root.temp_path()?, &dir.join(name), sealed, durability)
    }

    /// Where a container's own files are: those the caller keeps lie there, too.
    pub fn container_dir(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.parts().0.layout.container(id))
    }

    /// Whether it goes when it has ended.
    pub fn container_is_transient(&self, id: &str) -> Result<bool> {
        Ok(self.container_dir(id)?.join(TRANSIENT).exists())
    }

    /// What to mount for a container: its layers below what it has written.
    pub fn container_dirs(&self, id: &str, layers: &[Layer], stubs: &[MountStub]) -> Result<OverlayDirs> {
        let dir = self.container_dir(id)?;
        let layers = &self.unstacked(layers)?[..];
        let tree = Tree::new(layers);
        let mut lower = self.fixup_lower(&tree, stubs)?;
        lower.extend(visible(layers).iter().rev().map(Layer::path));
        Ok(OverlayDirs {
            lower,
            upper: dir.join("upper"),
            work: dir.join("work"),
            overlay_xattrs: self.overlay_xattrs(),
        })
    }

    /// Removes a container with all that it wrote, at once for all others. Nothing may have it mounted. Says whether it was there.
    pub fn remove_container(&self, id: &str) -> Result<bool> {
        check_id(id)?;
        let (root, _) = self.parts();
        let place = root.layout.container(id);
        if fs::symlink_metadata(&place).is_err() {
            return Ok(false);
        }
        let away = root.step_path()?;
        match root.disk.rename_into(&place, away.path()) {
            // Somebody else was first.
            Err(_) if fs::symlink_metadata(&place).is_err() => Ok(false),
            moved => {
                moved?;
                // The deepest part, beside the rest.
                away.part_with(away.path().join("work"));
                Ok(true)
            }
        }
    }
}

fn damaged(id: &str, name: &str) -> StoreError {
    StoreError::Damaged {
        what: "container",
        name: id.to_owned(),
        reason: format!("its {name} is not what was written; remove it (box rm -f)"),
    }
}

fn sync_files(root: &Root, dir: &Path) -> Result<()> {
    for name in ["config", "state"] {
        let path = dir.join(name);
        let file = fs::File::open(&path).at("open", &path)?;
        root.disk.sync_file(&file, &path)?;
    }
    root.disk.sync_parent(&dir.join("config"))
}

/// The ids of all containers, sorted.
pub(crate) fn ids(root: &Root) -> Result<Vec<String>> {
    let mut ids: Vec<String> = entries(&root.layout.containers())?
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| check_id(name).is_ok())
        .collect();
    ids.sort();
    Ok(ids)
}

/// What each container keeps alive, and whether it says so itself: none where that is damaged. Containers go without a lock: one that went
/// since it was listed is not told.
pub(crate) fn kept(root: &Root) -> Result<Vec<(String, Option<Vec<Digest>>)>> {
    let mut all = Vec::new();
    for id in ids(root)? {
        let dir = root.layout.container(&id);
        let sealed = root.disk.read(&dir.join("config"), LIMIT)?;
        if sealed.is_none() && fs::symlink_metadata(&dir).is_err() {
            continue;
        }
        let record = record::open(CONFIG, &id, &sealed.unwrap_or_default());
        all.push((id, record.map(|record| record.keeps)));
    }
    Ok(all)
}
