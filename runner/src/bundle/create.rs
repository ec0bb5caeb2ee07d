//! Making a container of a bundle, and starting it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::namespaces::id_maps;
use super::plan::{self, Parts};
use super::{Created, ProcessId, Request};
use crate::cgroup::PlacedGroups;
use crate::channel::{self, FromInit, FromKeeper};
use crate::error::{Result, RunnerError};
use crate::hook::Hook;
use crate::init::HIDDEN_ARGUMENT;
use crate::init::detached::Detached;
use crate::parent::{program, spawn};
use crate::sys::{self, ExecStrings};
use crate::userns::UserNamespace;

/// The name of the socket on which the start is waited for, in the directory of the container.
const SOCKET: &str = "start";

/// Makes the container, up to where its command would be started. `prepared` is called when its namespaces are there and its root is not
/// entered yet: that is where the hooks of the runtime are run. `state` is what the container's own hooks read, with
/// `"@pid@"` and `@status@` for what is not known yet.
pub fn create(
    request: &Request<'_>,
    state: &str,
    prepared: &mut dyn FnMut(&ProcessId) -> Result<()>,
) -> Result<Created> {
    let parts = plan::parts(request)?;
    let path = parts.linux.cgroups_path().clone();
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let (path, is_asked) = match path {
        Some(path) => (path, true),
        None => (own_place(request)?, false),
    };
    let mut groups = PlacedGroups::plan(&path)?;
    note(request.dir, &groups)?;
    match is_asked {
        true => groups.make(&path)?,
        false => groups.make_allowed(&path)?,
    }
    // All that is in it is killed with the container.
    if !groups.processes().is_empty() {
        groups.remove();
        return super::invalid(
            "linux.cgroupsPath",
            format!("{} has processes already", path.display()),
        );
    }
    let made = create_in(request, &parts, &groups, state, prepared);
    match made {
        Ok((first, terminal)) => Ok(Created {
            first,
            terminal,
            groups,
        }),
        Err(error) => {
            groups.remove();
            Err(error)
        }
    }
}

/// The name of the file that says which groups were made, in the directory of the container.
const GROUPS: &str = "groups.json";

/// So that they can be removed when this is killed before it has told anybody.
fn note(dir: &Path, groups: &PlacedGroups) -> Result<()> {
    let path = dir.join(GROUPS);
    let write = || std::fs::write(&path, serde_json::to_vec(groups)?);
    write().map_err(|e: std::io::Error| RunnerError::os(format!("write {}", path.display()), e))
}

/// The groups that were made for a container of which nothing else is known; those of others are not among them.
pub fn noted_groups(dir: &Path) -> PlacedGroups {
    // Without it, or half written, there is nothing to be removed.
    let text = std::fs::read(dir.join(GROUPS)).unwrap_or_default();
    let groups: PlacedGroups = serde_json::from_slice(&text).unwrap_or_default();
    groups.own()
}

/// Where the groups are when the bundle does not say: elsewhere for the same id in another directory of states.
fn own_place(request: &Request<'_>) -> Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let looking = |e| RunnerError::os(format!("look at {}", request.dir.display()), e);
    let dir = std::fs::metadata(request.dir).map_err(looking)?;
    let name = format!("{}-{:x}-{:x}", request.id, dir.dev(), dir.ino());
    Ok(PathBuf::from("box-oci").join(name))
}

