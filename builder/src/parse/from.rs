//! FROM

use super::args::Args;
use super::flags::FlagKind;
use super::words::Piece;
use crate::ast::{Alias, From, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::source::Spanned;

const FORM: &str = "FROM [--platform=P] [--checksum=sha256:…] BASE [AS NAME]";
const FLAGS: &[(&str, FlagKind)] = &[("platform", FlagKind::Text), ("checksum", FlagKind::Text)];

pub(super) fn from(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    let mut words = args.blank_words();
    let wrong = || {
        args.error("FROM requires either one or three arguments")
            .expected(FORM)
    };
    let base = words.next().ok_or_else(wrong)?;
    let alias = match (words.next(), words.next(), words.next()) {
        (None, _, _) => None,
        (Some(keyword), Some(name), None) if keyword.text.eq_ignore_ascii_case("as") => {
            Some(alias(args, keyword, name)?)
        }
        (Some(extra), None, _) => {
            let hint = format!("to name the stage, write FROM {} AS {}", base.text, extra.text);
            return Err(wrong().suggest(hint));
        }
        _ => return Err(wrong()),
    };
    let flags = args.parse_flags(FLAGS)?;
    let (platform, checksum) = (flags.word("platform"), flags.word("checksum"));
    Ok(InstructionKind::From(From {
        platform,
        checksum,
        base: args.word(base),
        alias,
    }))
}

fn alias(args: &Args<'_>, keyword: Piece<'_>, name: Piece<'_>) -> Result<Alias, Diagnostic> {
    let spanned = |p: Piece<'_>| Spanned::new(p.text.into_owned(), args.span(&p.range));
    let (keyword, written) = (spanned(keyword), spanned(name));
    let name = written.to_lowercase();
    let is_rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(is_rest);
    if !valid {
        let message = format!(
            "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
            written.value
        );
        return Err(Diagnostic::error(written.span, message)
            .expected("a letter, then letters, digits, `-`, `_` and `.`"));
    }
    Ok(Alias {
        keyword,
        written,
        name,
    })
}
