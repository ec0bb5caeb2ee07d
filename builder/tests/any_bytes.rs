//! Whatever stands in a Boxfile or an ignore file: there is an answer, never a panic.

#[path = "any_bytes/check.rs"]
mod check;

use std::collections::BTreeMap;

use box_builder::ast::Escape;
use box_builder::expand::{Pattern, expand, expand_heredoc};
use proptest::prelude::*;

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
        check::boxfile(&bytes);
    }

    #[test]
    fn random_pieces(bytes in pieces()) {
        check::boxfile(&bytes);
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
        check::ignore(patterns.join("\n").as_bytes(), &path);
    }

    #[test]
    fn random_values(text in "\\PC{0,20}") {
        check::values(&text);
    }
}
