//! What of `box run`'s options says how far a container is apart from its host and from others.

use std::path::Path;

use super::config::{Config, Label, Network, Seccomp, SystemPaths};
use super::{find, labels};
use crate::app::{self, App};
use crate::cli::{self, ContainerArgs};
use crate::error::Failure;
use crate::values::{Ipc, NamespaceModes, Share, Userns};

/// Whose namespaces it has, with names of containers become ids.
pub(super) fn namespaces(app: &App, args: &ContainerArgs) -> Result<NamespaceModes, Failure> {
    let mut modes = args.namespaces.modes();
    check_names(args, &modes)?;
    check_shm(args, &modes)?;
    let mut names: Vec<&mut String> = Vec::new();
    if let Share::Container(name) = &mut modes.pid {
        names.push(name);
    }
    if let Share::Container(name) = &mut modes.uts {
        names.push(name);
    }
    if let Ipc::Container(name) = &mut modes.ipc {
        names.push(name);
    }
    let joins_network = matches!(args.net.network, Some(cli::Network::Container(_)));
    let is_joining = joins_network || !names.is_empty();
    for name in names {
        *name = find(app, name)?.id;
    }
    modes.user = users(app, modes.user, args.namespaces.privileged, is_joining)?;
    Ok(modes)
}

/// What would be another's to say.
fn check_names(args: &ContainerArgs, modes: &NamespaceModes) -> Result<(), Failure> {
    let network = match &args.net.network {
        Some(cli::Network::Container(name)) => Some(name),
        _ => None,
    };
    if args.hostname.is_some() && (modes.uts != Share::Own || network.is_some()) {
        return Err(
            Failure::own("--hostname: the container has not a host name of its own")
                .hint("leave away --hostname, or --uts and --network container:NAME"),
        );
    }
    let Some(name) = network else { return Ok(()) };
    let net = &args.net;
    let given = [
        ("--publish", net.publish_all || !net.publish.is_empty()),
        ("--network-alias", !net.network_alias.is_empty()),
        ("--dns", !net.dns.is_empty()),
        ("--dns-search", !net.dns_search.is_empty()),
        ("--dns-option", !net.dns_option.is_empty()),
        ("--add-host", !args.hosts.is_empty()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => Err(Failure::own(format!(
            "{option}: the container has the network of {name}, and its ports, names and name servers"
        ))
        .hint(format!("give {option} where {name} is made"))),
        None => Ok(()),
    }
}

fn check_shm(args: &ContainerArgs, modes: &NamespaceModes) -> Result<(), Failure> {
    match modes.ipc {
        Ipc::None | Ipc::Host | Ipc::Container(_) if args.process.shm_size.is_some() => Err(Failure::own(
            "--shm-size: the container has no /dev/shm of its own",
        )
        .hint("leave away --shm-size or --ipc")),
        _ => Ok(()),
    }
}

/// Its user ids, as far as they can be said now.
fn users(app: &App, asked: Userns, is_privileged: bool, is_joining: bool) -> Result<Userns, Failure> {
    let is_root = app.rootless.is_none();
    match asked {
        Userns::Default if is_joining => Ok(Userns::Default),
        asked if is_joining && asked != Userns::Default => Err(Failure::own(format!(
            "--userns {asked}: a container that joins another one's namespaces has its user ids, too"
        ))
        .hint("leave --userns away, or give it where the other container is made")),
        Userns::Default if is_root && is_privileged => Ok(Userns::Host),
        Userns::Auto if !is_root => Err(Failure::own(
            "--userns auto: only root has ids enough to give every container its own",
        )
        .hint("leave --userns away: an ordinary user's containers have the user's subordinate ids")),
        Userns::KeepId { .. } if is_root => Err(Failure::own("--userns keep-id is for ordinary users").hint(
            "root keeps its id with --userns host, and chooses ids with --userns ranges:INSIDE:OUTSIDE:COUNT",
        )),
        Userns::KeepId { uid, gid } => {
            let own = |file| own_id(file).ok_or_else(|| Failure::own(format!("cannot read {file}")));
            Ok(Userns::KeepId {
                uid: Some(uid.map_or_else(|| own("/proc/self/uid_map"), Ok)?),
                gid: Some(gid.map_or_else(|| own("/proc/self/gid_map"), Ok)?),
            })
        }
        other => Ok(other),
    }
}

/// The user's id outside of the namespace that this process is in, where it is root: the first line says it.
fn own_id(file: &str) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut numbers = text.lines().next()?.split_whitespace();
    let (inside, outside) = (numbers.next()?, numbers.next()?);
    (inside == "0").then(|| outside.parse().ok())?
}

