//! `box diff`: how the root file systems of two images, or two layers, differ, and what one step of an image changed.

use std::os::unix::ffi::OsStrExt;

use box_store::compare::{Change, Difference, compare};
use box_store::{DiffId, History, Layer};
use serde_json::json;

use crate::app::App;
use crate::cli::{DiffArgs, Format};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Prints every difference, as it is found.
pub(super) fn run(app: &App, args: &DiffArgs) -> Result<u8, Failure> {
    let (old, new) = sides(app, args)?;
    let mut found = Vec::new();
    let mut tell = |difference: Difference| match args.format {
        Format::Json => {
            found.push(as_json(&difference));
            Ok(())
        }
        Format::Table => ui::result(&format!("{}\n", ui::human::printable(&line(&difference)))),
    };
    compare::<Failure>(&old, &new, args.times, &mut tell)?;
    if args.format == Format::Json {
        ui::json(&serde_json::Value::Array(found))?;
    }
    Ok(0)
}

/// The layers that are compared.
fn sides(app: &App, args: &DiffArgs) -> Result<(Vec<Layer>, Vec<Layer>), Failure> {
    if let Some(number) = args.step {
        return step(app, &args.old, number);
    }
    let old = layers(app, &args.old)?;
    Ok(match &args.new {
        Some(new) => (old, layers(app, new)?),
        None => match old.split_last() {
            Some((_, below)) => (below.to_vec(), old),
            None => (Vec::new(), Vec::new()),
        },
    })
}

/// Those below a step of an image, and with the step's own.
fn step(app: &App, name: &str, number: usize) -> Result<(Vec<Layer>, Vec<Layer>), Failure> {
    let image = app.image(name, EXIT_INPUT)?;
    let history = &image.config.history;
    let has_layer = |entry: &&History| entry.empty_layer != Some(true);
    // A history may be anybody's, or missing.
    if history.iter().filter(has_layer).count() != image.config.rootfs.diff_ids.len() {
        let problem = format!("the history of {name} does not say which layer is which step's");
        return Err(Failure::new(EXIT_INPUT, problem)
            .hint("`box inspect` lists its layers, which box diff takes by their digests"));
    }
    let index = number.checked_sub(1).filter(|index| *index < history.len());
    let Some(index) = index else {
        let count = history.len();
        return Err(Failure::new(
            EXIT_INPUT,
            format!("{name} has no step {number}: it has {count}, counted from 1"),
        )
        .hint(format!("`box history {name}` lists them")));
    };
    let below = history[..index].iter().filter(has_layer).count();
    let upto = history[..=index].iter().filter(has_layer).count();
    if upto == below {
        let by = history[index].created_by.as_deref().unwrap_or_default();
        ui::note(&format!(
            "step {number} has no layer, and changed no file: {}",
            ui::human::one_line(by)
        ));
        return Ok((Vec::new(), Vec::new()));
    }
    let layers = app.layers(&image)?;
    Ok((layers[..below].to_vec(), layers[..upto].to_vec()))
}

/// Those of an image, or one by its digest.
fn layers(app: &App, text: &str) -> Result<Vec<Layer>, Failure> {
    let failed = |e| Failure::of(EXIT_BOX, &e);
    if let Ok(digest) = text.parse()
        && let Some(layer) = app.store.layer(&DiffId(digest)).map_err(failed)?
    {
        return Ok(vec![layer]);
    }
    app.layers(&app.image(text, EXIT_INPUT)?)
}

fn path(difference: &Difference) -> String {
    format!(
        "/{}",
        String::from_utf8_lossy(difference.path.as_os_str().as_bytes())
    )
}

/// Docker's letters, then the path, then what of it was modified.
fn line(difference: &Difference) -> String {
    let letter = match difference.change {
        Change::Added => "A",
        Change::Modified => "C",
        Change::Removed => "D",
    };
    let path = path(difference).replace('\n', "\u{fffd}");
    match difference.what.as_slice() {
        [] => format!("{letter} {path}"),
        what => format!("{letter} {path} ({})", what.join(", ")),
    }
}

fn as_json(difference: &Difference) -> serde_json::Value {
    let change = match difference.change {
        Change::Added => "added",
        Change::Modified => "modified",
        Change::Removed => "removed",
    };
    json!({"path": path(difference), "change": change, "what": difference.what})
}
