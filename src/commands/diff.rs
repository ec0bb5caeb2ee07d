//! `box diff`: how the root file systems of two images, or two layers, differ.

use std::os::unix::ffi::OsStrExt;

use box_store::compare::{Change, Difference, compare};
use box_store::{DiffId, Layer};
use serde_json::json;

use crate::app::App;
use crate::cli::{DiffArgs, Format};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Prints every difference, as it is found.
pub(super) fn run(app: &App, args: &DiffArgs) -> Result<u8, Failure> {
    let old = layers(app, &args.old)?;
    let (old, new) = match &args.new {
        Some(new) => (old, layers(app, new)?),
        None => match old.split_last() {
            Some((_, below)) => (below.to_vec(), old),
            None => (Vec::new(), Vec::new()),
        },
    };
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
