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

/// Runs the command. `usage` is told what it used, also when it fails.
///
/// # Errors
/// [`StepError::Exited`] and its like when it ends badly; nothing is left then.
pub(crate) fn run(
    tools: &Tools<'_>,
    at: At<'_>,
    step: &RunStep,
    sources: &[Option<Source<'_>>],
    usage: &Cell<Option<Usage>>,
) -> Result<Made, StepError> {
    let ready = mounts::prepare(tools, at, step, sources)?;
    let _turn = tools.turn(at.id)?;
    let mut stubs = PrepareOptions::standard_stubs();
    stubs.extend(ready.stubs.iter().cloned());
    let options = PrepareOptions {
        mount_stubs: stubs,
        ..tools.options()
    };
    let mut active = tools.store.prepare(at.layers, &options)?;
    active.sees(&ready.layers);
    let request = request(tools, at, step, &active, &ready);
    let outcome = execute(tools, at, &request, &ready)?;
    usage.set(Some(outcome.usage));
    check(tools, &outcome, step.limits)?;
    Ok(Made::of(active.commit()?, Some(outcome.usage)))
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

fn request<'a>(
    tools: &Tools<'a>,
    at: At<'_>,
    step: &RunStep,
    active: &'a ActiveSnapshot,
    ready: &Ready,
) -> ExecRequest<'a> {
    let mut env = env(tools, step, active.logical_time());
    for (name, value) in &ready.env {
        env.retain(|(known, _)| known.as_os_str() != name.as_str());
        env.push((name.into(), value.clone()));
    }
    let mut id_pages = id_pages(at, &step.user);
    id_pages.extend(&ready.id_pages);
    ExecRequest {
        dirs: active.dirs(),
        args: step.args.iter().map(OsString::from).collect(),
        env,
        cwd: PathBuf::from(&step.workdir),
        user: step.user.clone(),
        hostname: HOSTNAME.to_owned(),
        hosts: &tools.request.hosts,
        network: step.network,
        limits: step.limits,
        limits_policy: tools.request.limits_policy,
        id_pages,
        mounts: ready.mounts.clone(),
    }
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
