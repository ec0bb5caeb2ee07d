//! COPY: files of the context, a stage or an image, written as a layer; no container is needed.

mod believed;
mod patched;
mod words;

use std::cell::OnceCell;

use box_store::digest::{ChainId, Digest, Hasher};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;
use box_store::remote::RemoteRecord;
use box_store::tree::Tree;

use crate::cache::{FileList, Input, Kept, Laid};
use crate::context::{Context, Picking, select};
use crate::error::StepError;
use crate::files::{FileTree, FilesError};
use crate::ignore::IgnoreRules;
use crate::plan::{CopySourcePlan, CopyStep};
use crate::progress::{Event, StepId};

use super::archive::{self, Archive};
use super::pick::{How, Picked, pick};
use super::place::{Placer, Target};
use super::rootfs::Rootfs;
use super::{At, Made, Tools, users};
pub(crate) use patched::Earlier;
pub(crate) use words::canonical;
use words::source_names;

/// Where a COPY reads, and what was found there.
pub(crate) struct Reading<'a> {
    tools: &'a Tools<'a>,
    context: &'a Context<'a>,
    step: &'a CopyStep,
    tree: Option<Origin>,
    picking: Picking,
    id: StepId,
    /// Whether a directory is seen itself, not only what is in it: it is mounted.
    shows_root: bool,
    selected: OnceCell<Vec<Vec<Picked>>>,
    hashed: OnceCell<Vec<Input>>,
    /// What a cache elsewhere says of it, and where.
    believed: OnceCell<(Digest, RemoteRecord)>,
}

/// Layers that are read from.
struct Origin {
    rootfs: Rootfs,
    chain: Option<ChainId>,
}

