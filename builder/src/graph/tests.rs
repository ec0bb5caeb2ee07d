use std::collections::BTreeMap;

use super::*;
use crate::parse::parse;
use crate::source::Source;

fn graph(text: &str, options: &GraphOptions) -> Result<StageGraph, Vec<String>> {
    let file = parse(&Source::new("Boxfile", text.as_bytes())).unwrap();
    let messages = |e: Vec<Diagnostic>| e.into_iter().map(|d| d.message).collect();
    StageGraph::new(&file, options).map_err(messages)
}

fn order(text: &str, target: Option<&str>) -> Vec<usize> {
    let options = GraphOptions {
        target: target.map(str::to_owned),
        ..GraphOptions::default()
    };
    graph(text, &options)
        .unwrap()
        .stages
        .iter()
        .map(|s| s.id.0)
        .collect()
}

#[test]
fn leaves_out_what_is_not_reached() {
    let check = |text: &str, target: Option<&str>, want: &[usize]| {
        assert_eq!(order(text, target), want, "{text} to {target:?}");
    };
    check("FROM scratch", None, &[0]);
    check("FROM a\nFROM b", None, &[1]);
    check("FROM a AS x\nFROM b", Some("X"), &[0]);
    check("FROM a AS x\nFROM b", Some("0"), &[0]);
    check("FROM a AS x\nFROM X\nFROM c", Some("1"), &[0, 1]);
    check("FROM a AS x\nFROM b\nCOPY --from=x / /", None, &[0, 1]);
    check("FROM a\nFROM b\nCOPY --from=0 / /", None, &[0, 1]);
    check(
        "FROM a AS x\nFROM b\nRUN --mount=type=bind,from=x,target=/m true",
        None,
        &[0, 1],
    );
    check("FROM a AS x\nCOPY --from=y / /\nFROM b AS y", Some("x"), &[1, 0]);
    check(
        "FROM a AS x\nFROM b AS p\nONBUILD COPY --from=x / /\nFROM p",
        None,
        &[0, 1, 2],
    );
}

#[test]
fn names_what_is_wrong() {
    let check = |text: &str, target: Option<&str>, want: &str| {
        let options = GraphOptions {
            target: target.map(str::to_owned),
            ..GraphOptions::default()
        };
        let got = graph(text, &options).unwrap_err();
        assert!(got[0].contains(want), "{text}: {got:?}");
    };
    check(
        "FROM a AS s\nCOPY --from=s / /",
        None,
        "circular dependency detected on stage: s",
    );
    check(
        "FROM a AS s\nCOPY --from=t / /\nFROM b AS t\nCOPY --from=s / /",
        None,
        "circular",
    );
    check(
        "FROM a AS build",
        Some("bulid"),
        "target stage \"bulid\" could not be found",
    );
    check("RUN x", None, "no build stage in current context");
    check("ARG x", None, "no FROM");
    check("FROM ${BLANK}", None, "empty base name");
    check(
        "FROM --platform=$BULIDPLATFORM a",
        None,
        "empty platform value from expression $BULIDPLATFORM",
    );
    check("FROM a\nCOPY --from=7 / /", None, "invalid stage index 7");
    check("FROM --checksum=sha256:00 https://x/y", None, "invalid checksum");
    check("ARG a=${b:?none}\nFROM x", None, "b: none");
}

#[test]
fn applies_global_args_to_from() {
    let options = GraphOptions {
        build_args: BTreeMap::from([("v".to_owned(), "2".to_owned())]),
        platform_args: BTreeMap::from([("BUILDPLATFORM".to_owned(), "linux/amd64".to_owned())]),
        ..GraphOptions::default()
    };
    let graph = graph("ARG v=1 w=$v-x\nFROM --platform=$BUILDPLATFORM a:$w", &options).unwrap();
    let stage = &graph.stages[0];
    assert!(
        matches!(&stage.base, Base::Image(name) if name.value == "a:2-x"),
        "{:?}",
        stage.base
    );
    assert_eq!(stage.platform.as_ref().unwrap().value, "linux/amd64");
    assert_eq!(graph.global_args["v"], "2");
}

#[test]
fn tells_bases_apart() {
    let check = |base: &str, want: &str| {
        let graph = graph(&format!("FROM a AS s\nFROM {base}"), &GraphOptions::default()).unwrap();
        let got = match &graph.stages.last().unwrap().base {
            Base::Scratch => "scratch".to_owned(),
            Base::Stage(id) => format!("stage {}", id.0),
            Base::Image(name) => format!("image {}", name.value),
            Base::Context(name) => format!("context {}", name.value),
            Base::Archive(ArchiveBase {
                location: ArchiveLocation::Url(u),
                ..
            }) => format!("url {u}"),
            Base::Archive(ArchiveBase {
                location: ArchiveLocation::Path(p),
                ..
            }) => format!("path {p}"),
            Base::OciLayout { directory, reference } => format!("oci {} {reference:?}", directory.value),
        };
        assert_eq!(got, want);
    };
    check("scratch", "scratch");
    check("S", "stage 0");
    check("debian:12", "image debian:12");
    check("https://x/rootfs.tar.xz", "url https://x/rootfs.tar.xz");
    check("./rootfs.tar.gz", "path ./rootfs.tar.gz");
    check("oci:./dir", "oci ./dir None");
    check("oci:dir:tag", "oci dir Some(\"tag\")");
}
