//! What is known of the steps of a build while it goes on: their labels, and what is left of an unfinished output line.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use box_builder::exec::{Stream, Usage};
use box_builder::progress::StepId;

use super::human;

/// The steps that have begun.
#[derive(Debug, Default)]
pub(crate) struct Steps(BTreeMap<StepId, Step>);

#[derive(Debug, Default)]
struct Step {
    label: String,
    text: String,
    unfinished: [Vec<u8>; 2],
    /// The last lines of its output.
    last: VecDeque<String>,
}

/// A line without an end is shown when it gets this long.
pub(super) const LONGEST_LINE: usize = 64 * 1024;

impl Steps {
    /// Notes a step that begins; returns its label (`[build 2/7]`).
    pub(crate) fn begin(
        &mut self,
        id: StepId,
        stage: usize,
        name: Option<&str>,
        place: (usize, usize),
        text: &str,
    ) -> String {
        let stage = name.map_or_else(|| format!("stage-{stage}"), human::one_line);
        let label = format!("[{stage} {}/{}]", place.0, place.1);
        let step = Step {
            label: label.clone(),
            text: human::one_line(text),
            ..Step::default()
        };
        self.0.insert(id, step);
        label
    }

    /// The step's label; empty for one that never began.
    pub(crate) fn label(&self, id: StepId) -> &str {
        self.0.get(&id).map_or("", |step| &step.label)
    }

    /// The step's instruction on one line.
    pub(crate) fn text(&self, id: StepId) -> &str {
        self.0.get(&id).map_or("", |step| &step.text)
    }

    /// Takes a piece of output; returns the lines that it completes.
    pub(crate) fn output(&mut self, id: StepId, stream: Stream, bytes: &[u8]) -> Vec<String> {
        let Some(step) = self.0.get_mut(&id) else {
            return Vec::new();
        };
        let buffer = &mut step.unfinished[usize::from(stream == Stream::Stderr)];
        buffer.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            lines.push(printable(&line[..end]));
        }
        if buffer.len() > LONGEST_LINE {
            lines.push(printable(&std::mem::take(buffer)));
        }
        let few = lines.len().saturating_sub(super::LAST_LINES);
        step.last.extend(lines[few..].iter().cloned());
        let old = step.last.len().saturating_sub(super::LAST_LINES);
        step.last.drain(..old);
        lines
    }

    /// The last lines that the step printed.
    pub(super) fn last(&mut self, id: StepId) -> Vec<String> {
        let rest = self.rest(id);
        let last = self.0.get(&id).map(|step| step.last.iter().cloned());
        last.into_iter().flatten().chain(rest).collect()
    }

    /// What the step printed without ending the line.
    pub(crate) fn rest(&mut self, id: StepId) -> Vec<String> {
        let Some(step) = self.0.get_mut(&id) else {
            return Vec::new();
        };
        let rest = step.unfinished.iter_mut().map(std::mem::take);
        rest.filter(|bytes| !bytes.is_empty())
            .map(|bytes| printable(&bytes))
            .collect()
    }
}

/// Text whose control characters can't drive the terminal; of a line rewritten by carriage returns, what stood last.
pub(super) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or_default();
    strip_escapes(text)
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '·' } else { c })
        .collect()
}

/// Leaves out colours and cursor movements (`ESC [ … letter`), which a build's log has no use for.
fn strip_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' && chars.peek() == Some(&'[') {
            chars.next();
            while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
        } else {
            out.push(c);
        }
    }
    out
}

/// `3.1ms, cpu 2.0ms, peak 1.2MB, layer 20B`.
pub(crate) fn figures(wall: Duration, usage: Option<&Usage>, layer: Option<u64>) -> String {
    let mut parts = vec![human::duration(wall)];
    if let Some(usage) = usage {
        parts.extend(cpu(usage).map(|cpu| format!("cpu {}", human::duration(cpu))));
        parts.extend(
            usage
                .peak_memory
                .map(|peak| format!("peak {}", human::bytes(peak))),
        );
    }
    parts.extend(layer.map(|size| format!("layer {}", human::bytes(size))));
    parts.join(", ")
}

/// CPU time in user space and kernel together.
pub(crate) fn cpu(usage: &Usage) -> Option<Duration> {
    match (usage.cpu_user, usage.cpu_system) {
        (None, None) => None,
        (user, system) => Some(user.unwrap_or_default() + system.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines() {
        let mut steps = Steps::default();
        let id = StepId(0);
        assert_eq!(steps.begin(id, 0, Some("build"), (2, 7), "RUN  x"), "[build 2/7]");
        assert_eq!(steps.output(id, Stream::Stdout, b"one\ntw"), ["one"]);
        assert_eq!(steps.output(id, Stream::Stderr, b"error\n"), ["error"]);
        assert_eq!(steps.output(id, Stream::Stdout, b"o\nrest"), ["two"]);
        assert_eq!(steps.rest(id), ["rest"]);
        assert!(steps.rest(id).is_empty());
    }

    #[test]
    fn a_step_cannot_drive_the_terminal() {
        let check = |line: &[u8], expect: &str| assert_eq!(printable(line), expect);
        check(b"\x1b[31mred\x1b[0m", "red");
        check(b"10%\r50%\r100%", "100%");
        check(b"a\x07\x1b]0;title", "a··]0;title");
        check(b"\xff\tb", "\u{fffd}\tb");
    }
}
