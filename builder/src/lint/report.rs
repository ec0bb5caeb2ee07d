//! Collects findings, minding what `# check=` says.

use super::input::EXPERIMENTAL;
use crate::ast::{Check, Instruction};
use crate::diagnostic::Diagnostic;
use crate::parse::parse_check_comment;

/// The findings so far.
pub(super) struct Report<'a> {
    check: Option<&'a Check>,
    found: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(super) fn new(check: Option<&'a Check>) -> Self {
        Report {
            check,
            found: Vec::new(),
        }
    }

    /// Adds a finding about an instruction, unless it is to be skipped.
    pub(super) fn found(&mut self, diagnostic: Diagnostic, instruction: Option<&Instruction>) {
        let name = diagnostic.code.unwrap_or_default();
        let skipped = self.check.is_some_and(|c| names(&c.skip, name));
        let experimental = EXPERIMENTAL.contains(&name);
        let wanted = !experimental || self.check.is_some_and(|c| names(&c.experimental, name));
        if wanted && !skipped && !instruction.is_some_and(|i| skips(i, name)) {
            self.found.push(diagnostic);
        }
    }

    /// The findings in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| (d.span.file, d.span.offset));
        self.found
    }
}

fn names(list: &[String], name: &str) -> bool {
    list.iter().any(|n| n == "all" || n.eq_ignore_ascii_case(name))
}

/// Whether a `# check=skip=` comment right before an instruction names the lint.
fn skips(instruction: &Instruction, name: &str) -> bool {
    let checks = instruction.comments.iter().filter_map(|c| parse_check_comment(c));
    checks.into_iter().any(|c| names(&c.skip, name))
}
