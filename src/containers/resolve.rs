//! From the options of `box run` and `box create` and the image's config to a container's description.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use box_store::{ContainerConfig, Healthcheck, Image};

use super::config::{self, Config, Health, Limits, Network, ProcessOptions, Seccomp, SystemPaths};
use super::{isolation, now, short, throttle};
use crate::app::{self, App};
use crate::cli::{self, ContainerArgs, HealthArgs, LimitsMode, MountArgs};
use crate::error::{EXIT_BOX, Failure};
use crate::executor;
use crate::mounts::{self, Asked, MountPlan};
use crate::resolv::Wishes;
use crate::values::{BuildArg, HostArg, Userns, signal_number};
use crate::{named, networks};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SIGTERM: i32 = 15;
/// Docker's.
const STOP_TIMEOUT: u64 = 10;
const SECOND: u64 = 1_000_000_000;

/// What the container with this id is to be.
pub(crate) fn resolve(app: &App, args: &ContainerArgs, image: &Image, id: &str) -> Result<Config, Failure> {
    let of_image = &image.config.config;
    let namespaces = isolation::namespaces(app, args)?;
    let network = network(app, args, of_image)?;
    let hostname = match isolation::hostname(app, &namespaces, &network)? {
        Some(others) => others,
        None => args.hostname.clone().unwrap_or_else(|| short(id).to_owned()),
    };
    let stop_signal = match args.stop_signal.as_ref().or(of_image.stop_signal.as_ref()) {
        Some(text) => signal_number(text).map_err(Failure::own)?,
        None => SIGTERM,
    };
    let mut config = Config {
        version: config::VERSION,
        name: args.name.clone().unwrap_or_default(),
        image: args.image.clone(),
        image_id: image.id.to_string(),
        created: now(),
        args: command(args, of_image)?,
        env: environment(args, of_image, &hostname)?,
        cwd: workdir(args, of_image),
        user: user(args, of_image, &namespaces.user),
        labels: labels(args, of_image)?,
        hostname,
        tty: args.tty,
        interactive: args.interactive,
        init: args.init,
        network,
        dns: Wishes::of(&args.net),
        hosts: args.hosts.iter().filter_map(HostArg::pair).collect(),
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        no_new_privs: true,
        seccomp: Seccomp::Default,
        read_only: args.read_only,
        mounts: mounts::plan(
            app,
            &asked_mounts(&args.mount),
            of_image,
            inherited(app, &args.volumes_from)?,
        )?,
        process: process(args),
        limits: limits(args),
        restart: args.restart.unwrap_or_default(),
        stop_signal,
        stop_timeout: args.stop_timeout.unwrap_or(STOP_TIMEOUT),
        health: health(&args.health, of_image.healthcheck.as_ref())?,
        log: args.log.options()?,
        namespaces,
        privileged: args.namespaces.privileged,
        security_opt: Vec::new(),
        system_paths: SystemPaths::Confined,
        label: None,
        host_names: args
            .hosts
            .iter()
            .filter_map(HostArg::gateway)
            .map(str::to_owned)
            .collect(),
    };
    isolation::security(&args.security_opt, &mut config)?;
    Ok(config)
}

fn process(args: &ContainerArgs) -> ProcessOptions {
    let args = &args.process;
    ProcessOptions {
        rlimits: args
            .ulimit
            .iter()
            .map(|l| (l.0.resource, l.0.soft, l.0.hard))
            .collect(),
        shm_size: args.shm_size.map(|size| size.0),
        groups: args.group_add.clone(),
        sysctls: args
            .sysctl
            .iter()
            .map(|s| (s.name.clone(), s.value.clone()))
            .collect(),
        oom_score_adj: args.oom_score_adj,
        umask: args.umask.map(|mask| mask.0),
    }
}

fn limits(args: &ContainerArgs) -> Limits {
    Limits {
        memory: args.limit.memory.map(|memory| memory.0),
        millicpus: args.limit.cpus.map(|cpus| cpus.0),
        pids: args.limit.pids_limit,
        memory_swap: args.more_limits.memory_swap.map(|swap| swap.0),
        cpu_shares: args.more_limits.cpu_shares,
        cpuset_cpus: args.more_limits.cpuset_cpus.clone(),
        cpuset_mems: args.more_limits.cpuset_mems.clone(),
        throttles: throttle::asked(&args.more_limits),
        best_effort: args.limit.limits == LimitsMode::BestEffort,
    }
}