impl<'a> Reading<'a> {
    /// Reads the context, or these layers, called `name`.
    ///
    /// # Errors
    /// When a digest of the layers could not be computed; when the ignore file can't be read.
    pub(crate) fn new(
        tools: &'a Tools<'a>,
        id: StepId,
        step: &'a CopyStep,
        layers: Option<(&[Layer], String)>,
    ) -> Result<Reading<'a>, StepError> {
        let context = tools.context_of(&step.from)?;
        let tree = match layers {
            None => {
                if let Some(note) = context.load_rules()? {
                    tools.events.event(Event::Note(&note));
                }
                None
            }
            Some((layers, name)) => {
                let diff_ids: Result<Vec<_>, StoreError> = layers.iter().map(Layer::diff_id).collect();
                Some(Origin {
                    rootfs: Rootfs::new(layers, name),
                    chain: ChainId::of(&diff_ids?),
                })
            }
        };
        Ok(Reading {
            tools,
            context,
            step,
            tree,
            picking: picking(step)?,
            id,
            shows_root: false,
            selected: OnceCell::new(),
            hashed: OnceCell::new(),
            believed: OnceCell::new(),
        })
    }

    /// The same for a mount, which shows the directory itself, too.
    pub(crate) fn showing_root(self) -> Reading<'a> {
        Reading {
            shows_root: self.tree.is_some(),
            ..self
        }
    }

    /// What the copy depends on, for its key. Layers are read once only: what is in them never changes, so the digest is
    /// recorded.
    ///
    /// # Errors
    /// What is named is not there, or can't be read.
    pub(crate) fn inputs(&self) -> Result<Vec<Input>, StepError> {
        let Some(origin) = &self.tree else {
            return self.hash_inputs();
        };
        let record = RecordKind::new("tree")?;
        let key = self.memo_key(origin);
        let known = self.tools.store.get_record(&record, &key)?;
        if let Some(known) = known
            && let Ok(inputs) = serde_json::from_slice(&known.bytes)
        {
            self.tools.uses.tree(key, &known.bytes);
            return Ok(inputs);
        }
        if let Some(inputs) = self.believe(key) {
            return Ok(inputs);
        }
        let inputs = self.hash_inputs()?;
        if self.tools.is_forecast {
            return Ok(inputs);
        }
        for (input, list) in self.lists()? {
            list.keep(self.tools.store, &input)?;
        }
        let bytes = serde_json::to_vec(&inputs).unwrap_or_default();
        self.tools.store.put_record(&record, &key, &bytes, &[])?;
        self.tools.uses.tree(key, &bytes);
        Ok(inputs)
    }

    /// Whether the one thing that is copied is a directory.
    ///
    /// # Errors
    /// It is not there, or can't be read.
    pub(crate) fn is_directory(&self) -> Result<bool, StepError> {
        let selected = self.selected()?;
        Ok(selected
            .iter()
            .flatten()
            .any(|picked| picked.selection.is_directory()))
    }

    fn memo_key(&self, origin: &Origin) -> Digest {
        let chain = origin
            .chain
            .map_or_else(|| "nothing".to_owned(), |chain| chain.to_string());
        let inline = self.step.sources.iter().map(|source| match source {
            CopySourcePlan::Inline { data, .. } => Some(Digest::of(data)),
            _ => None,
        });
        let text = serde_json::to_vec(&(
            chain,
            source_names(self.step),
            inline.collect::<Vec<_>>(),
            &self.step.excludes,
            self.step.parents,
            self.shows_root,
        ))
        .unwrap_or_default();
        Digest::of(&[b"box tree 4\n", text.as_slice()].concat())
    }

    fn hash_inputs(&self) -> Result<Vec<Input>, StepError> {
        if let Some(hashed) = self.hashed.get() {
            return Ok(hashed.clone());
        }
        let names = source_names(self.step);
        let selected = self.selected()?;
        let inputs = names.into_iter().zip(selected).zip(&self.step.sources);
        let inputs: Vec<Input> = inputs
            .map(|((name, picked), source)| {
                let mut hasher = Hasher::new();
                match source {
                    CopySourcePlan::Inline { data, .. } => hasher.update(data),
                    CopySourcePlan::Path(_) | CopySourcePlan::Url { .. } | CopySourcePlan::Git { .. } => {
                        picked.iter().for_each(|picked| self.hash(picked, &mut hasher));
                    }
                }
                Input {
                    name,
                    digest: hasher.finish(),
                }
            })
            .collect();
        Ok(self.hashed.get_or_init(|| inputs).clone())
    }

    /// The files of each input, by its digest, as far as they were looked at. Nothing is listed of what stands in the Boxfile.
    ///
    /// # Errors
    /// What is named can't be read.
    pub(crate) fn lists(&self) -> Result<Vec<(Digest, FileList)>, StepError> {
        let Some(selected) = self.selected.get() else {
            return Ok(Vec::new());
        };
        let inputs = self.hash_inputs()?;
        let owners = self.tree().keeps_owners();
        let listed = inputs.into_iter().zip(selected);
        let lists = listed
            .filter(|(_, picked)| !picked.is_empty())
            .map(|(input, picked)| {
                let owners = owners || picked.iter().any(|picked| picked.own.is_some());
                let selections = picked.iter().map(|picked| &picked.selection);
                (input.digest, FileList::of(selections, owners))
            });
        Ok(lists.collect())
    }

    /// An archive is its bytes, whatever it is called, and what was fetched is its layer.
    fn hash(&self, picked: &Picked, hasher: &mut Hasher) {
        match (&picked.archive, &picked.own) {
            (Some(digest), _) => {
                hasher.update(b"archive");
                hasher.update(digest.as_bytes());
            }
            (None, Some(own)) => {
                hasher.update(if own.keeps_times { b"times" } else { b"layer" });
                hasher.update(own.diff_id.0.as_bytes());
            }
            (None, None) => {
                let keeps_owners = self.tree().keeps_owners();
                picked.selection.hash_into(hasher, keeps_owners, self.shows_root);
            }
        }
    }

    fn tree(&self) -> &dyn FileTree {
        match &self.tree {
            Some(origin) => &origin.rootfs,
            None => self.context,
        }
    }

    fn how(&self) -> How<'_> {
        How {
            picking: &self.picking,
            unpack: self.step.unpack,
        }
    }

    fn tree_of<'b>(&'b self, picked: &'b Picked) -> &'b dyn FileTree {
        match &picked.own {
            Some(own) => &own.rootfs,
            None => self.tree(),
        }
    }

    /// What each source names; nothing for what stands in the Boxfile.
    fn selected(&self) -> Result<&[Vec<Picked>], StepError> {
        if let Some(selected) = self.selected.get() {
            return Ok(selected);
        }
        let sources = self.step.sources.iter();
        let selected = sources
            .map(|source| pick(self.tools, self.id, source, self.tree(), self.how()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.selected.get_or_init(|| selected))
    }

    /// Writes the layer. `chown` is the owner, as written; `earlier` gives what the step made before, of other files.
    ///
    /// # Errors
    /// When something can't be read, has changed since it was hashed, or can't be put where it is wanted.
    pub(crate) fn copy(
        &self,
        at: At<'_>,
        chown: Option<&str>,
        earlier: &Earlier<'_>,
    ) -> Result<Made, StepError> {
        self.verify()?;
        let selected = self.selected()?;
        let _turn = self.tools.turn(at.id)?;
        let tree = Tree::new(at.layers);
        let owner = match chown {
            Some(text) => Some(users::owner(&tree, text)?),
            None => None,
        };
        let chmod = self.step.chmod.as_ref().map(|(_, chmod)| chmod);
        let target = Target {
            destination: &self.step.destination,
            owner,
            chmod,
            keeps_directories: self.step.parents,
            cancel: self.tools.cancel,
        };
        let directory = self.only_directory(selected);
        let laid = directory.and_then(Laid::of);
        if let (Some(directory), Some(laid)) = (directory, &laid)
            && let Some(made) = self.patched(at, (&tree, target), (directory, laid), earlier)?
        {
            return Ok(made);
        }
        let writer = self.tools.store.layer_writer(at.layers, &self.tools.options())?;
        let mut placer = Placer::new(&tree, writer, target)?;
        for (source, picked) in self.step.sources.iter().zip(selected) {
            if let CopySourcePlan::Inline { name, data } = source {
                placer.put_inline(name, data)?;
            }
            if let CopySourcePlan::Path(pattern) = source {
                self.check_count(&placer, pattern, picked)?;
            }
            picked
                .iter()
                .try_for_each(|picked| self.put(&mut placer, picked))?;
        }
        Ok(Made {
            laid: laid.map(Kept::Whole),
            ..Made::of(placer.finish().commit()?, None)
        })
    }

    fn put(&self, placer: &mut Placer<'_>, picked: &Picked) -> Result<(), StepError> {
        let tree = self.tree_of(picked);
        let Some(digest) = picked.archive else {
            return match &picked.own {
                Some(own) if own.keeps_times => placer.put_fetched(tree, &picked.selection),
                _ => placer.put(tree, &picked.selection),
            };
        };
        let name = picked.selection.root.display().to_string();
        let meta = picked.selection.entries.first().map(|entry| &entry.meta);
        let Some(meta) = meta else { return Ok(()) };
        let open = || {
            Ok(Archive {
                file: tree.open(&picked.selection.root, meta)?,
                size: meta.size,
                name: name.clone(),
            })
        };
        let unpacked = archive::unpack(self.tools, self.id, digest, open)?;
        let rootfs = Rootfs::new(&[unpacked.layer], name.clone());
        let all = select(&rootfs, "/", &Picking::default())?;
        all.iter()
            .try_for_each(|all| placer.put_unpacked(&rootfs, all, &unpacked.implied))
    }

    /// Several files that become one, each over the last: Docker allows it, but nobody means it.
    fn check_count(&self, placer: &Placer<'_>, pattern: &str, found: &[Picked]) -> Result<(), StepError> {
        let count = found
            .iter()
            .filter(|picked| !picked.selection.is_directory() && picked.archive.is_none())
            .count();
        if count > 1 && !placer.is_directory()? {
            let to = &self.step.destination;
            let note = format!(
                "{pattern} matches {count} files, and only the last becomes {to}: write {to}/ for a directory"
            );
            self.tools.events.event(Event::Note(&note));
        }
        Ok(())
    }
}

/// The same for `--link`: an owner's name is looked up in the layers below, so that the copy needs them no more.
///
/// # Errors
/// A user or group that they do not know.
pub(crate) fn linked(step: &CopyStep, layers: &[Layer]) -> Result<CopyStep, StepError> {
    let owner = step
        .chown
        .as_ref()
        .map(|text| users::owner(&Tree::new(layers), text));
    let owner = owner.transpose()?;
    Ok(CopyStep {
        chown: owner.map(|(uid, gid)| format!("{uid}:{gid}")),
        ..step.clone()
    })
}

fn picking(step: &CopyStep) -> Result<Picking, FilesError> {
    let patterns = step.excludes.iter().map(String::as_str);
    let excludes = IgnoreRules::from_patterns(patterns).map_err(|source| FilesError::Ignore {
        name: "--exclude".to_owned(),
        source,
    })?;
    Ok(Picking {
        excludes,
        parents: step.parents,
    })
}
