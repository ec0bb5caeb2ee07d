//! The instructions that only change the image's config.

use std::borrow::Cow;

use super::args::Args;
use super::words::{Piece, split_first};
use crate::ast::{ArgDeclaration, Command, InstructionKind, KeyValues, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::{NoVariables, expand_word};
use crate::source::Spanned;

/// An instruction whose argument is the rest of its line.
pub(super) fn one(args: &Args<'_>, form: &str) -> Result<Word, Diagnostic> {
    let word = args.one(form)?;
    args.parse_flags(&[])?;
    Ok(word)
}

/// CMD and ENTRYPOINT.
pub(super) fn command(args: &Args<'_>) -> Result<Command, Diagnostic> {
    args.parse_flags(&[])?;
    Ok(match args.json()? {
        Some(words) => Command::Exec(words.into_iter().map(|w| w.text.into_owned()).collect()),
        None => Command::Shell(args.text().to_owned()),
    })
}

pub(super) fn shell(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.parse_flags(&[])?;
    let form = "SHELL [\"/bin/sh\", \"-c\"]";
    args.not_empty(form)?;
    match args.json()? {
        None => {
            let words: Vec<String> = args.blank_words().map(|w| format!("{:?}", w.text)).collect();
            let error = args
                .error("SHELL requires the arguments to be in JSON form")
                .expected(form);
            Err(error.suggest(format!("SHELL [{}]", words.join(", "))))
        }
        Some(words) if words.is_empty() => {
            Err(args.error("SHELL requires at least one argument").expected(form))
        }
        Some(words) => Ok(InstructionKind::Shell(
            words.into_iter().map(|w| w.text.into_owned()).collect(),
        )),
    }
}

pub(super) fn volume(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.parse_flags(&[])?;
    let words = args.list()?;
    let form = "VOLUME PATH… or VOLUME [\"PATH\", …]";
    if words.is_empty() {
        return Err(args.error("VOLUME requires at least one argument").expected(form));
    }
    if let Some(blank) = words.iter().find(|w| w.text.trim().is_empty()) {
        let span = args.span(&blank.range);
        return Err(Diagnostic::error(span, "VOLUME specified can not be an empty string").expected(form));
    }
    Ok(InstructionKind::Volume(
        words.into_iter().map(|w| args.word(w)).collect(),
    ))
}

pub(super) fn expose(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.not_empty("EXPOSE PORT[/PROTO]…")?;
    args.parse_flags(&[])?;
    Ok(InstructionKind::Expose(
        args.blank_words().map(|w| args.word(w)).collect(),
    ))
}

pub(super) fn include(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.parse_flags(&[])?;
    let mut words = args.quoted_words();
    match (words.next(), words.next()) {
        (Some(path), None) => Ok(InstructionKind::Include(args.word(path))),
        _ => Err(args
            .error("INCLUDE requires exactly one argument")
            .expected("INCLUDE PATH")),
    }
}

pub(super) fn arg(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    args.not_empty("ARG NAME[=DEFAULT]…")?;
    args.parse_flags(&[])?;
    let words = args.quoted_words();
    words
        .map(|w| declaration(args, w))
        .collect::<Result<_, _>>()
        .map(InstructionKind::Arg)
}

fn declaration(args: &Args<'_>, piece: Piece<'_>) -> Result<ArgDeclaration, Diagnostic> {
    let (key, value) = split_pair(&piece);
    if key.text.is_empty() {
        let span = args.span(&piece.range);
        return Err(Diagnostic::error(span, "ARG names can not be blank").expected("NAME or NAME=DEFAULT"));
    }
    let span = args.span(&key.range);
    // Variables in a name are known in a stage only.
    let name = expand_word(&key.text, args.escape, &NoVariables)
        .map_err(|e| Diagnostic::error(args.span(&piece.range), e.to_string()))?;
    Ok(ArgDeclaration {
        name: Spanned::new(name, span),
        written: args.word(key),
        default: value.map(|v| args.word(v)),
    })
}

/// ENV and LABEL: `k=v …`, or the legacy `k v`, told apart by the first word.
pub(super) fn key_values(args: &Args<'_>) -> Result<KeyValues, Diagnostic> {
    let form = format!("{0} NAME=VALUE…", args.name);
    args.parse_flags(&[])?;
    args.not_empty(&form)?;
    let words = args.quoted_words();
    if args.quoted_words().next().is_some_and(|w| !w.text.contains('=')) {
        return legacy(args, &form);
    }
    let pairs = words.map(|w| pair(args, &w, &form)).collect::<Result<_, _>>()?;
    Ok(KeyValues { pairs, legacy: false })
}

fn pair(args: &Args<'_>, piece: &Piece<'_>, form: &str) -> Result<(Word, Word), Diagnostic> {
    let error = |message: String| Diagnostic::error(args.span(&piece.range), message).expected(form);
    let (key, Some(value)) = split_pair(piece) else {
        let message = format!(
            "Syntax error - can't find = in {:?}. Must be of the form: name=value",
            piece.text
        );
        return Err(error(message).suggest("quote a value that holds blanks: NAME=\"two words\""));
    };
    if key.text.is_empty() {
        return Err(error(format!("{} names can not be blank", args.name)));
    }
    Ok((args.word(key), args.word(value)))
}

fn legacy(args: &Args<'_>, form: &str) -> Result<KeyValues, Diagnostic> {
    let text = args.text();
    let (key, rest) = split_first(text);
    if rest >= text.len() {
        let message = format!("{} must have two arguments", args.name);
        return Err(args.error(message).expected(form));
    }
    let key = Word::new(key, args.span(&(0..key.len())));
    let value = Word::new(&text[rest..], args.span(&(rest..text.len())));
    Ok(KeyValues {
        pairs: vec![(key, value)],
        legacy: true,
    })
}

/// `name=value` at its first `=`.
fn split_pair<'a>(piece: &'a Piece<'_>) -> (Piece<'a>, Option<Piece<'a>>) {
    let start = piece.range.start;
    let part = |from: usize, to: usize| Piece {
        text: Cow::Borrowed(&piece.text[from..to]),
        range: start + from..start + to,
    };
    let len = piece.text.len();
    match piece.text.find('=') {
        None => (part(0, len), None),
        Some(at) => (part(0, at), Some(part(at + 1, len))),
    }
}