fn network(app: &App, args: &ContainerArgs, image: &ContainerConfig) -> Result<Network, Failure> {
    let ports = networks::ports(&args.net, image)?;
    let network = match &args.net.network {
        Some(cli::Network::Named(name)) => Some(named::find(app, name, EXIT_BOX)?.name),
        _ => None,
    };
    let aliases = args.net.network_alias.clone();
    if network.is_none() && !aliases.is_empty() {
        return Err(Failure::own("only in a named network has a container names")
            .hint("box network create NAME, then --network NAME"));
    }
    Ok(match networks::mode(args.net.network.as_ref()) {
        box_runner::Network::None => Network::None,
        box_runner::Network::Host => Network::Host,
        box_runner::Network::Joined => match &args.net.network {
            Some(cli::Network::Container(name)) => Network::Container(super::find(app, name)?.id),
            _ => Network::None,
        },
        box_runner::Network::Private => Network::Private {
            ports,
            network,
            aliases,
        },
    })
}

fn asked_mounts(args: &MountArgs) -> Asked<'_> {
    Asked {
        volumes: &args.volumes,
        mounts: &args.mounts,
        tmpfs: &args.tmpfs,
        secrets: &args.secrets,
        devices: &args.devices,
    }
}

/// What other containers have mounted of what outlives them.
fn inherited(app: &App, names: &[String]) -> Result<Vec<MountPlan>, Failure> {
    let mut plans = Vec::new();
    for text in names {
        let (name, read_only) = match text.rsplit_once(':') {
            Some((name, "ro")) => (name, true),
            Some((name, "rw")) => (name, false),
            _ => (text.as_str(), false),
        };
        for mut plan in super::find(app, name)?.config.mounts {
            if plan.outlives() {
                plan.read_only |= read_only;
                // It goes with the container that it was made for, not with one that only shares it.
                plan.become_anothers();
                plans.push(plan);
            }
        }
    }
    Ok(plans)
}

/// ENTRYPOINT and CMD as Docker combines them: `--entrypoint` clears the image's CMD too.
fn command(args: &ContainerArgs, config: &ContainerConfig) -> Result<Vec<OsString>, Failure> {
    let image = |texts: &Option<Vec<String>>| executor::os_strings(texts.as_deref().unwrap_or_default());
    let mut all = match args.entrypoint.as_deref() {
        Some("") => Vec::new(),
        Some(entrypoint) => vec![OsString::from(entrypoint)],
        None => image(&config.entrypoint),
    };
    if !args.command.is_empty() {
        all.extend(args.command.iter().cloned());
    } else if args.entrypoint.is_none() {
        all.extend(image(&config.cmd));
    }
    if all.is_empty() {
        return Err(Failure::own("the image says no command to run").hint("give one after the image's name"));
    }
    Ok(all)
}

/// The image's variables, then the files', then `-e`; a later one replaces an earlier.
fn environment(
    args: &ContainerArgs,
    config: &ContainerConfig,
    hostname: &str,
) -> Result<Vec<(OsString, OsString)>, Failure> {
    let mut env: Vec<(String, String)> = vec![
        ("PATH".into(), DEFAULT_PATH.into()),
        ("HOSTNAME".into(), hostname.into()),
    ];
    if args.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    let image = config.env.iter().filter_map(|pair| pair.split_once('='));
    let mut given: Vec<(String, String)> = image
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for file in &args.env_files {
        given.extend(env_file(file)?);
    }
    given.extend(args.env.iter().filter_map(BuildArg::resolved));
    let mut env: Vec<(OsString, OsString)> = os_pairs(env);
    merge(&mut env, os_pairs(given));
    Ok(env)
}

fn os_pairs(pairs: Vec<(String, String)>) -> Vec<(OsString, OsString)> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Adds variables; one that is there gets the new value in its place.
pub(crate) fn merge(env: &mut Vec<(OsString, OsString)>, more: Vec<(OsString, OsString)>) {
    for (name, value) in more {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }
}