fn create_in(
    request: &Request<'_>,
    parts: &Parts<'_>,
    groups: &PlacedGroups,
    state: &str,
    prepared: &mut dyn FnMut(&ProcessId) -> Result<()>,
) -> Result<(ProcessId, Option<crate::Terminal>)> {
    let resources = parts.linux.resources().clone().unwrap_or_default();
    groups.apply(&resources).map_err(|reason| RunnerError::Bundle {
        field: "linux.resources".into(),
        reason,
    })?;
    let plan = plan::plan(request, parts, groups, state)?;
    let joins = parts.namespaces.open()?;
    let user = match parts.namespaces.is_new(libc::CLONE_NEWUSER) {
        false => None,
        true => {
            let (uids, gids) = id_maps(parts.linux)?;
            Some(UserNamespace::with_maps(&uids, &gids)?)
        }
    };
    let (_dir, socket) = socket(request.dir)?;
    let listener = UnixListener::bind(&socket)
        .map_err(|e| RunnerError::os(format!("make a socket in {}", request.dir.display()), e))?;
    let elsewhere = libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP;
    let detached = Detached {
        outside: plan.outside,
        inside: plan.inside,
        namespaces: (parts.namespaces.new & !elsewhere) as u64,
        joins: joins.len(),
        tasks: 0,
        unified: false,
        start: true,
    };
    // Without a user namespace of its own nothing is entered by it.
    let entrance = match &user {
        Some(user) => user.fd(),
        None => listener.as_fd(),
    };
    let keeper = Keeper::start(request.program, request.kept_fds)?;
    let joined: Vec<BorrowedFd<'_>> = joins.iter().map(AsFd::as_fd).collect();
    keeper.describe(detached, entrance, &joined, groups, Some(listener.as_fd()))?;
    let made = keeper.await_process(prepared, true);
    keeper.part(made.is_ok());
    made
}

/// A keeper that makes the first process of something and goes.
pub(super) struct Keeper {
    pid: i32,
    control: UnixStream,
    report: UnixStream,
}

impl Keeper {
    /// Starts it with the caller's own streams, and `kept` descriptors after those.
    pub(super) fn start(path: &Path, kept: u32) -> Result<Keeper> {
        let program = program::open(path)?;
        let failed = |e: std::io::Error| RunnerError::os("start the container's init", e);
        if kept as usize > sys::MAX_FDS - 5 {
            return Err(RunnerError::InvalidSpec {
                what: "number of descriptors to be kept (at most 27)",
                value: kept.to_string(),
            });
        }
        let (control, their_control) = UnixStream::pair().map_err(failed)?;
        let (report, their_report) = UnixStream::pair().map_err(failed)?;
        let mut fds: Vec<i32> = (0..3 + kept as i32).collect();
        fds.extend([their_control.as_raw_fd(), their_report.as_raw_fd()]);
        let argument = CString::new(HIDDEN_ARGUMENT).map_err(|e| failed(e.into()))?;
        let kept = CString::new(kept.to_string()).map_err(|e| failed(e.into()))?;
        let args = [c"box", argument.as_c_str(), kept.as_c_str()];
        let (pid, _) = sys::spawn(&sys::Program {
            file: program.as_fd(),
            args: &ExecStrings::new(&args),
            env: &ExecStrings::new(&[]),
            fds: &fds,
            namespaces: 0,
        })
        .map_err(failed)?;
        Ok(Keeper { pid, control, report })
    }

