//! The lists of operations, held against snapshots: the order is part of the security contract.
//! `BOX_UPDATE_SNAPSHOTS=1 cargo test` writes them anew.

use std::path::PathBuf;

use super::*;
use crate::spec::{Label, Mount, MountKind, Namespaces, Process, RootFs, Tmpfs};

fn spec() -> ContainerSpec {
    let rootfs = RootFs {
        lower: vec!["/store/layers/b".into(), "/store/layers/a".into()],
        upper: "/store/tmp/1/upper".into(),
        work: "/store/tmp/1/work".into(),
        userxattr: false,
        volatile: true,
        read_only: false,
    };
    let process = Process {
        args: vec!["sh".into(), "-c".into(), "true".into()],
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/work".into(),
        user: "web".into(),
    };
    ContainerSpec::new("c1", rootfs, process)
}

/// Both parts, as they are executed.
fn plan(spec: &ContainerSpec, around: &Surroundings) -> Vec<SetupOp> {
    let mut ops = plan_outside(spec, &around.ids);
    ops.extend(plan_inside(spec, around));
    ops
}

fn check(name: &str, spec: &ContainerSpec, ids: IdMap, cgroups: CgroupView) {
    let ops = plan(spec, &Surroundings { ids, cgroups });
    let text: String = ops.iter().map(|op| format!("{op:?}\n")).collect();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/setup/snapshots/{name}.txt"));
    if std::env::var_os("BOX_UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (line, (got, want)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "{name}.txt:{}", line + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{name}");
}

fn legacy() -> CgroupView {
    CgroupView::Legacy(vec![
        ("memory".into(), vec!["memory".into()]),
        ("cpu,cpuacct".into(), vec!["cpu".into(), "cpuacct".into()]),
    ])
}

#[test]
fn a_default_container() {
    check("default", &spec(), IdMap::range(100_000, 65_536), legacy());
}

#[test]
fn a_build_step_with_the_hosts_network() {
    let mut spec = spec();
    spec.no_new_privs = false;
    spec.network = Network::Host;
    check("build", &spec, IdMap::range(100_000, 65_536), CgroupView::Unified);
}

#[test]
fn an_ordinary_users_interactive_container() {
    let mut spec = spec();
    (
        spec.terminal,
        spec.init,
        spec.rootfs.read_only,
        spec.rootfs.userxattr,
    ) = (true, true, true, true);
    spec.seccomp = Seccomp::Unconfined;
    spec.rlimits.push(Rlimit {
        resource: Resource::Core,
        soft: 1,
        hard: 2,
    });
    let tmpfs = MountKind::Tmpfs(Tmpfs {
        size: Some(1024),
        ..Tmpfs::default()
    });
    spec.mounts = vec![
        Mount::new(tmpfs, "/a/b/c"),
        Mount {
            read_only: true,
            ..Mount::new(MountKind::bind("/home/ann"), "/a")
        },
    ];
    check("user", &spec, IdMap::range(0, 1), CgroupView::None);
}

#[test]
fn what_is_shared_with_the_host() {
    let mut spec = spec();
    let host = Sharing::Host;
    spec.namespaces = Namespaces {
        user: host,
        pid: host,
        ipc: host,
        uts: host,
        cgroup: host,
    };
    spec.network = Network::Host;
    check("host", &spec, IdMap::range(0, u32::MAX), CgroupView::Unified);
}

#[test]
fn what_is_shared_with_another_container() {
    let mut spec = spec();
    let joined = Sharing::Joined;
    spec.namespaces = Namespaces {
        pid: joined,
        ipc: joined,
        uts: joined,
        ..Namespaces::default()
    };
    spec.network = Network::Joined;
    spec.label = Some(Label::AppArmor("some-profile".into()));
    check("joined", &spec, IdMap::range(100_000, 65_536), legacy());
}

