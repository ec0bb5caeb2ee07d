//! What is said of a step, in words.

use std::fmt;

use super::{Cause, Difference, FileChange, Verdict};

/// The longest value that is shown, in characters.
const LONGEST: usize = 80;
/// How many differences are said.
const SAID: usize = 8;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Nothing => f.write_str("nothing to do"),
            Verdict::Hit => f.write_str("hit"),
            Verdict::Miss { why } => write!(f, "miss: {why}"),
            Verdict::Depends { on } => write!(f, "depends on {on}"),
            Verdict::Fails { error } => write!(f, "fails: {error}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::New => f.write_str("never built before"),
            Cause::NoCache => f.write_str("--no-cache"),
            Cause::NoCacheFilter => f.write_str("--no-cache-filter names its stage"),
            Cause::Never => f.write_str("it says --cache=never"),
            Cause::Expired { ttl, .. } => write!(
                f,
                "it was done longer ago than its --cache=ttl:{} allows",
                since(*ttl)
            ),
            Cause::Removed => f.write_str("its record was removed"),
            Cause::LayerGone => f.write_str("its layer was removed, or is damaged"),
            Cause::NotUnpacked => f.write_str("this archive was not unpacked before"),
            Cause::Differs { differences, .. } => {
                let mut between = "";
                for difference in differences.iter().take(SAID) {
                    write!(f, "{between}{difference}")?;
                    between = "; ";
                }
                match differences.len().saturating_sub(SAID) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Instruction { from, to } => write!(f, "the instruction was `{from}`, is `{to}`"),
            Difference::Meaning { from, to } => write!(f, "`{from}` became `{to}`"),
            Difference::Variable { .. } => self.variable(f),
            Difference::Setting { what, from, to } => write!(f, "{what} {} → {}", value(from), value(to)),
            Difference::File { path, change } => of_file(f, path, change),
            Difference::MoreFiles { count: 1 } => f.write_str("and 1 more file"),
            Difference::MoreFiles { count } => write!(f, "and {count} more files"),
            Difference::Input {
                what,
                change: "changed",
            } => write!(f, "{what} changed"),
            Difference::Input { what, change } => write!(f, "{what} is {change}"),
            Difference::Base { from, to } if from == to => f.write_str("the base changed"),
            Difference::Base { from, to } => write!(f, "the base changed: {from} → {to}"),
            Difference::Below { step } => write!(f, "`{step}` before it gave another layer"),
            Difference::FewerBelow => f.write_str("a step before it is gone, or gives no layer now"),
        }
    }
}

impl Difference {
    fn variable(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference::Variable {
            name,
            is_arg,
            from,
            to,
            is_hidden,
            is_mentioned,
        } = self
        else {
            return Ok(());
        };
        let what = if *is_arg { "ARG" } else { "ENV" };
        match (from, to) {
            _ if *is_hidden => write!(f, "{what} {name} changed (its values are not shown)")?,
            (Some(from), Some(to)) => write!(f, "{what} {name} {} → {}", value(from), value(to))?,
            (None, Some(to)) => write!(f, "{what} {name}={} is new", value(to))?,
            (Some(from), None) => write!(f, "{what} {name}={} is gone", value(from))?,
            (None, None) => write!(f, "{what} {name} changed")?,
        }
        match *is_arg && !is_mentioned && (to.is_some() || *is_hidden) {
            true => f.write_str(" (the line never mentions it: declare it later)"),
            false => Ok(()),
        }
    }
}

fn of_file(f: &mut fmt::Formatter<'_>, path: &str, change: &FileChange) -> fmt::Result {
    match change {
        FileChange::New => write!(f, "`{path}` is new"),
        FileChange::Gone => write!(f, "`{path}` is gone"),
        FileChange::Renamed { from } => write!(f, "`{from}` is now called `{path}`"),
        FileChange::Content => write!(f, "`{path}` changed"),
        FileChange::Mode { from, to } => write!(f, "mode of `{path}` {from} → {to}"),
        FileChange::Owner { from, to } => write!(f, "owner of `{path}` {from} → {to}"),
        FileChange::Attributes => write!(f, "attributes of `{path}` changed"),
        FileChange::Type { from, to } => write!(f, "`{path}` was a {from} and is a {to}"),
        FileChange::HardLink => write!(f, "`{path}` is another hard link"),
    }
}

/// A value among words: quoted where it would not be seen as one.
fn value(text: &str) -> String {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => format!("\"{text}\""),
        false => text.to_owned(),
    }
}

/// A text on one line, of a length that can be read.
pub(super) fn clip(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A mount, from what its key calls it: a JSON list of target, access, kind and more. Of a secret that is its id.
pub(super) fn mount_words(name: &str) -> String {
    let words: Vec<String> = serde_json::from_str(name).unwrap_or_default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    clip(&match words.as_slice() {
        [_, _, "program", ..] => "the heredoc that is run".to_owned(),
        [target, access, "bind", ..] => format!("the bind mount at {target} ({access})"),
        [target, access, "tmpfs", ..] => format!("the tmpfs at {target} ({access})"),
        [target, access, kind, id, ..] => format!("the {kind} {id} at {target} ({access})"),
        _ => name.to_owned(),
    })
}

/// A number of seconds as people say it.
pub fn since(seconds: u64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(from: Option<&str>, to: Option<&str>, is_mentioned: bool) -> Difference {
        Difference::Variable {
            name: "GIT_SHA".to_owned(),
            is_arg: true,
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            is_hidden: false,
            is_mentioned,
        }
    }

    #[test]
    fn differences_in_words() {
        let check = |difference: Difference, words: &str| assert_eq!(difference.to_string(), words);
        check(variable(Some("a"), Some("b"), true), "ARG GIT_SHA a → b");
        check(
            variable(Some("a"), Some("b"), false),
            "ARG GIT_SHA a → b (the line never mentions it: declare it later)",
        );
        check(variable(Some("a b"), None, false), "ARG GIT_SHA=\"a b\" is gone");
        check(variable(None, Some(""), true), "ARG GIT_SHA=\"\" is new");
        check(
            Difference::Setting {
                what: "USER".to_owned(),
                from: "root".to_owned(),
                to: "1".to_owned(),
            },
            "USER root → 1",
        );
    }

    #[test]
    fn long_texts_are_clipped() {
        assert_eq!(clip("a\n\tb  c"), "a b c");
        assert_eq!(clip(&"é".repeat(100)).chars().count(), 81);
    }
}
