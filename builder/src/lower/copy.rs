//! COPY and ADD.

use box_store::digest::Digest;
use box_store::error::StoreError;

use crate::ast::{Add, Copy, CopyFlags, CopySource, Heredoc, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::{expand_heredoc, expand_pattern};
use crate::git_ref::GitRef;
use crate::graph::FromRef;
use crate::ignore::IgnoreRules;
use crate::parse::{Chmod, parse_chmod};
use crate::plan::{CopyFrom, CopySourcePlan, CopyStep};
use crate::source::Spanned;

use super::Lowering;
use super::state::{State, join};

impl Lowering<'_> {
    pub(super) fn copy(&mut self, state: &State, copy: &Copy) -> Result<Option<CopyStep>, StoreError> {
        let from = self.copy_from(copy.from.as_ref())?;
        let sources = self.copy_sources(state, &copy.sources);
        let rest = self.copy_words(state, &copy.flags, sources, &copy.destination);
        Ok(from.zip(rest).map(|(from, step)| CopyStep { from, ..step }))
    }

    /// ADD: a COPY that unpacks archives and reads URLs.
    pub(super) fn add(&mut self, state: &State, add: &Add) -> Option<CopyStep> {
        let sources = self.add_sources(state, add);
        let step = self.copy_words(state, &add.flags, sources, &add.destination)?;
        Some(CopyStep {
            unpack: add.unpack.unwrap_or(true),
            ..step
        })
    }

    /// Everything but where from.
    fn copy_words(
        &mut self,
        state: &State,
        flags: &CopyFlags,
        sources: Option<Vec<CopySourcePlan>>,
        destination: &Word,
    ) -> Option<CopyStep> {
        let chown = match &flags.chown {
            Some(word) => Some(self.word(state, word)?),
            None => None,
        };
        let chmod = match &flags.chmod {
            Some(word) => Some(self.chmod(state, word)?),
            None => None,
        };
        let sources = sources?;
        let destination = self.copy_destination(state, destination, sources.len())?;
        Some(CopyStep {
            from: CopyFrom::Context,
            sources,
            destination,
            chown,
            chmod,
            excludes: self.excludes(state, flags)?,
            parents: flags.parents,
            link: flags.link,
            unpack: false,
        })
    }

    fn excludes(&mut self, state: &State, flags: &CopyFlags) -> Option<Vec<String>> {
        let mut patterns = Vec::with_capacity(flags.excludes.len());
        for word in &flags.excludes {
            let pattern = self.pattern(state, word)?;
            if let Err(error) = IgnoreRules::from_patterns([pattern.as_str()]) {
                self.problems
                    .push(Diagnostic::error(word.span, error.to_string()));
                return None;
            }
            patterns.push(pattern);
        }
        Some(patterns)
    }

    fn chmod(&mut self, state: &State, word: &Word) -> Option<(String, Chmod)> {
        let text = self.word(state, word)?;
        let Some(mode) = parse_chmod(&text) else {
            let problem = Diagnostic::error(word.span, format!("invalid mode {text:?}"));
            self.problems
                .push(problem.expected("an octal mode like 0755, or one like u=rwX,go=rX"));
            return None;
        };
        Some((text, mode))
    }

    pub(super) fn copy_from(
        &mut self,
        from: Option<&Spanned<String>>,
    ) -> Result<Option<CopyFrom>, StoreError> {
        let Some(name) = from else {
            return Ok(Some(CopyFrom::Context));
        };
        Ok(match self.graph.resolve(&name.value) {
            FromRef::Stage(id) => Some(CopyFrom::Stage(id)),
            FromRef::Context(context) => self.copy_from_context(&Spanned::new(context, name.span))?,
            FromRef::Image(image) => {
                let found = self.image(&Spanned::new(image, name.span))?;
                found.map(|image| CopyFrom::Image(name.value.clone(), Box::new(image)))
            }
        })
    }

    fn copy_sources(&mut self, state: &State, sources: &[CopySource]) -> Option<Vec<CopySourcePlan>> {
        let plans: Vec<_> = sources
            .iter()
            .map(|source| match source {
                CopySource::Path(word) => self.pattern(state, word).map(CopySourcePlan::Path),
                CopySource::Inline(heredoc) => self.inline(state, heredoc),
            })
            .collect();
        plans.into_iter().collect()
    }

    fn add_sources(&mut self, state: &State, add: &Add) -> Option<Vec<CopySourcePlan>> {
        if add.keep_git_dir {
            return self.refuse(add.destination.span, "ADD --keep-git-dir");
        }
        let checksum = match &add.checksum {
            Some(word) => Some((word, self.checksum(state, word)?)),
            None => None,
        };
        let mut plans = Vec::with_capacity(add.sources.len());
        for source in &add.sources {
            plans.push(match source {
                CopySource::Path(word) => {
                    self.add_source(state, word, add, checksum.map(|(_, digest)| digest))?
                }
                CopySource::Inline(heredoc) => self.inline(state, heredoc)?,
            });
        }
        if let Some((word, _)) = checksum
            && !matches!(plans[..], [CopySourcePlan::Url { .. }])
        {
            let problem = Diagnostic::error(word.span, "--checksum is for one source, which is a URL");
            self.problems
                .push(problem.expected("ADD --checksum=sha256:… URL DESTINATION"));
            return None;
        }
        Some(plans)
    }

    fn add_source(
        &mut self,
        state: &State,
        word: &Word,
        add: &Add,
        checksum: Option<Digest>,
    ) -> Option<CopySourcePlan> {
        let pattern = self.pattern(state, word)?;
        match GitRef::parse(&pattern) {
            Ok(None) => {}
            Ok(Some(_)) => return self.refuse(word.span, "ADD of a git repository"),
            Err(error) => {
                self.problems
                    .push(Diagnostic::error(word.span, error.to_string()));
                return None;
            }
        }
        if !pattern.starts_with("http://") && !pattern.starts_with("https://") {
            return Some(CopySourcePlan::Path(pattern));
        }
        let url = self.word(state, word)?;
        Some(CopySourcePlan::Url {
            name: crate::url::name_of(&url),
            url,
            checksum,
            unpack: add.unpack.unwrap_or(false),
        })
    }

    fn checksum(&mut self, state: &State, word: &Word) -> Option<Digest> {
        let text = self.word(state, word)?;
        match text.parse() {
            Ok(digest) => Some(digest),
            Err(_) => {
                let problem = Diagnostic::error(word.span, format!("invalid checksum {text:?}"));
                self.problems.push(problem.expected("sha256: and 64 hex digits"));
                None
            }
        }
    }

    /// A source, expanded; escapes of wildcards are kept.
    fn pattern(&mut self, state: &State, word: &Word) -> Option<String> {
        let expanded = expand_pattern(&word.text, self.graph.directives.escape, &state.scope);
        expanded
            .map_err(|error| {
                self.problems
                    .push(Diagnostic::error(word.span, error.to_string()))
            })
            .ok()
    }

    fn inline(&mut self, state: &State, heredoc: &Heredoc) -> Option<CopySourcePlan> {
        let mut data = heredoc.data();
        if heredoc.expand {
            match expand_heredoc(&data, self.graph.directives.escape, &state.scope) {
                Ok(expanded) => data = expanded,
                Err(error) => {
                    self.problems
                        .push(Diagnostic::error(heredoc.span, error.to_string()));
                    return None;
                }
            }
        }
        Some(CopySourcePlan::Inline {
            name: heredoc.name.clone(),
            data,
        })
    }

    fn copy_destination(&mut self, state: &State, word: &Word, sources: usize) -> Option<String> {
        let written = self.word(state, word)?;
        let names_directory =
            written.is_empty() || written.ends_with('/') || written == "." || written.ends_with("/.");
        if sources > 1 && !names_directory {
            let message = "with several sources the destination must be a directory";
            let problem = Diagnostic::error(word.span, message).expected("a path that ends in /");
            self.problems.push(problem.suggest(format!("{written}/")));
            return None;
        }
        let path = join(state.workdir(), &written);
        Some(if names_directory && path != "/" {
            format!("{path}/")
        } else {
            path
        })
    }
}
