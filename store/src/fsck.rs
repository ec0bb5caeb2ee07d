//! Proving that a store is whole: every blob, layer, record, image and name is read and compared with what it should be.
//!
//! Others may use the store meanwhile; what goes away while it is looked at is no finding. Caches that are checked whenever they are used
//! (fix-ups) or that nobody promises anything of (cache mounts) are left out.

mod stack;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::build_log;
use crate::container;
use crate::digest::{DiffId, Digest, Hasher};
use crate::error::{IoContext, Result, StoreError};
use crate::image;
use crate::index;
use crate::journal;
use crate::layer::Condition;
use crate::record;
use crate::reference::Reference;
use crate::root::{entries, files, read_quietly};
use crate::store::Store;
use crate::volume;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it is: `blob`, `layer`, `image`, `name`, `record`, `volume`, `build log`, `journal`, `file`.
    pub what: &'static str,
    /// Which: a digest, a name or a path.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it was put aside (or written anew), so that it is made or fetched again when it is needed.
    pub is_repaired: bool,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many things.
    pub count: u64,
    /// What is wrong, sorted.
    pub findings: Vec<Finding>,
}

/// One thing to look at.
enum Task {
    Blob(Digest),
    Layer(DiffId),
    Record {
        kind: String,
        key: String,
        path: PathBuf,
    },
}

