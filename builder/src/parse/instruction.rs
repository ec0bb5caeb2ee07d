//! A statement → an [`Instruction`].

use super::args::Args;
use super::flags::split_flags;
use super::heredoc::{append_heredoc, read_heredocs};
use super::lines::{Reader, Statement};
use super::words::{Json, json_array, split_first};
use super::{config, copy, from, health, run};
use crate::ast::{Escape, Instruction, InstructionKind, OnBuild};
use crate::diagnostic::Diagnostic;
use crate::source::Spanned;
use crate::suggest::did_you_mean;

/// Every instruction there is.
pub(super) const NAMES: [&str; 20] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "INCLUDE",
    "LABEL",
    "LIMIT",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a statement, and reads the heredocs that it opens.
pub(super) fn read(
    reader: &mut Reader<'_>,
    statement: &Statement,
    escape: Escape,
) -> Result<Instruction, Diagnostic> {
    let first = reader.line_number();
    let args = split(statement, 0, escape)?;
    let heredocs = if may_hold_heredocs(&args) {
        read_heredocs(reader, statement, 0)?
    } else {
        Vec::new()
    };
    let mut instruction = build(Args { heredocs, ..args }, (first, first))?;
    instruction.lines = (instruction.span.line, reader.line_number());
    if let InstructionKind::OnBuild(on_build) = &mut instruction.kind {
        on_build.trigger.lines = instruction.lines;
    }
    Ok(instruction)
}

/// Splits the instruction that begins at `at` of a statement.
fn split(statement: &Statement, at: usize, escape: Escape) -> Result<Args<'_>, Diagnostic> {
    let text = &statement.text[at..];
    let (written, rest) = split_first(text);
    let keyword = at..at + written.len();
    let Some(name) = NAMES.iter().find(|n| n.eq_ignore_ascii_case(written)) else {
        return Err(unknown(statement, &keyword, written));
    };
    let body = at + rest;
    let (flags, start) = split_flags(&statement.text[body..]);
    let after = &statement.text[body + start..];
    let start = statement.text.len() - after.trim_start().len();
    Ok(Args {
        statement,
        name,
        keyword,
        flags,
        body,
        start,
        heredocs: Vec::new(),
        escape,
    })
}

fn unknown(statement: &Statement, keyword: &std::ops::Range<usize>, written: &str) -> Diagnostic {
    let shown: String = written.chars().take(40).collect();
    let span = statement.span(keyword.start, keyword.end);
    Diagnostic::error(span, format!("unknown instruction: {shown}"))
        .expected("an instruction, such as FROM, RUN or COPY")
        .maybe_suggest(did_you_mean(written, NAMES))
}

/// RUN, COPY and ADD may, in shell form, by themselves or as a trigger.
fn may_hold_heredocs(args: &Args<'_>) -> bool {
    let (name, text) = match args.name {
        "ONBUILD" => split(args.statement, args.start, args.escape)
            .map_or(("", String::new()), |inner| (inner.name, inner.text().to_owned())),
        name => (name, args.text().to_owned()),
    };
    matches!(name, "RUN" | "COPY" | "ADD") && text.contains("<<") && json_array(&text) == Json::No
}

fn build(args: Args<'_>, lines: (u32, u32)) -> Result<Instruction, Diagnostic> {
    let statement = args.statement;
    let keyword = args.keyword.clone();
    let kind = kind(args)?;
    let at = statement.span(keyword.start, keyword.end);
    Ok(Instruction {
        span: statement.span(keyword.start, statement.text.len()),
        lines,
        keyword: Spanned::new(statement.text[keyword.clone()].to_owned(), at),
        text: statement.text[keyword.start..].to_owned(),
        comments: statement.comments.clone(),
        kind,
    })
}

fn kind(args: Args<'_>) -> Result<InstructionKind, Diagnostic> {
    match args.name {
        "FROM" => from::from(&args),
        "ARG" => config::arg(&args),
        "ENV" => config::key_values(&args).map(InstructionKind::Env),
        "LABEL" => config::key_values(&args).map(InstructionKind::Label),
        "RUN" => run::run(&args),
        "COPY" => copy::copy(&args),
        "ADD" => copy::add(&args),
        "CMD" => config::command(&args).map(InstructionKind::Cmd),
        "ENTRYPOINT" => config::command(&args).map(InstructionKind::Entrypoint),
        "SHELL" => config::shell(&args),
        "HEALTHCHECK" => health::healthcheck(&args),
        "ONBUILD" => on_build(args),
        "VOLUME" => config::volume(&args),
        "EXPOSE" => config::expose(&args),
        "WORKDIR" => config::one(&args, "WORKDIR PATH").map(InstructionKind::Workdir),
        "USER" => config::one(&args, "USER NAME[:GROUP]").map(InstructionKind::User),
        "STOPSIGNAL" => config::one(&args, "STOPSIGNAL SIGNAL").map(InstructionKind::StopSignal),
        "MAINTAINER" => config::one(&args, "MAINTAINER NAME").map(InstructionKind::Maintainer),
        "LIMIT" => run::limit(&args),
        _ => config::include(&args),
    }
}

fn on_build(args: Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.not_empty("ONBUILD INSTRUCTION")?;
    args.parse_flags(&[])?;
    let mut inner = split(args.statement, args.start, args.escape)?;
    refuse_trigger(&inner)?;
    inner.heredocs = args.heredocs;
    let mut text = inner.statement.text[args.start..].to_owned();
    inner.heredocs.iter().for_each(|h| append_heredoc(&mut text, h));
    let trigger = Box::new(build(inner, (0, 0))?);
    Ok(InstructionKind::OnBuild(OnBuild { text, trigger }))
}

fn refuse_trigger(inner: &Args<'_>) -> Result<(), Diagnostic> {
    let message = match inner.name {
        "ONBUILD" => "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned(),
        "FROM" | "MAINTAINER" | "INCLUDE" => format!("{} isn't allowed as an ONBUILD trigger", inner.name),
        _ => return Ok(()),
    };
    let span = inner.statement.span(inner.keyword.start, inner.keyword.end);
    Err(Diagnostic::error(span, message).expected("any other instruction"))
}
