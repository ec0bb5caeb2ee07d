//! The git program, in a directory of its own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use box_store::Store;
use box_store::scratch::Scratch;

use crate::exec::CancelToken;

use super::GitError;
use super::resolve::{Resolved, find, questions};

/// The longest time between two looks at a running git.
const TICK: Duration = Duration::from_millis(50);
/// How much of what git says is told.
const TOLD: usize = 2000;
/// Where what was fetched is kept.
const FETCHED: &str = "refs/box/fetched";
/// What may be spoken: nothing that reads this machine's files or starts other programs.
const PROTOCOLS: &str = "http:https:git:ssh";
/// What tells git of another repository than ours.
const FOREIGN: [&str; 11] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
];

/// By whose configuration a command goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Config {
    /// The user's.
    User,
    /// Nobody's.
    None,
}

/// A repository in the making, removed with the handle.
pub(super) struct Git<'a> {
    scratch: Scratch,
    cancel: &'a CancelToken,
    remote: &'a str,
    shown: String,
}

impl<'a> Git<'a> {
    /// An empty directory; `shown` is the address as it may be told.
    pub(super) fn new(
        store: &Store,
        cancel: &'a CancelToken,
        remote: &'a str,
        shown: String,
    ) -> Result<Git<'a>, GitError> {
        let git = Git {
            scratch: store.scratch()?,
            cancel,
            remote,
            shown,
        };
        for directory in [git.work_tree(), git.scratch.path().join("no-templates")] {
            std::fs::create_dir(directory).map_err(|source| git.io(source))?;
        }
        Ok(git)
    }

    /// The address as it may be told.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Where the files are.
    pub(super) fn work_tree(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    /// Asks the remote which commit a reference is.
    pub(super) fn resolve(&self, reference: Option<&str>) -> Result<Resolved, GitError> {
        let questions = questions(reference);
        let mut args = vec!["--symref", "--", self.remote];
        args.extend(questions.iter().map(String::as_str));
        let listing = self.run(Config::User, "ls-remote", &args)?;
        find(&listing, reference).ok_or_else(|| GitError::NoReference {
            repository: self.shown.clone(),
            reference: reference.unwrap_or("HEAD").to_owned(),
        })
    }

    /// Fetches the commit alone; says which one it is.
    pub(super) fn fetch(&self, resolved: &Resolved) -> Result<String, GitError> {
        let init = ["-q", "--template=", "--initial-branch=main"];
        self.run(Config::None, "init", &init)?;
        let source = resolved.name.as_ref().unwrap_or(&resolved.commit);
        let wanted = format!("+{source}:{FETCHED}");
        let common = ["-q", "--no-tags", "--no-recurse-submodules", "--update-head-ok"];
        let shallow = [&common[..], &["--depth=1", "--", self.remote, &wanted]].concat();
        match self.run(Config::User, "fetch", &shallow) {
            Ok(_) => {}
            // Some servers give no commit by its id, and some no part of a history: then all branches and tags.
            Err(refused @ GitError::Failed { .. }) => {
                let all = [&common[..], &["--", self.remote, "+refs/*:refs/box/all/*"]].concat();
                let fetched = self.run(Config::User, "fetch", &all);
                if fetched.is_err() || !self.has_commit(&resolved.commit) {
                    return Err(refused);
                }
                self.run(Config::None, "update-ref", &[FETCHED, &resolved.commit])?;
            }
            Err(error) => return Err(error),
        }
        let commit = self.run(
            Config::None,
            "rev-parse",
            &["--verify", &format!("{FETCHED}^{{commit}}")],
        )?;
        Ok(commit.trim().to_owned())
    }

    fn has_commit(&self, commit: &str) -> bool {
        let object = format!("{commit}^{{commit}}");
        self.run(Config::None, "cat-file", &["-e", &object]).is_ok()
    }

    /// Writes the commit's files.
    pub(super) fn check_out(&self, resolved: &Resolved, submodules: bool) -> Result<(), GitError> {
        self.run(
            Config::None,
            "checkout",
            &["-q", "--force", "--detach", &resolved.commit],
        )?;
        if submodules && self.work_tree().join(".gitmodules").symlink_metadata().is_ok() {
            // Addresses relative to ours are kept in the configuration: they must have no password in them.
            self.run(Config::None, "config", &["remote.origin.url", &self.shown])?;
            let args = ["update", "-q", "--init", "--recursive", "--depth=1"];
            self.run(Config::None, "submodule", &args)?;
        }
        Ok(())
    }

    /// When the commit was made, in seconds since 1970.
    pub(super) fn time_of(&self, commit: &str) -> Result<i64, GitError> {
        let time = self.run(Config::None, "show", &["-s", "--format=%ct", commit])?;
        time.trim().parse().map_err(|_| GitError::Failed {
            repository: self.shown.clone(),
            action: "show",
            message: format!("no time in {time:?}"),
        })
    }

    /// Makes `.git` what a clone would have, and the same wherever that is done.
    pub(super) fn tidy(&self, resolved: &Resolved) -> Result<(), GitError> {
        let commit = resolved.commit.as_str();
        self.run(Config::None, "config", &["remote.origin.url", &self.shown])?;
        self.run(
            Config::None,
            "config",
            &["remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"],
        )?;
        if let Some(name) = &resolved.name {
            self.run(Config::None, "update-ref", &[name, &resolved.object])?;
            if name.starts_with("refs/heads/") {
                self.run(Config::None, "symbolic-ref", &["HEAD", name])?;
            }
        }
        let all = self.run(
            Config::None,
            "for-each-ref",
            &["--format=%(refname)", "refs/box/"],
        )?;
        for name in all.lines() {
            self.run(Config::None, "update-ref", &["-d", name])?;
        }
        let git_dir = self.work_tree().join(".git");
        self.tidy_dir(&git_dir, commit)?;
        let modules = walkdir::WalkDir::new(git_dir.join("modules")).sort_by_file_name();
        for entry in modules
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_dir())
        {
            if entry.path().join("HEAD").is_file() && entry.path().join("objects").is_dir() {
                self.tidy_dir(entry.path(), "HEAD")?;
            }
        }
        Ok(())
    }

    /// The same for one repository's directory: nothing of this machine and this moment.
    fn tidy_dir(&self, git_dir: &Path, commit: &str) -> Result<(), GitError> {
        for path in ["logs", "FETCH_HEAD", "ORIG_HEAD", "index", "hooks"] {
            remove(&git_dir.join(path)).map_err(|source| self.io(source))?;
        }
        let mut place = OsString::from("--git-dir=");
        place.push(git_dir);
        // An index of names and objects alone: the times of this checkout are nobody's.
        self.run_in(Some(&place), Config::None, "read-tree", &[commit])?;
        let pack = ["-q", "-a", "-d", "-f"];
        self.run_in(Some(&place), Config::None, "repack", &pack).map(drop)
    }

    /// Runs git and gives what it writes.
    fn run(&self, config: Config, action: &'static str, args: &[&str]) -> Result<String, GitError> {
        self.run_in(None, config, action, args)
    }

    fn run_in(
        &self,
        git_dir: Option<&OsStr>,
        config: Config,
        action: &'static str,
        args: &[&str],
    ) -> Result<String, GitError> {
        let said = self.scratch.path().join("said");
        let told = self.scratch.path().join("told");
        let open = |path: &Path| File::create(path).map_err(|source| self.io(source));
        let mut command = Command::new("git");
        command
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "gc.auto=0",
                "-c",
                "pack.threads=1",
            ])
            .args(git_dir)
            .arg(action)
            .args(args)
            .current_dir(self.work_tree())
            .stdin(Stdio::null())
            .stdout(open(&said)?)
            .stderr(open(&told)?);
        set_env(&mut command, config);
        if config == Config::None {
            self.lend_credentials(&mut command);
        }
        // Templates are the machine's.
        command.env("GIT_TEMPLATE_DIR", self.scratch.path().join("no-templates"));
        // A repository around the store is none of ours.
        command.env("GIT_CEILING_DIRECTORIES", self.scratch.path());
        let child = command.spawn().map_err(|source| match source.kind() {
            ErrorKind::NotFound => GitError::NotInstalled {
                repository: self.shown.clone(),
            },
            _ => self.io(source),
        })?;
        let status = self.wait(child)?;
        let read = |path: &Path| std::fs::read(path).map_err(|source| self.io(source));
        if !status.success() {
            let message = String::from_utf8_lossy(&read(&told)?).into_owned();
            return Err(GitError::Failed {
                repository: self.shown.clone(),
                action,
                message: self.told(&message),
            });
        }
        Ok(String::from_utf8_lossy(&read(&said)?).into_owned())
    }

    /// What stands in the address for its host is good for what is fetched from there; in the environment, since others can read a
    /// command's arguments.
    fn lend_credentials(&self, command: &mut Command) {
        let split = |url: &'a str| {
            url.split_once("://")
                .map(|(scheme, rest)| (scheme, rest.split('/').next().unwrap_or(rest)))
        };
        if let Some((scheme, authority)) = split(self.remote)
            && let Some((_, host)) = authority.rsplit_once('@')
        {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env(
                    "GIT_CONFIG_KEY_0",
                    format!("url.{scheme}://{authority}/.insteadOf"),
                )
                .env("GIT_CONFIG_VALUE_0", format!("{scheme}://{host}/"));
        }
    }

    /// The end of what git said, without what may not be shown.
    fn told(&self, message: &str) -> String {
        let message = message.replace(self.remote, &self.shown);
        let message = crate::url::without_credentials(message.trim());
        let start = message.len().saturating_sub(TOLD);
        let start = (start..message.len()).find(|&at| message.is_char_boundary(at));
        let end = &message[start.unwrap_or_default()..];
        let lines: Vec<_> = end
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        match lines.is_empty() {
            true => "it says nothing".to_owned(),
            false => lines.join("; "),
        }
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus, GitError> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait().map_err(|source| self.io(source))? {
                return Ok(status);
            }
            if self.cancel.is_cancelled() {
                // With the helpers that it started. It is not waited for before, so the id is still its own.
                if let Ok(id) = i32::try_from(child.id())
                    && let Some(group) = rustix::process::Pid::from_raw(id)
                {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
                return Err(GitError::Cancelled);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(TICK);
        }
    }

    pub(super) fn io(&self, source: io::Error) -> GitError {
        GitError::Io {
            repository: self.shown.clone(),
            source,
        }
    }
}

fn set_env(command: &mut Command, config: Config) {
    use std::os::unix::process::CommandExt;
    if config == Config::None {
        let kept = ["PATH", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR"];
        let proxies = ["http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"];
        command.env_clear();
        for name in kept.into_iter().chain(proxies) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1");
    }
    for name in FOREIGN {
        command.env_remove(name);
    }
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        .env("GIT_LFS_SKIP_SMUDGE", "1")
        .env("LC_ALL", "C")
        // Ctrl-C is for box, which ends git itself.
        .process_group(0);
    // Nothing may ask on the terminal; the user's own way to start ssh stays.
    match config {
        Config::User => command
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("SSH_ASKPASS", "/bin/false"),
        Config::None => command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
    };
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