#[test]
fn a_privileged_container() {
    let mut spec = spec();
    spec.namespaces.user = Sharing::Host;
    (spec.privileged, spec.no_new_privs) = (true, false);
    (spec.caps, spec.seccomp) = (Capabilities::ALL, Seccomp::Unconfined);
    spec.system_paths = SystemPaths::Unconfined;
    check("privileged", &spec, IdMap::range(0, u32::MAX), legacy());
}

/// Nobody whose pid namespace it shares sees it before it hides, and none of its own rights are in the container before others' are joined.
#[test]
fn the_order_of_joining() {
    let mut spec = spec();
    spec.namespaces.pid = Sharing::Joined;
    spec.label = Some(Label::AppArmor("some-profile".into()));
    let around = Surroundings {
        ids: IdMap::range(100_000, 65_536),
        cgroups: legacy(),
    };
    let ops = plan(&spec, &around);
    let at = |wanted: SetupOp| position(&ops, |op| *op == wanted);
    let join = position(&ops, |op| matches!(op, SetupOp::JoinOf { .. }));
    assert!(at(SetupOp::Hide) < join && join < at(SetupOp::JoinUser));
    assert!(at(SetupOp::JoinUser) < at(SetupOp::Fork));
    let bundle =
        |is: fn(&bundle::BundleOp) -> bool| position(&ops, |op| matches!(op, SetupOp::Bundle(op) if is(op)));
    let open = bundle(|op| matches!(op, bundle::BundleOp::OpenLabel { .. }));
    let write = bundle(|op| matches!(op, bundle::BundleOp::WriteLabel(_)));
    assert!(at(SetupOp::Fork) < open && open < at(SetupOp::AttachRoot));
    assert!(at(SetupOp::PivotRoot) < write && write < at(SetupOp::NoNewPrivs));
}

fn position(ops: &[SetupOp], wanted: impl Fn(&SetupOp) -> bool) -> usize {
    ops.iter().position(wanted).unwrap()
}

/// What must come before what, whatever the snapshots say.
#[test]
fn the_order_of_the_contract() {
    for no_new_privs in [true, false] {
        let mut spec = spec();
        spec.no_new_privs = no_new_privs;
        let ids = IdMap::range(100_000, 65_536);
        let ops = plan(
            &spec,
            &Surroundings {
                ids,
                cgroups: legacy(),
            },
        );
        let at = |op: SetupOp| position(&ops, |o| *o == op);
        let pivot = at(SetupOp::PivotRoot);
        let fork = at(SetupOp::Fork);
        let bounding = position(&ops, |o| matches!(o, SetupOp::BoundingSet(_)));
        let switch = position(&ops, |o| matches!(o, SetupOp::SwitchUser(_)));
        let chdir = position(&ops, |o| matches!(o, SetupOp::Chdir(_)));
        let filter = position(&ops, |o| matches!(o, SetupOp::Seccomp(_)));
        let caps = position(&ops, |o| matches!(o, SetupOp::Capabilities(_)));
        let mask = position(&ops, |o| matches!(o, SetupOp::MaskPath { .. }));
        assert!(position(&ops, |o| matches!(o, SetupOp::LockMounts(_))) < at(SetupOp::JoinUser));
        assert!(at(SetupOp::PrivateMounts) < at(SetupOp::TakeLocked));
        assert!(at(SetupOp::TakeLocked) < at(SetupOp::AttachRoot));
        assert!(at(SetupOp::JoinUser) < fork && fork < at(SetupOp::SessionKeyring));
        assert!(at(SetupOp::SessionKeyring) < at(SetupOp::PrivateMounts));
        assert!(at(SetupOp::PrivateMounts) < at(SetupOp::AttachRoot) && at(SetupOp::CheckProc) < pivot);
        assert!(pivot < mask && mask < bounding && bounding < switch && switch < chdir);
        assert!(chdir < at(SetupOp::CloseFds) && at(SetupOp::CloseFds) < filter);
        assert_eq!(caps < filter, no_new_privs);
        assert!(matches!(ops.last(), Some(SetupOp::Exec { .. })));
    }
}