/// The host name: of a container that has none of its own, the other's.
pub(super) fn hostname(
    app: &App,
    modes: &NamespaceModes,
    network: &Network,
) -> Result<Option<String>, Failure> {
    match (&modes.uts, network) {
        (Share::Host, _) => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
            let name = name.map_err(|e| Failure::own(format!("cannot read the host's name: {e}")))?;
            Ok(Some(name.trim_end().to_owned()))
        }
        (Share::Container(id), _) | (Share::Own, Network::Container(id)) => {
            Ok(Some(find(app, id)?.config.hostname))
        }
        (Share::Own, _) => Ok(None),
    }
}

/// `--security-opt`, each one understood or refused, over what `--privileged` implies.
pub(super) fn security(given: &[String], config: &mut Config) -> Result<(), Failure> {
    if config.privileged {
        config.no_new_privs = false;
        config.seccomp = Seccomp::Unconfined;
        config.system_paths = SystemPaths::Unconfined;
    }
    let mut of_selinux = Vec::new();
    for option in given {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => config.no_new_privs = true,
            ("no-new-privileges", "false") => config.no_new_privs = false,
            ("seccomp", "unconfined") => config.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => config.seccomp = Seccomp::Default,
            ("seccomp", file) if !file.is_empty() => {
                let text = String::from_utf8(app::read_file(Path::new(file))?);
                config.seccomp =
                    Seccomp::Profile(text.map_err(|_| Failure::own(format!("{file} is not UTF-8")))?);
            }
            ("systempaths", "unconfined") | ("unmask", "ALL" | "all") => {
                config.system_paths = SystemPaths::Unconfined;
            }
            ("unmask", paths) if !paths.is_empty() => unmask(paths, config)?,
            ("apparmor", "unconfined") => config.label = None,
            ("apparmor", profile) if !profile.is_empty() => {
                labels::needs_apparmor(profile, labels::has_apparmor())?;
                config.label = Some(Label::AppArmor(profile.to_owned()));
            }
            ("label", part) if !part.is_empty() => of_selinux.push(part),
            _ => {
                return Err(
                    Failure::own(format!("the security option {option:?} is not supported")).hint(
                        "no-new-privileges[=true|false], seccomp=FILE|unconfined|builtin, systempaths=unconfined, unmask=ALL|PATH[:PATH], \
                         apparmor=PROFILE|unconfined and label=disable|user:…|role:…|type:…|level:… are",
                    ),
                );
            }
        }
    }
    if let Some(label) = labels::selinux(&of_selinux)? {
        if config.label.is_some() {
            return Err(Failure::own("an AppArmor profile and an SELinux label at once")
                .hint("a machine has one of the two: give the one that it has"));
        }
        config.label = Some(label);
    }
    config.security_opt = given.to_vec();
    Ok(())
}

fn unmask(paths: &str, config: &mut Config) -> Result<(), Failure> {
    let paths: Vec<String> = paths.split(':').map(str::to_owned).collect();
    let is_of_kernel = |path: &String| path.starts_with("/proc/") || path.starts_with("/sys/");
    if let Some(path) = paths.iter().find(|path| !is_of_kernel(path)) {
        return Err(Failure::own(format!(
            "unmask={path}: only paths of /proc and /sys are hidden or read-only"
        ))
        .hint("write for example unmask=/proc/kcore:/sys/firmware, or unmask=ALL"));
    }
    match &mut config.system_paths {
        SystemPaths::Unconfined => {}
        SystemPaths::Except(open) => open.extend(paths),
        confined => *confined = SystemPaths::Except(paths),
    }
    Ok(())
}
