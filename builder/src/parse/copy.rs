//! COPY and ADD

use super::args::{Args, Flags};
use super::chmod::parse_chmod;
use super::flags::FlagKind;
use super::heredoc::{by_name, parse_tag};
use super::words::Piece;
use crate::ast::{Add, Copy, CopyFlags, CopySource, InstructionKind, Word};
use crate::diagnostic::Diagnostic;

const COPY_FLAGS: &[(&str, FlagKind)] = &[
    ("from", FlagKind::Text),
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Bool),
    ("parents", FlagKind::Bool),
    ("exclude", FlagKind::Texts),
];
const ADD_FLAGS: &[(&str, FlagKind)] = &[
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Bool),
    ("parents", FlagKind::Bool),
    ("exclude", FlagKind::Texts),
    ("checksum", FlagKind::Text),
    ("keep-git-dir", FlagKind::Bool),
    ("unpack", FlagKind::Bool),
];

pub(super) fn copy(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    let words = enough(args)?;
    let flags = args.parse_flags(COPY_FLAGS)?;
    let from = flags.text("from").filter(|f| !f.is_empty());
    if let Some(from) = from.as_ref().filter(|f| f.contains('$')) {
        let message = "variable expansion is not supported for --from";
        return Err(Diagnostic::error(from.span, message)
            .expected("a stage's name or number, or an image")
            .suggest("name it in a stage of its own: FROM with a global ARG, AS a name"));
    }
    let (sources, destination) = sources(args, words)?;
    for source in &sources {
        refuse_remote(source)?;
    }
    let flags = copy_flags(&flags)?;
    Ok(InstructionKind::Copy(Box::new(Copy {
        from,
        sources,
        destination,
        flags,
    })))
}

pub(super) fn add(args: &Args<'_>) -> Result<InstructionKind, Diagnostic> {
    let words = enough(args)?;
    let flags = args.parse_flags(ADD_FLAGS)?;
    let (sources, destination) = sources(args, words)?;
    Ok(InstructionKind::Add(Box::new(Add {
        sources,
        destination,
        flags: copy_flags(&flags)?,
        checksum: flags.word("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })))
}

/// At least one source and a destination.
fn enough<'a>(args: &'a Args<'_>) -> Result<Vec<Piece<'a>>, Diagnostic> {
    let words = args.list()?;
    let tail = match words.len() {
        0 => "",
        1 => ", but only one was provided. Destination could not be determined",
        _ => return Ok(words),
    };
    // A flag that lacks its value explains more.
    let known = if args.name == "COPY" {
        COPY_FLAGS
    } else {
        ADD_FLAGS
    };
    args.parse_flags(known)?;
    let name = args.name;
    let error = args.error(format!("{name} requires at least two arguments{tail}"));
    Err(error.expected(format!("{name} SOURCE… DESTINATION")))
}

fn copy_flags(flags: &Flags) -> Result<CopyFlags, Diagnostic> {
    let chmod = flags.word("chmod");
    if let Some(word) = chmod.as_ref().filter(|w| !w.text.contains('$')) {
        parse_chmod(&word.text).ok_or_else(|| bad_chmod(word))?;
    }
    Ok(CopyFlags {
        chown: flags.word("chown"),
        chmod,
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        excludes: flags.words("exclude"),
    })
}

fn bad_chmod(word: &Word) -> Diagnostic {
    let message = format!(
        "invalid chmod parameter: '{}'. it should be octal string and between 0 and 07777",
        word.text
    );
    Diagnostic::error(word.span, message).expected("such as 755, 0644 or u=rwX,go=rX")
}

fn sources(args: &Args<'_>, mut words: Vec<Piece<'_>>) -> Result<(Vec<CopySource>, Word), Diagnostic> {
    let destination = words.pop().ok_or_else(|| args.error("no destination"))?;
    if matches!(parse_tag(&destination.text), Ok(Some(_))) && !args.heredocs.is_empty() {
        let message = format!("{} cannot accept a heredoc as a destination", args.name);
        return Err(Diagnostic::error(args.span(&destination.range), message)
            .expected(format!("{} <<TAG DESTINATION", args.name)));
    }
    let heredocs = by_name(&args.heredocs);
    let source = |piece: Piece<'_>| {
        let tag = parse_tag(&piece.text).ok().flatten();
        match tag.and_then(|t| heredocs.get(t.name.as_str())) {
            Some(heredoc) => CopySource::Inline((*heredoc).clone()),
            None => CopySource::Path(args.word(piece)),
        }
    };
    Ok((words.into_iter().map(source).collect(), args.word(destination)))
}

/// COPY takes nothing from the network.
fn refuse_remote(source: &CopySource) -> Result<(), Diagnostic> {
    let CopySource::Path(word) = source else {
        return Ok(());
    };
    let remote = ["http://", "https://", "git://", "ssh://", "git@"];
    if remote.iter().any(|p| word.text.starts_with(p)) {
        return Err(Diagnostic::error(word.span, "source can't be a URL for COPY")
            .expected("a path of the context")
            .suggest("use ADD"));
    }
    Ok(())
}
