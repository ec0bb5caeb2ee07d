//! `box history`: the steps that made an image, newest first, numbered from the oldest.

use box_store::{History, Image};
use serde_json::json;

use crate::app::App;
use crate::cli::{Format, HistoryArgs};
use crate::error::{EXIT_INPUT, Failure};
use crate::ui::{self, human, table};

/// Lists the steps, with the size of each one's layer.
pub(super) fn run(app: &App, args: &HistoryArgs) -> Result<u8, Failure> {
    let image = app.image(&args.image, EXIT_INPUT)?;
    let steps = steps(app, &image)?;
    match args.format {
        Format::Json => ui::json(&steps.iter().map(|step| step.json()).collect())?,
        Format::Table => {
            let cells: Vec<_> = steps.iter().map(|step| step.cells(args.no_trunc)).collect();
            ui::result(&table::render(&["STEP", "CREATED", "CREATED BY", "SIZE"], &cells))?;
        }
    }
    Ok(0)
}

struct Step<'a> {
    /// Counted from the oldest, which is 1.
    number: usize,
    entry: &'a History,
    layer: Option<String>,
    size: u64,
}

fn is_with_layer(entry: &History) -> bool {
    entry.empty_layer != Some(true)
}

fn steps<'a>(app: &App, image: &'a Image) -> Result<Vec<Step<'a>>, Failure> {
    let mut layers = app.layer_sizes(image)?;
    let has_layer = |entry: &&History| is_with_layer(entry);
    // A history may be anybody's, or missing: then nobody knows whose layer is whose.
    if image.config.history.iter().filter(has_layer).count() != layers.len() {
        layers.clear();
    }
    let mut layers = layers.into_iter();
    let mut steps: Vec<Step<'a>> = Vec::new();
    for (number, entry) in (1..).zip(&image.config.history) {
        let layer = if is_with_layer(entry) { layers.next() } else { None };
        let (id, size) = layer.map_or((None, 0), |(id, size)| (Some(id), size));
        steps.push(Step {
            number,
            entry,
            layer: id,
            size,
        });
    }
    steps.reverse();
    Ok(steps)
}

impl Step<'_> {
    fn cells(&self, whole: bool) -> Vec<String> {
        let by = human::one_line(self.entry.created_by.as_deref().unwrap_or_default());
        let by = if whole { by } else { human::truncate(&by, 60) };
        vec![
            self.number.to_string(),
            self.entry.created.clone().unwrap_or_default(),
            by,
            human::bytes(self.size),
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "step": self.number,
            "created": self.entry.created,
            "created_by": self.entry.created_by,
            "comment": self.entry.comment,
            "layer": self.layer,
            "size": self.size,
        })
    }
}
