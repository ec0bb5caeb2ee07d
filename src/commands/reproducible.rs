//! `box build --check-reproducible`: the same once more, and what of it differs.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use box_builder::build::{BuildOutcome, BuiltLayer};
use box_builder::error::BuildError;
use box_builder::exec::Executor;
use box_builder::request::BuildRequest;
use box_store::Layer;
use box_store::compare::{Change, Difference, compare, first_difference};
use box_store::error::StoreError;

use crate::app::App;
use crate::cli::ProgressMode;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Files of a layer that are named, at most.
const NAMED: usize = 20;

/// The caches of the two builds, which are nobody else's.
pub(super) struct Caches<'a> {
    app: &'a App,
    name: String,
}

impl<'a> Caches<'a> {
    /// Makes a build one without cache, with empty cache mounts of its own.
    pub(super) fn new(app: &'a App, request: &mut BuildRequest) -> Caches<'a> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = now.map_or(0, |now| now.as_nanos());
        let name = format!("check-reproducible-{}-{nanos}", std::process::id());
        request.no_cache = true;
        request.cache_scope = Some(format!("{name}/1"));
        Caches { app, name }
    }
}

impl Drop for Caches<'_> {
    /// Nobody finds them again.
    fn drop(&mut self) {
        for cache in self.app.store.cache_mounts().unwrap_or_default() {
            if cache.id.starts_with(&self.name) {
                let _ = self.app.store.remove_cache_mount(&cache);
            }
        }
    }
}

/// Builds once more: later, and one step after another where the first build did several at once, or the other way round.
///
/// # Errors
/// The builds differ; what fails.
pub(super) fn check(
    caches: &Caches<'_>,
    executor: &dyn Executor,
    request: &BuildRequest,
    first: &BuildOutcome,
    mode: ProgressMode,
) -> Result<(), Failure> {
    let app = caches.app;
    ui::note("building once more, to compare");
    // What looks at the clock must see another second.
    std::thread::sleep(Duration::from_millis(1100));
    let again = BuildRequest {
        cache_scope: Some(format!("{}/2", caches.name)),
        explain: false,
        shell_on_error: false,
        jobs: match request.jobs {
            0 | 1 => 4,
            _ => 1,
        },
        ..request.clone()
    };
    let sink = ui::build_sink(mode, false);
    let second = box_builder::build::build(&app.store, executor, &again, sink.as_ref());
    drop(sink);
    let second = second.map_err(|error| match error {
        BuildError::Cancelled => super::build::failure(&error, 0),
        error => Failure::of(EXIT_INPUT, &error)
            .hint("the first build went well: it was the second one that failed"),
    })?;
    let differing = differing(first, &second).map_err(|error| Failure::of(EXIT_BOX, &error))?;
    if differing.is_empty() && first.image.id == second.image.id {
        let layers = first.layers.len();
        ui::note(&format!(
            "reproducible: built twice, and all is equal ({layers} layer(s) made)"
        ));
        return Ok(());
    }
    let mut report = format!(
        "not reproducible: {} step(s) gave different layers",
        differing.len()
    );
    for (layer, lines) in differing {
        report.push_str(&format!("\n{}", ui::human::printable(&layer.place.to_string())));
        lines
            .iter()
            .for_each(|line| report.push_str(&format!("\n    {line}")));
    }
    if first.layers.len() == second.layers.len() && report.lines().count() == 1 {
        report = "not reproducible: the layers are equal, the image's configuration is not".to_owned();
    }
    Err(Failure::input(report).hint("docs/reproducible.md has the usual causes and their cures; a step after the first one named may differ because of it"))
}

/// The layers that differ, with how, in the order of the plan.
fn differing<'a>(
    first: &'a BuildOutcome,
    second: &'a BuildOutcome,
) -> Result<Vec<(&'a BuiltLayer, Vec<String>)>, StoreError> {
    let mut left: Vec<&BuiltLayer> = second.layers.iter().collect();
    let mut found = Vec::new();
    let is_same_step = |a: &BuiltLayer, b: &BuiltLayer| a.stage == b.stage && a.place == b.place;
    for layer in &first.layers {
        let Some(at) = left.iter().position(|other| is_same_step(layer, other)) else {
            found.push((
                layer,
                vec!["it changed files in the first build alone".to_owned()],
            ));
            continue;
        };
        let other = left.remove(at);
        if layer.layer.diff_id()? != other.layer.diff_id()? {
            found.push((layer, lines(&layer.layer, &other.layer)?));
        }
    }
    let alone = |layer| {
        (
            layer,
            vec!["it changed files in the second build alone".to_owned()],
        )
    };
    found.extend(left.into_iter().map(alone));
    Ok(found)
}

/// What differs between two layers, a line a file.
fn lines(old: &Layer, new: &Layer) -> Result<Vec<String>, StoreError> {
    let (old, new) = (std::slice::from_ref(old), std::slice::from_ref(new));
    let mut lines = Vec::new();
    let mut more = 0_usize;
    compare::<StoreError>(old, new, true, &mut |difference| {
        match lines.len() < NAMED {
            true => lines.push(line(old, new, &difference)?),
            false => more += 1,
        }
        Ok(())
    })?;
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if lines.is_empty() {
        lines.push(
            "the files are equal: what it removed, or which files are hard links of each other, is not"
                .to_owned(),
        );
    }
    Ok(lines)
}

fn line(old: &[Layer], new: &[Layer], difference: &Difference) -> Result<String, StoreError> {
    let path = ui::human::printable(&shown(&difference.path));
    Ok(match difference.change {
        Change::Added => format!("{path}: made in the second build alone"),
        Change::Removed => format!("{path}: made in the first build alone"),
        Change::Modified => {
            let mut what = difference.what.join(", ");
            if difference.what.contains(&"content")
                && let Some(offset) = first_difference(old, new, &difference.path)?
            {
                what.push_str(&format!("; the first byte that differs is at {offset}"));
            }
            format!("{path}: {what}")
        }
    })
}

fn shown(path: &Path) -> String {
    let text = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    format!("/{}", text.replace('\n', "\u{fffd}"))
}