    pub(super) fn describe(
        &self,
        mut detached: Detached,
        entrance: BorrowedFd<'_>,
        joins: &[BorrowedFd<'_>],
        groups: &PlacedGroups,
        start: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let opening = |e| RunnerError::os("open the container's cgroups", e);
        let tasks: Vec<OwnedFd> = groups.tasks().map_err(opening)?;
        let unified = groups.unified_dir().map_err(opening)?;
        (detached.tasks, detached.unified) = (tasks.len(), unified.is_some());
        let mut fds = vec![entrance];
        fds.extend(joins);
        fds.extend(tasks.iter().map(AsFd::as_fd));
        fds.extend(unified.as_ref().map(AsFd::as_fd));
        fds.extend(start);
        spawn::tell(&self.control, &detached, &fds)
    }

    /// Waits until the process is ready (`stops`), or has become its command.
    pub(super) fn await_process(
        &self,
        prepared: &mut dyn FnMut(&ProcessId) -> Result<()>,
        stops: bool,
    ) -> Result<(ProcessId, Option<crate::Terminal>)> {
        let garbled = |e: std::io::Error| RunnerError::Protocol { what: e.to_string() };
        let died = || RunnerError::InitDied {
            status: "without a word".into(),
        };
        let first = match channel::recv::<FromKeeper>(&self.control).map_err(garbled)? {
            Some((FromKeeper::Spawned, fds)) => fds.into_iter().next().ok_or_else(died)?,
            Some((FromKeeper::Failed(failure), _)) => return Err(spawn::error(failure)),
            Some((FromKeeper::Exited { .. }, _)) | None => return Err(died()),
        };
        let process = ProcessId::of(pid_of(&first)?)?;
        let mut terminal = None;
        loop {
            match channel::recv::<FromInit>(&self.report).map_err(garbled)? {
                Some((FromInit::Failed(failure), _)) => return Err(spawn::error(failure)),
                Some((FromInit::Terminal, fds)) => {
                    terminal = fds.into_iter().next().map(crate::pty::Terminal::from);
                }
                Some((FromInit::Prepared, _)) => {
                    prepared(&process)?;
                    spawn::tell(&self.report, &(), &[])?;
                }
                Some((FromInit::Ready, _)) => return Ok((process, terminal)),
                None if stops => return Err(died()),
                None => return Ok((process, terminal)),
            }
        }
    }

    /// Lets it go, with the process left to whoever reaps, or both killed.
    pub(super) fn part(self, is_well: bool) {
        if is_well {
            // A keeper that is gone has nothing left to do.
            let _ = channel::send(&self.control, &(), &[]);
        }
        drop((self.control, self.report));
        let _ = sys::wait_for(self.pid, false);
    }
}

fn pid_of(fd: &OwnedFd) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let info = std::fs::read_to_string(&path).map_err(|e| RunnerError::os(format!("read {path}"), e))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = pid.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0);
    pid.ok_or_else(|| RunnerError::InitDied {
        status: "before it was known".into(),
    })
}

/// The socket's path by the open directory: the name of a socket has but 107 bytes.
fn socket(dir: &Path) -> Result<(std::fs::File, PathBuf)> {
    let open = std::fs::File::open(dir).map_err(|e| RunnerError::os(format!("open {}", dir.display()), e))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(SOCKET);
    Ok((open, path))
}

/// Whether a container whose directory this is waits for its start.
pub fn waits(dir: &Path) -> bool {
    socket(dir).is_ok_and(|(_dir, path)| UnixStream::connect(path).is_ok())
}

/// Lets a container go on that waits for it; returns when its command has been started.
pub fn start(dir: &Path) -> Result<()> {
    let failed = |e: std::io::Error| RunnerError::os("start the container", e);
    let (_dir, path) = socket(dir)?;
    let connection = UnixStream::connect(path).map_err(failed)?;
    channel::send(&connection, &(), &[]).map_err(failed)?;
    match channel::recv::<FromInit>(&connection).map_err(failed)? {
        Some((FromInit::Failed(failure), _)) => Err(spawn::error(failure)),
        _ => Ok(()),
    }
}

/// The hooks of the runtime's own namespaces, by the points they are for.
#[derive(Debug, Default)]
pub struct RuntimeHooks {
    /// Before the container's root is entered: `prestart`, then `createRuntime`.
    pub create: Vec<Hook>,
    /// After the command was started.
    pub poststart: Vec<Hook>,
    /// After the container was deleted.
    pub poststop: Vec<Hook>,
}

impl RuntimeHooks {
    /// Those of a config.json.
    pub fn of(spec: &Spec) -> Result<RuntimeHooks> {
        let Some(hooks) = spec.hooks() else {
            return Ok(RuntimeHooks::default());
        };
        let all = |hooks: &Option<Vec<oci_spec::runtime::Hook>>| -> Result<Vec<Hook>> {
            hooks.iter().flatten().map(plan::hook).collect()
        };
        #[allow(deprecated)] // callers still use it
        let mut create = all(hooks.prestart())?;
        create.extend(all(hooks.create_runtime())?);
        Ok(RuntimeHooks {
            create,
            poststart: all(hooks.poststart())?,
            poststop: all(hooks.poststop())?,
        })
    }
}
