//! RUN and LIMIT

use super::args::{Args, Flags};
use super::flags::FlagKind;
use super::heredoc::{append_heredoc, parse_tag};
use super::mount::parse_mount;
use super::units::{parse_cpus, parse_duration, parse_size};
use crate::ast::{Heredoc, InstructionKind, Limits, Network, Run, RunCache, RunCommand, Security, Word};
use crate::diagnostic::Diagnostic;
use crate::source::Spanned;
use crate::suggest::did_you_mean;

const FORM: &str = "RUN COMMAND, RUN [\"PROGRAM\", \"ARGUMENT\", …] or RUN <<TAG";
const FLAGS: &[(&str, FlagKind)] = &[
    ("mount", FlagKind::Texts),
    ("network", FlagKind::Text),
    ("security", FlagKind::Text),
    ("memory", FlagKind::Text),
    ("cpus", FlagKind::Text),
    ("pids", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("cache", FlagKind::Text),
];

pub(super) fn run(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    let flags = args.parse_flags(FLAGS)?;
    args.not_empty(FORM)?;
    let mounts = flags
        .words("mount")
        .into_iter()
        .map(parse_mount)
        .collect::<Result<_, _>>()?;
    let limits = ["memory", "cpus", "pids", "timeout"];
    let limits = limits
        .into_iter()
        .filter_map(|name| flags.word(name).map(|w| (name, w)));
    Ok(InstructionKind::Run(Box::new(Run {
        command: command(args)?,
        heredocs: args.heredocs.clone(),
        mounts,
        network: choice(&flags, "network", NETWORKS)?,
        security: choice(&flags, "security", SECURITIES)?,
        limits: limits_from(limits)?,
        cache: flags.word("cache").map(|w| cache(&w)).transpose()?,
    })))
}

fn command(args: &Args<'_>) -> Result<RunCommand, Diagnostic> {
    if let Some(words) = args.json()? {
        if words.is_empty() {
            return Err(args.error("RUN requires at least one argument").expected(FORM));
        }
        return Ok(RunCommand::Exec(
            words.into_iter().map(|w| w.text.into_owned()).collect(),
        ));
    }
    let sole = matches!(parse_tag(args.text()), Ok(Some(_)));
    if let ([heredoc], true) = (args.heredocs.as_slice(), sole) {
        return sole_heredoc(heredoc);
    }
    let mut script = args.text().to_owned();
    for heredoc in &args.heredocs {
        text_of(heredoc, heredoc.raw.clone())?;
        append_heredoc(&mut script, heredoc);
    }
    Ok(RunCommand::Shell(script))
}

fn sole_heredoc(heredoc: &Heredoc) -> Result<RunCommand, Diagnostic> {
    let data = heredoc.data();
    if data.starts_with(b"#!") {
        return Ok(RunCommand::Program {
            name: heredoc.name.clone(),
            data,
        });
    }
    text_of(heredoc, data).map(RunCommand::Shell)
}

/// A script is handed to a shell as an argument, which is text.
fn text_of(heredoc: &Heredoc, bytes: Vec<u8>) -> Result<String, Diagnostic> {
    String::from_utf8(bytes).map_err(|_| {
        let message = format!("the heredoc {} of this RUN is not UTF-8", heredoc.name);
        Diagnostic::error(heredoc.span, message).expected("text in UTF-8")
    })
}

const NETWORKS: &[(&str, Network)] = &[
    ("default", Network::Default),
    ("none", Network::None),
    ("host", Network::Host),
];
const SECURITIES: &[(&str, Security)] = &[("sandbox", Security::Sandbox), ("insecure", Security::Insecure)];

/// One of a few words.
fn choice<T: Copy>(flags: &Flags, name: &str, known: &[(&str, T)]) -> Result<Option<Spanned<T>>, Diagnostic> {
    let Some(word) = flags.word(name) else {
        return Ok(None);
    };
    match known.iter().find(|(text, _)| *text == word.text) {
        Some((_, value)) => Ok(Some(Spanned::new(*value, word.span))),
        None => {
            let names = || known.iter().map(|(text, _)| *text);
            let message = format!("unsupported value {:?} of --{name}", word.text);
            Err(Diagnostic::error(word.span, message)
                .expected(names().collect::<Vec<_>>().join(", "))
                .maybe_suggest(did_you_mean(&word.text, names())))
        }
    }
}

fn cache(word: &Word) -> Result<RunCache, Diagnostic> {
    if word.text == "never" {
        return Ok(RunCache::Never);
    }
    let ttl = word
        .text
        .strip_prefix("ttl:")
        .and_then(parse_duration)
        .filter(|t| !t.is_zero());
    ttl.map(RunCache::Ttl).ok_or_else(|| {
        Diagnostic::error(word.span, format!("invalid value {:?} of --cache", word.text))
            .expected("never, or ttl: and a time such as ttl:24h")
    })
}

const LIMIT_FORM: &str = "memory=512M, cpus=1.5, pids=256 or time=10m";

pub(super) fn limit(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.not_empty("LIMIT memory=512M cpus=1.5 pids=256 time=10m")?;
    args.parse_flags(&[])?;
    let mut pairs = Vec::new();
    for piece in args.quoted_words() {
        let word = args.word(piece);
        let Some((name, value)) = word.text.split_once('=') else {
            let message = format!("a limit is NAME=VALUE, but {:?} has no =", word.text);
            return Err(Diagnostic::error(word.span, message).expected(LIMIT_FORM));
        };
        let value = Word::new(value.trim_matches('"'), word.part(name.len() + 1, value.len()));
        pairs.push((limit_name(name, &word)?, value));
    }
    limits_from(pairs).map(InstructionKind::Limit)
}

fn limit_name(name: &str, word: &Word) -> Result<&'static str, Diagnostic> {
    let known = ["memory", "cpus", "pids", "time"];
    known.into_iter().find(|k| *k == name).ok_or_else(|| {
        Diagnostic::error(word.span, format!("unknown limit {name:?}"))
            .expected(LIMIT_FORM)
            .maybe_suggest(did_you_mean(name, known))
    })
}

fn limits_from(pairs: impl IntoIterator<Item = (&'static str, Word)>) -> Result<Limits, Diagnostic> {
    let mut limits = Limits::default();
    for (name, word) in pairs {
        let twice = match name {
            "memory" => set(&mut limits.memory, &word, parse_size, "bytes such as 512M or 2g")?,
            "cpus" => set(
                &mut limits.cpus,
                &word,
                parse_cpus,
                "a number of CPUs such as 0.5 or 2",
            )?,
            "pids" => set(
                &mut limits.pids,
                &word,
                |t| t.parse().ok(),
                "a number of processes such as 256",
            )?,
            _ => set(
                &mut limits.time,
                &word,
                parse_duration,
                "a time such as 10m or 1h30m",
            )?,
        };
        if twice {
            return Err(Diagnostic::error(word.span, format!("{name} is given twice")));
        }
    }
    Ok(limits)
}

/// Parses one limit; says whether it had been set. No limit may be 0.
fn set<T: Default + PartialEq>(
    place: &mut Option<Spanned<T>>,
    word: &Word,
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<bool, Diagnostic> {
    let value = parse(&word.text).filter(|v| *v != T::default()).ok_or_else(|| {
        Diagnostic::error(word.span, format!("invalid limit {:?}", word.text)).expected(expected)
    })?;
    Ok(place.replace(Spanned::new(value, word.span)).is_some())
}
