mod dump;
mod tables;

use super::*;
use crate::ast::{Command, Healthcheck};
use crate::ast::{CopySource, InstructionKind, MountKind, RunCommand};

pub(super) fn try_parse(text: &str) -> Result<Boxfile, Vec<Diagnostic>> {
    parse(&Source::new("Boxfile", text.as_bytes()))
}

fn parsed(text: &str) -> Boxfile {
    try_parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

fn last(text: &str) -> InstructionKind {
    parsed(text).instructions.pop().unwrap().kind
}

#[test]
fn joins_lines() {
    let check = |text: &str, want: &[&str]| {
        let got: Vec<String> = parsed(text).instructions.into_iter().map(|i| i.text).collect();
        assert_eq!(got, want, "{text:?}");
    };
    check("RUN a \\\n  b", &["RUN a   b"]);
    check("RUN a \\\r\n  b\r\nUSER u\r\n", &["RUN a   b", "USER u"]);
    check("\u{feff}USER u", &["USER u"]);
    check("RUN a \\\n# no\n  # no\nb", &["RUN a b"]);
    check("RUN a \\\n\n b", &["RUN a  b"]);
    check("RUN a \\ \t\nb", &["RUN a b"]);
    check("RUN a \\\\\nUSER u", &["RUN a \\\\", "USER u"]);
    check("# escape=`\nRUN a `\nb \\\nUSER u", &["RUN a b \\", "USER u"]);
    assert!(try_parse("# escape=`\n# escape=\\\nUSER u").is_err());
}

#[test]
fn says_where_words_are() {
    let file = parsed("ENV \\\n  a=1 \\\n  b=2\n");
    let InstructionKind::Env(env) = &file.instructions[0].kind else {
        panic!()
    };
    let places: Vec<_> = env
        .pairs
        .iter()
        .map(|(k, v)| (k.span.line, k.span.column, v.span.column))
        .collect();
    assert_eq!(places, [(2, 3, 5), (3, 3, 5)]);
    assert_eq!(file.instructions[0].lines, (1, 3));
}

#[test]
fn reads_scripts() {
    let check = |text: &str, want: RunCommand| match last(text) {
        InstructionKind::Run(run) => assert_eq!(run.command, want, "{text:?}"),
        other => panic!("{other:?}"),
    };
    let shell = |text: &str| RunCommand::Shell(text.to_owned());
    check("RUN a | b", shell("a | b"));
    check(
        "RUN [\"a\", \"b c\"]",
        RunCommand::Exec(vec!["a".into(), "b c".into()]),
    );
    check("RUN [ -f x ]", shell("[ -f x ]"));
    check("RUN <<E\na\n\tb\nE\n", shell("a\n\tb\n"));
    check("RUN <<-E\n\ta\n\tE\n", shell("a\n"));
    check("RUN <<E cat\na\nE\n", shell("<<E cat\na\nE"));
    check(
        "RUN <<A cat <<B\na\nA\nb\nB\n",
        shell("<<A cat <<B\na\nAb\nB".replace("Ab", "A\nb").as_str()),
    );
    let data = b"#!/bin/x\na\n".to_vec();
    check(
        "RUN <<E\n#!/bin/x\na\nE\n",
        RunCommand::Program {
            name: "E".into(),
            data,
        },
    );
    check("RUN echo $((1 <<2))\n2))\n", shell("echo $((1 <<2))\n2))"));
}

#[test]
fn reads_mounts() {
    let check = |mount: &str, want: &str| {
        let InstructionKind::Run(run) = last(&format!("RUN --mount={mount} x")) else {
            panic!()
        };
        let got = resolve_mount(&run.mounts[0], |w| Ok(w.text.clone())).unwrap();
        let kind = match got.kind {
            MountKind::Bind { from, source } => format!("bind {from:?} {source:?}"),
            MountKind::Cache { id, sharing, .. } => format!("cache {id:?} {sharing:?}"),
            MountKind::Tmpfs { size, .. } => format!("tmpfs {size:?}"),
            MountKind::Secret {
                id, mode, required, ..
            } => format!("secret {id:?} {mode:?} {required}"),
            MountKind::Ssh { id, .. } => format!("ssh {id:?}"),
        };
        assert_eq!(format!("{kind} at {:?} ro {}", got.target, got.read_only), want);
    };
    check("target=/x", "bind None None at Some(\"/x\") ro true");
    check(
        "type=bind,from=s,src=a,dst=/x,rw",
        "bind Some(\"s\") Some(\"a\") at Some(\"/x\") ro false",
    );
    check(
        "type=cache,target=/c,id=i,sharing=locked",
        "cache Some(\"i\") Locked at Some(\"/c\") ro false",
    );
    check(
        "type=tmpfs,target=/t,size=64m",
        "tmpfs Some(67108864) at Some(\"/t\") ro false",
    );
    check(
        "type=secret,id=s,mode=0440,required",
        "secret Some(\"s\") Some(288) true at None ro true",
    );
    check("type=ssh", "ssh None at None ro true");
    check(
        "'type=tmpfs,\"target=/a b\"'",
        "tmpfs None at Some(\"/a b\") ro false",
    );
}

#[test]
fn reads_heredoc_files() {
    let InstructionKind::Copy(copy) = last("COPY --chmod=600 a <<'X' <<-Y /d/\n$x\nX\n\ty\n\tY\n") else {
        panic!()
    };
    let got: Vec<_> = copy
        .sources
        .iter()
        .map(|s| match s {
            CopySource::Path(word) => (word.text.clone(), Vec::new(), true),
            CopySource::Inline(h) => (h.name.clone(), h.data(), h.expand),
        })
        .collect();
    let inline = |name: &str, data: &str, expand| (name.to_owned(), data.as_bytes().to_vec(), expand);
    assert_eq!(
        got,
        [
            inline("a", "", true),
            inline("X", "$x\n", false),
            inline("Y", "y\n", true)
        ]
    );
}

#[test]
fn health_times() {
    let text = "HEALTHCHECK --interval=1m --retries=0 --timeout=0 CMD [\"x\"]";
    let InstructionKind::Healthcheck(Healthcheck::Check {
        command,
        interval,
        timeout,
        retries,
        ..
    }) = last(text)
    else {
        panic!()
    };
    assert_eq!(command, Command::Exec(vec!["x".into()]));
    assert_eq!(
        (interval.map(|d| d.as_secs()), timeout, retries),
        (Some(60), None, Some(0))
    );
}

#[test]
fn stays_linear() {
    let huge = if cfg!(debug_assertions) { 1 << 20 } else { 10 << 20 };
    let texts = [
        format!("RUN {}", "a ".repeat(huge / 2)),
        format!("ENV {}", "a=b ".repeat(huge / 4)),
        format!("ARG {}", "\"".repeat(huge)),
        format!("RUN {}", "\\\n".repeat(huge / 2)),
        format!("RUN [{}]", "\"\",".repeat(huge / 3)),
        format!("COPY {} /", "<<A ".repeat(huge / 64)),
        format!("RUN {}", "<".repeat(huge)),
        format!("RUN --mount={} x", "a,".repeat(huge / 2)),
        "\n".repeat(huge),
        "# x\n".repeat(huge / 4),
        "RUN x\n".repeat(huge / 64),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        let _ = try_parse(&text);
        eprintln!("{:>7.1?} for {:?}…", start.elapsed(), &text[..11]);
        // On a busy machine; a quadratic step would take minutes.
        assert!(start.elapsed().as_secs() < 10, "{:?}…", &text[..11]);
    }
}
