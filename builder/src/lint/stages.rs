//! Lints that follow a stage's instructions with its ARGs and environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::input::{LintOptions, Split, StageText};
use super::report::Report;
use crate::ast::{
    Command, CopyFlags, CopySource, Escape, Instruction, InstructionKind, KeyValues, Run, Word,
};
use crate::diagnostic::Diagnostic;
use crate::expand::{Scope, arg_value, expand};
use crate::graph::StageId;
use crate::source::{Span, Spanned};
use crate::suggest::nearest;

mod ports;
pub(super) mod secrets;

/// What is known behind a stage's last instruction.
#[derive(Clone, Default)]
struct State {
    scope: Scope,
    /// Whether the whole environment is known: not where the base image isn't at hand.
    env_known: bool,
    has_shell: bool,
    workdir_set: bool,
}

pub(super) fn check(
    split: &Split<'_>,
    built: &Option<BTreeSet<StageId>>,
    escape: Escape,
    globals: &BTreeMap<String, String>,
    options: &LintOptions<'_>,
    report: &mut Report<'_>,
) {
    let mut names: BTreeMap<&str, StageId> = BTreeMap::new();
    let mut states: BTreeMap<StageId, State> = BTreeMap::new();
    for stage in &split.stages {
        if built.as_ref().is_none_or(|b| b.contains(&stage.id)) {
            let state = base_state(stage, &names, &states, options);
            let mut walk = Walk {
                state,
                escape,
                globals,
                options,
                report,
                last: BTreeMap::new(),
            };
            stage.body.iter().for_each(|i| walk.instruction(i));
            states.insert(stage.id, walk.state);
        }
        if let Some(alias) = &stage.from.alias {
            names.insert(&alias.name, stage.id);
        }
    }
}

/// What a stage begins with.
fn base_state(
    stage: &StageText<'_>,
    names: &BTreeMap<&str, StageId>,
    states: &BTreeMap<StageId, State>,
    options: &LintOptions<'_>,
) -> State {
    let base = stage.from.base.text.as_str();
    let earlier = names
        .get(base.to_lowercase().as_str())
        .and_then(|id| states.get(id));
    if let Some(state) = earlier {
        return state.clone();
    }
    let env = match base {
        "scratch" => Some(Vec::new()),
        _ => options.base_env.and_then(|known| known(base)),
    };
    let env_known = env.is_some();
    let mut scope = Scope::default();
    // Docker sets PATH where the image does not.
    scope.set_env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    env.into_iter()
        .flatten()
        .for_each(|(name, value)| scope.set_env(&name, &value));
    State {
        scope,
        env_known,
        ..State::default()
    }
}

/// A walk along one stage.
struct Walk<'a, 'r, 'c> {
    state: State,
    escape: Escape,
    globals: &'a BTreeMap<String, String>,
    options: &'a LintOptions<'a>,
    report: &'r mut Report<'c>,
    /// Where the last instruction of a kind that counts once stands.
    last: BTreeMap<&'static str, &'a Instruction>,
}

impl<'a> Walk<'a, '_, '_> {
    fn instruction(&mut self, instruction: &'a Instruction) {
        match &instruction.kind {
            InstructionKind::Arg(declarations) => {
                for declaration in declarations {
                    self.arg(instruction, &declaration.name, declaration.default.as_ref());
                }
            }
            InstructionKind::Env(pairs) => self.env(instruction, pairs),
            InstructionKind::Label(pairs) => {
                self.legacy(instruction, pairs);
                pairs
                    .pairs
                    .iter()
                    .for_each(|(k, v)| self.words(instruction, [k, v]));
            }
            InstructionKind::Run(run) => self.run(instruction, run),
            InstructionKind::Copy(copy) => {
                self.copy(instruction, &copy.sources, &copy.destination, &copy.flags);
                if copy.from.is_none() {
                    self.ignored(instruction, &copy.sources);
                }
            }
            InstructionKind::Add(add) => {
                self.copy(instruction, &add.sources, &add.destination, &add.flags);
                self.words(instruction, &add.checksum);
                self.ignored(instruction, &add.sources);
            }
            InstructionKind::Cmd(command) => self.command(instruction, "CMD", command),
            InstructionKind::Entrypoint(command) => self.command(instruction, "ENTRYPOINT", command),
            InstructionKind::Healthcheck(_) => self.once(instruction, "HEALTHCHECK"),
            InstructionKind::Shell(_) => self.state.has_shell = true,
            InstructionKind::Workdir(word) => self.workdir(instruction, word),
            InstructionKind::Expose(words) => {
                self.words(instruction, words);
                words.iter().for_each(|w| self.port(instruction, w));
            }
            InstructionKind::Volume(words) => self.words(instruction, words),
            InstructionKind::User(word) | InstructionKind::StopSignal(word) => {
                self.words(instruction, [word]);
            }
            _ => {}
        }
    }

