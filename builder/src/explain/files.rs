//! Files of an input: which are new, gone, renamed or changed.

use std::collections::BTreeMap;

use crate::cache::{FileFact, FileFacts, Short};

use super::{Difference, FileChange};

/// How many files are named one by one.
const NAMED: usize = 5;

/// What differs between what only the older list has and what only the newer one has.
pub(super) fn changes(lists: Option<(FileFacts, FileFacts)>) -> Vec<Difference> {
    let Some((mut before, mut after)) = lists else {
        return Vec::new();
    };
    let mut found: Vec<(String, FileChange)> = Vec::new();
    after.retain(|path, new| match before.remove(path) {
        Some(old) => {
            found.extend(of_file(&old, new).into_iter().map(|change| (shown(path), change)));
            false
        }
        None => true,
    });
    renamed(&mut before, &mut after, &mut found);
    found.extend(after.keys().map(|path| (shown(path), FileChange::New)));
    found.extend(before.keys().map(|path| (shown(path), FileChange::Gone)));
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let more = found.len().saturating_sub(NAMED);
    let named = found.into_iter().take(NAMED);
    let mut all: Vec<Difference> = named
        .map(|(path, change)| Difference::File { path, change })
        .collect();
    if more > 0 {
        all.push(Difference::MoreFiles { count: more });
    }
    all
}

/// A file that is gone and one that is new, alike in all and like no other, are one.
fn renamed(before: &mut FileFacts, after: &mut FileFacts, found: &mut Vec<(String, FileChange)>) {
    let mut gone: BTreeMap<Short, Vec<Vec<u8>>> = BTreeMap::new();
    let content = |fact: &FileFact| fact.content.filter(|_| fact.kind == b'f');
    for (path, fact) in before.iter() {
        if let Some(content) = content(fact) {
            gone.entry(content).or_default().push(path.clone());
        }
    }
    let is_renamed = |path: &Vec<u8>, fact: &FileFact| {
        let candidates = content(fact).and_then(|content| gone.get(&content));
        let [old] = candidates?.as_slice() else {
            return None;
        };
        let same = before.get(old).filter(|before| *before == fact);
        same.map(|_| (path.clone(), old.clone()))
    };
    let pairs: Vec<_> = after
        .iter()
        .filter_map(|(path, fact)| is_renamed(path, fact))
        .collect();
    for (path, old) in pairs {
        if before.remove(&old).is_some() {
            after.remove(&path);
            found.push((shown(&path), FileChange::Renamed { from: shown(&old) }));
        }
    }
}

fn of_file(old: &FileFact, new: &FileFact) -> Vec<FileChange> {
    if old.kind != new.kind {
        return vec![FileChange::Type {
            from: kind(old.kind),
            to: kind(new.kind),
        }];
    }
    let mut changes = Vec::new();
    if old.content != new.content {
        changes.push(FileChange::Content);
    }
    if old.mode != new.mode {
        changes.push(FileChange::Mode {
            from: format!("{:o}", old.mode),
            to: format!("{:o}", new.mode),
        });
    }
    if let (Some(from), Some(to)) = (old.owner, new.owner)
        && from != to
    {
        let owner = |(uid, gid): (u32, u32)| format!("{uid}:{gid}");
        changes.push(FileChange::Owner {
            from: owner(from),
            to: owner(to),
        });
    }
    if old.xattrs != new.xattrs {
        changes.push(FileChange::Attributes);
    }
    if old.twin != new.twin {
        changes.push(FileChange::HardLink);
    }
    changes
}

fn kind(letter: u8) -> &'static str {
    match letter {
        b'd' => "directory",
        b'f' => "file",
        b'l' => "link",
        b'p' => "named pipe",
        b's' => "socket",
        b'c' | b'b' => "device",
        _ => "something else",
    }
}

fn shown(path: &[u8]) -> String {
    match path {
        b"" => ".".to_owned(),
        path => String::from_utf8_lossy(path).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(content: u8, mode: u16) -> FileFact {
        FileFact {
            kind: b'f',
            mode,
            owner: None,
            content: Some([content; 8]),
            xattrs: None,
            twin: None,
        }
    }

    fn facts(all: &[(&str, FileFact)]) -> FileFacts {
        let all = all.iter();
        all.map(|(path, fact)| (path.as_bytes().to_vec(), *fact))
            .collect()
    }

    fn check(before: &[(&str, FileFact)], after: &[(&str, FileFact)], expected: &[&str]) {
        let found = changes(Some((facts(before), facts(after))));
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn files_are_compared() {
        let (a, b) = (fact(1, 0o644), fact(2, 0o644));
        check(&[("x", a)], &[("x", a)], &[]);
        check(&[("x", a)], &[("x", b)], &["`x` changed"]);
        check(&[("x", a)], &[("x", fact(1, 0o755))], &["mode of `x` 644 → 755"]);
        check(&[], &[("x", a)], &["`x` is new"]);
        check(&[("x", a)], &[], &["`x` is gone"]);
        check(&[("x", a)], &[("y", a)], &["`x` is now called `y`"]);
        check(
            &[("x", a), ("z", a)],
            &[("y", a)],
            &["`x` is gone", "`y` is new", "`z` is gone"],
        );
        let link = FileFact { kind: b'l', ..a };
        check(&[("x", a)], &[("x", link)], &["`x` was a file and is a link"]);
        let many: Vec<(String, FileFact)> = (0..9).map(|n| (format!("f{n}"), fact(n, 0o600))).collect();
        let many: Vec<(&str, FileFact)> = many.iter().map(|(name, fact)| (name.as_str(), *fact)).collect();
        assert_eq!(changes(Some((FileFacts::new(), facts(&many)))).len(), 6);
    }
}
