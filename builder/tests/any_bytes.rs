//! Whatever stands in a Boxfile or an ignore file: there is an answer, never a panic.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use box_builder::ast::Escape;
use box_builder::expand::{Pattern, expand, expand_heredoc};
use box_builder::git_ref::GitRef;
use box_builder::graph::{GraphOptions, StageGraph};
use box_builder::ignore::IgnoreRules;
use box_builder::lint::{LintOptions, lint};
use box_builder::parse::{parse, parse_chmod, parse_duration, parse_size};
use box_builder::ports::parse_ports;
use box_builder::source::{Source, Sources};
use proptest::prelude::*;

/// Reads, resolves and checks, and renders all that is found.
fn digest(bytes: &[u8]) {
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

/// Pieces that mean something, so that more than the first error is reached.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "FROM ",
        "scratch",
        " AS a",
        "\n",
        "\nRUN ",
        "\nCOPY ",
        "--from=",
        "--mount=",
        "type=cache,",
        "target=/x",
        "--chmod=",
        "7",
        "u=rwX",
        "<<E",
        "<<-'E F'",
        "\nE\n",
        "\\\n",
        "\\",
        "`",
        "\"",
        "'",
        "[",
        "]",
        ",",
        "${",
        "}",
        "$a",
        ":-",
        "##",
        "//",
        "/",
        "*",
        " ",
        "\t",
        "=",
        "ARG a",
        "\nENV ",
        "\nLABEL ",
        "# escape=`\n",
        "# check=skip=all\n",
        "# syntax=docker/dockerfile:1\n",
        "\nONBUILD ",
        "\nHEALTHCHECK ",
        "CMD ",
        "\nLIMIT memory=1g ",
        "\nINCLUDE x",
        "\nEXPOSE 1-3/UDP",
        "é",
        "\u{feff}",
        "\r\n",
        "\0",
        "sha256:",
        "https://x/",
        "oci:",
        "--platform=",
        "\nWORKDIR ",
    ]);
    let bytes = prop_oneof![9 => piece.prop_map(|p| p.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..4)];
    prop::collection::vec(bytes, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        digest(&bytes);
    }

    #[test]
    fn random_pieces(bytes in pieces()) {
        digest(&bytes);
    }

    #[test]
    fn random_words(word in "[$a{}:+?#%/*\\\\'\"` é=-]{0,24}", value in "[ax*/\\\\é ]{0,12}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let env = BTreeMap::from([("a".to_owned(), value)]);
        let _ = expand(&word, Escape::Backslash, &env);
        let _ = expand(&word, Escape::Backtick, &env);
        let _ = expand_heredoc(&bytes, Escape::Backslash, &env);
        let _ = Pattern::parse(&word);
    }

    #[test]
    fn random_patterns(patterns in prop::collection::vec("[!ab*?/\\[\\]^\\\\. -]{0,10}", 0..4), path in prop::collection::vec(any::<u8>(), 0..12)) {
        if let Ok(rules) = IgnoreRules::from_patterns(patterns.iter().map(String::as_str)) {
            let path = Path::new(OsStr::from_bytes(&path));
            let level = rules.enter(&rules.root(), path);
            prop_assert!(level.ignored() || !level.may_skip());
            let _ = rules.is_ignored(path);
        }
        let _ = IgnoreRules::parse(patterns.join("\n").as_bytes());
    }

    #[test]
    fn random_values(text in "\\PC{0,20}") {
        let _ = (parse_chmod(&text), parse_duration(&text), parse_size(&text), parse_ports(&text), GitRef::parse(&text));
    }
}
