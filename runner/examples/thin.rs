//! Runs one command in a container made of a directory: `thin LOWER COMMAND…`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]
use box_runner::*;
use std::time::Instant;

fn main() {
    init_main_if_requested();
    let args: Vec<String> = std::env::args().collect();
    let lower = args[1].clone();
    let base = std::path::PathBuf::from(format!("/tmp/box-thin-{}", std::process::id()));
    let runtime = Runtime::new(RuntimeConfig {
        program: "/proc/self/exe".into(),
        owner: format!("thin{}", std::process::id()),
        rootless: false,
        cgroup_parent: None,
    })
    .unwrap();
    let t = Instant::now();
    let user = runtime.user_namespace(&IdMap::range(1_000_000, 65_536)).unwrap();
    eprintln!("userns {:?}", t.elapsed());
    let repeat: usize = std::env::var("REPEAT")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(1);
    let mut code = 0;
    for i in 0..repeat {
        let dir = base.join(i.to_string());
        std::fs::create_dir_all(dir.join("upper")).unwrap();
        std::fs::create_dir_all(dir.join("work")).unwrap();
        let rootfs = RootFs {
            lower: vec![lower.clone().into()],
            upper: dir.join("upper"),
            work: dir.join("work"),
            userxattr: false,
            volatile: true,
            read_only: false,
        };
        let process = Process {
            args: args[2..].iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/".into(),
            user: String::new(),
        };
        let mut spec = ContainerSpec::new(format!("c{i}"), rootfs, process);
        spec.no_new_privs = std::env::var("NNP").is_err();
        spec.init = std::env::var("INIT").is_ok();
        if std::env::var("HOSTNET").is_ok() {
            spec.network = Network::Host;
        }
        let t = Instant::now();
        let running = match runtime.spawn(&spec, &user, Stdio::inherit()) {
            Ok(running) => running,
            Err(e) => {
                eprintln!("{e}");
                std::process::exit(125);
            }
        };
        let spawned = t.elapsed();
        let outcome = running.wait().unwrap();
        eprintln!("spawn {spawned:?} all {:?} {outcome:?}", t.elapsed());
        code = outcome.status.code();
    }
    let t = Instant::now();
    drop(user);
    eprintln!("drop user {:?}", t.elapsed());
    std::fs::remove_dir_all(base).unwrap();
    std::process::exit(code);
}
