//! Git addresses as ADD takes them: `https://host/repo.git#ref:subdir`, or with
//! `?ref=&tag=&branch=&subdir=&commit=` instead of the fragment.

use thiserror::Error;

use crate::url::decoded;

/// A git repository and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRef {
    /// The repository, as git takes it; without fragment and query.
    pub remote: String,
    /// The last part of its path, without `.git`.
    pub short_name: String,
    /// A branch, tag (`refs/tags/…`) or commit; unset: the default branch.
    pub reference: Option<String>,
    /// The directory in it.
    pub subdir: Option<String>,
    /// The commit that the reference must be (or begin with).
    pub checksum: Option<String>,
    /// What times the files get; unset: those of the checkout.
    pub mtime: Option<GitTime>,
    /// Fetch the checksum's commit instead of the reference.
    pub fetch_by_commit: bool,
    /// Keep `.git`; ADD's own flag goes before.
    pub keep_git_dir: Option<bool>,
    /// Fetch submodules, too.
    pub submodules: Option<bool>,
    /// `git://` and `http://`
    pub unencrypted: bool,
    /// `github.com/…`, which might be a path as well; ADD takes it for one.
    pub ambiguous: bool,
}

/// Where a checkout's times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GitTime {
    /// The time of the checkout.
    Checkout,
    /// The commit's time.
    Commit,
}

/// What is wrong with a git address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GitRefError {
    /// Two of ref, tag, branch and the fragment.
    #[error("ref conflicts: {0:?} and {1:?} are both asked for")]
    RefConflict(String, String),
    /// Two directories, or two commits.
    #[error("{key} conflicts: it is given twice")]
    Conflict {
        /// Which.
        key: &'static str,
    },
    /// A key that is none.
    #[error(
        "unexpected query {0:?}: expected ref, tag, branch, subdir, commit, mtime, fetch-by-commit, keep-git-dir or submodules"
    )]
    UnexpectedQuery(String),
    /// A value that its key does not have.
    #[error("invalid {key} value: {value:?}")]
    InvalidValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
}

impl GitRef {
    /// Parses an address; `None` for what is none (a path, or a URL of a file).
    ///
    /// # Errors
    /// A git address whose query makes no sense.
    pub fn parse(text: &str) -> Result<Option<GitRef>, GitRefError> {
        let (before, fragment) = text.split_once('#').map_or((text, None), |(b, f)| (b, Some(f)));
        let (remote, query) = before
            .split_once('?')
            .map_or((before, None), |(r, q)| (r, Some(q)));
        let Some(mut git) = repository(remote) else {
            return Ok(None);
        };
        if let Some(fragment) = fragment {
            let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
            git.reference = Some(reference.to_owned()).filter(|r| !r.is_empty());
            git.subdir = Some(subdir.to_owned()).filter(|s| !s.is_empty());
        }
        for pair in query
            .into_iter()
            .flat_map(|q| q.split('&'))
            .filter(|p| !p.is_empty())
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            git.query(key, &decoded(&value.replace('+', " ")))?;
        }
        Ok(Some(git))
    }

    fn query(&mut self, key: &str, value: &str) -> Result<(), GitRefError> {
        match key {
            "ref" => self.set_reference(value.to_owned()),
            "tag" => self.set_reference(prefixed("refs/tags/", value)),
            "branch" => self.set_reference(prefixed("refs/heads/", value)),
            "subdir" => set(&mut self.subdir, "subdir", value),
            "checksum" | "commit" => set(&mut self.checksum, "checksum", value),
            "mtime" => {
                self.mtime = Some(match value {
                    "checkout" => GitTime::Checkout,
                    "commit" => GitTime::Commit,
                    _ => return Err(invalid(key, value)),
                });
                Ok(())
            }
            "fetch-by-commit" => switch(key, value).map(|on| self.fetch_by_commit = on),
            "keep-git-dir" => switch(key, value).map(|on| self.keep_git_dir = Some(on)),
            "submodules" => switch(key, value).map(|on| self.submodules = Some(on)),
            _ => Err(GitRefError::UnexpectedQuery(key.to_owned())),
        }
    }

    fn set_reference(&mut self, new: String) -> Result<(), GitRefError> {
        match self.reference.replace(new.clone()) {
            Some(old) => Err(GitRefError::RefConflict(old, new)),
            None => Ok(()),
        }
    }

    /// The address with a fragment alone: `remote#ref`, and `:subdir` where that is wanted.
    pub fn with_fragment(&self, with_subdir: bool) -> String {
        let reference = self.reference.as_deref().unwrap_or_default();
        match (reference, self.subdir.as_deref().filter(|_| with_subdir)) {
            ("", None) => self.remote.clone(),
            (reference, None) => format!("{}#{reference}", self.remote),
            (reference, Some(subdir)) => format!("{}#{reference}:{subdir}", self.remote),
        }
    }
}

