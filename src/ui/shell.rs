//! What is said of a shell in a build, and what is held back while it has the terminal.

use box_builder::progress::Occasion;

use super::human;

/// Columns of a step's instruction.
const TEXT: usize = 60;

/// The line above the shell.
pub(super) fn opened(label: &str, text: &str, occasion: Occasion<'_>, command: Option<&str>) -> String {
    let text = human::truncate(&human::one_line(text), TEXT);
    let command = command.map(human::one_line);
    let again = |words: &str| match &command {
        Some(command) => format!(" {words}: {command}."),
        None => String::new(),
    };
    match occasion {
        Occasion::Failed(why) => format!(
            "{label} {text}: {}. This is its container, as the command left it.{} When this shell ends, the build fails.",
            human::one_line(why),
            again(" To try again")
        ),
        Occasion::Before => format!(
            "{label} {text} comes next.{} What is written here goes into no layer.",
            again(" To run it")
        ),
        Occasion::After => format!(
            "{label} {text} was the last step of its stage. What is written here goes into no layer."
        ),
    }
    .replace("  ", " ")
}

/// Lines that wait until the terminal is the build's again.
#[derive(Debug, Default)]
pub(super) struct Held(Option<Vec<String>>);

impl Held {
    /// From now on lines wait.
    pub(super) fn hold(&mut self) {
        self.0.get_or_insert_default();
    }

    /// The line, unless it waits.
    pub(super) fn pass<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        match &mut self.0 {
            None => Some(line),
            Some(held) => {
                held.push(line.to_owned());
                None
            }
        }
    }

    /// Those that waited; no more do.
    pub(super) fn release(&mut self) -> Vec<String> {
        self.0.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_says_where_it_is() {
        let check = |occasion, command, expected: &str| {
            assert_eq!(
                opened("[build 2/3]", "RUN  make\nall", occasion, command),
                expected
            );
        };
        check(
            Occasion::Failed("exit code 2"),
            Some("sh -c \"$BOX_STEP\""),
            "[build 2/3] RUN make all: exit code 2. This is its container, as the command left it. \
             To try again: sh -c \"$BOX_STEP\". When this shell ends, the build fails.",
        );
        check(
            Occasion::Before,
            None,
            "[build 2/3] RUN make all comes next. What is written here goes into no layer.",
        );
    }

    #[test]
    fn lines_wait_for_the_end_of_a_shell() {
        let mut held = Held::default();
        assert_eq!(held.pass("a"), Some("a"));
        held.hold();
        assert_eq!((held.pass("b"), held.pass("c")), (None, None));
        assert_eq!(held.release(), ["b", "c"]);
        assert_eq!(held.pass("d"), Some("d"));
    }
}
