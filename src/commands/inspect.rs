//! `box inspect`: what a container or an image is, in Docker's shape where a field means the same.

use std::collections::BTreeMap;
use std::ffi::OsString;

use box_store::{Image, Reference};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{InspectArgs, InspectType};
use crate::clock::timestamp;
use crate::containers::{self, Container, State, Traffic};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::mounts::{MountPlan, PlannedSource};
use crate::ui;

/// Prints an array with an object for each.
pub(super) fn run(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    let objects: Result<Vec<Value>, Failure> = args
        .names
        .iter()
        .map(|name| object(app, name, args.kind))
        .collect();
    ui::json(&Value::Array(objects?))?;
    Ok(0)
}

/// A container is meant first, as with Docker.
fn object(app: &App, name: &str, kind: Option<InspectType>) -> Result<Value, Failure> {
    match kind {
        Some(InspectType::Container) => container(app, &containers::find(app, name)?),
        Some(InspectType::Image) => image(app, &app.image(name, EXIT_INPUT)?),
        None => match containers::find_id(app, name)? {
            Some(id) => container(app, &containers::find(app, &id)?),
            None => image(app, &app.image(name, EXIT_INPUT)?),
        },
    }
}

fn image(app: &App, image: &Image) -> Result<Value, Failure> {
    let config = serde_json::to_value(&image.config).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let names = app.names_of(image)?;
    let layers: Vec<String> = image
        .config
        .rootfs
        .diff_ids
        .iter()
        .map(ToString::to_string)
        .collect();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "Created": config["created"],
        "Built": image.built,
        "Author": config.get("author").unwrap_or(&json!("")),
        "Architecture": config["architecture"],
        "Os": config["os"],
        "Size": app.image_size(image)?,
        "Config": config.get("config").unwrap_or(&json!({})),
        "RootFS": {"Type": "layers", "Layers": layers},
    }))
}

fn text(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
}

fn container(app: &App, container: &Container) -> Result<Value, Failure> {
    let config = &container.config;
    let dir = app.store.container_dir(&container.id)?;
    let (path, args) = config
        .args
        .split_first()
        .map_or((String::new(), Vec::new()), |(first, rest)| {
            (text(first), rest.iter().map(text).collect())
        });
    let env: Vec<String> = config
        .env
        .iter()
        .map(|(name, value)| format!("{}={}", text(name), text(value)))
        .collect();
    let restart = match config.restart {
        crate::values::Restart::OnFailure(count) => count,
        _ => 0,
    };
    let health = config.health.as_ref().map(|health| {
        json!({
            "Test": std::iter::once("CMD".to_owned()).chain(health.args.iter().map(text)).collect::<Vec<_>>(),
            "Interval": health.interval, "Timeout": health.timeout, "Retries": health.retries,
            "StartPeriod": health.start_period, "StartInterval": health.start_interval,
        })
    });
    Ok(json!({
        "Id": container.id,
        "Name": config.name,
        "Created": timestamp(config.created),
        "Path": path,
        "Args": args,
        "State": state(&container.state),
        "Image": config.image_id,
        "LogPath": dir.join(crate::logs::FILE).to_string_lossy(),
        "RestartCount": container.state.restarts,
        "Mounts": mounts(app, container),
        "Config": {
            "Hostname": config.hostname, "User": config.user, "Tty": config.tty, "OpenStdin": config.interactive,
            "Env": env, "Cmd": config.args.iter().map(text).collect::<Vec<_>>(), "Image": config.image,
            "WorkingDir": config.cwd.to_string_lossy(), "Labels": config.labels, "Healthcheck": health,
            "StopSignal": config.stop_signal.to_string(), "StopTimeout": config.stop_timeout,
        },
        "HostConfig": host_config(container, restart),
        "NetworkSettings": network(&container.state),
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": dir.join("upper").to_string_lossy()}},
    }))
}

/// Empty while it does not run.
fn network(state: &State) -> Value {
    let network = state
        .network
        .clone()
        .filter(|_| state.is_active())
        .unwrap_or_default();
    let mut ports: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &network.ports {
        let of = ports
            .entry(format!("{}/{}", port.container, port.protocol.as_str()))
            .or_default();
        of.push(json!({"HostIp": port.address.to_string(), "HostPort": port.host.to_string()}));
    }
    let address = |is: fn(&std::net::IpAddr) -> bool| {
        let found = network.addresses.iter().find(|(address, _)| is(address));
        found.map_or_else(
            || (String::new(), 0),
            |(address, prefix)| (address.to_string(), *prefix),
        )
    };
    let (v4, v6) = (
        address(std::net::IpAddr::is_ipv4),
        address(std::net::IpAddr::is_ipv6),
    );
    json!({
        "Ports": ports,
        "IPAddress": v4.0, "IPPrefixLen": v4.1, "GlobalIPv6Address": v6.0, "GlobalIPv6PrefixLen": v6.1,
    })
}