    fn found(&mut self, instruction: &Instruction, code: &'static str, span: Span, message: String) {
        self.report
            .found(Diagnostic::warning(span, message).code(code), Some(instruction));
    }

    fn arg(&mut self, instruction: &Instruction, name: &Spanned<String>, default: Option<&Word>) {
        self.words(instruction, default);
        if secrets::looks_secret(name) {
            self.secret(instruction, "ARG", name, name.span);
        }
        let default = default.and_then(|w| expand(&w.text, self.escape, &self.state.scope).ok());
        let default = default.as_ref().map(|e| e.text.as_str());
        let value = arg_value(name, default, &BTreeMap::new(), self.globals);
        self.state.scope.declare_arg(name, value);
    }

    fn env(&mut self, instruction: &Instruction, pairs: &KeyValues) {
        self.legacy(instruction, pairs);
        let mut new = Vec::new();
        for (key, value) in &pairs.pairs {
            self.words(instruction, [key, value]);
            if secrets::looks_secret(&key.text) {
                self.secret(instruction, "ENV", &key.text, key.span);
            }
            let value = expand(&value.text, self.escape, &self.state.scope).unwrap_or_default();
            new.push((key.text.as_str(), value.text));
        }
        new.iter()
            .for_each(|(key, value)| self.state.scope.set_env(key, value));
    }

    fn secret(&mut self, instruction: &Instruction, kind: &str, name: &str, span: Span) {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({kind} {name:?})");
        let warning = Diagnostic::warning(span, message).code("SecretsUsedInArgOrEnv");
        let hint = "RUN --mount=type=secret,id=NAME leaves nothing in the image";
        self.report.found(warning.suggest(hint), Some(instruction));
    }

    fn legacy(&mut self, instruction: &Instruction, pairs: &KeyValues) {
        let Some((key, value)) = pairs.pairs.first().filter(|_| pairs.legacy) else {
            return;
        };
        let name = instruction.kind.name();
        let message =
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        let warning = Diagnostic::warning(key.span, message).code("LegacyKeyValueFormat");
        let quote = if value.text.contains([' ', '\t']) {
            "\""
        } else {
            ""
        };
        let short: String = value.text.chars().take(60).collect();
        let hint = format!("{name} {}={quote}{short}{quote}", key.text);
        self.report.found(warning.suggest(hint), Some(instruction));
    }

    fn run(&mut self, instruction: &Instruction, run: &Run) {
        let fields = run
            .mounts
            .iter()
            .flat_map(|m| &m.fields)
            .filter(|f| f.key.value != "from");
        fields.for_each(|f| self.words(instruction, &f.value));
    }

    fn copy(&mut self, at: &Instruction, sources: &[CopySource], destination: &Word, flags: &CopyFlags) {
        for source in sources {
            if let CopySource::Path(word) = source {
                self.words(at, [word]);
            }
        }
        self.words(at, [destination]);
        self.words(at, &flags.chown);
        self.words(at, &flags.chmod);
        self.words(at, &flags.excludes);
    }

