//! A profile in Docker's own format: as the runtime specification's, but with rules that count under conditions only.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Map, Value, json};

use super::profile::{Filter, compile};
use crate::confine::Capabilities;

const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";

/// Compiles a profile of either format for a container with these capabilities; what is wrong with it, otherwise.
pub(crate) fn compile_text(text: &str, caps: Capabilities) -> Result<Filter, String> {
    let mut profile: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if let Some(map) = profile.remove("archMap") {
        profile.insert("architectures".to_owned(), architectures(&map));
    }
    let kernel = kernel();
    let mut rules = Vec::new();
    for rule in profile
        .remove("syscalls")
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if counts(rule, caps, kernel)? {
            rules.push(plain(rule)?);
        }
    }
    profile.insert("syscalls".to_owned(), Value::Array(rules));
    let profile: LinuxSeccomp = serde_json::from_value(Value::Object(profile)).map_err(|e| e.to_string())?;
    compile(&profile)
}

/// This machine's, with those that run on it, too.
fn architectures(map: &Value) -> Value {
    let own = map
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["architecture"] == ARCHITECTURE);
    let further = own.and_then(|entry| entry["subArchitectures"].as_array());
    let all = std::iter::once(json!(ARCHITECTURE)).chain(further.into_iter().flatten().cloned());
    all.collect()
}

/// Whether a rule's conditions hold.
fn counts(rule: &Value, caps: Capabilities, kernel: (u32, u32)) -> Result<bool, String> {
    let holds = |conditions: &Value, every: bool| -> Result<bool, String> {
        let mut held = every;
        for (name, values) in conditions.as_object().into_iter().flatten() {
            let list = || values.as_array().into_iter().flatten().filter_map(Value::as_str);
            let is_so = match name.as_str() {
                "caps" if every => list().all(|cap| has(caps, cap)),
                "caps" => list().any(|cap| has(caps, cap)),
                "arches" => list().any(|arch| arch == "amd64"),
                "minKernel" => kernel >= version(values.as_str().unwrap_or_default())?,
                other => return Err(format!("the condition {other:?} is not known")),
            };
            match every {
                true => held &= is_so,
                false => held |= is_so,
            }
        }
        Ok(held)
    };
    Ok(holds(&rule["includes"], true)? && !holds(&rule["excludes"], false)?)
}

fn has(caps: Capabilities, name: &str) -> bool {
    let mut one = Capabilities::NONE;
    one.add(name).is_ok() && caps.bits() & one.bits() != 0
}

fn version(text: &str) -> Result<(u32, u32), String> {
    let mut parts = text.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits
            .parse::<u32>()
            .map_err(|_| format!("{text:?} is no version of a kernel"))
    });
    let mut next = || parts.next().unwrap_or(Ok(0));
    Ok((next()?, next()?))
}

fn kernel() -> (u32, u32) {
    // One that can't be read is taken for an old one: fewer calls are allowed.
    version(&rustix::system::uname().release().to_string_lossy()).unwrap_or((0, 0))
}

/// Without conditions and notes.
fn plain(rule: &Value) -> Result<Value, String> {
    let mut rule = rule.as_object().cloned().ok_or("a rule is no object")?;
    for name in ["includes", "excludes", "comment"] {
        rule.remove(name);
    }
    if let Some(name) = rule.remove("name") {
        rule.entry("names").or_insert_with(|| json!([name]));
    }
    if rule.get("args").is_some_and(Value::is_null) {
        rule.remove("args");
    }
    Ok(Value::Object(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_heeded() {
        let rule = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let mut admin = Capabilities::NONE;
        admin.add("SYS_ADMIN").unwrap();
        let check =
            |text: &str, caps, expect| assert_eq!(counts(&rule(text), caps, (5, 10)), Ok(expect), "{text}");
        check(r#"{"names":["x"]}"#, admin, true);
        check(r#"{"includes":{"caps":["CAP_SYS_ADMIN"]}}"#, admin, true);
        check(
            r#"{"includes":{"caps":["CAP_SYS_ADMIN"]}}"#,
            Capabilities::default(),
            false,
        );
        check(r#"{"excludes":{"caps":["CAP_SYS_ADMIN"]}}"#, admin, false);
        check(r#"{"includes":{"arches":["arm64"]}}"#, admin, false);
        check(r#"{"includes":{"minKernel":"5.11"}}"#, admin, false);
        check(r#"{"includes":{"minKernel":"4.8"},"excludes":{}}"#, admin, true);
        assert!(counts(&rule(r#"{"includes":{"moon":1}}"#), admin, (5, 10)).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"defaultAction":"SCMP_ACT_DANCE"}"#,
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[1]}"#,
        ] {
            assert!(compile_text(text, Capabilities::default()).is_err(), "{text}");
        }
        compile_text(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, Capabilities::default()).unwrap();
    }
}
