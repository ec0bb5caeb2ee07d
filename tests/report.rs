//! The page that tells a build, looked at in a browser.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::Path;
use std::process::Command;

use common::{Bench, text};

const BOXFILE: &str = "\
FROM busybox AS base
RUN dd if=/dev/zero of=/big bs=1M count=4 && echo a > /etc/conf
FROM base AS left
RUN echo left > /left
FROM base AS right
RUN echo right > /right
FROM base
LABEL hostile=\"<script>document.title='owned'</script>\"
COPY --from=left /left /left
COPY --from=right /right /right
RUN rm /big && echo \"<img src=x onerror=document.title='owned'>\" > /etc/conf
";

/// What a browser makes of the page: its document, and a picture of it.
fn browse(page: &Path, picture: &Path) -> String {
    let url = format!("file://{}", page.display());
    let chromium = |extra: &[String]| {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1200,1500",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let output = command
            .args(extra)
            .arg(&url)
            .output()
            .expect("chromium (scripts/install-deps.sh installs it)");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    chromium(&[format!("--screenshot={}", picture.display())]);
    chromium(&["--dump-dom".to_owned()])
}

/// The values of pixels of a kind in a picture.
fn pixels(picture: &Path, red: u8, green: u8, blue: u8) -> usize {
    let program = "import sys\nfrom PIL import Image\nimage=Image.open(sys.argv[1]).convert('RGB')\n\
                   wanted=tuple(map(int,sys.argv[2:5]))\nprint(sum(p==wanted for p in image.getdata()))";
    let numbers = [red, green, blue].map(|number| number.to_string());
    let output = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .arg(picture)
        .args(numbers)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().parse().unwrap()
}

#[test]
fn a_page_that_can_be_shown() {
    let bench = Bench::with_busybox();
    let context = bench.context("report", &[]);
    let (first, second) = (bench.path("first.html"), bench.path("second.html"));
    let build = |boxfile: &str, page: &Path| {
        let report = [
            "--network",
            "none",
            "-t",
            "shown",
            "--report",
            page.to_str().unwrap(),
        ];
        bench.try_build(&context, boxfile, &report)
    };
    assert!(build(BOXFILE, &first).status.success());
    let changed = BOXFILE.replace("echo left", "echo Left");
    assert!(build(&changed, &second).status.success());

    let dom = browse(&second, &bench.path("second.png"));
    assert!(
        dom.contains("<title>shown:latest</title>"),
        "no script of a Boxfile runs: {dom}"
    );
    let page = std::fs::read_to_string(&second).unwrap();
    assert!(
        !page.contains("<script") && !page.contains("<img") && !page.contains("http"),
        "nothing is fetched or run"
    );
    // A bar for each step, a row for each stage.
    assert_eq!(dom.matches("class=\"bar ").count(), 11, "{dom}");
    assert_eq!(dom.matches("class=\"lane\"").count(), 4, "{dom}");
    assert!(
        dom.contains("echo left") && dom.contains("echo Left"),
        "why it was done again: {dom}"
    );
    assert!(
        dom.contains("<code>/big</code>") && dom.contains("4.19MB of them hidden by later layers"),
        "{dom}"
    );
    // Bars for what was done and what was not, and what is hidden, are to be seen.
    for (red, green, blue) in [(0x2f, 0x6f, 0xde), (0x43, 0xa1, 0x71), (0xe0, 0x8a, 0x3c)] {
        assert!(
            pixels(&bench.path("second.png"), red, green, blue) > 30,
            "{red:x}{green:x}{blue:x}"
        );
    }

    let failing = bench.path("failing.html");
    let output = build("FROM busybox\nRUN echo on the way && exit 7\n", &failing);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        !text(&output.stderr).contains("miss:"),
        "explanations are the page's alone: {}",
        text(&output.stderr)
    );
    let page = std::fs::read_to_string(&failing).unwrap();
    assert!(
        page.contains("class=\"error\"") && page.contains("exit 7") && page.contains("class=\"tag failed\""),
        "{page}"
    );
}
