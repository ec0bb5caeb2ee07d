use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::corpus::{self, equal, strings};

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn object(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn corpus_word_expansion() {
    let env = variables(&[
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("NULL", ""),
    ]);
    corpus::check("env__word_expansion", &[], |case| {
        let got = expand_word(case["input"].as_str().unwrap(), Escape::Backslash, &env);
        match (got, case["expect"].as_str()) {
            (Ok(got), Some(want)) => equal(got.trim(), want),
            (Err(_), None) => Ok(()),
            (got, want) => Err(format!("got {got:?}, want {want:?}")),
        }
    });
}

#[test]
fn corpus_words() {
    corpus::check("env__words_splitting", &[], |case| {
        let pairs = strings(&case["env"]);
        let env: BTreeMap<String, String> = pairs
            .iter()
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        match expand_words(case["input"].as_str().unwrap(), Escape::Backslash, &env) {
            Ok(got) => equal(got, strings(&case["expect"])),
            Err(_) if case["error"] == true => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    });
}

#[test]
fn corpus_operators() {
    corpus::check("env__operators", &[], |case| {
        let got = expand(
            case["input"].as_str().unwrap(),
            Escape::Backslash,
            &object(&case["env"]),
        );
        if let Err(error) = &got {
            let words = case["error_contains"].as_str().unwrap_or_default();
            let fits = case["error"] == true && error.to_string().contains(words);
            return if fits { Ok(()) } else { Err(error.to_string()) };
        }
        let got = got.unwrap();
        equal(got.text.as_str(), case["expect"].as_str().unwrap_or("an error"))?;
        let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        for (key, set) in [("matched", &got.found), ("unmatched", &got.missing)] {
            if case[key].is_array() {
                equal(names(set), strings(&case[key]))?;
            }
        }
        Ok(())
    });
}

#[test]
fn corpus_patterns() {
    let differences = [(
        "shell_patterns-010",
        "turns the text of an invalid pattern around; we turn parsed patterns around, and this one is refused",
    )];
    corpus::check("env__shell_patterns", &differences, |case| {
        let pattern = Pattern::parse(case["pattern"].as_str().unwrap());
        match (
            pattern,
            case["regex_greedy_anchored"].as_str(),
            case["reversed"].as_str(),
        ) {
            (Err(_), None, None) => Ok(()),
            (Ok(p), Some(want), _) => equal(p.to_regex(true, true).as_str(), want),
            (Ok(p), _, Some(want)) => equal(p.reversed(), Pattern::parse(want).map_err(|e| e.to_string())?),
            (got, ..) => Err(format!("{got:?}")),
        }
    });
}

#[test]
fn heredocs_keep_quotes() {
    let env = variables(&[("v", "x")]);
    let check = |text: &[u8], want: &[u8]| {
        assert_eq!(expand_heredoc(text, Escape::Backslash, &env).unwrap(), want);
    };
    check(b"\"$v\" '$v' \\$v", b"\"x\" 'x' $v");
    check(b"\xff$v\xfe", b"\xffx\xfe");
}

#[test]
fn bounds_what_doubles_itself() {
    let long = variables(&[("v", &"x".repeat(MAX_GROWTH / 2))]);
    assert!(expand_word("$v$v", Escape::Backslash, &long).is_ok());
    assert_eq!(
        expand_word("$v$v$v", Escape::Backslash, &long),
        Err(ExpandError::TooLong)
    );
    let deep = format!("{}x{}", "${a:-".repeat(100_000), "}".repeat(100_000));
    assert_eq!(
        expand_word(&deep, Escape::Backslash, &NoVariables),
        Err(ExpandError::TooDeep)
    );
    let replaced = expand_word("${v//x/yyyy}", Escape::Backslash, &long);
    assert_eq!(replaced, Err(ExpandError::TooLong));
}

#[test]
fn tells_what_is_undefined() {
    let check = |word: &str, want: &[&str]| {
        let got = expand(word, Escape::Backslash, &NoVariables).unwrap();
        assert_eq!(
            got.undefined.iter().map(String::as_str).collect::<Vec<_>>(),
            want,
            "{word}"
        );
    };
    check("$a", &["a"]);
    check("${a:-x}${b+y}", &[]);
    check("${a:-$b}", &["b"]);
    check("${a#x}", &["a"]);
}

#[test]
fn the_last_writer_wins() {
    let mut scope = Scope::from_image([("A".to_owned(), "image".to_owned())]);
    scope.declare_arg("A", Some("arg".to_owned()));
    assert_eq!(Variables::get(&scope, "A"), Some("arg"));
    scope.set_env("A", "env");
    scope.set_env("B", "b");
    assert_eq!(Variables::get(&scope, "A"), Some("env"));
    scope.declare_arg("A", None);
    assert_eq!(Variables::get(&scope, "A"), Some("env"));
    scope.declare_arg("A", Some("late".to_owned()));
    assert_eq!(Variables::get(&scope, "A"), Some("late"));
    let image: Vec<_> = scope
        .image_env()
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(image, ["A=env", "B=b"]);
}
