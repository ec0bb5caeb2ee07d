//! Long texts of every kind that a parser might take too long for.

/// Name, how it begins, what is repeated, how it ends.
const REPEATED: [(&str, &str, &str, &str); 37] = [
    ("one word", "FROM scratch\nRUN ", "a", "\n"),
    ("no instruction", "", "a", "\n"),
    ("words", "FROM scratch\nRUN ", "a ", "\n"),
    ("sources", "FROM scratch\nCOPY ", "a ", "/\n"),
    ("continuations", "FROM scratch\nRUN a", " \\\n b", "\n"),
    ("comments within", "FROM scratch\nRUN a", " \\\n# c\n", "\n"),
    ("comments", "FROM scratch\n", "# c\n", ""),
    ("blank lines", "FROM scratch\n", "\n", ""),
    ("backslashes", "FROM scratch\nRUN ", "\\", "\n"),
    ("quotes", "FROM scratch\nENV a=", "\"b\"", "\n"),
    ("open quotes", "FROM scratch\nENV a=", "\"", "\n"),
    ("variables", "FROM scratch\nENV a=", "$a", "\n"),
    ("open braces", "FROM scratch\nENV a=", "${a:-", "\n"),
    ("heredoc tags", "FROM scratch\nRUN ", "<<A ", "\n"),
    ("equal tags", "FROM scratch\nCOPY ", "<<A ", "/\nx\nA\n"),
    ("tag-like", "FROM scratch\nRUN ", "<", "\n"),
    ("heredoc", "FROM scratch\nRUN <<E\n", "line\n", "E\n"),
    ("open heredoc", "FROM scratch\nRUN <<E\n", "line\n", ""),
    ("JSON", "FROM scratch\nCMD [", "\"a\",", "\"b\"]\n"),
    ("deep JSON", "FROM scratch\nCMD ", "[", "\n"),
    ("labels of a line", "FROM scratch\nLABEL ", "l=v ", "\n"),
    ("ports", "FROM scratch\nEXPOSE ", "80 ", "\n"),
    ("wide ports", "FROM scratch\nEXPOSE ", "1-65535 ", "\n"),
    ("volumes", "FROM scratch\nVOLUME ", "/a ", "\n"),
    (
        "flags",
        "FROM scratch\nRUN ",
        "--mount=type=tmpfs,target=/a ",
        "true\n",
    ),
    (
        "mount",
        "FROM scratch\nRUN --mount=type=tmpfs,target=",
        "a",
        " true\n",
    ),
    ("mount fields", "FROM scratch\nRUN --mount=", "ro,", " true\n"),
    ("excludes", "FROM scratch\nCOPY ", "--exclude=a ", "b /\n"),
    ("onbuild", "FROM scratch\n", "ONBUILD RUN a\n", ""),
    ("onbuild of itself", "FROM scratch\n", "ONBUILD ", "RUN a\n"),
    ("directives", "", "# check=skip=all\n", "FROM scratch\n"),
    ("carriage returns", "FROM scratch\nRUN ", "\r", "\n"),
    ("zero bytes", "FROM scratch\nRUN ", "\0", "\n"),
    (
        "health",
        "FROM scratch\nHEALTHCHECK --interval=",
        "1h",
        " CMD a\n",
    ),
    ("chmod", "FROM scratch\nCOPY --chmod=", "u+x,", " a /\n"),
    (
        "git query",
        "FROM scratch\nADD https://h/a.git?",
        "ref=a&",
        " /\n",
    ),
    ("URL", "FROM scratch\nADD https://h/", "%41/", " /\n"),
];

/// Name, and a line in which `#` is a number and `@` the one before.
const NUMBERED: [(&str, &str); 9] = [
    ("heredocs", "RUN <<E#\nE#\n"),
    ("labels", "LABEL l#=v\n"),
    ("arguments", "ARG a#=$a@\n"),
    ("environment", "ENV a#=$a@\n"),
    ("stages", "FROM s@ AS s#\n"),
    ("copies of stages", "FROM scratch AS s#\nCOPY --from=s@ a /\n"),
    ("wrong names", "RUNN #\n"),
    ("unknown variables", "ENV x=$nowhere#\n"),
    ("unknown stages", "COPY --from=nowhere# a /\n"),
];

/// Each with about this many bytes; by name.
pub(crate) fn texts(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let repeated = REPEATED.iter().map(|&(name, begin, piece, end)| {
        let count = bytes.saturating_sub(begin.len() + end.len()) / piece.len();
        (name, [begin, &piece.repeat(count), end].concat().into_bytes())
    });
    let numbered = NUMBERED.iter().map(|&(name, line)| {
        let mut text = String::from("FROM scratch AS s0\n");
        for number in 1.. {
            if text.len() >= bytes {
                break;
            }
            let line = line.replace('#', &number.to_string());
            text.push_str(&line.replace('@', &(number - 1).to_string()));
        }
        (name, text.into_bytes())
    });
    let depth = bytes / 6;
    let nested = [
        "FROM scratch\nENV a=",
        &"${a:-".repeat(depth),
        &"}".repeat(depth),
        "\n",
    ]
    .concat();
    let mut raw = b"FROM scratch\nRUN ".to_vec();
    raw.resize(bytes, 0xff);
    let others = [("nested", nested.into_bytes()), ("not UTF-8", raw)];
    repeated.chain(numbered).chain(others).collect()
}
