//! What the lints look at.

use std::collections::BTreeMap;

use crate::ast::{Boxfile, Check, From, Instruction, InstructionKind};
use crate::graph::{StageGraph, StageId};
use crate::ignore::IgnoreRules;

/// Lints that are tried only where `# check=experimental=NAME` asks for them.
pub const EXPERIMENTAL: [&str; 2] = ["CopyIgnoredFile", "InvalidDefinitionDescription"];

/// The environment of an image by its name in FROM; `None` where it is not at hand.
pub type BaseEnv<'a> = dyn Fn(&str) -> Option<Vec<(String, String)>> + 'a;

/// What is known beside the Boxfile.
#[derive(Clone, Copy, Default)]
pub struct LintOptions<'a> {
    /// The stages that are built, where they could be resolved; unset: every stage is checked whole.
    pub graph: Option<&'a StageGraph>,
    /// The context's ignore rules.
    pub ignore: Option<&'a IgnoreRules>,
    /// Predefined global ARGs (`TARGETPLATFORM`, …).
    pub platform_args: Option<&'a BTreeMap<String, String>>,
    /// The environment of an image named in FROM, where it is at hand.
    pub base_env: Option<&'a BaseEnv<'a>>,
    /// Over the file's own `# check=`.
    pub check: Option<&'a Check>,
}

/// One stage as it stands in the Boxfile.
pub(super) struct StageText<'a> {
    pub(super) id: StageId,
    pub(super) from: &'a From,
    pub(super) instruction: &'a Instruction,
    /// What follows its FROM.
    pub(super) body: &'a [Instruction],
}

/// A Boxfile cut at its FROMs.
pub(super) struct Split<'a> {
    pub(super) global: &'a [Instruction],
    pub(super) stages: Vec<StageText<'a>>,
}

/// Cuts a Boxfile at its FROMs.
pub(super) fn split(boxfile: &Boxfile) -> Split<'_> {
    let all = &boxfile.instructions;
    let is_from = |i: &Instruction| matches!(i.kind, InstructionKind::From(_));
    let starts: Vec<usize> = (0..all.len()).filter(|i| is_from(&all[*i])).collect();
    let ends = starts.iter().skip(1).copied().chain([all.len()]);
    let stage = |(id, (start, end)): (usize, (usize, usize))| match &all[start].kind {
        InstructionKind::From(from) => Some(StageText {
            id: StageId(id),
            from,
            instruction: &all[start],
            body: &all[start + 1..end],
        }),
        _ => None,
    };
    let stages = starts
        .iter()
        .copied()
        .zip(ends)
        .enumerate()
        .filter_map(stage)
        .collect();
    Split {
        global: &all[..starts.first().copied().unwrap_or(all.len())],
        stages,
    }
}
