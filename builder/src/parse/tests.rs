use super::*;

fn parsed(text: &str) -> Boxfile {
    parse(&Source::new("Boxfile", text.as_bytes())).unwrap()
}

#[test]
fn smoke() {
    let file = parsed("FROM scratch AS a\nRUN echo \\\n  hi\nCOPY <<E /x\nhello\nE\nENV A=b C=\"d e\"\n");
    assert_eq!(file.instructions.len(), 4);
    assert_eq!(file.instructions[1].text, "RUN echo   hi");
}
