//! What the user sees: results on standard output, progress and diagnostics on standard error. The only room that prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod explain;
pub(crate) mod human;
mod json;
mod plain;
mod quiet;
mod shell;
mod steps;
pub(crate) mod table;
mod transfer;
mod tty;

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};

use box_builder::progress::EventSink;

use crate::cli::ProgressMode;
use crate::error::Failure;

pub(crate) use explain::{add_verdict, verdict};
pub(crate) use transfer::{Transfer, Transfers};

/// How many lines of a failed step are shown with its failure, and how much of each.
const LAST_LINES: usize = 20;
const LONGEST_SHOWN: usize = 1000;

/// Shows a failure.
pub(crate) fn error(failure: &Failure) {
    eprintln!("{}", human::printable(&failure.to_string()));
}

/// One line for the user that is no result.
pub(crate) fn note(text: &str) {
    eprintln!("{}", human::printable(text));
}

/// A result on standard output. A reader that went away (`box images | head -1`) is no error.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::own(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// What a step printed, on standard output, with a newline at its end. Byte by byte, but for a terminal, which it can't drive.
pub(crate) fn output(from: &mut dyn Read, is_terminal: bool) -> Result<(), Failure> {
    let unreadable = |e: std::io::Error| Failure::own(format!("cannot read the log: {e}"));
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let piece = from.by_ref().take(steps::LONGEST_LINE as u64);
        if { piece }.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let is_end = line.ends_with(b"\n") || from.fill_buf().map_err(unreadable)?.is_empty();
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let shown = match is_terminal {
            true => out.write_all(steps::printable(text).as_bytes()),
            false => out.write_all(text),
        };
        let newline: &[u8] = if is_end { b"\n" } else { b"" };
        match shown.and_then(|()| out.write_all(newline)) {
            // The reader went away.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::own(format!("cannot write the log: {error}"))),
            Ok(()) => {}
        }
    }
}

/// The last lines of a step's output, as people may see them.
pub(crate) fn last_lines(output: &[u8]) -> Vec<String> {
    let text = output.strip_suffix(b"\n").unwrap_or(output);
    let lines: Vec<&[u8]> = match text.is_empty() {
        true => Vec::new(),
        false => text.split(|byte| *byte == b'\n').collect(),
    };
    let from = lines.len().saturating_sub(LAST_LINES);
    let shown = lines[from..].iter().map(|line| steps::printable(line));
    shown.map(|line| human::truncate(&line, LONGEST_SHOWN)).collect()
}

/// A JSON document on standard output.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    // serde_json leaves the controls beyond ASCII, which a terminal may obey, as they are; they occur in strings alone.
    result(&escaped(&format!("{value:#}\n")))
}

/// JSON whose strings hold no control character.
fn escaped(text: &str) -> String {
    let is_control = |c: char| ('\u{7f}'..='\u{9f}').contains(&c);
    let chars = text.chars().map(|c| match c {
        c if is_control(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    match text.contains(is_control) {
        true => chars.collect(),
        false => text.to_owned(),
    }
}

/// The mode that is meant: `auto` is a live display where standard error is a terminal.
pub(crate) fn resolve(mode: ProgressMode) -> ProgressMode {
    match mode {
        ProgressMode::Auto if std::io::stderr().is_terminal() => ProgressMode::Tty,
        // Without a terminal there is nothing to draw on.
        ProgressMode::Auto => ProgressMode::Plain,
        ProgressMode::Tty if !std::io::stderr().is_terminal() => ProgressMode::Plain,
        other => other,
    }
}

/// Shows the events of a build; where that is asked for, explanations as JSON whatever the rest is.
pub(crate) fn build_sink(mode: ProgressMode, explains_in_json: bool) -> Box<dyn EventSink> {
    let mode = resolve(mode);
    let sink: Box<dyn EventSink> = match mode {
        ProgressMode::Tty => Box::new(tty::Live::new()),
        ProgressMode::Json => Box::<json::Lines>::default(),
        ProgressMode::Quiet => Box::<quiet::Nothing>::default(),
        ProgressMode::Plain | ProgressMode::Auto => Box::<plain::Lines>::default(),
    };
    match explains_in_json && mode != ProgressMode::Json {
        true => Box::new(explain::AsJson::new(sink, mode == ProgressMode::Quiet)),
        false => sink,
    }
}

/// Tells a program that reads the progress how the build ended; people see the result itself.
pub(crate) fn build_finished(mode: ProgressMode, image: &str) {
    if mode == ProgressMode::Json {
        eprintln!(
            "{}",
            serde_json::json!({"event": "build_finished", "image": image})
        );
    }
}

/// The same for a build that failed.
pub(crate) fn build_failed(mode: ProgressMode, mut failure: Failure) -> Failure {
    if mode == ProgressMode::Json {
        eprintln!(
            "{}",
            serde_json::json!({
                "event": "build_failed", "code": failure.code, "text": failure.described(), "log": failure.log,
                "build": failure.build,
            })
        );
        failure.is_shown = true;
    }
    failure
}
