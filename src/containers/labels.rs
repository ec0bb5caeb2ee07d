//! AppArmor profiles and SELinux labels, where the host has those.

use std::path::Path;

use super::config::Label;
use crate::error::Failure;

const NO_APPARMOR: &str = "this machine has no AppArmor (or it is switched off)";
const NO_SELINUX: &str = "this machine has no SELinux (or it is switched off)";

/// Whether the kernel confines programs by AppArmor.
pub(super) fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}

/// A profile that would confine nothing is refused.
pub(super) fn needs_apparmor(profile: &str, has_apparmor: bool) -> Result<(), Failure> {
    match has_apparmor {
        true => Ok(()),
        false => Err(
            Failure::own(format!("--security-opt apparmor={profile}: {NO_APPARMOR}"))
                .hint("leave it away, or write apparmor=unconfined, which is what is so here"),
        ),
    }
}

/// What `label=` asks for: none where it is to have none, or nothing is said.
pub(super) fn selinux(parts: &[&str]) -> Result<Option<Label>, Failure> {
    let parts: Vec<&str> = match parts.iter().rposition(|part| *part == "disable") {
        Some(at) => parts.get(at + 1..).unwrap_or_default().to_vec(),
        None => parts.to_vec(),
    };
    if parts.is_empty() {
        return Ok(None);
    }
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(
            Failure::own(format!("--security-opt label={}: {NO_SELINUX}", parts.join(",")))
                .hint("leave it away, or write label=disable, which is what is so here"),
        );
    }
    let config = std::fs::read_to_string("/etc/selinux/config").unwrap_or_default();
    let policy = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let policy = policy.map_or("targeted", str::trim);
    let path = format!("/etc/selinux/{policy}/contexts/lxc_contexts");
    let contexts = std::fs::read_to_string(&path).map_err(|e| {
        Failure::own(format!("cannot read the containers' labels in {path}: {e}"))
            .hint("install the policy for containers (package container-selinux)")
    })?;
    compose(&contexts, &parts).map(Some).map_err(Failure::own)
}

/// The policy's labels for containers, with these parts of them as they are asked for. The level is the files', too.
fn compose(contexts: &str, parts: &[&str]) -> Result<Label, String> {
    let of = |key: &str| {
        contexts.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    let missing = |key: &str| format!("the policy says no {key} label for containers");
    let mut process = split(&of("process").ok_or_else(|| missing("process"))?)?;
    let mut files = split(&of("file").ok_or_else(|| missing("file"))?)?;
    for part in parts {
        let wrong =
            || format!("label={part}: write label=disable, or user:, role:, type: or level: with a value");
        let (name, value) = part.split_once(':').ok_or_else(wrong)?;
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let is_level = |c: char| is_good(c) || matches!(c, ':' | ',');
        let fits = match name {
            "level" => value.chars().all(is_level),
            _ => value.chars().all(is_good),
        };
        if value.is_empty() || !fits {
            return Err(wrong());
        }
        match name {
            "user" => process[0] = value.to_owned(),
            "role" => process[1] = value.to_owned(),
            "type" => process[2] = value.to_owned(),
            "filetype" => files[2] = value.to_owned(),
            "level" => {
                process[3] = value.to_owned();
                files[3] = value.to_owned();
            }
            _ => return Err(wrong()),
        }
    }
    Ok(Label::SeLinux {
        process: process.join(":"),
        files: files.join(":"),
    })
}

/// User, role, type and level; only the last may hold a colon.
fn split(label: &str) -> Result<[String; 4], String> {
    let mut parts = label.splitn(4, ':').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(user), Some(role), Some(kind), level) => {
            Ok([user, role, kind, level.unwrap_or_else(|| "s0".into())])
        }
        _ => Err(format!("the policy's label {label:?} is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXTS: &str = "process = \"system_u:system_r:container_t:s0\"\ncontent = \"system_u:object_r:virt_var_lib_t:s0\"\n\
                            file = \"system_u:object_r:container_file_t:s0\"\n";

    fn check(parts: &[&str], expect: Option<(&str, &str)>) {
        let expect = expect.map(|(process, files)| Label::SeLinux {
            process: process.into(),
            files: files.into(),
        });
        assert_eq!(compose(CONTEXTS, parts).ok(), expect, "{parts:?}");
    }

    #[test]
    fn labels_of_the_policy_with_what_is_asked_for() {
        let files = "system_u:object_r:container_file_t:s0";
        check(&["type:spc_t"], Some(("system_u:system_r:spc_t:s0", files)));
        check(
            &["user:u", "role:r", "level:s0:c1,c2"],
            Some((
                "u:r:container_t:s0:c1,c2",
                "system_u:object_r:container_file_t:s0:c1,c2",
            )),
        );
        for wrong in ["type:", "type", "kind:x", "type:a:b", "level:s0;x", "user:a b"] {
            check(&[wrong], None);
        }
        assert!(compose("", &["type:spc_t"]).is_err());
    }

    #[test]
    fn a_profile_without_apparmor_is_refused() {
        assert!(needs_apparmor("docker-default", true).is_ok());
        let failure = needs_apparmor("docker-default", false).unwrap_err();
        assert!(failure.message().contains("no AppArmor") && failure.cure().is_some());
    }

    #[test]
    fn without_labels_there_is_nothing_to_need() {
        assert_eq!(selinux(&[]).unwrap(), None);
        assert_eq!(selinux(&["type:x", "disable"]).unwrap(), None);
    }
}
