//! The syntax tree as Docker's own dump prints it.

use crate::ast::{
    ArgDeclaration, Command, CopySource, Healthcheck, Instruction, InstructionKind, KeyValues, RunCommand,
    Word,
};

/// One line of the dump.
pub(super) fn line(instruction: &Instruction) -> String {
    let mut out = format!("({}", instruction.kind.name().to_lowercase());
    let flags: Vec<String> = flags(&instruction.text).iter().map(|f| quote(f)).collect();
    if !flags.is_empty() {
        out.push_str(&format!(" [{}]", flags.join(" ")));
    }
    if let InstructionKind::OnBuild(on_build) = &instruction.kind {
        return format!("{out} {})", line(&on_build.trigger));
    }
    for word in words(&instruction.kind) {
        out.push(' ');
        out.push_str(&quote(&word));
    }
    out.push(')');
    out
}

fn flags(text: &str) -> Vec<String> {
    text.split_whitespace()
        .skip(1)
        .take_while(|w| w.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

fn words(kind: &InstructionKind) -> Vec<String> {
    let texts = |words: &[Word]| words.iter().map(|w| w.text.clone()).collect();
    let copied = |sources: &[CopySource], destination: &Word| {
        let path = |s: &CopySource| match s {
            CopySource::Path(word) => word.text.clone(),
            CopySource::Inline(heredoc) => heredoc.name.clone(),
        };
        sources
            .iter()
            .map(path)
            .chain([destination.text.clone()])
            .collect()
    };
    match kind {
        InstructionKind::From(from) => vec![from.base.text.clone()],
        InstructionKind::Arg(declarations) => declarations.iter().map(arg).collect(),
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => key_values(pairs),
        InstructionKind::Run(run) => match &run.command {
            RunCommand::Shell(text) => vec![text.clone()],
            RunCommand::Exec(words) => words.clone(),
            RunCommand::Program { name, .. } => vec![name.clone()],
        },
        InstructionKind::Copy(copy) => copied(&copy.sources, &copy.destination),
        InstructionKind::Add(add) => copied(&add.sources, &add.destination),
        InstructionKind::Cmd(c) | InstructionKind::Entrypoint(c) => command(c),
        InstructionKind::Healthcheck(Healthcheck::Check { command: c, .. }) => {
            ["CMD".to_owned()].into_iter().chain(command(c)).collect()
        }
        InstructionKind::Volume(words) | InstructionKind::Expose(words) => texts(words),
        InstructionKind::Workdir(word)
        | InstructionKind::User(word)
        | InstructionKind::StopSignal(word)
        | InstructionKind::Maintainer(word) => vec![word.text.clone()],
        InstructionKind::Healthcheck(Healthcheck::None) => vec!["NONE".to_owned()],
        InstructionKind::Shell(words) => words.clone(),
        other => panic!("not dumped: {other:?}"),
    }
}

fn arg(declaration: &ArgDeclaration) -> String {
    let value = declaration
        .default
        .as_ref()
        .map(|w| format!("={}", w.text))
        .unwrap_or_default();
    format!("{}{value}", declaration.name.value)
}

fn key_values(pairs: &KeyValues) -> Vec<String> {
    let separator = if pairs.legacy { "" } else { "=" };
    pairs
        .pairs
        .iter()
        .flat_map(|(k, v)| [k.text.clone(), v.text.clone(), separator.to_owned()])
        .collect()
}

fn command(command: &Command) -> Vec<String> {
    match command {
        Command::Shell(text) => vec![text.clone()],
        Command::Exec(words) => words.clone(),
    }
}

fn quote(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\t', "\\t")
    )
}
