//! What people know from Docker and box does not have yet: told by name, instead of as an unknown word.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Failure;

const COMMANDS: &str = "commit image info manifest plugin search secret system";
const OPTIONS: &str = "-a --all --annotation --attach \
                       --cgroup-parent --digests --env-host \
                       --expose --filter --format --gpus --link \
                       --mac-address \
                       --override --squash --volume-driver \
                       --build-arg-file";

/// A wrong command line whose wrong word is one of Docker's (or one that is to come).
pub(crate) fn failure(error: &clap::Error) -> Option<Failure> {
    let (kind, known) = match error.kind() {
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, COMMANDS),
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, OPTIONS),
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(kind) else {
        return None;
    };
    let name = word.split('=').next().unwrap_or(word);
    let is_known = known.split_whitespace().any(|known| known == name);
    is_known.then(|| Failure::own(format!("{name} is not supported yet")).hint("`box --help` lists what is"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    fn check(args: &[&str], expected: Option<&str>) {
        let error = crate::cli::Cli::try_parse_from(args).unwrap_err();
        assert_eq!(
            super::failure(&error).map(|f| f.message().to_owned()).as_deref(),
            expected,
            "{args:?}"
        );
    }

    #[test]
    fn words_of_docker_are_refused_by_name() {
        check(&["box", "commit"], Some("commit is not supported yet"));
        check(
            &["box", "run", "--gpus", "all", "image"],
            Some("--gpus is not supported yet"),
        );
        check(
            &["box", "run", "--env-host", "image"],
            Some("--env-host is not supported yet"),
        );
        check(&["box", "run", "--privilegde", "image"], None);
        check(&["box", "biuld", "."], None);
    }
}
