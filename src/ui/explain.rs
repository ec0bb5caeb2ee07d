//! Why a step is done again, as it is shown.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use box_builder::explain::{Cause, Verdict, since};
use box_builder::progress::{Event, EventSink, StepId};
use serde_json::{Value, json};

use super::{escaped, human};

/// A verdict on one line; with the age of the run that it was compared with.
pub(crate) fn verdict(verdict: &Verdict) -> String {
    let text = human::one_line(&verdict.to_string());
    let Verdict::Miss {
        why: Cause::Differs { since: made, .. },
    } = verdict
    else {
        return text;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let age = u64::try_from(now.saturating_sub(*made)).unwrap_or(0);
    format!("{text} (nearest run: {} ago)", since(age))
}

/// Adds a verdict's own words to an object.
pub(crate) fn add_verdict(object: &mut Value, verdict: &Verdict) {
    // It consists of strings, numbers and lists of such.
    let told = serde_json::to_value(verdict).unwrap_or_default();
    if let (Some(object), Value::Object(told)) = (object.as_object_mut(), told) {
        object.extend(told);
    }
}

/// Prints explanations as JSON, one object a line; all else is shown by another.
pub(super) struct AsJson {
    inner: Box<dyn EventSink>,
    /// Whether the other shows no notes.
    is_quiet: bool,
    places: Mutex<BTreeMap<StepId, Value>>,
}

impl AsJson {
    /// Beside this display.
    pub(super) fn new(inner: Box<dyn EventSink>, is_quiet: bool) -> Self {
        Self {
            inner,
            is_quiet,
            places: Mutex::default(),
        }
    }
}

impl EventSink for AsJson {
    fn event(&self, event: Event<'_>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted {
                id,
                stage,
                stage_name,
                index,
                total,
                text,
                line,
            } => {
                let place = json!({
                    "event": "step_explained", "id": id.0, "stage": stage, "stage_name": stage_name,
                    "index": index, "total": total, "step": text, "line": line,
                });
                places.insert(id, place);
            }
            Event::StepExplained { id, verdict } => {
                let mut object = places.remove(&id).unwrap_or_else(|| json!({"id": id.0}));
                drop(places);
                object["text"] = verdict.to_string().into();
                add_verdict(&mut object, verdict);
                let line = escaped(&object.to_string());
                match self.is_quiet {
                    true => eprintln!("{line}"),
                    false => self.inner.event(Event::Note(&line)),
                }
                return;
            }
            _ => {}
        }
        drop(places);
        self.inner.event(event);
    }
}
