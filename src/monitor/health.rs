//! Checking a container's health.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use box_runner::{Running, Stdio, Stream};
use box_store::disk::Durability;

use super::life::{Life, Live};
use crate::containers::{self, Health, HealthCheck, HealthState, HealthStatus, State};
use crate::error::{Failure, runner_failure};
use crate::pump::pump;

/// How much is kept of what a check prints, in bytes, and of how many checks.
const OUTPUT: usize = 4096;
const CHECKS: usize = 5;

/// Checks, on a thread of its own, as long as this start of the container lasts.
pub(super) fn watch(life: &Arc<Life>) -> Option<JoinHandle<()>> {
    let health = life.config.health.clone()?;
    let live = life.live()?;
    // The first state is told at once.
    let _ = life.set(Durability::Later, |state| {
        state.health = Some(HealthState::default())
    });
    let life = Arc::clone(life);
    let check = move || {
        let started = Instant::now();
        while !life.has_ended_within(pause(&health, &life, started)) {
            if life.state().status == containers::Status::Paused {
                continue;
            }
            let check = once(&live, &health);
            let in_start = started.elapsed() < Duration::from_nanos(health.start_period);
            let status = || life.state().health.map(|health| health.status);
            let before = status();
            let _ = life.set(Durability::Later, |state| note(state, check, &health, in_start));
            if let Some(now) = status().filter(|now| before != Some(*now)) {
                life.note(&format!("health_status: {}", now.word()), &[]);
            }
        }
    };
    let thread = std::thread::Builder::new().name("health".into());
    thread.stack_size(256 << 10).spawn(check).ok()
}

/// While it starts it is looked at more often.
fn pause(health: &Health, life: &Life, started: Instant) -> Duration {
    let is_starting = life
        .state()
        .health
        .is_none_or(|health| health.status == HealthStatus::Starting);
    let in_start = started.elapsed() < Duration::from_nanos(health.start_period);
    Duration::from_nanos(match is_starting && in_start {
        true => health.start_interval.min(health.interval),
        false => health.interval,
    })
}

fn note(state: &mut State, check: HealthCheck, health: &Health, in_start: bool) {
    let known = state.health.get_or_insert_default();
    if check.exit_code == 0 {
        known.failing = 0;
        known.status = HealthStatus::Healthy;
    } else if !(in_start && known.status == HealthStatus::Starting) {
        known.failing += 1;
        if known.failing >= health.retries {
            known.status = HealthStatus::Unhealthy;
        }
    }
    known.log.push(check);
    let surplus = known.log.len().saturating_sub(CHECKS);
    known.log.drain(..surplus);
}

fn once(live: &Live, health: &Health) -> HealthCheck {
    let start = containers::now();
    let (exit_code, output) = match run(live, health) {
        Ok(ran) => ran,
        Err(failure) => (-1, failure.message().to_owned()),
    };
    HealthCheck {
        start,
        end: containers::now(),
        exit_code,
        output,
    }
}

/// Runs the command; one that takes too long is killed.
fn run(live: &Live, health: &Health) -> Result<(i32, String), Failure> {
    let mut spec = live.spec.clone();
    spec.process.args.clone_from(&health.args);
    spec.terminal = false;
    spec.init = false;
    spec.limits.time = Some(Duration::from_nanos(health.timeout));
    let (read, write) = std::io::pipe().map_err(|e| Failure::own(format!("cannot make a pipe: {e}")))?;
    let errors = write
        .try_clone()
        .map_err(|e| Failure::own(format!("cannot make a pipe: {e}")))?;
    let stdio = Stdio {
        stdin: Stream::Null,
        stdout: Stream::Fd(write.into()),
        stderr: Stream::Fd(errors.into()),
    };
    let running = live.runtime.exec(&live.handle, &spec, &live.ids.namespace, stdio);
    let running: Running = running.map_err(|e| runner_failure(&e))?;
    let (end, ending) = std::io::pipe().map_err(|e| Failure::own(format!("cannot make a pipe: {e}")))?;
    let reader = std::thread::spawn(move || {
        let mut kept = Vec::new();
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(read));
        // What comes after that is read, too, or the command would stop; what it leaves running is not waited for.
        pump(vec![(file, ())], Some(&end), |(), bytes| {
            let room = OUTPUT.saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
        String::from_utf8_lossy(&kept).into_owned()
    });
    let outcome = running.wait();
    drop(ending);
    let output = reader.join().unwrap_or_default();
    let outcome = outcome.map_err(|e| runner_failure(&e))?;
    if outcome.timed_out {
        let text = format!(
            "it took longer than {:.1} s",
            Duration::from_nanos(health.timeout).as_secs_f64()
        );
        return Ok((-1, text));
    }
    Ok((outcome.status.code(), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_make_it_unhealthy() {
        let health = Health {
            args: vec![],
            interval: 1,
            timeout: 1,
            start_period: 0,
            start_interval: 1,
            retries: 3,
        };
        let mut state = State::default();
        let mut check = |exit_code, in_start| {
            let check = HealthCheck {
                start: 0,
                end: 0,
                exit_code,
                output: String::new(),
            };
            note(&mut state, check, &health, in_start);
            let health = state.health.clone().unwrap();
            (health.status, health.failing, health.log.len())
        };
        assert_eq!(check(1, true), (HealthStatus::Starting, 0, 1));
        assert_eq!(check(1, false), (HealthStatus::Starting, 1, 2));
        assert_eq!(check(0, false), (HealthStatus::Healthy, 0, 3));
        assert_eq!(check(1, true), (HealthStatus::Healthy, 1, 4));
        check(1, false);
        assert_eq!(check(1, false), (HealthStatus::Unhealthy, 3, 5));
        assert_eq!(check(0, false), (HealthStatus::Healthy, 0, 5));
    }
}
