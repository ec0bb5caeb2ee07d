//! Git repositories as layers, by the `git` program: one commit, no history, no hooks.
//!
//! A commit's files follow from its id, so a layer is made once for each (records of kind `git`); a branch or a tag is asked for again at
//! each build. Asking and fetching go by the user's own git configuration (credentials, proxies, other addresses); the
//! checkout goes by none, so that it is the same everywhere. Nothing of the repository is run, and no program but git and ssh
//! is asked for anything.

mod command;
mod layer;
mod resolve;

use std::io;

use box_store::Store;
use box_store::digest::{DiffId, Digest};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;
use box_store::snapshot::PrepareOptions;
use thiserror::Error;

use crate::exec::CancelToken;
use crate::git_ref::{GitRef, GitTime};
use crate::url::without_credentials;

use command::Git;
use resolve::{Resolved, is_commit};

/// Why a repository can't be had.
#[derive(Debug, Error)]
pub enum GitError {
    /// There is no git.
    #[error("git is not installed, and is needed for {repository}")]
    NotInstalled {
        /// What for.
        repository: String,
    },
    /// Git said no.
    #[error("{repository}: git {action} failed: {message}")]
    Failed {
        /// Of what.
        repository: String,
        /// The command.
        action: &'static str,
        /// What git said.
        message: String,
    },
    /// There is no such branch, tag or commit.
    #[error("{repository} has no {reference}: write a branch, a tag, or all 40 digits of a commit")]
    NoReference {
        /// Where.
        repository: String,
        /// What was asked for.
        reference: String,
    },
    /// The reference is another commit than it should be.
    #[error("{repository}: expected the commit {expected}, found {found}")]
    Checksum {
        /// Where.
        repository: String,
        /// As it should be, or how it should begin.
        expected: String,
        /// As it is.
        found: String,
    },
    /// There is no such directory.
    #[error("{repository} has no directory {subdir}")]
    NoDirectory {
        /// Where.
        repository: String,
        /// What was asked for.
        subdir: String,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A file of the checkout.
    #[error("cannot read the checkout of {repository}: {source}")]
    Io {
        /// Of what.
        repository: String,
        /// Why.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Which one, and what of it.
    pub address: &'a GitRef,
    /// Whether `.git` is wanted, too.
    pub keep_git_dir: bool,
}

/// A layer of a commit's files.
#[derive(Debug)]
pub struct Checkout {
    /// With the files, owned by root, in its root.
    pub layer: Layer,
    /// The commit, in hex.
    pub commit: String,
    /// Whether it was here.
    pub is_cached: bool,
}

impl Wanted<'_> {
    /// Gets the files of the commit that is meant.
    ///
    /// # Errors
    /// See [`GitError`]; nothing is left of the attempt.
    pub fn checkout(
        &self,
        store: &Store,
        options: &PrepareOptions,
        cancel: &CancelToken,
    ) -> Result<Checkout, GitError> {
        let shown = without_credentials(&self.address.remote);
        let git = Git::new(store, cancel, &self.address.remote, shown)?;
        let resolved = self.resolve(&git)?;
        self.check(&git, &resolved)?;
        let key = self.key(&resolved, options);
        if let Some(known) = known(store, &key, &resolved)? {
            return Ok(known);
        }
        let once = cancel.poll(|| store.try_lock("git", &key))?;
        let _once = once.ok_or(GitError::Cancelled)?;
        if let Some(known) = known(store, &key, &resolved)? {
            return Ok(known);
        }
        let commit = git.fetch(&resolved)?;
        if commit != resolved.commit {
            // It has moved since it was asked for.
            let found = Resolved {
                commit: commit.clone(),
                object: commit.clone(),
                ..resolved
            };
            self.check(&git, &found)?;
            return self.finish(store, &git, &found, options);
        }
        self.finish(store, &git, &resolved, options)
    }

    fn finish(
        &self,
        store: &Store,
        git: &Git<'_>,
        resolved: &Resolved,
        options: &PrepareOptions,
    ) -> Result<Checkout, GitError> {
        git.check_out(resolved, self.address.submodules.unwrap_or(true))?;
        let mtime = match self.address.mtime {
            Some(GitTime::Commit) => Some(git.time_of(&resolved.commit)?),
            Some(GitTime::Checkout) | None => None,
        };
        if self.keep_git_dir {
            git.tidy(resolved)?;
        }
        let layer = layer::write(store, git, self, options, mtime)?;
        let diff_id = layer.diff_id()?;
        let bytes = serde_json::to_vec(&diff_id).unwrap_or_default();
        store.put_record(
            &RecordKind::new("git")?,
            &self.key(resolved, options),
            &bytes,
            &[diff_id.0],
        )?;
        Ok(Checkout {
            layer,
            commit: resolved.commit.clone(),
            is_cached: false,
        })
    }

    /// The commit that is meant. One that is written in full is not asked for.
    fn resolve(&self, git: &Git<'_>) -> Result<Resolved, GitError> {
        let checksum = self.address.checksum.as_deref();
        match (self.address.reference.as_deref(), checksum) {
            (_, Some(commit)) if self.address.fetch_by_commit && is_commit(commit) => {
                Ok(Resolved::commit(commit))
            }
            (Some(commit), _) if is_commit(commit) => Ok(Resolved::commit(commit)),
            (reference, _) => git.resolve(reference),
        }
    }

    fn check(&self, git: &Git<'_>, resolved: &Resolved) -> Result<(), GitError> {
        match &self.address.checksum {
            Some(expected) if !resolved.matches(expected) => Err(GitError::Checksum {
                repository: git.shown().to_owned(),
                expected: expected.clone(),
                found: resolved.commit.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// What the files follow from.
    fn key(&self, resolved: &Resolved, options: &PrepareOptions) -> Digest {
        let address = self.address;
        // A tag object is in `.git`, too.
        let kept = self.keep_git_dir.then_some((&resolved.name, &resolved.object));
        let text = serde_json::to_vec(&(
            without_credentials(&address.remote),
            &resolved.commit,
            &address.subdir,
            kept,
            address.submodules.unwrap_or(true),
            address.mtime == Some(GitTime::Commit),
            format!("{:?}", options.mtimes),
            options.source_date_epoch,
        ))
        .unwrap_or_default();
        Digest::of(&[b"box git 2\n", text.as_slice()].concat())
    }
}

fn known(store: &Store, key: &Digest, resolved: &Resolved) -> Result<Option<Checkout>, StoreError> {
    let record = store.get_record(&RecordKind::new("git")?, key)?;
    let diff_id = record.and_then(|record| serde_json::from_slice::<DiffId>(&record.bytes).ok());
    let layer = diff_id.map_or(Ok(None), |diff_id| store.layer(&diff_id))?;
    Ok(layer.map(|layer| Checkout {
        layer,
        commit: resolved.commit.clone(),
        is_cached: true,
    }))
}