/// Who is asked for, else whom the image says, else the user whose id is kept.
fn user(args: &ContainerArgs, image: &ContainerConfig, userns: &Userns) -> String {
    match (&args.user, image.user.as_str(), userns) {
        (Some(user), ..) => user.clone(),
        (
            None,
            "",
            Userns::KeepId {
                uid: Some(uid),
                gid: Some(gid),
            },
        ) => format!("{uid}:{gid}"),
        (None, of_image, _) => of_image.to_owned(),
    }
}

fn workdir(args: &ContainerArgs, config: &ContainerConfig) -> PathBuf {
    let own = Some(config.working_dir.as_str())
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    args.workdir.clone().or(own).unwrap_or_else(|| PathBuf::from("/"))
}

/// The image's labels, then the files', then `-l`.
fn labels(args: &ContainerArgs, config: &ContainerConfig) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = config.labels.clone();
    for file in &args.label_files {
        labels.extend(env_file(file)?);
    }
    for text in &args.labels {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// `NAME=VALUE` lines, or `NAME` for the environment's value; `#` begins a comment line.
pub(crate) fn env_file(path: &std::path::Path) -> Result<Vec<(String, String)>, Failure> {
    let text = String::from_utf8(app::read_file(path)?)
        .map_err(|_| Failure::own(format!("{} is not UTF-8", path.display())))?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, std::env::var(line).ok()),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Failure::own(format!(
                "{}:{}: {name:?} can't name a variable",
                path.display(),
                number + 1
            )));
        }
        pairs.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(pairs)
}

/// The image's check with what is asked for otherwise.
fn health(args: &HealthArgs, image: Option<&Healthcheck>) -> Result<Option<Health>, Failure> {
    let of_image = |pick: fn(&Healthcheck) -> Option<i64>| {
        let value = image.and_then(pick).and_then(|value| u64::try_from(value).ok());
        value.filter(|value| *value > 0)
    };
    let shell = |text: &str| vec!["/bin/sh".into(), "-c".into(), OsString::from(text)];
    let test = image
        .and_then(|health| health.test.as_deref())
        .unwrap_or_default();
    let command = match (args.health_cmd.as_deref(), test) {
        _ if args.no_healthcheck => return Ok(None),
        (Some("none"), _) => return Ok(None),
        (Some(text), _) => shell(text),
        (None, [kind, text]) if kind == "CMD-SHELL" => shell(text),
        (None, [kind, words @ ..]) if kind == "CMD" && !words.is_empty() => executor::os_strings(words),
        (None, []) if args.is_any() => {
            return Err(Failure::own("there is no check whose times could be set")
                .hint("give one with --health-cmd; the image has none"));
        }
        (None, _) => return Ok(None),
    };
    let nanoseconds =
        |time: Option<crate::values::GoDuration>| time.map(|time| time.0).filter(|time| *time > 0);
    let time = |asked, pick: fn(&Healthcheck) -> Option<i64>, default: u64| {
        nanoseconds(asked).or_else(|| of_image(pick)).unwrap_or(default)
    };
    Ok(Some(Health {
        args: command,
        interval: time(args.health_interval, |h| h.interval, 30 * SECOND),
        timeout: time(args.health_timeout, |h| h.timeout, 30 * SECOND),
        start_period: time(args.health_start_period, |h| h.start_period, 0),
        start_interval: time(args.health_start_interval, |h| h.start_interval, 5 * SECOND),
        retries: args
            .health_retries
            .or_else(|| u32::try_from(image?.retries?).ok())
            .filter(|count| *count > 0)
            .unwrap_or(3),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_variables() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# comment\nA=1\n  B=x=y\n\nBOX_SURELY_UNSET\n").unwrap();
        let pairs = env_file(file.path()).unwrap();
        assert_eq!(
            pairs,
            [
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "x=y".to_owned())
            ]
        );
        std::fs::write(file.path(), "A B=1\n").unwrap();
        assert!(env_file(file.path()).unwrap_err().to_string().contains(":1:"));
    }
}
