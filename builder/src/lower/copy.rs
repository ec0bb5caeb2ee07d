//! COPY, and what ADD shares with it.

use box_store::error::StoreError;

use crate::ast::{Copy, CopyFlags, CopySource, Heredoc, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::{expand_heredoc, expand_pattern};
use crate::graph::FromRef;
use crate::ignore::IgnoreRules;
use crate::parse::{Chmod, parse_chmod};
use crate::plan::{CopyFrom, CopySourcePlan, CopyStep};
use crate::request::Platform;
use crate::source::Spanned;

use super::Lowering;
use super::state::{State, join};

impl Lowering<'_> {
    pub(super) fn copy(&mut self, state: &State, copy: &Copy) -> Result<Option<CopyStep>, StoreError> {
        let from = self.copy_from(copy.from.as_ref(), &state.platform)?;
        let sources = self.copy_sources(state, &copy.sources);
        let rest = self.copy_words(state, &copy.flags, sources, &copy.destination);
        Ok(from.zip(rest).map(|(from, step)| CopyStep { from, ..step }))
    }

    /// Everything but where from.
    pub(super) fn copy_words(
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
        platform: &Platform,
    ) -> Result<Option<CopyFrom>, StoreError> {
        let Some(name) = from else {
            return Ok(Some(CopyFrom::Context));
        };
        Ok(match self.graph.resolve(&name.value) {
            FromRef::Stage(id) => Some(CopyFrom::Stage(id)),
            FromRef::Context(context) => {
                self.copy_from_context(&Spanned::new(context, name.span), platform)?
            }
            FromRef::Image(image) => {
                let found = self.image(&Spanned::new(image, name.span), platform)?;
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

    /// A source, expanded; escapes of wildcards are kept.
    pub(super) fn pattern(&mut self, state: &State, word: &Word) -> Option<String> {
        let expanded = expand_pattern(&word.text, self.graph.directives.escape, &state.scope);
        expanded
            .map_err(|error| {
                self.problems
                    .push(Diagnostic::error(word.span, error.to_string()))
            })
            .ok()
    }

    pub(super) fn inline(&mut self, state: &State, heredoc: &Heredoc) -> Option<CopySourcePlan> {
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
