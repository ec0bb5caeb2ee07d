//! What EXPOSE is told.

/// The lints that a port specification breaks, with their words.
pub(super) fn findings(spec: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let (ports, proto) = spec.rsplit_once('/').unwrap_or((spec, ""));
    if proto.bytes().any(|b| b.is_ascii_uppercase()) {
        let message = format!("Defined protocol '{spec}' in EXPOSE instruction should be lowercase");
        found.push(("ExposeProtoCasing", message));
    }
    if ports.contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{spec}'"
        );
        found.push(("ExposeInvalidFormat", message));
    }
    found
}
