//! Instructions that change the config alone.

use std::time::Duration;

use box_store::image::{Empty, Healthcheck};

use crate::ast::{self, Command, Instruction, InstructionKind, KeyValues, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::expand_words;

use super::Lowering;
use super::ports::parse_ports;
use super::run::{limits, shell_form};
use super::state::State;

impl Lowering<'_> {
    pub(super) fn config(&mut self, state: &mut State, instruction: &Instruction) {
        match &instruction.kind {
            InstructionKind::Env(pairs) => self.env(state, pairs),
            InstructionKind::Label(pairs) => self.label(state, pairs),
            InstructionKind::User(word) => {
                state.config.config.user = self.word(state, word).unwrap_or_default();
            }
            InstructionKind::Cmd(command) => {
                state.config.config.cmd = command_args(state, command);
                state.has_own_cmd = true;
            }
            InstructionKind::Entrypoint(command) => {
                state.config.config.entrypoint = command_args(state, command);
                if !state.has_own_cmd {
                    state.config.config.cmd = None;
                }
            }
            InstructionKind::Shell(words) => state.config.config.shell = Some(words.clone()),
            InstructionKind::Healthcheck(check) => {
                state.config.config.healthcheck = Some(healthcheck(state, check));
            }
            InstructionKind::Volume(words) => self.volumes(state, words),
            InstructionKind::Expose(words) => words.iter().for_each(|word| self.expose(state, word)),
            InstructionKind::StopSignal(word) => self.stop_signal(state, word),
            InstructionKind::Maintainer(word) => {
                state.config.author = Some(word.text.clone());
            }
            InstructionKind::OnBuild(on_build) => {
                let triggers = state.config.config.on_build.get_or_insert_default();
                triggers.push(on_build.text.clone());
            }
            InstructionKind::Limit(written) => state.limits = limits(written).over(state.limits),
            // Those that make layers, and what is left, can't be done yet.
            other => {
                self.refuse::<()>(instruction.keyword.span, other.name());
            }
        }
    }

    /// Keys and values, all expanded with what held before the instruction.
    fn pairs(&mut self, state: &State, pairs: &KeyValues) -> Vec<(String, String)> {
        let mut expanded = Vec::with_capacity(pairs.pairs.len());
        for (name, value) in &pairs.pairs {
            let Some(key) = self.word(state, name) else {
                continue;
            };
            if key.is_empty() {
                self.problems
                    .push(Diagnostic::error(name.span, "the name is empty").expected("name=value"));
            }
            expanded.extend(self.word(state, value).map(|value| (key, value)));
        }
        expanded
    }

    fn env(&mut self, state: &mut State, pairs: &KeyValues) {
        for (name, value) in self.pairs(state, pairs) {
            state.set_env(&name, &value);
        }
    }

    fn label(&mut self, state: &mut State, pairs: &KeyValues) {
        state.config.config.labels.extend(self.pairs(state, pairs));
    }

    fn volumes(&mut self, state: &mut State, words: &[Word]) {
        for word in words {
            let Some(path) = self.word(state, word) else {
                continue;
            };
            if path.trim().is_empty() {
                self.problems
                    .push(Diagnostic::error(word.span, "a VOLUME is empty").expected("a path"));
            }
            state.config.config.volumes.insert(path, Empty {});
        }
    }

    fn expose(&mut self, state: &mut State, word: &Word) {
        let words = match expand_words(&word.text, self.graph.directives.escape, &state.scope) {
            Ok(words) => words,
            Err(error) => {
                return self
                    .problems
                    .push(Diagnostic::error(word.span, error.to_string()));
            }
        };
        for text in words {
            match parse_ports(&text) {
                Some(ports) => {
                    let ports = ports.into_iter().map(|port| (port, Empty {}));
                    state.config.config.exposed_ports.extend(ports);
                }
                None => {
                    let problem = Diagnostic::error(word.span, format!("invalid port {text:?}"));
                    self.problems.push(problem.expected("PORT[-PORT][/tcp|udp|sctp]"));
                }
            }
        }
    }

    fn stop_signal(&mut self, state: &mut State, word: &Word) {
        let Some(signal) = self.word(state, word) else {
            return;
        };
        if is_signal(&signal) {
            state.config.config.stop_signal = Some(signal);
        } else {
            let problem = Diagnostic::error(word.span, format!("unknown signal {signal:?}"));
            self.problems
                .push(problem.expected("a name like SIGTERM or a number from 1 to 64"));
        }
    }
}

/// What CMD or ENTRYPOINT puts into the config; an empty list takes away what was there.
fn command_args(state: &State, command: &Command) -> Option<Vec<String>> {
    match command {
        Command::Shell(text) => Some(shell_form(state, text)),
        Command::Exec(args) => Some(args.clone()).filter(|args| !args.is_empty()),
    }
}

fn healthcheck(state: &State, check: &ast::Healthcheck) -> Healthcheck {
    let nanoseconds = |time: &Option<Duration>| time.and_then(|time| i64::try_from(time.as_nanos()).ok());
    match check {
        ast::Healthcheck::None => Healthcheck {
            test: Some(vec!["NONE".to_owned()]),
            ..Healthcheck::default()
        },
        ast::Healthcheck::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => {
            let test = match command {
                // Docker runs CMD-SHELL with the image's shell; it stores the text alone.
                Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                Command::Exec(args) => std::iter::once("CMD".to_owned())
                    .chain(args.iter().cloned())
                    .collect(),
            };
            let _ = state;
            Healthcheck {
                test: Some(test),
                interval: nanoseconds(interval),
                timeout: nanoseconds(timeout),
                start_period: nanoseconds(start_period),
                start_interval: nanoseconds(start_interval),
                retries: retries.map(i64::from),
                ..Healthcheck::default()
            }
        }
    }
}

/// Whether it names a signal of Linux, with or without SIG, or by number.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "EMT",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let is_realtime = |rest: &str| rest.is_empty() || rest[1..].parse::<u8>().is_ok_and(|n| n <= 15);
    NAMES.contains(&name)
        || name
            .strip_prefix("RTMIN")
            .is_some_and(|rest| (rest.is_empty() || rest.starts_with('+')) && is_realtime(rest))
        || name
            .strip_prefix("RTMAX")
            .is_some_and(|rest| (rest.is_empty() || rest.starts_with('-')) && is_realtime(rest))
}