    /// An exception among the patterns may bring a file back, so nothing is certain then.
    fn ignored(&mut self, instruction: &Instruction, sources: &[CopySource]) {
        let Some(rules) = self.options.ignore.filter(|r| !r.has_exceptions()) else {
            return;
        };
        for source in sources {
            let CopySource::Path(word) = source else { continue };
            let Ok(path) = expand(&word.text, self.escape, &self.state.scope) else {
                continue;
            };
            let named = Path::new(&path.text).components();
            let path: PathBuf = named.filter(|c| matches!(c, Component::Normal(_))).collect();
            if !word.text.contains("://") && rules.is_ignored(&path) {
                let verb = if instruction.kind.name() == "ADD" {
                    "Add"
                } else {
                    "Copy"
                };
                let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.found(instruction, "CopyIgnoredFile", word.span, message);
            }
        }
    }

    fn command(&mut self, instruction: &'a Instruction, name: &'static str, command: &Command) {
        self.once(instruction, name);
        if let (Command::Shell(text), false) = (command, self.state.has_shell) {
            let message = format!(
                "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
            );
            let warning = Diagnostic::warning(instruction.keyword.span, message).code("JSONArgsRecommended");
            let hint = format!("{name} [\"PROGRAM\", \"ARGUMENT\", …]");
            let looks_like_json = text.starts_with('[') && text.ends_with(']');
            let hint = match looks_like_json {
                true => {
                    format!("{hint}; this is no JSON (its strings need double quotes) and goes to the shell")
                }
                false => hint,
            };
            self.report.found(warning.suggest(hint), Some(instruction));
        }
    }

    /// The one before is in vain, so it is what the warning points at.
    fn once(&mut self, instruction: &'a Instruction, name: &'static str) {
        if let Some(earlier) = self.last.insert(name, instruction) {
            let message = format!(
                "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
            );
            self.found(
                earlier,
                "MultipleInstructionsDisallowed",
                earlier.keyword.span,
                message,
            );
        }
    }

    fn workdir(&mut self, instruction: &Instruction, word: &Word) {
        self.words(instruction, [word]);
        let Ok(path) = expand(&word.text, self.escape, &self.state.scope) else {
            return;
        };
        if path.text.starts_with('/') {
            self.state.workdir_set = true;
        } else if !self.state.workdir_set && path.missing.is_empty() {
            let message = format!(
                "Relative workdir {:?} can have unexpected results if the base image changes",
                path.text
            );
            let warning = Diagnostic::warning(word.span, message).code("WorkdirRelativePath");
            self.report
                .found(warning.expected("a path that begins with /"), Some(instruction));
        }
    }

    fn port(&mut self, instruction: &Instruction, word: &Word) {
        let expanded = crate::expand::expand_words(&word.text, self.escape, &self.state.scope);
        for spec in expanded.unwrap_or_default() {
            for (code, message) in ports::findings(&spec) {
                self.found(instruction, code, word.span, message);
            }
        }
    }

    fn words<'w>(&mut self, instruction: &Instruction, words: impl IntoIterator<Item = &'w Word>) {
        for word in words {
            self.undefined(instruction, word);
        }
    }

    /// A variable that nothing has set, in a word that says nothing for that case. Where the base's
    /// environment is unknown only a probable typing error is reported.
    fn undefined(&mut self, instruction: &Instruction, word: &Word) {
        let Ok(expansion) = expand(&word.text, self.escape, &self.state.scope) else {
            return;
        };
        for name in &expansion.undefined {
            let scope = &self.state.scope;
            let near = nearest(name, scope.build_env().keys().map(String::as_str));
            let declared = scope.args().contains_key(name) || is_predefined(name);
            if declared || (near.is_none() && !self.state.env_known) {
                continue;
            }
            let meant = near.map(|n| format!(" (did you mean ${n}?)")).unwrap_or_default();
            let message = format!("Usage of undefined variable '${name}'{meant}");
            self.found(instruction, "UndefinedVar", word.place_of(name), message);
        }
    }
}

/// ARGs that need no line of their own.
fn is_predefined(name: &str) -> bool {
    let upper = name.to_uppercase();
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    proxies.contains(&upper.as_str()) && (name == upper || name == name.to_lowercase())
}
