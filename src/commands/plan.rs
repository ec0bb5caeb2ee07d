//! `box plan`: which steps of a build are in the cache, and why others are not.

use std::path::Path;

use box_builder::build::{Foreseen, forecast};
use box_builder::exec::CancelToken;
use box_builder::explain::Verdict;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{BuildArgs, Format, PlanArgs};
use crate::error::Failure;
use crate::ui::{self, human, table};

use super::build;
use super::build_source::{self, Fetching, Place};

/// Foresees a build; builds, fetches and writes nothing.
pub(super) fn run(app: &App, args: &PlanArgs) -> Result<u8, Failure> {
    let build = &args.build;
    if build.front.asked().is_some() {
        return Err(
            Failure::own("--check and --call ask something else of a Boxfile than a plan")
                .hint("`box build --check` checks it"),
        );
    }
    super::shell::refuse(&build.shell)?;
    refuse_remote(build)?;
    let cancel = CancelToken::new();
    let fetching = Fetching {
        app,
        mode: build.progress,
        cancel: &cancel,
        is_offline: true,
    };
    let mut source = build_source::gather(&fetching, &build.source)?;
    let request = build::request(app, build, &mut source, &cancel)?;
    let steps = forecast(&app.store, &request).map_err(|error| build::failure(&error, 0))?;
    match args.format {
        Format::Json => ui::json(&steps.iter().map(as_json).collect())?,
        Format::Table => ui::result(&as_text(&steps))?,
    }
    Ok(0)
}

/// A plan is made of what is here: what is elsewhere would have to be fetched for it.
fn refuse_remote(args: &BuildArgs) -> Result<(), Failure> {
    let refuse = |what: &str| {
        Err(
            Failure::own(format!("box plan fetches nothing, and {what} is not a directory"))
                .hint("give a directory, or build it with `box build --explain`"),
        )
    };
    if !args.front.travel.caches_from.is_empty() {
        return Err(
            Failure::own("box plan fetches nothing, and looks into no cache elsewhere")
                .hint("leave --cache-from out, or build it with `box build --explain`"),
        );
    }
    if !matches!(Place::parse(args.source.context()?)?, Place::Directory(_)) {
        return refuse("the build context");
    }
    for context in &args.front.build_contexts {
        let is_image = ["docker-image://", "container-image://", "docker://"]
            .iter()
            .any(|prefix| context.place.starts_with(prefix));
        let is_far = matches!(
            Place::parse(Path::new(&context.place)),
            Ok(Place::Url(_) | Place::Git(_))
        );
        if is_far && !is_image && !Path::new(&context.place).is_dir() {
            return refuse(&format!("the build context {}", context.name));
        }
    }
    Ok(())
}

fn as_text(steps: &[Foreseen]) -> String {
    let row = |step: &Foreseen| {
        let stage = step
            .stage_name
            .clone()
            .unwrap_or_else(|| format!("stage-{}", step.stage));
        let label = format!("[{stage} {}/{}]", step.index, step.total);
        let text = human::truncate(&human::one_line(&step.place.text), 60);
        vec![label, text, ui::verdict(&step.verdict)]
    };
    let rows: Vec<_> = steps.iter().map(row).collect();
    let count = |is: fn(&Verdict) -> bool| steps.iter().filter(|step| is(&step.verdict)).count();
    let (hits, misses) = (
        count(|verdict| *verdict == Verdict::Hit),
        count(|verdict| matches!(verdict, Verdict::Miss { .. })),
    );
    let open = count(|verdict| matches!(verdict, Verdict::Depends { .. }));
    let mut text = table::render(&["STEP", "INSTRUCTION", "CACHE"], &rows);
    text.push_str(&format!("{hits} in the cache, {misses} to be done"));
    if open > 0 {
        text.push_str(&format!(", {open} known only when what they depend on is done"));
    }
    text.push('\n');
    text
}

fn as_json(step: &Foreseen) -> Value {
    let mut object = json!({
        "stage": step.stage,
        "stage_name": step.stage_name,
        "index": step.index,
        "total": step.total,
        "step": step.place.text,
        "line": step.place.span.line,
        "text": step.verdict.to_string(),
    });
    ui::add_verdict(&mut object, &step.verdict);
    object
}
