//! `box context ls`: what a build context holds, what is ignored and by which line, and its largest files.

use std::cmp::Reverse;

use box_builder::context::{Context, ContextEntry, ContextList, list};
use box_builder::exec::CancelToken;
use box_builder::files::EntryKind;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{ContextAction, ContextListArgs, Format, ProgressMode};
use crate::error::{EXIT_INPUT, Failure};
use crate::ui::{self, human, table};

use super::build_source::{self, Fetching, Place};

/// Lists a context.
pub(super) fn run(app: &App, action: &ContextAction) -> Result<u8, Failure> {
    let ContextAction::Ls(args) = action;
    let failed = |error| Failure::of(EXIT_INPUT, &error);
    let found = match Place::parse(args.source.context()?)? {
        // A directory needs no Boxfile to be looked at.
        Place::Directory(directory) => {
            let ignore = build_source::own_ignore(&args.source, &directory)?;
            let context = Context::open(&app.store, &directory, ignore).map_err(failed)?;
            list(&context).map_err(failed)?
        }
        _ => {
            let fetching = Fetching {
                app,
                mode: ProgressMode::Auto,
                cancel: &CancelToken::new(),
            };
            let source = build_source::gather(&fetching, &args.source)?;
            let context = Context::open(&app.store, &source.directory, source.ignore).map_err(failed)?;
            list(&context).map_err(failed)?
        }
    };
    if let Some(note) = &found.note {
        ui::note(note);
    }
    match args.format {
        Format::Json => ui::json(&as_json(&found, args.largest))?,
        Format::Table => ui::result(&as_text(&found, args))?,
    }
    Ok(0)
}

fn is_held(entry: &&ContextEntry) -> bool {
    entry.rule.is_none()
}

/// The largest files of those that are not ignored.
fn largest(found: &ContextList, count: usize) -> Vec<&ContextEntry> {
    let mut files: Vec<&ContextEntry> = found
        .entries
        .iter()
        .filter(is_held)
        .filter(|entry| entry.kind == EntryKind::File)
        .collect();
    files.sort_by_key(|entry| (Reverse(entry.size), &entry.path));
    files.truncate(count);
    files
}

/// Files and bytes of all that is ignored, or not.
fn totals(found: &ContextList, ignored: bool) -> (u64, u64) {
    let entries = found.entries.iter();
    let chosen = entries.filter(|entry| entry.rule.is_some() == ignored);
    chosen.fold((0, 0), |(files, bytes), entry| {
        (files + entry.files, bytes + entry.size)
    })
}

/// A path as it is shown: a directory ends in a slash.
fn path(entry: &ContextEntry) -> String {
    let slash = if entry.kind == EntryKind::Directory {
        "/"
    } else {
        ""
    };
    format!("{}{slash}", entry.path.display())
}

fn as_text(found: &ContextList, args: &ContextListArgs) -> String {
    let file = found.ignore_file.as_deref().unwrap_or_default();
    let row = |entry: &ContextEntry| {
        let by = entry
            .rule
            .as_ref()
            .map(|rule| format!("{file}:{}: {}", rule.line, rule.pattern));
        vec![human::bytes(entry.size), path(entry), by.unwrap_or_default()]
    };
    let rows: Vec<_> = found.entries.iter().map(row).collect();
    let mut text = table::render(&["SIZE", "PATH", "IGNORED BY"], &rows);
    let large: Vec<_> = largest(found, args.largest)
        .into_iter()
        .map(|entry| vec![human::bytes(entry.size), path(entry)])
        .collect();
    if !large.is_empty() {
        text.push('\n');
        text.push_str(&table::render(&["SIZE", "LARGEST"], &large));
    }
    let ((files, bytes), (out, out_bytes)) = (totals(found, false), totals(found, true));
    text.push_str(&format!(
        "\n{} of {} in the context, {} of {} ignored\n",
        count(files),
        human::bytes(bytes),
        count(out),
        human::bytes(out_bytes)
    ));
    text
}

fn count(files: u64) -> String {
    format!("{files} file{}", if files == 1 { "" } else { "s" })
}

fn as_json(found: &ContextList, count: usize) -> Value {
    let entry = |entry: &ContextEntry| {
        json!({
            "path": entry.path.to_string_lossy(),
            "kind": kind(entry.kind),
            "size": entry.size,
            "files": entry.files,
        })
    };
    let ignored = |ignored: &ContextEntry| {
        let mut object = entry(ignored);
        if let Some(rule) = &ignored.rule {
            object["line"] = rule.line.into();
            object["pattern"] = rule.pattern.as_str().into();
        }
        object
    };
    let (held, out): (Vec<_>, Vec<_>) = found.entries.iter().partition(is_held);
    let total = |(files, bytes): (u64, u64)| json!({"files": files, "size": bytes});
    json!({
        "ignore_file": found.ignore_file,
        "entries": held.into_iter().map(entry).collect::<Vec<_>>(),
        "ignored": out.into_iter().map(ignored).collect::<Vec<_>>(),
        "largest": largest(found, count).into_iter().map(entry).collect::<Vec<_>>(),
        "total": total(totals(found, false)),
        "total_ignored": total(totals(found, true)),
    })
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Directory => "directory",
        EntryKind::File => "file",
        EntryKind::Symlink => "link",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) => "device",
    }
}
