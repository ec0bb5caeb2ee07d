//! HEALTHCHECK

use std::time::Duration;

use super::args::{Args, Flags, json_from};
use super::flags::FlagKind;
use super::units::parse_duration;
use super::words::split_first;
use crate::ast::{Command, Healthcheck, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::suggest::did_you_mean;

const FORM: &str = "HEALTHCHECK [--interval=30s …] CMD COMMAND, or HEALTHCHECK NONE";
const FLAGS: &[(&str, FlagKind)] = &[
    ("interval", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("start-period", FlagKind::Text),
    ("start-interval", FlagKind::Text),
    ("retries", FlagKind::Text),
];

pub(super) fn healthcheck(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.not_empty(FORM)?;
    let (kind, rest) = split_first(args.text());
    let check = match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest < args.text().len() => {
            return Err(args
                .error("HEALTHCHECK NONE takes no arguments")
                .expected("HEALTHCHECK NONE"));
        }
        "NONE" => {
            args.parse_flags(&[])?;
            Healthcheck::None
        }
        "CMD" => cmd(args, rest)?,
        _ => {
            let span = args.span(&(0..kind.len()));
            let message = format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)");
            let hint = did_you_mean(kind, ["CMD", "NONE"]);
            return Err(Diagnostic::error(span, message)
                .expected("CMD or NONE")
                .maybe_suggest(hint));
        }
    };
    Ok(InstructionKind::Healthcheck(check))
}

fn cmd(args: &Args<'_>, rest: usize) -> Result<Healthcheck, Diagnostic> {
    let flags = args.parse_flags(FLAGS)?;
    let command = match json_from(args, rest)? {
        Some(words) => Command::Exec(words.into_iter().map(|w| w.text.into_owned()).collect()),
        None => Command::Shell(args.text()[rest..].to_owned()),
    };
    let empty = match &command {
        Command::Exec(words) => words.is_empty(),
        Command::Shell(text) => text.is_empty(),
    };
    if empty {
        return Err(args.error("Missing command after HEALTHCHECK CMD").expected(FORM));
    }
    Ok(Healthcheck::Check {
        command,
        interval: duration(&flags, "interval")?,
        timeout: duration(&flags, "timeout")?,
        start_period: duration(&flags, "start-period")?,
        start_interval: duration(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

/// A duration; 0 is as good as unset, anything else under a millisecond is an error.
fn duration(flags: &Flags, name: &str) -> Result<Option<Duration>, Diagnostic> {
    let Some(word) = flags.word(name).filter(|w| !w.text.is_empty()) else {
        return Ok(None);
    };
    let error =
        |message: String| Diagnostic::error(word.span, message).expected("such as 30s, 1m30s or 500ms");
    let time = parse_duration(&word.text)
        .ok_or_else(|| error(format!("invalid duration {:?} of --{name}", word.text)))?;
    if !time.is_zero() && time < Duration::from_millis(1) {
        return Err(error(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(Some(time).filter(|t| !t.is_zero()))
}

fn retries(flags: &Flags) -> Result<Option<u32>, Diagnostic> {
    let Some(word) = flags.word("retries").filter(|w| !w.text.is_empty()) else {
        return Ok(None);
    };
    let error =
        |message: String| Diagnostic::error(word.span, message).expected("a whole number, at least 0");
    match word.text.parse::<i32>() {
        Ok(n) if n < 0 => Err(error(format!("--retries cannot be negative ({n})"))),
        Ok(n) => Ok(u32::try_from(n).ok()),
        Err(_) => Err(error(format!("invalid number {:?} of --retries", word.text))),
    }
}