fn state(state: &State) -> Value {
    let health = state.health.as_ref().map(|health| {
        let check = |check: &containers::HealthCheck| {
            json!({
                "Start": timestamp(check.start), "End": timestamp(check.end),
                "ExitCode": check.exit_code, "Output": check.output,
            })
        };
        json!({
            "Status": health.status.word(), "FailingStreak": health.failing,
            "Log": health.log.iter().map(check).collect::<Vec<_>>(),
        })
    });
    let is = |status| state.status == status;
    json!({
        "Status": state.status.word(),
        "Running": state.is_active(),
        "Paused": is(containers::Status::Paused),
        "Restarting": is(containers::Status::Restarting),
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": timestamp(state.started),
        "FinishedAt": timestamp(state.finished),
        "Health": health,
    })
}

fn extra_hosts(config: &containers::Config) -> Vec<String> {
    let addresses = config
        .hosts
        .iter()
        .map(|(name, address)| format!("{name}:{address}"));
    let of_host = config
        .host_names
        .iter()
        .map(|name| format!("{name}:host-gateway"));
    addresses.chain(of_host).collect()
}

fn host_config(container: &Container, restart: u32) -> Value {
    let config = &container.config;
    let process = &config.process;
    let ulimits = process.rlimits.iter().map(|(resource, soft, hard)| {
        json!({"Name": format!("{resource:?}").to_lowercase(), "Soft": soft, "Hard": hard})
    });
    let throttles = |traffic| -> Vec<Value> {
        let all = config
            .limits
            .throttles
            .iter()
            .filter(|throttle| throttle.traffic == traffic);
        all.map(|throttle| json!({"Path": throttle.device, "Rate": throttle.rate}))
            .collect()
    };
    json!({
        "BlkioDeviceReadBps": throttles(Traffic::ReadBytes),
        "BlkioDeviceWriteBps": throttles(Traffic::WriteBytes),
        "BlkioDeviceReadIOps": throttles(Traffic::Reads),
        "BlkioDeviceWriteIOps": throttles(Traffic::Writes),
        "Memory": config.limits.memory.unwrap_or(0),
        "NanoCpus": config.limits.millicpus.unwrap_or(0) * 1_000_000,
        "PidsLimit": config.limits.pids,
        "RestartPolicy": {"Name": config.restart.to_string(), "MaximumRetryCount": restart},
        "AutoRemove": container.is_transient,
        "NetworkMode": config.network.word(),
        "PidMode": config.namespaces.pid.to_string(),
        "IpcMode": config.namespaces.ipc.to_string(),
        "UTSMode": config.namespaces.uts.to_string(),
        "UsernsMode": config.namespaces.user.to_string(),
        "CgroupnsMode": if config.namespaces.host_cgroups { "host" } else { "private" },
        "Privileged": config.privileged,
        "SecurityOpt": config.security_opt,
        "ExtraHosts": extra_hosts(config),
        "ReadonlyRootfs": config.read_only,
        "CapAdd": config.cap_add, "CapDrop": config.cap_drop,
        "Init": config.init,
        "ShmSize": process.shm_size.unwrap_or(64 << 20),
        "OomScoreAdj": process.oom_score_adj.unwrap_or(0),
        "GroupAdd": process.groups,
        "Sysctls": process.sysctls.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "Ulimits": ulimits.collect::<Vec<_>>(),
        "LogConfig": {"Type": if config.log.none { "none" } else { "local" }, "Config": {
            "max-size": config.log.max_size.to_string(), "max-file": config.log.max_files.to_string(),
        }},
    })
}

fn mounts(app: &App, container: &Container) -> Vec<Value> {
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mount = |mount: &MountPlan| {
        let (kind, name, source) = match &mount.source {
            PlannedSource::Bind { path: source, .. } => ("bind", String::new(), path(source)),
            PlannedSource::Discarded { path: source } => ("overlay", String::new(), path(source)),
            PlannedSource::Volume { name, .. } => {
                let place = app.store.layout().volumes().join(name.as_str()).join("data");
                ("volume", name.as_str().to_owned(), path(&place))
            }
            PlannedSource::Tmpfs { .. } => ("tmpfs", String::new(), String::new()),
            PlannedSource::Image { name, .. } => ("image", String::new(), name.clone()),
            PlannedSource::Secret { id, .. } => ("secret", id.clone(), String::new()),
            PlannedSource::Device { path: source, .. } => ("device", String::new(), path(source)),
        };
        json!({
            "Type": kind, "Name": name, "Source": source, "Destination": path(&mount.target), "RW": !mount.read_only,
        })
    };
    container.config.mounts.iter().map(mount).collect()
}
