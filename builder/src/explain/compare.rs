//! Two runs of a step, part by part.

use std::collections::BTreeSet;

use box_store::Store;
use box_store::digest::Digest;
use box_store::error::StoreError;

use crate::cache::{About, CacheKey, FileList, Input, KeyParts, StepKind};
use crate::lint::looks_secret;
use crate::url::without_credentials;

use super::words::{clip, mount_words};
use super::{Asked, Difference, Other, files};

/// How far another run is from this one: how many things differ, those that the user wrote more than those that follow.
pub(super) fn distance(asked: &Asked<'_>, key: &CacheKey, about: &About) -> usize {
    let (now, then) = (asked.parts, &key.parts);
    let instruction = match (
        now.instruction == then.instruction,
        asked.about.text == about.text,
    ) {
        (true, _) => 0,
        (false, true) => 2,
        (false, false) => 4,
    };
    let inputs = inputs(now, then).len();
    let settings = settings(now, then).len() + variables(asked, (key, about)).len();
    let parent = usize::from(is_other_parent(asked, key));
    instruction + 2 * inputs + settings + parent
}

/// Everything that differs, the most telling first.
pub(super) fn differences(
    store: &Store,
    asked: &Asked<'_>,
    key: &CacheKey,
    about: &About,
) -> Result<Vec<Difference>, StoreError> {
    let (now, then) = (asked.parts, &key.parts);
    let mut found = Vec::new();
    found.extend(instruction(asked, (key, about)));
    let is_rewritten = matches!(found.first(), Some(Difference::Instruction { .. }));
    found.extend(variables(asked, (key, about)));
    found.extend(settings(now, then));
    for (new, old) in inputs(now, then) {
        // What another text reads is other than what this one does.
        let is_same = new.map(|input| &input.name) == old.map(|input| &input.name);
        if !is_rewritten || (is_same && now.kind == StepKind::Run) {
            found.extend(input(store, asked, new, old)?);
        }
    }
    found.extend(parent(asked, (key, about)));
    Ok(found)
}

fn instruction(asked: &Asked<'_>, (key, about): Other<'_>) -> Option<Difference> {
    let (now, then) = (&asked.parts.instruction, &key.parts.instruction);
    let is_rewritten = about.is_known() && about.text != asked.about.text;
    if now == then && !(is_rewritten && names(asked.parts) != names(&key.parts)) {
        return None;
    }
    if is_rewritten {
        return Some(Difference::Instruction {
            from: clip(&about.text),
            to: clip(&asked.about.text),
        });
    }
    if asked.parts.kind == StepKind::Run
        && let (Some((command, shell)), Some((old_command, old_shell))) =
            (now.split_last(), then.split_last())
        && command == old_command
    {
        return Some(Difference::Setting {
            what: "SHELL".to_owned(),
            from: clip(&old_shell.join(" ")),
            to: clip(&shell.join(" ")),
        });
    }
    let (from, to) = first_difference(then, now);
    Some(Difference::Meaning { from, to })
}

/// The names of what is read: those of files stand in the instruction.
fn names(parts: &KeyParts) -> Vec<&str> {
    parts.inputs.iter().map(|input| input.name.as_str()).collect()
}

/// The first line, of all words, that is another.
fn first_difference(then: &[String], now: &[String]) -> (String, String) {
    let lines = |words: &[String]| -> Vec<String> {
        let lines = words.iter().flat_map(|word| word.lines());
        lines.map(str::to_owned).collect()
    };
    let (then, now) = (lines(then), lines(now));
    let at = then.iter().zip(&now).take_while(|(a, b)| a == b).count();
    let line = |lines: &[String]| lines.get(at).map(|line| clip(line)).unwrap_or_default();
    (line(&then), line(&now))
}

fn variables(asked: &Asked<'_>, (key, about): Other<'_>) -> Vec<Difference> {
    let (now, then) = (&asked.parts.env, &key.parts.env);
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    let differ = names.into_iter().filter(|name| now.get(*name) != then.get(*name));
    differ
        .map(|name| {
            let is_hidden = looks_secret(name);
            let shown = |value: Option<&String>| {
                let value = value.filter(|_| !is_hidden)?;
                Some(clip(&without_credentials(value)))
            };
            Difference::Variable {
                name: name.clone(),
                is_arg: asked.about.args.contains(name) || about.args.contains(name),
                from: shown(then.get(name)),
                to: shown(now.get(name)),
                is_hidden,
                is_mentioned: asked.parts.instruction.iter().any(|word| mentions(word, name)),
            }
        })
        .collect()
}

