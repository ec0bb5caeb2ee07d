//! What is told of a build in files: for other programs, and a page for people.

use std::path::Path;

use box_store::{Image, ImageId, Reference};
use serde_json::Value;

use super::metadata;
use crate::app::App;
use crate::cli::TellArgs;
use crate::error::{EXIT_BOX, Failure};
use crate::report::{Layer, Recorder, Report, page};

/// How many files of each layer are named.
const LARGEST: usize = 8;

/// Writes the files that other programs want of an image that was built.
///
/// # Errors
/// When one can't be written.
pub(super) fn files(
    args: &TellArgs,
    id: &ImageId,
    tags: &[Reference],
    steps: Vec<Value>,
) -> Result<(), Failure> {
    if let Some(path) = &args.iidfile {
        metadata::write(path, &id.to_string())?;
    }
    if let Some(path) = &args.metadata_file {
        metadata::write(path, &metadata::document(id, tags, steps))?;
    }
    Ok(())
}

/// Writes what was recorded of a build, and what its image holds, if that is asked for.
///
/// # Errors
/// When the page can't be written, or the image's layers can't be read.
pub(super) fn report(
    app: &App,
    path: Option<&Path>,
    recorder: Recorder<'_>,
    built: Result<&Image, &Failure>,
    tags: &[Reference],
) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let (steps, wall) = recorder.finish();
    let names: Vec<String> = tags.iter().map(Reference::familiar).collect();
    let report = Report {
        image: built.ok().map(|image| match names.is_empty() {
            true => image.id.to_string(),
            false => names.join(", "),
        }),
        error: built.err().map(|failure| failure.message().to_owned()),
        wall,
        steps,
        layers: built.map_or(Ok(Vec::new()), |image| layers(app, image))?,
    };
    metadata::write(path, &page(&report))
}

fn layers(app: &App, image: &Image) -> Result<Vec<Layer>, Failure> {
    let weights = box_store::weigh::weigh(&app.layers(image)?, LARGEST);
    let weights = weights.map_err(|e| Failure::of(EXIT_BOX, &e))?;
    // A history of another tool may be shorter, or none.
    let history = image.config.history.iter();
    let mut makers = history
        .filter(|entry| entry.empty_layer != Some(true))
        .map(|entry| entry.created_by.clone().unwrap_or_default());
    let layer = |weight| Layer {
        made_by: makers.next().unwrap_or_default(),
        weight,
    };
    Ok(weights.into_iter().map(layer).collect())
}
