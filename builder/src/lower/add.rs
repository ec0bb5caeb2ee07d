//! ADD: a COPY that unpacks archives and reads URLs and git repositories.

use crate::ast::{Add, CopySource, Word};
use crate::diagnostic::Diagnostic;
use crate::git_ref::GitRef;
use crate::plan::{CopySourcePlan, CopyStep};
use crate::url::name_of;

use super::Lowering;
use super::state::State;

impl Lowering<'_> {
    /// ADD: a COPY that unpacks archives and reads URLs.
    pub(super) fn add(&mut self, state: &State, add: &Add) -> Option<CopyStep> {
        let sources = self.add_sources(state, add);
        let step = self.copy_words(state, &add.flags, sources, &add.destination)?;
        Some(CopyStep {
            unpack: add.unpack.unwrap_or(true),
            ..step
        })
    }

    fn add_sources(&mut self, state: &State, add: &Add) -> Option<Vec<CopySourcePlan>> {
        let checksum = match &add.checksum {
            Some(word) => Some(self.word(state, word)?),
            None => None,
        };
        let mut plans = Vec::with_capacity(add.sources.len());
        for source in &add.sources {
            plans.push(match source {
                CopySource::Path(word) => self.add_source(state, word, add, checksum.as_deref())?,
                CopySource::Inline(heredoc) => self.inline(state, heredoc)?,
            });
        }
        let is_far =
            |plan: &CopySourcePlan| matches!(plan, CopySourcePlan::Url { .. } | CopySourcePlan::Git { .. });
        if let Some(word) = &add.checksum
            && (plans.len() > 1 || !plans.iter().all(is_far))
        {
            let problem = Diagnostic::error(word.span, "--checksum is for one source, which is a URL");
            self.problems.push(
                problem.expected("ADD --checksum=sha256:… URL DESTINATION, or a commit for a git repository"),
            );
            return None;
        }
        Some(plans)
    }

    fn add_source(
        &mut self,
        state: &State,
        word: &Word,
        add: &Add,
        checksum: Option<&str>,
    ) -> Option<CopySourcePlan> {
        let pattern = self.pattern(state, word)?;
        let url = self.word(state, word)?;
        match GitRef::parse(&url) {
            // A path might look like github.com/a/b, too.
            Ok(None) => {}
            Ok(Some(address)) if address.ambiguous => {}
            Ok(Some(address)) => return self.add_git(word, add, address, checksum),
            Err(error) => {
                self.problems
                    .push(Diagnostic::error(word.span, error.to_string()));
                return None;
            }
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Some(CopySourcePlan::Path(pattern));
        }
        let checksum = match (checksum, &add.checksum) {
            (Some(text), Some(written)) => match text.parse() {
                Ok(digest) => Some(digest),
                Err(_) => {
                    let problem = Diagnostic::error(written.span, format!("invalid checksum {text:?}"));
                    self.problems.push(problem.expected("sha256: and 64 hex digits"));
                    return None;
                }
            },
            _ => None,
        };
        let checksum = self.url_of_lock(&url, word.span, checksum).ok()?;
        Some(CopySourcePlan::Url {
            name: name_of(&url),
            url,
            checksum,
            unpack: add.unpack.unwrap_or(false),
        })
    }

    fn add_git(
        &mut self,
        word: &Word,
        add: &Add,
        mut address: GitRef,
        checksum: Option<&str>,
    ) -> Option<CopySourcePlan> {
        let problem = match (checksum, &address.checksum) {
            (Some(given), Some(own)) if given != own => {
                format!("two commits are asked for: {given:?} and {own:?}")
            }
            (Some(given), _) if given.is_empty() || !given.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                format!("invalid commit {given:?}")
            }
            _ => {
                address.checksum = checksum.map(str::to_owned).or(address.checksum);
                self.lock_commit(&mut address, word.span).ok()?;
                let keep_git_dir = add.keep_git_dir.or(address.keep_git_dir);
                return Some(CopySourcePlan::Git {
                    keep_git_dir: keep_git_dir.unwrap_or(false),
                    address: Box::new(address),
                });
            }
        };
        let span = add.checksum.as_ref().map_or(word.span, |written| written.span);
        let problem = Diagnostic::error(span, problem);
        self.problems.push(problem.expected("the hex digits of a commit"));
        None
    }
}
