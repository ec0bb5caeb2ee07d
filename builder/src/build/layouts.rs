//! Images of OCI layouts, brought into the store before the stages are lowered: their configs are needed then.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use box_store::Store;
use box_store::image::Image;
use box_store::transfer::archive::{ArchiveError, LoadOptions, Platform, load_from_layout};

use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::error::BuildError;
use crate::graph::{Base, StageGraph};
use crate::lower::Loaded;
use crate::request::{self, BuildRequest, NamedContext};

/// Loads the images of the layouts among the named contexts.
///
/// # Errors
/// When one has no such image, or can't be read.
pub(super) fn load_contexts(
    store: &Store,
    request: &BuildRequest,
    loaded: &mut Loaded,
) -> Result<(), BuildError> {
    for (name, named) in &request.contexts {
        if let NamedContext::Layout { directory, reference } = named {
            let image = image(store, directory, reference.as_deref(), &request.platform);
            let image = image.map_err(|source| BuildError::Layout {
                directory: directory.clone(),
                source: Box::new(source),
            })?;
            loaded.contexts.insert(name.clone(), image);
        }
    }
    Ok(())
}

/// Loads the images of the layouts that FROMs name and that are not loaded yet.
///
/// # Errors
/// What is wrong with a layout, said of the FROM that names it.
pub(super) fn load_stages(
    store: &Store,
    request: &BuildRequest,
    context: &Context<'_>,
    graph: &StageGraph,
    loaded: &mut Loaded,
) -> Result<(), BuildError> {
    for stage in &graph.stages {
        let Base::OciLayout { directory, reference } = &stage.base else {
            continue;
        };
        if loaded.stages.contains_key(&stage.id) {
            continue;
        }
        let wrong = |message: String| BuildError::Boxfile {
            diagnostics: vec![
                Diagnostic::error(directory.span, message)
                    .expected("oci:DIR[:NAME], an OCI layout directory in the build context"),
            ],
            sources: graph.sources.clone(),
        };
        let opened = context.open_directory(Path::new(&directory.value))?;
        let opened = opened.ok_or_else(|| {
            wrong(format!(
                "there is no directory {} in the build context",
                directory.value
            ))
        })?;
        // By its descriptor, whatever becomes of its name.
        let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let asked = stage
            .platform
            .as_ref()
            .and_then(|platform| platform.value.parse().ok());
        let platform = asked.unwrap_or_else(|| request.platform.clone());
        let image = image(store, &path, reference.as_deref(), &platform);
        let image = image.map_err(|error| wrong(format!("cannot load {}: {error}", directory.value)))?;
        loaded.stages.insert(stage.id, image);
    }
    Ok(())
}

fn image(
    store: &Store,
    directory: &Path,
    reference: Option<&str>,
    platform: &request::Platform,
) -> Result<Image, ArchiveError> {
    let options = LoadOptions {
        platform: Platform {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
        },
        ..LoadOptions::default()
    };
    Ok(load_from_layout(store, directory, reference, &options)?.image)
}
