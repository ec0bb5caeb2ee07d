//! A store, a context and an executor without containers.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use box_builder::build::{BuildOutcome, build};
use box_builder::error::BuildError;
use box_builder::exec::{
    ExecError, ExecIo, ExecOutcome, ExecRequest, ExecStatus, Executor, Limits, Stream, Usage,
};
use box_builder::progress::{Event, EventSink};
use box_builder::request::BuildRequest;
use box_builder::source::Source;
use box_store::image::Image;
use box_store::tree::{Tree, TreeEntry};
use box_store::{Reference, Store, StoreOptions};
use tempfile::TempDir;

/// Everything a build needs, in a temporary directory.
pub struct World {
    dir: TempDir,
    pub store: Store,
    pub executor: Scripted,
    pub events: Recorded,
}

impl World {
    pub fn new() -> World {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        World {
            dir,
            store,
            executor: Scripted::default(),
            events: Recorded::default(),
        }
    }

    /// Another world with an empty context on the same store.
    pub fn beside(&self) -> World {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        World {
            dir,
            store: self.store.clone(),
            executor: Scripted::default(),
            events: Recorded::default(),
        }
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn store_root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Writes a file of the context.
    pub fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// One step after another, so that what ran is in order.
    pub fn request(&self, boxfile: &str) -> BuildRequest {
        let mut request = BuildRequest::new(Source::new("Boxfile", boxfile.as_bytes()), self.context());
        request.jobs = 1;
        request
    }

    pub fn run(&self, request: &BuildRequest) -> Result<BuildOutcome, BuildError> {
        self.executor.runs.lock().unwrap().clear();
        self.events.0.lock().unwrap().clear();
        build(&self.store, &self.executor, request, &self.events)
    }

    /// Builds, and says what was run.
    pub fn build(&self, boxfile: &str) -> (Image, Vec<String>) {
        let outcome = self
            .run(&self.request(boxfile))
            .unwrap_or_else(|error| panic!("{error}"));
        (outcome.image, self.executor.ran())
    }

    /// Builds what must fail; gives the error's text.
    pub fn fail(&self, boxfile: &str) -> String {
        self.run(&self.request(boxfile))
            .expect_err("it was built")
            .to_string()
    }

    pub fn tag(&self, image: &Image, name: &str) {
        self.store
            .tag(&Reference::parse(name).unwrap(), &image.id)
            .unwrap();
    }

    pub fn tree(&self, image: &Image) -> Tree {
        Tree::new(&self.store.image_layers(image).unwrap())
    }

    pub fn entry(&self, image: &Image, path: &str) -> Option<TreeEntry> {
        self.tree(image).lookup(Path::new(path)).unwrap()
    }

    /// Mode, user and group of an entry.
    pub fn attrs(&self, image: &Image, path: &str) -> (u32, u32, u32) {
        let metadata = self
            .entry(image, path)
            .unwrap_or_else(|| panic!("no {path}"))
            .metadata;
        (metadata.mode, metadata.uid, metadata.gid)
    }

    pub fn read(&self, image: &Image, path: &str) -> String {
        let mut text = String::new();
        self.tree(image)
            .open_file(Path::new(path))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    /// All paths of the image, links with their target.
    pub fn list(&self, image: &Image) -> Vec<String> {
        let tree = self.tree(image);
        let mut found = Vec::new();
        let mut ahead = vec![PathBuf::new()];
        while let Some(directory) = ahead.pop() {
            for (name, entry) in tree.read_dir(&directory).unwrap() {
                let path = directory.join(name);
                if entry.metadata.kind == box_store::beneath::Kind::Directory {
                    ahead.push(path.clone());
                }
                found.push(path.to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found
    }

    /// Every file of the store with its size and change time.
    pub fn store_state(&self) -> BTreeMap<PathBuf, (u64, Duration)> {
        let mut found = BTreeMap::new();
        let mut ahead = vec![self.store_root()];
        while let Some(directory) = ahead.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.path().symlink_metadata().unwrap();
                if metadata.is_dir() {
                    ahead.push(entry.path());
                }
                use std::os::unix::fs::MetadataExt;
                let changed = Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32);
                found.insert(entry.path(), (metadata.len(), changed));
            }
        }
        found
    }
}

/// Runs the scripts of RUN itself: commands separated by `;`, with `$NAME` from the environment.
#[derive(Default)]
pub struct Scripted {
    pub runs: Mutex<Vec<String>>,
    pub limits: Mutex<Vec<Limits>>,
    /// Waits before each step.
    pub delay: Option<Duration>,
}

impl Scripted {
    pub fn ran(&self) -> Vec<String> {
        self.runs.lock().unwrap().clone()
    }
}

impl Executor for Scripted {
    fn run(&self, request: &ExecRequest<'_>, io: ExecIo<'_>) -> Result<ExecOutcome, ExecError> {
        let words: Vec<String> = request
            .args
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        let script = words.last().unwrap().clone();
        self.runs.lock().unwrap().push(script.clone());
        self.limits.lock().unwrap().push(request.limits);
        std::thread::sleep(self.delay.unwrap_or_default());
        if io.cancel.is_cancelled() {
            return Err(ExecError::Cancelled);
        }
        let mut outcome = ExecOutcome {
            status: ExecStatus::Exited(0),
            oom_killed: false,
            timed_out: false,
            usage: Usage {
                peak_memory: Some(60 << 20),
                ..Usage::default()
            },
        };
        for command in script.split(';') {
            let words: Vec<&str> = command.split_whitespace().collect();
            one(request, io, &words, &mut outcome);
        }
        Ok(outcome)
    }
}

fn one(request: &ExecRequest<'_>, io: ExecIo<'_>, words: &[&str], outcome: &mut ExecOutcome) {
    let path = |text: &str| {
        let path = request.dirs.upper.join(text.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let env = |name: &str| {
        let pair = request.env.iter().find(|(found, _)| found == name);
        pair.map(|(_, value)| value.to_str().unwrap().to_owned())
    };
    match words {
        [] | ["true"] => {}
        ["echo", rest @ ..] => (io.output)(Stream::Stdout, format!("{}\n", rest.join(" ")).as_bytes()),
        ["put", to, text @ ..] => fs::write(path(to), text.join(" ")).unwrap(),
        ["link", to, target] => std::os::unix::fs::symlink(target, path(to)).unwrap(),
        ["hard", to, from] => fs::hard_link(path(from), path(to)).unwrap(),
        ["mkdir", to] => fs::create_dir_all(path(to)).unwrap(),
        ["mode", to, mode] => {
            use std::os::unix::fs::PermissionsExt;
            let mode = u32::from_str_radix(mode, 8).unwrap();
            fs::set_permissions(path(to), fs::Permissions::from_mode(mode)).unwrap();
        }
        ["own", to, id] => {
            let id = id.parse().unwrap();
            std::os::unix::fs::lchown(path(to), Some(id), Some(id)).unwrap();
        }
        ["var", to, name] => fs::write(path(to), env(name).unwrap_or_else(|| "unset".to_owned())).unwrap(),
        ["where", to] => {
            let text = format!("{} {:?}", request.user, request.cwd);
            fs::write(path(to), text).unwrap();
        }
        ["copy", from, to] => {
            let below = request
                .dirs
                .lower
                .iter()
                .map(|lower| lower.join(from.trim_start_matches('/')));
            let found = below.into_iter().find(|path| path.exists()).unwrap();
            fs::write(path(to), fs::read(found).unwrap()).unwrap();
        }
        ["exit", code] => outcome.status = ExecStatus::Exited(code.parse().unwrap()),
        ["kill", signal] => outcome.status = ExecStatus::Signaled(signal.parse().unwrap()),
        ["oom"] => (outcome.oom_killed, outcome.status) = (true, ExecStatus::Signaled(9)),
        ["late"] => (outcome.timed_out, outcome.status) = (true, ExecStatus::Signaled(9)),
        other => panic!("unknown command {other:?}"),
    }
}

/// Keeps what was told, as text.
#[derive(Default)]
pub struct Recorded(pub Mutex<Vec<String>>);

impl Recorded {
    pub fn told(&self, part: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(part))
    }

    pub fn count(&self, part: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.contains(part))
            .count()
    }
}

impl EventSink for Recorded {
    fn event(&self, event: Event<'_>) {
        let text = match event {
            Event::StepOutput { bytes, .. } => format!("output {}", String::from_utf8_lossy(bytes)),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

/// The bytes of a path, for names that are not UTF-8.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
