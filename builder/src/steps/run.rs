//! RUN: a command in a container on the layers below; what it wrote is the layer.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use box_store::snapshot::{ActiveSnapshot, PrepareOptions};
use box_store::tree::Tree;

use crate::error::StepError;
use crate::exec::{ExecError, ExecIo, ExecOutcome, ExecRequest, ExecStatus, Limits, Secret, Stream, Usage};
use crate::lower::{DEFAULT_PATH, is_proxy};
use crate::plan::RunStep;
use crate::progress::Event;

use super::bind::Source;
use super::mask::{Masked, Patterns};
use super::mounts::{self, Ready};
use super::{At, Made, Tools, users};

/// The host name of every step.
const HOSTNAME: &str = "box";

/// What is known of a RUN that failed.
#[derive(Default)]
pub(crate) struct Left {
    /// What its command used.
    pub(crate) usage: Cell<Option<Usage>>,
    /// Its container, if a person may be let in.
    pub(crate) room: Cell<Option<Room>>,
}

/// Runs the command. `left` is told of it, also when it fails.
///
/// # Errors
/// [`StepError::Exited`] and its like when it ends badly; nothing is left then, but for what is in `left`.
pub(crate) fn run(
    tools: &Tools<'_>,
    at: At<'_>,
    step: &RunStep,
    sources: &[Option<Source<'_>>],
    left: &Left,
) -> Result<Made, StepError> {
    let ready = mounts::prepare(tools, at, step, sources)?;
    let _turn = tools.turn(at.id)?;
    let room = Room::new(tools, at, step, ready)?;
    let request = room.request(tools, step);
    let outcome = execute(tools, at, &request, &room.ready);
    let ended = outcome.and_then(|outcome| {
        left.usage.set(Some(outcome.usage));
        check(tools, &outcome, step.limits)?;
        Ok(outcome.usage)
    });
    match ended {
        Ok(usage) => Ok(Made::of(room.active.commit()?, Some(usage))),
        Err(error) => {
            if tools.request.shell_on_error && was_run(&error) {
                left.room.set(Some(room));
            }
            Err(error)
        }
    }
}

/// Whether there was a container, and no other one with the same would be refused.
fn was_run(error: &StepError) -> bool {
    match error {
        StepError::Exited { .. }
        | StepError::Signaled { .. }
        | StepError::OutOfMemory { .. }
        | StepError::TimedOut { .. } => true,
        StepError::Exec(error) => matches!(
            error,
            ExecError::CommandNotFound { .. } | ExecError::CommandNotExecutable { .. }
        ),
        _ => false,
    }
}

/// A step's container before and after its command: what it writes into, and what it has mounted.
pub(crate) struct Room {
    pub(super) active: ActiveSnapshot,
    pub(super) ready: Ready,
    id_pages: BTreeSet<u32>,
}

impl Room {
    /// On these layers.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn new(
        tools: &Tools<'_>,
        at: At<'_>,
        step: &RunStep,
        ready: Ready,
    ) -> Result<Room, StepError> {
        let mut stubs = PrepareOptions::standard_stubs();
        stubs.extend(ready.stubs.iter().cloned());
        let options = PrepareOptions {
            mount_stubs: stubs,
            ..tools.options()
        };
        let mut active = tools.store.prepare(at.layers, &options)?;
        active.sees(&ready.layers);
        let mut id_pages = id_pages(at, &step.user);
        id_pages.extend(&ready.id_pages);
        Ok(Room {
            active,
            ready,
            id_pages,
        })
    }

    /// What is run in it.
    pub(super) fn request<'a>(&'a self, tools: &Tools<'a>, step: &RunStep) -> ExecRequest<'a> {
        let mut env = env(tools, step, self.active.logical_time());
        for (name, value) in &self.ready.env {
            env.retain(|(known, _)| known.as_os_str() != name.as_str());
            env.push((name.into(), value.clone()));
        }
        ExecRequest {
            dirs: self.active.dirs(),
            args: step.args.iter().map(OsString::from).collect(),
            env,
            cwd: PathBuf::from(&step.workdir),
            user: step.user.clone(),
            hostname: HOSTNAME.to_owned(),
            hosts: &tools.request.hosts,
            network: step.network,
            limits: step.limits,
            limits_policy: tools.request.limits_policy,
            id_pages: self.id_pages.clone(),
            mounts: self.ready.mounts.clone(),
        }
    }
}

