//! Which commit a branch, a tag or nothing means.

use crate::git_ref::is_commit;

/// A commit, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// In hex.
    pub(super) commit: String,
    /// The tag object, where a tag is one; else the commit.
    pub(super) object: String,
    /// The branch's or tag's full name (`refs/…`); none for a commit.
    pub(super) name: Option<String>,
}

impl Resolved {
    /// A commit that is written in full.
    pub(super) fn commit(hex: &str) -> Resolved {
        Resolved {
            commit: hex.to_ascii_lowercase(),
            object: hex.to_ascii_lowercase(),
            name: None,
        }
    }

    /// Whether the commit (or the tag object) begins so.
    pub(super) fn matches(&self, expected: &str) -> bool {
        let expected = expected.to_ascii_lowercase();
        !expected.is_empty() && (self.commit.starts_with(&expected) || self.object.starts_with(&expected))
    }
}

/// What to ask for: a name and what a tag of that name points to.
pub(super) fn questions(reference: Option<&str>) -> Vec<String> {
    match reference {
        None => vec!["HEAD".to_owned()],
        Some(reference) => vec![reference.to_owned(), format!("{reference}^{{}}")],
    }
}

/// Finds a reference in what `git ls-remote --symref` tells. A branch goes before a tag of its name, as in git's checkout.
pub(super) fn find(listing: &str, reference: Option<&str>) -> Option<Resolved> {
    let lines = || listing.lines().filter_map(|line| line.split_once('\t'));
    let object_of = |name: &str| {
        let mut found = lines().filter(|(object, found)| *found == name && is_commit(object));
        found.next().map(|(object, _)| object.to_owned())
    };
    let Some(reference) = reference else {
        let commit = object_of("HEAD")?;
        let mut targets = lines().filter(|(_, name)| *name == "HEAD");
        let name = targets.find_map(|(target, _)| target.strip_prefix("ref: "));
        return Some(Resolved {
            object: commit.clone(),
            commit,
            name: name.map(str::to_owned),
        });
    };
    let names = [
        reference.to_owned(),
        format!("refs/heads/{reference}"),
        format!("refs/tags/{reference}"),
        format!("refs/{reference}"),
    ];
    let is_full = |name: &String| name.starts_with("refs/");
    names.iter().filter(|name| is_full(name)).find_map(|name| {
        let object = object_of(name)?;
        Some(Resolved {
            commit: object_of(&format!("{name}^{{}}")).unwrap_or_else(|| object.clone()),
            object,
            name: Some(name.clone()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn found(listing: &str, reference: Option<&str>) -> Option<(String, Option<String>)> {
        find(listing, reference).map(|found| (found.commit, found.name))
    }

    #[test]
    fn the_default_branch_has_its_name() {
        let listing = format!("ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{B}\trefs/remotes/x/HEAD\n");
        assert_eq!(
            found(&listing, None),
            Some((A.into(), Some("refs/heads/main".into())))
        );
        assert_eq!(found(&format!("{A}\tHEAD\n"), None), Some((A.into(), None)));
        assert_eq!(found("", None), None);
    }

    #[test]
    fn branches_go_before_tags_and_names_are_whole() {
        let listing = format!("{A}\trefs/tags/v1\n{B}\trefs/tags/v1^{{}}\n{A}\trefs/heads/x/v1\n");
        let tag = find(&listing, Some("v1")).unwrap_or_else(|| panic!("no v1"));
        assert_eq!((tag.commit.as_str(), tag.object.as_str()), (B, A));
        assert!(tag.matches("bbb") && tag.matches("AAA") && !tag.matches("") && !tag.matches("c"));
        let listing = format!("{listing}{A}\trefs/heads/v1\n");
        assert_eq!(
            found(&listing, Some("v1")),
            Some((A.into(), Some("refs/heads/v1".into())))
        );
        assert_eq!(
            found(&listing, Some("refs/tags/v1")),
            Some((B.into(), Some("refs/tags/v1".into())))
        );
        assert_eq!(found(&listing, Some("1")), None);
        assert_eq!(found("no\trefs/heads/1\n", Some("1")), None);
    }
}