impl Store {
    /// Looks at everything. With `repair`, what is damaged is put aside (`quarantine/`, until the next collection), so that it is made or fetched
    /// again when it is needed.
    ///
    /// # Errors
    /// When the store can't be read at all.
    pub fn check(&self, repair: bool) -> Result<Checked> {
        let tasks = self.tasks()?;
        let found = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.look(task, repair) {
                    Ok(finding) => lock(&found).extend(finding),
                    Err(error) => {
                        lock(&failed).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
                scope.spawn(work);
            }
        });
        if let Some(error) = lock(&failed).take() {
            return Err(error);
        }
        let mut findings = std::mem::take(&mut *lock(&found));
        let mut count = tasks.len() as u64;
        // Then what leads to those: an image whose layer is gone, a name whose image is.
        count += self.check_images(repair, &mut findings)?;
        count += self.check_names(repair, &mut findings)?;
        count += self.check_containers(&mut findings)?;
        count += self.check_volumes(repair, &mut findings)?;
        count += self.check_build_logs(repair, &mut findings)?;
        count += self.check_journal(repair, &mut findings)?;
        count += self.check_files(repair, &mut findings)?;
        findings.sort_unstable();
        if repair {
            self.sync()?;
        }
        Ok(Checked { count, findings })
    }

    fn tasks(&self) -> Result<Vec<Task>> {
        let layout = self.layout();
        let mut tasks = Vec::new();
        for (name, _) in entries(&layout.root().join("layers"))? {
            tasks.extend(Digest::from_hex(&name).ok().map(DiffId).map(Task::Layer));
        }
        for (name, _) in entries(&layout.root().join("meta"))? {
            let diff_id = Digest::from_hex(&name).ok().map(DiffId);
            tasks.extend(
                diff_id
                    .filter(|diff_id| !layout.layer(diff_id).exists())
                    .map(Task::Layer),
            );
        }
        for (name, _) in entries(&layout.root().join("blobs/sha256"))? {
            tasks.extend(Digest::from_hex(&name).ok().map(Task::Blob));
        }
        for (kind, directory) in entries(&layout.root().join("records"))? {
            for (_, shard) in entries(&directory)? {
                for (key, path) in entries(&shard)? {
                    let kind = kind.clone();
                    tasks.push(Task::Record { kind, key, path });
                }
            }
        }
        Ok(tasks)
    }

    fn look(&self, task: &Task, repair: bool) -> Result<Option<Finding>> {
        let (root, layers) = self.parts();
        let finding = |what, name: String, problem: &str| Finding {
            what,
            name,
            problem: problem.to_owned(),
            is_repaired: repair,
        };
        match task {
            Task::Blob(digest) => {
                let path = root.layout.blob(digest);
                if hash(&path)?.is_none_or(|found| found == *digest) {
                    return Ok(None);
                }
                if repair {
                    root.set_aside(&path, &format!("blob-{}", digest.hex()))?;
                }
                Ok(Some(finding(
                    "blob",
                    digest.to_string(),
                    "its bytes have another digest",
                )))
            }
            Task::Layer(diff_id) => {
                let problem = match layers.condition(diff_id)? {
                    Condition::Whole | Condition::Absent => return Ok(None),
                    // Not damaged: an image that needs it has a finding of its own.
                    Condition::Leftover if repair => return layers.drop_published(diff_id).map(|()| None),
                    Condition::Leftover => return Ok(None),
                    Condition::BadRecord => "its record is damaged",
                    Condition::NoTree => "it has a record, but no tree",
                    Condition::Damaged => "its tree is not what was recorded",
                };
                if repair {
                    layers.set_aside(diff_id)?;
                }
                Ok(Some(finding("layer", diff_id.to_string(), problem)))
            }
            Task::Record { kind, key, path } => {
                let Some(sealed) = read_quietly(path)? else {
                    return Ok(None);
                };
                if record::open(kind, key, &sealed).is_some() {
                    return self.look_at_stack(kind, key, repair);
                }
                if repair {
                    root.set_aside(path, &format!("record-{kind}-{key}"))?;
                }
                Ok(Some(finding("record", format!("{kind}/{key}"), "it is damaged")))
            }
        }
    }

    /// Each container needs what it is, how it is doing, and what it lies on. What is damaged of one is not put aside: it may be all that its user has.
    fn check_containers(&self, findings: &mut Vec<Finding>) -> Result<u64> {
        let (root, layers) = self.parts();
        let all = container::kept(root)?;
        for (id, keeps) in &all {
            let mut tell = |problem: String| {
                findings.push(Finding {
                    what: "container",
                    name: id.clone(),
                    problem,
                    is_repaired: false,
                });
            };
            let Some(keeps) = keeps else {
                tell("its config is damaged; box rm -f removes it".to_owned());
                continue;
            };
            if matches!(self.container_state(id), Err(StoreError::Damaged { .. })) {
                tell("its state is damaged; box rm -f removes it".to_owned());
            }
            // A layer that is damaged has a finding of its own.
            let is_gone = |digest: &&Digest| !layers.is_there(&DiffId(**digest));
            if let Some(digest) = keeps.iter().find(is_gone) {
                tell(format!("its layer {digest} is gone"));
            }
        }
        Ok(all.len() as u64)
    }

    /// Each image needs its record, its config and its layers.
    fn check_images(&self, repair: bool, findings: &mut Vec<Finding>) -> Result<u64> {
        let (root, layers) = self.parts();
        let ids = image::ids(root)?;
        for id in &ids {
            let record = root.layout.images().join(id.hex());
            let problem = match image::get(root, id) {
                Err(error) => Some((error.to_string(), true)),
                // It went since it was listed.
                Ok(None) if fs::symlink_metadata(&record).is_err() => continue,
                Ok(None) => Some(("its record or its config is missing or damaged".to_owned(), true)),
                Ok(Some(image)) => {
                    let is_missing = |diff_id: &&DiffId| !matches!(layers.is_published(diff_id), Ok(true));
                    let missing = image.config.rootfs.diff_ids.iter().find(is_missing);
                    let problem = missing.map(|diff_id| {
                        format!("its layer {diff_id} is not here: pull, load or build it again")
                    });
                    // Its name is good to have it mended by.
                    problem.map(|problem| (problem, false))
                }
            };
            if let Some((problem, is_of_no_use)) = problem {
                let is_repaired = repair && is_of_no_use;
                if is_repaired {
                    root.set_aside(&record, &format!("image-{}", id.hex()))?;
                }
                findings.push(Finding {
                    what: "image",
                    name: id.to_string(),
                    problem,
                    is_repaired,
                });
            }
        }
        Ok(ids.len() as u64)
    }

    fn check_names(&self, repair: bool, findings: &mut Vec<Finding>) -> Result<u64> {
        let (root, _) = self.parts();
        let all = entries(&root.layout.names())?;
        let count = all.len() as u64;
        for (file, path) in all {
            let Some(sealed) = read_quietly(&path)? else {
                continue;
            };
            let full = record::key("name", &sealed);
            let reference = full.as_deref().and_then(|full| Reference::parse(full).ok());
            let is_at_home = |reference: &&Reference| image::name_path(root, reference) == path;
            let id = match reference.as_ref().filter(is_at_home) {
                Some(reference) => image::lookup(root, reference)?,
                None => None,
            };
            let problem = match id {
                None => "it is damaged",
                Some(id) if image::ids(root)?.contains(&id) => continue,
                Some(_) => "its image is not here",
            };
            if repair {
                root.set_aside(&path, &format!("name-{file}"))?;
            }
            findings.push(Finding {
                what: "name",
                name: full.unwrap_or(file),
                problem: problem.to_owned(),
                is_repaired: repair,
            });
        }
        Ok(count)
    }

    /// What volumes hold is their users' own; here only what the store keeps of them is looked at.
    fn check_volumes(&self, repair: bool, findings: &mut Vec<Finding>) -> Result<u64> {
        let (root, _) = self.parts();
        let names = volume::names(root)?;
        for name in &names {
            if let Some((problem, is_repaired)) = volume::mend(root, name, repair)? {
                findings.push(Finding {
                    what: "volume",
                    name: name.to_string(),
                    problem: problem.to_owned(),
                    is_repaired,
                });
            }
        }
        Ok(names.len() as u64)
    }

    /// Nothing depends on them, and their ends may be missing; what can't be told at all is damaged.
    fn check_build_logs(&self, repair: bool, findings: &mut Vec<Finding>) -> Result<u64> {
        let (root, _) = self.parts();
        let all = entries(&root.layout.builds())?;
        let count = all.len() as u64;
        for (name, path) in all {
            let Some(problem) = build_log::problem(root, &name)? else {
                continue;
            };
            if repair {
                root.set_aside(&path, &format!("build-{name}"))?;
            }
            findings.push(Finding {
                what: "build log",
                name,
                problem: problem.to_owned(),
                is_repaired: repair,
            });
        }
        Ok(count)
    }

    fn check_journal(&self, repair: bool, findings: &mut Vec<Finding>) -> Result<u64> {
        let found = journal::check(self.parts().0, repair)?;
        findings.extend(found.into_iter().map(|(path, lines)| Finding {
            what: "journal",
            name: path.display().to_string(),
            problem: format!("{lines} of its lines are damaged"),
            is_repaired: repair,
        }));
        Ok(1)
    }

    /// The few files that say the same in every store, and the index.
    fn check_files(&self, repair: bool, findings: &mut Vec<Finding>) -> Result<u64> {
        let (root, _) = self.parts();
        let files = files(&root.layout, root.has_single_id);
        let index = root.layout.index();
        for (path, text) in &files {
            let problem = if *path == index {
                index::problem(root)?
            } else {
                let is_same = read_quietly(path)?.as_deref() == Some(text.as_bytes());
                (!is_same).then_some("it is missing or damaged")
            };
            if let Some(problem) = problem {
                if repair && *path != index {
                    root.replace(path, text.as_bytes(), crate::disk::Durability::Later)?;
                }
                findings.push(Finding {
                    what: "file",
                    name: path.display().to_string(),
                    problem: problem.to_owned(),
                    is_repaired: repair,
                });
            }
        }
        if repair {
            // What was removed above may be listed.
            index::rebuild(root)?;
        }
        Ok(files.len() as u64)
    }
}

/// The digest of a file; none if it is gone.
fn hash(path: &Path) -> Result<Option<Digest>> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).at("read", path)? {
            0 => return Ok(Some(hasher.finish())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
