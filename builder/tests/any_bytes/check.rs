//! What holds for every text; the fuzz targets use it, too.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use box_builder::ast::Escape;
use box_builder::expand::{Pattern, expand, expand_heredoc};
use box_builder::git_ref::GitRef;
use box_builder::graph::{GraphOptions, StageGraph};
use box_builder::ignore::IgnoreRules;
use box_builder::lint::{LintOptions, lint};
use box_builder::parse::{parse, parse_chmod, parse_duration, parse_size};
use box_builder::ports::parse_ports;
use box_builder::source::{Source, Sources};

/// Reads, resolves and checks, and renders all that is found.
pub(crate) fn boxfile(bytes: &[u8]) {
    let source = Source::new("Boxfile", bytes);
    let sources = Sources::single(source.clone());
    let diagnostics = match parse(&source) {
        Err(errors) => errors,
        Ok(file) => {
            let graph = StageGraph::new(&file, &GraphOptions::default());
            let options = LintOptions {
                graph: graph.as_ref().ok(),
                ..LintOptions::default()
            };
            let mut found = lint(&file, &options);
            found.extend(graph.err().unwrap_or_default());
            found
        }
    };
    for diagnostic in diagnostics {
        let text = diagnostic.render(&sources);
        assert!(text.contains("Boxfile:"), "{text}");
        let end = diagnostic.span.offset as usize + diagnostic.span.len as usize;
        assert!(end <= bytes.len(), "{diagnostic:?} ends behind {}", bytes.len());
    }
}

/// Reads an ignore file, and looks a path up in two ways that must agree: as a whole, and step by step as a walk does.
pub(crate) fn ignore(file: &[u8], path: &[u8]) {
    let Ok(rules) = IgnoreRules::parse(file) else {
        return;
    };
    let names = Path::new(OsStr::from_bytes(path)).components();
    let names = names.filter(|name| matches!(name, Component::Normal(_)));
    let path: PathBuf = names.collect();
    let mut level = rules.root();
    let mut at = PathBuf::new();
    for name in path.components() {
        at.push(name);
        level = rules.enter(&level, &at);
        assert!(level.ignored() || !level.may_skip(), "{at:?} of {file:?}");
    }
    assert_eq!(
        level.ignored() && !at.as_os_str().is_empty(),
        rules.is_ignored(&path),
        "{path:?} of {file:?}"
    );
}

/// Reads a text as each of the small grammars.
pub(crate) fn values(text: &str) {
    let env = BTreeMap::from([("a".to_owned(), text.chars().rev().take(20).collect())]);
    for escape in [Escape::Backslash, Escape::Backtick] {
        let _ = expand(text, escape, &env);
        let _ = expand_heredoc(text.as_bytes(), escape, &env);
    }
    let _ = (
        Pattern::parse(text),
        parse_chmod(text),
        parse_duration(text),
        parse_size(text),
    );
    let _ = (parse_ports(text), GitRef::parse(text));
}