/// Whether a text has this name in it, as a word.
fn mentions(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn settings(now: &KeyParts, then: &KeyParts) -> Vec<Difference> {
    let number = |number: Option<i64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let user = |user: &str| if user.is_empty() { "root" } else { user }.to_owned();
    let pairs = |parts: &KeyParts| {
        [
            ("the form of keys", parts.version.to_string()),
            ("the platform", parts.platform.clone()),
            ("USER", user(&parts.user)),
            ("WORKDIR", parts.workdir.clone()),
            ("the network", parts.network.clone().unwrap_or_default()),
            ("/etc/hosts", parts.hosts.join(", ")),
            ("owners", parts.layer.ownership.clone()),
            ("--mtimes", parts.layer.mtimes.clone()),
            ("SOURCE_DATE_EPOCH", number(parts.layer.source_date_epoch)),
            ("the base's creation time", number(parts.layer.base_created)),
        ]
    };
    let all = pairs(then).into_iter().zip(pairs(now));
    let differ = all.filter(|((_, from), (_, to))| from != to);
    differ
        .map(|((what, from), (_, to))| Difference::Setting {
            what: what.to_owned(),
            from: clip(&from),
            to: clip(&to),
        })
        .collect()
}

type Pair<'a> = (Option<&'a Input>, Option<&'a Input>);

/// What is read now with what was read then, where they differ.
fn inputs<'a>(now: &'a KeyParts, then: &'a KeyParts) -> Vec<Pair<'a>> {
    if now.inputs.len() == then.inputs.len() {
        let pairs = now.inputs.iter().zip(&then.inputs);
        let differ = pairs.filter(|(new, old)| new != old);
        return differ.map(|(new, old)| (Some(new), Some(old))).collect();
    }
    let same = |a: &Input, among: &'a [Input]| among.iter().find(|b| a.name == b.name);
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    for new in &now.inputs {
        let old = same(new, &then.inputs);
        if old != Some(new) {
            pairs.push((Some(new), old));
        }
    }
    let gone = then.inputs.iter().filter(|old| same(old, &now.inputs).is_none());
    pairs.extend(gone.map(|old| (None, Some(old))));
    pairs
}

fn input(
    store: &Store,
    asked: &Asked<'_>,
    new: Option<&Input>,
    old: Option<&Input>,
) -> Result<Vec<Difference>, StoreError> {
    let (Some(new), Some(old)) = (new, old) else {
        let (input, change) = match (new, old) {
            (Some(new), _) => (new, "new"),
            (None, Some(old)) => (old, "gone"),
            (None, None) => return Ok(Vec::new()),
        };
        let what = what_is(asked.parts.kind, &input.name);
        return Ok(vec![Difference::Input { what, change }]);
    };
    let mut found = Vec::new();
    if new.name != old.name && asked.parts.kind == StepKind::Run {
        found.push(mount(&old.name, &new.name));
    }
    if new.digest == old.digest {
        return Ok(found);
    }
    let changed = match list(store, asked, &new.digest)? {
        Some(list) => files::changes(list.compare(store, &old.digest)?),
        None => Vec::new(),
    };
    if changed.is_empty() {
        found.push(Difference::Input {
            what: what_is(asked.parts.kind, &new.name),
            change: "changed",
        });
    }
    found.extend(changed);
    Ok(found)
}

/// Another mount in the place of one.
fn mount(old: &str, new: &str) -> Difference {
    let (from, to) = (mount_words(old), mount_words(new));
    match from == to {
        true => Difference::Input {
            what: format!("how {to} is mounted"),
            change: "changed",
        },
        false => Difference::Setting {
            what: "a mount:".to_owned(),
            from,
            to,
        },
    }
}

/// The files of an input of now.
fn list(store: &Store, asked: &Asked<'_>, input: &Digest) -> Result<Option<FileList>, StoreError> {
    match asked.lists.iter().find(|(digest, _)| digest == input) {
        Some((_, list)) => Ok(Some(list.clone())),
        None => FileList::kept(store, input),
    }
}

/// An input in words.
fn what_is(kind: StepKind, name: &str) -> String {
    match (kind, name.strip_prefix("<<")) {
        (StepKind::Run, _) => mount_words(name),
        (_, Some(heredoc)) => format!("the heredoc {heredoc}"),
        (_, None) => clip(name),
    }
}

/// The layers below are what the parent of a key is.
fn is_other_parent(asked: &Asked<'_>, key: &CacheKey) -> bool {
    let chain = |below: &super::Below<'_>| box_store::digest::ChainId::of(below.layers);
    asked
        .below
        .as_ref()
        .is_some_and(|below| chain(below) != key.parent)
}

fn parent(asked: &Asked<'_>, (key, about): Other<'_>) -> Option<Difference> {
    let below = asked.below.as_ref().filter(|_| is_other_parent(asked, key))?;
    let then = &about.below;
    let at = then.iter().zip(below.layers).take_while(|(a, b)| a == b).count();
    if !about.is_known() {
        return Some(Difference::Input {
            what: "what lies below".to_owned(),
            change: "changed",
        });
    }
    if at < about.base_layers.max(asked.about.base_layers) {
        return Some(Difference::Base {
            from: about.base.clone(),
            to: asked.about.base.clone(),
        });
    }
    Some(match below.makers.get(at) {
        Some(step) => Difference::Below { step: clip(step) },
        None => Difference::FewerBelow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word() {
        let cases = [
            ("echo $SHA", "SHA", true),
            ("echo ${SHA}x", "SHA", true),
            ("echo $SHA1 GIT_SHA", "SHA", false),
            ("", "SHA", false),
            ("héSHA", "SHA", true),
        ];
        for (text, name, expected) in cases {
            assert_eq!(mentions(text, name), expected, "{text}");
        }
    }
}
