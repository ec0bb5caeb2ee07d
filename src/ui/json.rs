//! Progress as JSON, one object a line: `event` says what happened; times are in milliseconds, sizes in bytes.

use std::sync::{Mutex, PoisonError};

use box_builder::exec::Usage;
use box_builder::progress::{Event, EventSink, Occasion};
use serde_json::{Value, json};

use super::shell::Held;
use super::steps;

/// Prints each event as an object on standard error.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Held>);

impl EventSink for Lines {
    fn event(&self, event: Event<'_>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = match event {
            Event::ShellClosed { .. } => held.release(),
            _ => Vec::new(),
        };
        for line in waited
            .into_iter()
            .chain(object(&event).map(|value| value.to_string()))
        {
            if let Some(line) = held.pass(&line) {
                eprintln!("{line}");
            }
        }
        if let Event::ShellOpened { .. } = event {
            held.hold();
        }
    }
}

fn object(event: &Event<'_>) -> Option<Value> {
    Some(match event {
        Event::Planned { stages, steps } => json!({"event": "planned", "stages": stages, "steps": steps}),
        Event::StageStarted { stage, name } => {
            json!({"event": "stage_started", "stage": stage, "name": name})
        }
        Event::StepStarted {
            id,
            stage,
            stage_name,
            index,
            total,
            text,
            line,
        } => json!({
            "event": "step_started", "id": id.0, "stage": stage, "stage_name": stage_name,
            "index": index, "total": total, "step": text, "line": line,
        }),
        Event::StepAhead {
            id,
            stage,
            stage_name,
            index,
            total,
            text,
        } => json!({
            "event": "step_ahead", "id": id.0, "stage": stage, "stage_name": stage_name,
            "index": index, "total": total, "step": text,
        }),
        Event::StepWaiting { id, what } => {
            json!({"event": "step_waiting", "id": id.0, "for": what.map(|what| what.to_string())})
        }
        Event::StepOutput { id, stream, bytes } => json!({
            "event": "step_output", "id": id.0, "stream": format!("{stream:?}").to_lowercase(),
            "text": String::from_utf8_lossy(bytes),
        }),
        Event::StepExplained { id, verdict } => {
            let mut object = json!({"event": "step_explained", "id": id.0, "text": verdict.to_string()});
            super::add_verdict(&mut object, verdict);
            object
        }
        Event::StepCached { id, config_only } => {
            json!({"event": "step_cached", "id": id.0, "config_only": config_only})
        }
        Event::StepFinished {
            id,
            wall,
            usage,
            layer_size,
            layer_entries,
        } => {
            let own = json!({
                "event": "step_finished", "id": id.0, "wall_ms": wall.as_millis(),
                "layer_size": layer_size, "layer_entries": layer_entries,
            });
            with_usage(own, usage.as_ref())
        }
        Event::StepFailed { id, wall, usage } => with_usage(
            json!({"event": "step_failed", "id": id.0, "wall_ms": wall.as_millis()}),
            usage.as_ref(),
        ),
        Event::StepCancelled { id, wall } => {
            json!({"event": "step_cancelled", "id": id.0, "wall_ms": wall.as_millis()})
        }
        Event::ShellOpened { .. } | Event::ShellClosed { .. } => return shell(event),
        Event::FetchStarted { id, what, total } => {
            json!({"event": "fetch_started", "id": id.0, "what": what, "total": total})
        }
        Event::FetchProgress { id, bytes } => json!({"event": "fetch_progress", "id": id.0, "bytes": bytes}),
        Event::FetchDone { id } => json!({"event": "fetch_done", "id": id.0}),
        Event::Warning(diagnostic, sources) => {
            json!({"event": "warning", "text": diagnostic.render(sources)})
        }
        Event::Note(text) => json!({"event": "note", "text": text}),
        _ => return None,
    })
}

/// Of a shell in the build.
fn shell(event: &Event<'_>) -> Option<Value> {
    Some(match *event {
        Event::ShellOpened {
            id,
            stage,
            stage_name,
            index,
            total,
            text,
            occasion,
            command,
        } => json!({
            "event": "shell_opened", "id": id.0, "stage": stage, "stage_name": stage_name,
            "index": index, "total": total, "step": text, "command": command,
            "occasion": match occasion {
                Occasion::Failed(_) => "failed",
                Occasion::Before => "before",
                Occasion::After => "after",
            },
            "error": match occasion {
                Occasion::Failed(why) => Some(why),
                Occasion::Before | Occasion::After => None,
            },
        }),
        Event::ShellClosed { id } => json!({"event": "shell_closed", "id": id.0}),
        _ => return None,
    })
}

fn with_usage(mut object: Value, usage: Option<&Usage>) -> Value {
    if let (Some(map), Some(usage)) = (object.as_object_mut(), usage) {
        map.insert(
            "cpu_ms".into(),
            json!(steps::cpu(usage).map(|cpu| cpu.as_millis() as u64)),
        );
        map.insert("peak_memory".into(), json!(usage.peak_memory));
        map.insert("io_read".into(), json!(usage.io_read));
        map.insert("io_written".into(), json!(usage.io_written));
    }
    object
}
