//! `box build --report`: the page about a build.

use std::path::Path;

use box_store::{Image, Reference};

use super::metadata;
use crate::app::App;
use crate::error::{EXIT_BOX, Failure};
use crate::report::{Layer, Recorder, Report, page};

/// How many files of each layer are named.
const LARGEST: usize = 8;

/// Writes what was recorded of a build, and what its image holds.
///
/// # Errors
/// When the page can't be written, or the image's layers can't be read.
pub(super) fn report(
    app: &App,
    path: &Path,
    recorder: Recorder<'_>,
    built: Result<&Image, &Failure>,
    tags: &[Reference],
) -> Result<(), Failure> {
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
