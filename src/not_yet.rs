//! What people know from Docker and box does not have yet: told by name, instead of as an unknown word.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Failure;

const COMMANDS: &str = "attach commit container create events exec image info kill logs manifest \
                        network pause plugin port ps rename restart rm search secret start stats stop system top \
                        unpause update volume wait lock plan";
const OPTIONS: &str = "-a --all --annotation --attach --cache-from --cache-to \
                       --cgroup-parent --cpu-shares --cpuset-cpus -d --detach --device --digests --env-host \
                       --explain --expose --filter --format --gpus --health-cmd --ipc --jobs -l --link \
                       --log-driver --mac-address --memory-swap --metadata-file --mount --no-cache-filter --offline \
                       --override --pid --privileged --restart --secret \
                       --squash --stop-signal --stop-timeout --userns --uts --volume-driver \
                       --volumes-from --build-arg-file --report --locked";

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
        check(&["box", "ps"], Some("ps is not supported yet"));
        check(&["box", "run", "-d", "image"], Some("-d is not supported yet"));
        check(
            &["box", "run", "--privileged", "image"],
            Some("--privileged is not supported yet"),
        );
        check(&["box", "run", "--privilegde", "image"], None);
        check(&["box", "biuld", "."], None);
    }
}
