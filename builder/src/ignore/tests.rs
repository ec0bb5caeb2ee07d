use serde_json::Value;

use super::*;
use crate::corpus;

fn rules(patterns: &[&str]) -> IgnoreRules {
    IgnoreRules::from_patterns(patterns.iter().copied()).unwrap()
}

#[test]
fn prunes_only_where_nothing_comes_back() {
    let check = |patterns: &[&str], dir: &str, ignored: bool, skip: bool| {
        let rules = rules(patterns);
        let mut level = rules.root();
        let mut path = PathBuf::new();
        for part in Path::new(dir) {
            path.push(part);
            level = rules.enter(&level, &path);
        }
        assert_eq!(
            (level.ignored(), level.may_skip()),
            (ignored, skip),
            "{patterns:?} at {dir}"
        );
    };
    check(&["a"], "a", true, true);
    check(&["a"], "b", false, false);
    check(&["a", "!a/b"], "a", true, false);
    check(&["a", "!a/b"], "a/c", true, true);
    check(&["a", "!a/b"], "a/b", false, false);
    check(&["a", "!b/c"], "a", true, true);
    check(&["!a/b", "a"], "a", true, true);
    check(&["a", "!a/*/c"], "a/x", true, false);
    check(&["a", "!a/*/c"], "a/x/y", true, true);
    check(&["a", "!**/keep"], "a/x/y", true, false);
    check(&["a", "!**/keep", "a/x"], "a/x/y", true, true);
    check(&["**", "!x"], "a", true, true);
    check(&["**", "!a?/x"], "ab", true, false);
    check(&["a/b", "!a", "a/b"], "a/b", true, true);
}

#[test]
fn skipping_never_changes_the_outcome() {
    let names = ["a", "b", "ab"];
    let patterns = [
        "a", "!a/b", "**/b", "!*/a/b", "a/**", "!**a", "*/*/ab", "!ab", "**", "!a*/b/a",
    ];
    let paths: Vec<PathBuf> = (0..81)
        .map(|n| (0..4).map(|k| names[n / 3usize.pow(k) % 3]).collect())
        .collect();
    for one in patterns {
        for two in patterns {
            for three in patterns {
                let rules = rules(&[one, two, three]);
                paths.iter().for_each(|p| check_path(&rules, p));
            }
        }
    }
}

fn check_path(rules: &IgnoreRules, path: &Path) {
    let mut level = rules.root();
    let mut walked = PathBuf::new();
    let mut skipped = false;
    for part in path {
        walked.push(part);
        level = rules.enter(&level, &walked);
        assert!(
            !skipped || level.ignored(),
            "{rules:?}: {} comes back",
            walked.display()
        );
        skipped |= level.may_skip();
    }
    assert_eq!(level.ignored(), rules.is_ignored(path));
}

#[test]
fn finds_bad_patterns() {
    let check = |text: &str, want: &str| {
        assert_eq!(IgnoreRules::parse(text.as_bytes()).unwrap_err().to_string(), want);
    };
    check("a\n[x", "line 2: bad pattern \"[x\": the closing ] is missing");
    check("# c\n\n !\n", "line 3: \"!\" must be followed by a pattern");
    check(
        "a\\",
        "line 1: bad pattern \"a\\\\\": a \\ must be followed by a character",
    );
}

#[test]
fn names_files() {
    let names = file_names(Path::new("dir/Boxfile"));
    assert_eq!(names[0][0], Path::new("dir/Boxfile.boxignore"));
    assert_eq!(names[1][1], Path::new(".dockerignore"));
}

fn case_rules(case: &Value, key: &str) -> Result<IgnoreRules, IgnoreError> {
    let patterns = corpus::strings(&case[key]);
    IgnoreRules::from_patterns(patterns.iter().map(String::as_str))
}

#[test]
fn corpus_matching() {
    for (table, key) in [
        ("dockerignore__match_single", "match"),
        ("dockerignore__match_with_parents", "excluded"),
    ] {
        corpus::check(table, &[], |case| {
            let path = Path::new(case["path"].as_str().unwrap());
            match (case_rules(case, "patterns"), case[key].as_bool()) {
                (Ok(rules), Some(want)) => corpus::equal(rules.is_ignored(path), want),
                (Err(_), None) => Ok(()),
                (got, want) => Err(format!("got {got:?}, want {want:?}")),
            }
        });
    }
}

#[test]
fn corpus_file_format() {
    corpus::check("dockerignore__file_format", &[], |case| {
        if let Some(file) = case["file"].as_str() {
            let got: Vec<String> = file_patterns(file.as_bytes())
                .into_iter()
                .map(|(_, p)| p)
                .collect();
            return corpus::equal(got, corpus::strings(&case["patterns"]));
        }
        match case_rules(case, "patterns_in") {
            Ok(rules) => corpus::equal(Some(rules.has_exceptions()), case["has_exceptions"].as_bool()),
            Err(_) => corpus::equal(case["error"].as_bool(), Some(true)),
        }
    });
}

/// The meaning is compared on many names, since our expressions are written otherwise.
#[test]
fn corpus_compile() {
    let names = [
        "",
        "file",
        "afile",
        "a/file",
        "filex",
        "a/filex",
        "a.txt",
        "d/a.txt",
        "d/e/a.txt",
        "dir2/x",
        "a/dir2/x",
        "dir2",
        ".x",
        "x.x",
        "a/.x",
        "abc.def",
        "abcxdef",
        "abc/def",
        "foo/bar",
        "a/foo/bar",
        "afoo/bar",
        "a(b)c/def",
        "a/b/c",
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
    ];
    corpus::check("dockerignore__compile", &[], |case| {
        let text = case["pattern"].as_str().unwrap();
        let pattern = Pattern::new(text, false).map_err(str::to_owned)?;
        for name in names {
            let want = match case["match_type"].as_str().unwrap() {
                "exact" => name == text,
                "prefix" => name.starts_with(&text[..text.len() - 2]),
                "suffix" => name.ends_with(&text[2..]) || text[2..].strip_prefix('/') == Some(name),
                _ => regex::Regex::new(case["regexp"].as_str().unwrap())
                    .unwrap()
                    .is_match(name),
            };
            corpus::equal((name, pattern.matches(name.as_bytes())), (name, want))?;
        }
        Ok(())
    });
}
