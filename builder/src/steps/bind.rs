//! Where a mount of a RUN reads: a context, a stage or an image, found and hashed as COPY does it.

use std::path::PathBuf;

use box_store::digest::{ChainId, DiffId, Digest};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;

use crate::cache::{FileList, Input};
use crate::context::literal;
use crate::error::StepError;
use crate::files::FilesError;
use crate::plan::{BindPlan, CopySourcePlan, CopyStep};
use crate::progress::StepId;

use super::copy::Reading;
use super::{At, Tools};

/// What a file of the context is called in the layer that it is mounted from.
const FILE: &str = "source";
/// Where a bind mount or the beginning of a cache comes from.
pub(crate) struct Source<'a> {
    plan: &'a BindPlan,
    /// The reading, as COPY does it.
    copy: CopyStep,
    /// The layers of a stage or an image; none for a context.
    layers: Option<(Vec<Layer>, String)>,
    /// What it holds.
    pub(crate) input: Input,
    pub(crate) is_directory: bool,
}

impl<'a> Source<'a> {
    /// Reads what is mounted, for the key. `layers` are those of the stage or image that it names, and its name.
    ///
    /// # Errors
    /// It is not there, or can't be read.
    pub(crate) fn new(
        tools: &Tools<'_>,
        id: StepId,
        plan: &'a BindPlan,
        layers: Option<(Vec<Layer>, String)>,
    ) -> Result<Source<'a>, StepError> {
        let copy = CopyStep {
            from: plan.from.clone(),
            sources: vec![CopySourcePlan::Path(literal(&plan.source))],
            destination: format!("/{FILE}"),
            chown: None,
            chmod: None,
            excludes: Vec::new(),
            parents: false,
            link: false,
            unpack: false,
        };
        let mut source = Source {
            plan,
            copy,
            layers,
            input: Input {
                name: String::new(),
                digest: Digest::of(b""),
            },
            is_directory: true,
        };
        source.read(tools, id)?;
        if source.is_directory {
            source.copy.destination = "/".to_owned();
        }
        Ok(source)
    }

    fn read(&mut self, tools: &Tools<'_>, id: StepId) -> Result<(), StepError> {
        if let Some((layers, _)) = self.layers.as_ref().filter(|_| self.plan.source.is_empty()) {
            // All of it: its layers say what that is.
            self.input.digest = chain_digest(layers)?;
            return Ok(());
        }
        let (input, is_directory) = self.with_reading(tools, id, |reading| {
            Ok((reading.inputs()?, reading.is_directory()?))
        })?;
        if let Some(input) = input.into_iter().next() {
            self.input = input;
        }
        self.is_directory = is_directory;
        Ok(())
    }

    /// The files that it holds, if it is of a context; those of layers were listed when they were hashed.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) fn lists(&self, tools: &Tools<'_>, id: StepId) -> Result<Vec<(Digest, FileList)>, StepError> {
        if self.layers.is_some() {
            return Ok(Vec::new());
        }
        self.with_reading(tools, id, |reading| {
            reading.inputs()?;
            reading.lists()
        })
    }

    fn with_reading<R>(
        &self,
        tools: &Tools<'_>,
        id: StepId,
        act: impl FnOnce(&Reading<'_>) -> Result<R, StepError>,
    ) -> Result<R, StepError> {
        let layers = self.layers.as_ref();
        let layers = layers.map(|(layers, name)| (layers.as_slice(), name.clone()));
        act(&Reading::new(tools, id, &self.copy, layers)?.showing_root())
    }

    /// What it is, in words that another one does not have.
    pub(crate) fn identity(&self) -> Result<String, StoreError> {
        Ok(match &self.layers {
            Some((layers, _)) => format!("{} {}", chain_digest(layers)?, self.plan.source),
            None => self.input.digest.to_string(),
        })
    }

    /// The layers, and the path in them.
    pub(crate) fn layers(&self, tools: &Tools<'_>, at: At<'_>) -> Result<(Vec<Layer>, PathBuf), StepError> {
        if let Some((layers, _)) = &self.layers {
            return Ok((layers.clone(), PathBuf::from(&self.plan.source)));
        }
        let path = if self.is_directory { "" } else { FILE };
        Ok((
            self.layer_of_context(tools, at)?.into_iter().collect(),
            PathBuf::from(path),
        ))
    }

    /// What is mounted of a context is a layer, so that the step sees exactly what its key says, whatever happens to the
    /// context meanwhile. None if it is empty.
    fn layer_of_context(&self, tools: &Tools<'_>, at: At<'_>) -> Result<Option<Layer>, StepError> {
        let record = RecordKind::new("bind")?;
        let mode = (tools.source_date_epoch, format!("{:?}", tools.request.mtimes));
        let text = serde_json::to_vec(&(&self.input, mode, &self.copy.destination)).unwrap_or_default();
        let key = Digest::of(&[b"box bind 1\n", text.as_slice()].concat());
        if let Some(known) = tools.store.get_record(&record, &key)?
            && let Ok(diff_id) = serde_json::from_slice::<Option<DiffId>>(&known.bytes)
        {
            match diff_id {
                None => return Ok(None),
                Some(diff_id) => {
                    if let Some(layer) = tools.store.layer(&diff_id)? {
                        return Ok(Some(layer));
                    }
                }
            }
        }
        let layer = self.with_reading(tools, at.id, |reading| {
            if reading.inputs()?.first() != Some(&self.input) {
                return Err(FilesError::Changed {
                    path: PathBuf::from(&self.plan.source),
                    tree: "the build context".to_owned(),
                }
                .into());
            }
            Ok(reading
                .copy(At { layers: &[], ..at }, None, &|| Ok(Vec::new()))?
                .layer)
        })?;
        let diff_id = layer.as_ref().map(Layer::diff_id).transpose()?;
        let keeps: Vec<Digest> = diff_id.iter().map(|diff_id| diff_id.0).collect();
        let bytes = serde_json::to_vec(&diff_id).unwrap_or_default();
        tools.store.put_record(&record, &key, &bytes, &keeps)?;
        Ok(layer)
    }
}

/// The files of what the mounts read, by the digests of those inputs.
///
/// # Errors
/// When they can't be read.
pub(crate) fn lists(
    tools: &Tools<'_>,
    id: StepId,
    sources: &[Option<Source<'_>>],
) -> Result<Vec<(Digest, FileList)>, StepError> {
    let mut all = Vec::new();
    for source in sources.iter().flatten() {
        all.extend(source.lists(tools, id)?);
    }
    Ok(all)
}

fn chain_digest(layers: &[Layer]) -> Result<Digest, StoreError> {
    let diff_ids: Result<Vec<_>, StoreError> = layers.iter().map(Layer::diff_id).collect();
    let chain = ChainId::of(&diff_ids?).map(|chain| chain.to_string());
    Ok(Digest::of(chain.unwrap_or_default().as_bytes()))
}