/// Runs it; its output shows no secret.
fn execute(
    tools: &Tools<'_>,
    at: At<'_>,
    request: &ExecRequest<'_>,
    ready: &Ready,
) -> Result<ExecOutcome, StepError> {
    let show = |stream, bytes: &[u8]| {
        if !bytes.is_empty() {
            tools.events.event(Event::StepOutput {
                id: at.id,
                stream,
                bytes,
            });
        }
    };
    let patterns = Patterns::new(ready.secrets.iter().map(Secret::expose));
    let streams = [Stream::Stdout, Stream::Stderr].map(|stream| (stream, Mutex::new(Masked::default())));
    let masked = |stream: Stream| {
        let found = streams.iter().find(|(name, _)| *name == stream);
        found.map(|(_, masked)| masked.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let output = |stream, bytes: &[u8]| match masked(stream) {
        Some(mut masked) => show(stream, &masked.push(&patterns, bytes)),
        None => show(stream, bytes),
    };
    let io = ExecIo {
        output: &output,
        cancel: tools.cancel,
    };
    let outcome = tools.executor.run(request, io);
    for (stream, masked) in &streams {
        let mut masked = masked.lock().unwrap_or_else(PoisonError::into_inner);
        show(*stream, &masked.finish());
    }
    outcome.map_err(|error| match error {
        ExecError::Cancelled => StepError::Cancelled,
        other => StepError::Exec(other),
    })
}

/// The step's environment, and what it does not have to say: PATH, the proxies, the time that its files will have.
fn env(tools: &Tools<'_>, step: &RunStep, logical_time: i64) -> Vec<(OsString, OsString)> {
    let mut env = proxies(tools);
    env.insert("PATH".to_owned(), DEFAULT_PATH.to_owned());
    env.insert("SOURCE_DATE_EPOCH".to_owned(), logical_time.to_string());
    env.extend(step.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The proxies, under both of their spellings; what a build argument says goes before what the machine has.
fn proxies(tools: &Tools<'_>) -> BTreeMap<String, String> {
    let request = tools.request;
    let given = request.build_args.iter().filter(|(name, _)| is_proxy(name));
    let mut found = BTreeMap::new();
    for (name, value) in given.chain(&request.proxies) {
        found.entry(name.clone()).or_insert_with(|| value.clone());
    }
    for (name, value) in found.clone() {
        let other = match name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            true => name.to_ascii_uppercase(),
            false => name.to_ascii_lowercase(),
        };
        found.entry(other).or_insert(value);
    }
    found
}

/// The pages of ids that the container must have: the layers', and the user's.
fn id_pages(at: At<'_>, user: &str) -> BTreeSet<u32> {
    let mut pages: BTreeSet<u32> = at
        .layers
        .iter()
        .flat_map(|layer| layer.id_pages())
        .copied()
        .collect();
    pages.insert(0);
    if !user.is_empty() {
        // A user that is not known is the runner's to complain about.
        if let Ok((uid, gid)) = users::owner(&Tree::new(at.layers), user) {
            pages.extend([uid >> 16, gid >> 16]);
        }
    }
    pages
}

fn check(tools: &Tools<'_>, outcome: &ExecOutcome, limits: Limits) -> Result<(), StepError> {
    if outcome.timed_out {
        return Err(StepError::TimedOut { limit: limits.time });
    }
    match outcome.status {
        ExecStatus::Exited(0) => {
            if outcome.oom_killed {
                tools.events.event(Event::Note(
                    "a process of the step was killed for memory, and yet it succeeded",
                ));
            }
            Ok(())
        }
        _ if outcome.oom_killed => Err(StepError::OutOfMemory {
            limit: limits.memory,
            peak: outcome.usage.peak_memory,
        }),
        ExecStatus::Exited(code) => Err(StepError::Exited { code }),
        ExecStatus::Signaled(signal) => Err(StepError::Signaled { signal }),
    }
}
