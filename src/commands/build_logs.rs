//! `box build logs`: what builds printed, and what took how long.

use std::io::{IsTerminal, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::app::App;
use crate::build_log::{self, Build, How, LoggedStep};
use crate::cli::{BuildLogsArgs, Format};
use crate::error::{EXIT_INPUT, Failure};
use crate::ui::{self, human, table};

/// Lists logs, or prints one.
pub(super) fn run(app: &App, args: &BuildLogsArgs) -> Result<u8, Failure> {
    if args.list {
        return list(app, args.format);
    }
    let Some(build) = build_log::one(&app.store, args.build)? else {
        let failure = match args.build {
            Some(number) => Failure::new(EXIT_INPUT, format!("no log is kept of build {number}"))
                .hint("box build logs --list shows which are; the oldest go first"),
            None => Failure::new(EXIT_INPUT, "no log of a build is kept")
                .hint("one is kept of each build that does something, and not of one that finds everything in the cache"),
        };
        return Err(failure);
    };
    match args.format {
        Format::Table => print(app, &build)?,
        Format::Json => ui::json(&whole(app, &build)?)?,
    }
    Ok(0)
}

fn list(app: &App, format: Format) -> Result<u8, Failure> {
    let builds = build_log::all(&app.store)?;
    match format {
        Format::Json => ui::json(&builds.iter().rev().map(summary).collect())?,
        Format::Table => {
            let rows: Vec<_> = builds.iter().rev().map(row).collect();
            let headings = ["BUILD", "BEGAN", "TOOK", "STATUS", "STEPS DONE", "WHAT"];
            ui::result(&table::render(&headings, &rows))?;
        }
    }
    Ok(0)
}

fn row(build: &Build) -> Vec<String> {
    let done = build.steps.values().filter(|step| step.how == Some(How::Done));
    vec![
        build.number.to_string(),
        ago(build),
        human::duration(Duration::from_millis(build.took)),
        build.status().to_owned(),
        format!("{} of {}", done.count(), build.steps.len()),
        what(build),
    ]
}

fn ago(build: &Build) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    human::ago(i64::try_from(now.saturating_sub(build.started / 1000)).unwrap_or(i64::MAX))
}

fn what(build: &Build) -> String {
    let subject = &build.subject;
    let mut words = vec![subject.boxfile.clone(), format!("in {}", subject.context)];
    words.extend(subject.target.iter().map(|target| format!("--target {target}")));
    words.extend(subject.tags.iter().map(|tag| format!("-t {tag}")));
    words.join(" ")
}

/// The output of each step below its line, in the order of the Boxfile.
fn print(app: &App, build: &Build) -> Result<(), Failure> {
    let took = human::duration(Duration::from_millis(build.took));
    let head = format!(
        "build {}: {} after {took}, {}: {}",
        build.number,
        build.status(),
        ago(build),
        what(build)
    );
    ui::result(&format!("{}\n", human::one_line(&head)))?;
    for said in &build.said {
        ui::result(&format!("{}\n", human::printable(said)))?;
    }
    let is_terminal = std::io::stdout().is_terminal();
    for (id, step) in &build.steps {
        let line = format!("{} {}: {}", step.label(), step.text, ended(step));
        ui::result(&format!("{}\n", human::one_line(&line)))?;
        let Some(mut output) = build.output(&app.store, *id)? else {
            continue;
        };
        ui::output(&mut output, is_terminal)?;
    }
    if let Some(error) = &build.error {
        ui::result(&format!("error: {}\n", human::printable(error)))?;
    }
    Ok(())
}

fn ended(step: &LoggedStep) -> String {
    let figures = &step.figures;
    let time = |name: &str, ms: Option<u64>| {
        ms.map(|ms| format!("{name}{}", human::duration(Duration::from_millis(ms))))
    };
    let size = |name: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{name}{}", human::bytes(bytes)));
    let how = step.how.map_or("not ended", How::as_str).to_owned();
    let parts = [
        Some(how),
        time("", figures.wall),
        time("cpu ", figures.cpu),
        size("peak ", figures.peak_memory),
        size("read ", figures.io_read.filter(|bytes| *bytes > 0)),
        size("written ", figures.io_written.filter(|bytes| *bytes > 0)),
        size("layer ", figures.layer_size),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn summary(build: &Build) -> Value {
    json!({
        "build": build.number,
        "status": build.status(),
        "started": build.started / 1000,
        "took_ms": build.took,
        "boxfile": build.subject.boxfile,
        "context": build.subject.context,
        "target": build.subject.target,
        "tags": build.subject.tags,
        "image": build.image,
        "error": build.error,
        "said": build.said,
    })
}

/// A log as one document; what is not text in an output is replaced.
fn whole(app: &App, build: &Build) -> Result<Value, Failure> {
    let mut steps = Vec::with_capacity(build.steps.len());
    for (id, step) in &build.steps {
        let mut output = Vec::new();
        if let Some(mut file) = build.output(&app.store, *id)? {
            file.read_to_end(&mut output)
                .map_err(|e| Failure::own(format!("cannot read the log of build {}: {e}", build.number)))?;
        }
        let figures = &step.figures;
        steps.push(json!({
            "id": id,
            "stage": step.stage,
            "stage_name": step.name,
            "index": step.index,
            "total": step.total,
            "step": step.text,
            "line": step.line,
            "at_ms": step.at,
            "how": step.how,
            "wall_ms": figures.wall,
            "cpu_ms": figures.cpu,
            "peak_memory": figures.peak_memory,
            "io_read": figures.io_read,
            "io_written": figures.io_written,
            "layer_size": figures.layer_size,
            "layer_entries": figures.layer_entries,
            "output": String::from_utf8_lossy(&output),
        }));
    }
    let mut value = summary(build);
    value["steps"] = Value::Array(steps);
    Ok(value)
}
