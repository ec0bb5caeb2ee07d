//! What must happen in a process of its own outside any container: being killed, being an
//! ordinary user.

use std::path::PathBuf;

use box_runner::{
    ContainerSpec, IdMap, Limits, LimitsPolicy, Network, Process, RootFs, Runtime, RuntimeConfig, Stdio,
    enter_user_namespace,
};

/// `hold|rootless OWNER DIR LOWER [cgroup=PATH] [pids=N] COMMAND…`
pub(crate) fn main(args: &[&str]) {
    let [mode, owner, dir, lower, rest @ ..] = args else {
        panic!("too few arguments");
    };
    let rootless = *mode == "rootless";
    let ids = if rootless {
        match enter_user_namespace() {
            Ok(entered) => entered.ids,
            Err(e) => {
                println!("error={e}");
                std::process::exit(125);
            }
        }
    } else {
        IdMap::range(2_000_000, 65_536)
    };
    let option = |name: &str| rest.iter().find_map(|a| a.strip_prefix(name));
    let runtime = Runtime::new(RuntimeConfig {
        program: "/proc/self/exe".into(),
        owner: owner.to_string(),
        rootless,
        cgroup_parent: option("cgroup=").map(PathBuf::from),
        systemd: None,
        is_keeping: false,
    })
    .unwrap();
    let dir = PathBuf::from(dir);
    let rootfs = RootFs {
        lower: vec![lower.into()],
        upper: dir.join("upper"),
        work: dir.join("work"),
        userxattr: rootless,
        volatile: true,
        read_only: false,
    };
    let command = rest.iter().skip_while(|a| a.contains('=') && !a.contains(' '));
    let process = Process {
        args: command.map(Into::into).collect(),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        user: String::new(),
    };
    let mut spec = ContainerSpec::new("c1", rootfs, process);
    spec.limits = Limits {
        pids: option("pids=").map(|p| p.parse().unwrap()),
        ..Limits::default()
    };
    if option("policy=") == Some("best-effort") {
        spec.limits_policy = LimitsPolicy::BestEffort;
    }
    if option("net=") == Some("host") {
        spec.network = Network::Host;
    }
    let user = runtime.user_namespace(&ids).unwrap();
    match runtime.spawn(&spec, &user, Stdio::inherit()) {
        Err(e) => {
            println!("error={e}");
            std::process::exit(125);
        }
        Ok(running) => {
            println!("running");
            let outcome = running.wait().unwrap();
            println!("code={}", outcome.status.code());
        }
    }
}
