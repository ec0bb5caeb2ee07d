//! What is told of a step beside its key: whether it is a hit, why not, and what its record says for the next time.

use std::collections::BTreeSet;

use box_store::digest::{DiffId, Digest};
use box_store::error::StoreError;
use box_store::layer::Layer;

use crate::cache::{About, FileList, KeyId, KeyParts, Standing, StepKind, Whence};
use crate::error::StepError;
use crate::exec::Usage;
use crate::explain::{Asked, Below, Cause, Verdict, cause};
use crate::plan::{Action, Reuse, Step};
use crate::progress::{Event, StepId};

use super::announce::Outcome;
use super::begin::Shared;
use super::record::{chain, diff_ids};
use super::stage::Stage;

/// The files of a step's inputs, by the digests of those.
pub(super) type Lists = Vec<(Digest, FileList)>;

/// A step's key as it is looked up, and what is known beside it.
pub(super) struct Lookup<'a> {
    pub(super) id: StepId,
    pub(super) parts: &'a KeyParts,
    pub(super) reuse: Reuse,
    /// Whether it sees what is below it.
    pub(super) sees_below: bool,
    pub(super) about: &'a About,
    pub(super) whence: &'a Whence,
}

impl Shared<'_> {
    /// Tells what becomes of a step, if that was asked for.
    pub(super) fn tell(&self, id: StepId, verdict: &Verdict) {
        if self.tools.request.explain {
            self.tools.events.event(Event::StepExplained { id, verdict });
        }
    }
}

impl Stage<'_, '_> {
    /// A step of this stage.
    pub(super) fn step_of(&self, id: StepId) -> Option<&Step> {
        // The stage's first number is that of its FROM.
        let index = id.0.checked_sub(self.first + 1)?;
        self.plan.steps.get(index)
    }

    /// What the step's record says besides its key. The layers below are added when they are known.
    pub(super) fn about(&self, id: StepId) -> About {
        let step = self.step_of(id);
        let args = match step.map(|step| &step.action) {
            Some(Action::Run(run)) => run.declared.clone(),
            _ => BTreeSet::new(),
        };
        About {
            args,
            base: self.result.base.clone(),
            base_layers: self.result.base_layers,
            ..About::of(step.map_or("", |step| &step.place.text))
        }
    }

    /// Where its earlier runs are found.
    pub(super) fn whence(&self, id: StepId, kind: StepKind) -> Whence {
        let step = self.step_of(id);
        let number = self.plan.id.0.to_string();
        let standing = Standing {
            context: self.shared.tools.context.stats_key(),
            file: step.map_or("", |step| &step.place.file),
            stage: self.plan.name.as_deref().unwrap_or(&number),
            index: id.0.saturating_sub(self.first),
        };
        Whence::new(kind, step.map_or("", |step| &step.place.text), &standing)
    }

    /// What earlier runs of a step made on the same layers with other inputs, the latest first; none where the step is to be done as if there were none.
    pub(super) fn earlier_like(
        &self,
        id: StepId,
        like: &KeyParts,
        below: &[Layer],
    ) -> Result<Vec<(KeyId, DiffId)>, StoreError> {
        if self.forced(Reuse::Always).is_some() {
            return Ok(Vec::new());
        }
        let earlier = self.shared.cache.earlier(&self.whence(id, like.kind))?;
        let parent = match earlier.is_empty() {
            true => return Ok(Vec::new()),
            false => chain(below)?,
        };
        let made = earlier.into_iter().filter_map(|earlier| {
            let record = earlier.record.filter(|record| record.key.parent == parent)?;
            let parts = KeyParts {
                inputs: like.inputs.clone(),
                ..record.key.parts
            };
            Some((earlier.key, record.layer.filter(|_| parts == *like)?))
        });
        Ok(made.collect())
    }

    /// Why the cache is not asked at all.
    pub(super) fn forced(&self, reuse: Reuse) -> Option<Cause> {
        let request = self.shared.tools.request;
        let named = |name: &str| {
            let stages = &request.no_cache_stages;
            stages.iter().any(|stage| stage.eq_ignore_ascii_case(name))
        };
        if request.no_cache {
            return Some(Cause::NoCache);
        }
        if named(&self.plan.id.0.to_string()) || self.plan.name.as_deref().is_some_and(named) {
            return Some(Cause::NoCacheFilter);
        }
        (reuse == Reuse::Never).then_some(Cause::Never)
    }

    /// Tells why a step is done.
    pub(super) fn tell_miss(
        &self,
        lookup: &Lookup<'_>,
        forced: Option<Cause>,
        lists: &Lists,
    ) -> Result<(), StepError> {
        if !self.shared.tools.request.explain {
            return Ok(());
        }
        let why = match forced {
            Some(why) => why,
            None => self.why(lookup, lists)?,
        };
        self.shared.tell(lookup.id, &Verdict::Miss { why });
        Ok(())
    }

    /// Why the cache does not have it; waits for the digests below.
    pub(super) fn why(&self, lookup: &Lookup<'_>, lists: &Lists) -> Result<Cause, StoreError> {
        let is_known = !(lookup.sees_below && self.is_open.get());
        let layers = match lookup.sees_below && is_known {
            true => diff_ids(&self.result.layers)?,
            false => Vec::new(),
        };
        let makers = self.result.makers.iter();
        let makers: Vec<String> = makers
            .map(|maker| {
                maker
                    .as_ref()
                    .map_or_else(String::new, |place| place.text.clone())
            })
            .collect();
        let below = Below {
            layers: &layers,
            makers: &makers,
        };
        let asked = Asked {
            parts: lookup.parts,
            below: is_known.then_some(below),
            about: lookup.about,
            whence: lookup.whence,
            lists,
            ttl: match lookup.reuse {
                Reuse::For(time) => Some(time),
                Reuse::Always | Reuse::Never => None,
            },
        };
        cause(&self.shared.cache, &asked)
    }
}

/// What is told of a FROM.
pub(super) fn of_outcome(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Config => Verdict::Nothing,
        Outcome::Cached => Verdict::Hit,
        Outcome::Done { .. } => Verdict::Miss {
            why: Cause::NotUnpacked,
        },
    }
}

/// What a step cost, for its record.
pub(super) fn figures(
    wall: std::time::Duration,
    usage: Option<&Usage>,
    layer: Option<&box_store::layer::Layer>,
) -> crate::cache::Figures {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let cpu = usage.and_then(|usage| match (usage.cpu_user, usage.cpu_system) {
        (None, None) => None,
        (user, system) => Some(user.unwrap_or_default() + system.unwrap_or_default()),
    });
    crate::cache::Figures {
        wall_ms: ms(wall),
        cpu_ms: cpu.map(ms),
        peak_memory: usage.and_then(|usage| usage.peak_memory),
        io_read: usage.and_then(|usage| usage.io_read),
        io_written: usage.and_then(|usage| usage.io_written),
        layer_size: layer.map_or(0, box_store::layer::Layer::size),
        layer_entries: layer.map_or(0, box_store::layer::Layer::entries),
    }
}