/// Whether it is a whole commit id: of SHA-1, or of SHA-256.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The repository alone, where the text names one.
fn repository(remote: &str) -> Option<GitRef> {
    let mut git = GitRef {
        remote: remote.to_owned(),
        ..GitRef::default()
    };
    let path = match remote.split_once("://") {
        Some((scheme, rest)) => {
            let needs_suffix = matches!(scheme, "http" | "https");
            let known = needs_suffix || matches!(scheme, "git" | "ssh");
            git.unencrypted = matches!(scheme, "http" | "git");
            let path = rest.split_once('/')?.1;
            Some(path).filter(|p| known && (!needs_suffix || p.ends_with(".git")))?
        }
        None if remote.starts_with("github.com/") => {
            git.ambiguous = true;
            remote.split_once('/')?.1
        }
        None => scp_path(remote)?,
    };
    let last = path.rsplit('/').next().unwrap_or(path);
    git.short_name = last.strip_suffix(".git").unwrap_or(last).to_owned();
    Some(git)
}

/// The path of `user@host:path`.
fn scp_path(remote: &str) -> Option<&str> {
    let (user, rest) = remote.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let is_name = |text: &str, more: &[char]| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    (is_name(user, &['-', '_']) && is_name(host, &['-', '.']) && !path.is_empty()).then_some(path)
}

fn prefixed(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) {
        value.to_owned()
    } else {
        format!("{prefix}{value}")
    }
}

fn set(place: &mut Option<String>, key: &'static str, value: &str) -> Result<(), GitRefError> {
    match place.replace(value.to_owned()) {
        Some(_) => Err(GitRefError::Conflict { key }),
        None => Ok(()),
    }
}

fn switch(key: &str, value: &str) -> Result<bool, GitRefError> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(invalid(key, value)),
    }
}

fn invalid(key: &str, value: &str) -> GitRefError {
    GitRefError::InvalidValue {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::corpus::{self, equal};

    fn fields(git: &GitRef) -> Value {
        let mut out = serde_json::json!({"Remote": git.remote, "ShortName": git.short_name});
        let mut put = |key: &str, value: Value| out[key] = value;
        git.reference.iter().for_each(|v| put("Ref", v.clone().into()));
        git.subdir.iter().for_each(|v| put("SubDir", v.clone().into()));
        git.checksum
            .iter()
            .for_each(|v| put("Checksum", v.clone().into()));
        git.keep_git_dir
            .iter()
            .for_each(|v| put("KeepGitDir", (*v).into()));
        git.submodules.iter().for_each(|v| put("Submodules", (*v).into()));
        let time = |t: &GitTime| {
            if *t == GitTime::Commit {
                "commit"
            } else {
                "checkout"
            }
        };
        git.mtime.iter().for_each(|v| put("MTime", time(v).into()));
        for (key, on) in [
            ("FetchByCommit", git.fetch_by_commit),
            ("UnencryptedTCP", git.unencrypted),
            ("IndistinguishableFromLocal", git.ambiguous),
        ] {
            if on {
                put(key, true.into());
            }
        }
        out
    }

    #[test]
    fn decodes_queries() {
        let git = GitRef::parse("https://x/y.git?subdir=a%2Fb+c%zz&tag=v1")
            .unwrap()
            .unwrap();
        assert_eq!(git.subdir.as_deref(), Some("a/b c%zz"));
        assert_eq!(git.reference.as_deref(), Some("refs/tags/v1"));
    }

    #[test]
    fn corpus_git_refs() {
        corpus::check("parser__git_refs", &[], |case| {
            let text = case["ref"].as_str().unwrap();
            let got = GitRef::parse(text);
            if let Some(ok) = case["ok"].as_bool() {
                let with_subdir = case["test"] == "TestFragmentFormatWithSubdir";
                let formatted = got.ok().flatten().map(|g| g.with_fragment(with_subdir));
                equal(formatted.is_some(), ok)?;
                return equal(
                    formatted.as_deref().unwrap_or(text),
                    case["expected"].as_str().unwrap(),
                );
            }
            match (got, case["err"].as_str()) {
                (Err(e), Some(want)) if e.to_string().contains(want.split(' ').next().unwrap()) => Ok(()),
                (Ok(got), None) => equal(got.as_ref().map_or(Value::Null, fields), case["expected"].clone()),
                (got, want) => Err(format!("got {got:?}, want {want:?}")),
            }
        });
    }
}
