//! `box build --metadata-file`: what was built, in the words of Docker's builder, and what each step cost.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use box_builder::exec::Usage;
use box_builder::progress::{Event, EventSink, StepId};
use box_store::Reference;
use box_store::digest::ImageId;
use serde_json::{Value, json};

use crate::error::Failure;
use crate::user_files;

/// Notes what the steps of a build cost, and passes all events on.
pub(super) struct StepFigures<'a> {
    inner: &'a dyn EventSink,
    steps: Mutex<BTreeMap<StepId, Value>>,
}

impl<'a> StepFigures<'a> {
    /// Before this sink.
    pub(super) fn new(inner: &'a dyn EventSink) -> StepFigures<'a> {
        StepFigures {
            inner,
            steps: Mutex::default(),
        }
    }

    fn steps(&self) -> MutexGuard<'_, BTreeMap<StepId, Value>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: StepId, figures: &Value) {
        let mut steps = self.steps();
        let Some(step) = steps.get_mut(&id).and_then(Value::as_object_mut) else {
            return;
        };
        let there = figures.as_object().into_iter().flatten();
        step.extend(
            there
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }

    /// What each step cost, in their order.
    pub(super) fn finish(self) -> Vec<Value> {
        let steps = self.steps.into_inner().unwrap_or_else(PoisonError::into_inner);
        steps.into_values().collect()
    }
}

/// What is told of an image that was built.
pub(super) fn document(id: &ImageId, tags: &[Reference], steps: Vec<Value>) -> String {
    let mut metadata = json!({
        // An image of the store is known by its config, as with Docker's own store; its manifest is made when it is pushed or saved.
        "containerimage.config.digest": id.to_string(),
        "containerimage.digest": id.to_string(),
        "box.steps": steps,
    });
    if !tags.is_empty() {
        let names: Vec<String> = tags.iter().map(box_store::Reference::full).collect();
        metadata["image.name"] = names.join(",").into();
    }
    format!("{metadata:#}\n")
}

/// Writes a file for the user.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    user_files::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Failure::own(format!("cannot write {}: {e}", path.display())))
}

impl EventSink for StepFigures<'_> {
    fn event(&self, event: Event<'_>) {
        match &event {
            Event::StepStarted {
                id,
                stage,
                stage_name,
                index,
                text,
                line,
                ..
            } => {
                let step = json!({
                    "stage": stage, "stage_name": stage_name, "index": index, "step": text, "line": line,
                });
                self.steps().insert(*id, step);
            }
            Event::StepCached { id, config_only } => {
                self.add(*id, &json!({"cached": true, "config_only": config_only}));
            }
            Event::StepFinished {
                id,
                wall,
                usage,
                layer_size,
                layer_entries,
            } => {
                let own = json!({
                    "cached": false, "config_only": false, "wall_ms": wall.as_millis(),
                    "layer_size": layer_size, "layer_entries": layer_entries,
                });
                self.add(*id, &own);
                self.add(*id, &usage.as_ref().map_or(Value::Null, used));
            }
            _ => {}
        }
        self.inner.event(event);
    }
}

fn used(usage: &Usage) -> Value {
    let ms = |time: Option<std::time::Duration>| {
        time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    };
    json!({
        "cpu_user_ms": ms(usage.cpu_user),
        "cpu_system_ms": ms(usage.cpu_system),
        "peak_memory": usage.peak_memory,
        "io_read": usage.io_read,
        "io_written": usage.io_written,
    })
}
