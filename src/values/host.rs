//! `--add-host`.

use std::net::IpAddr;
use std::str::FromStr;

/// `NAME:ADDRESS` or `NAME=ADDRESS`, a line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostArg {
    name: String,
    /// None is the host itself, as the container reaches it: `host-gateway`.
    address: Option<IpAddr>,
}

impl HostArg {
    /// The name and its address, unless that is the host's.
    pub(crate) fn pair(&self) -> Option<(String, IpAddr)> {
        Some((self.name.clone(), self.address?))
    }

    /// The name, if it is the host's.
    pub(crate) fn gateway(&self) -> Option<&str> {
        self.address.is_none().then_some(&self.name)
    }
}

impl FromStr for HostArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("'{text}' is no host; write NAME:ADDRESS, for example db:10.0.0.7, or NAME:host-gateway")
        };
        let (name, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .ok_or_else(wrong)?;
        let is_name = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if !is_name {
            return Err(wrong());
        }
        let name = name.to_owned();
        if address == "host-gateway" {
            return Ok(Self { name, address: None });
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(address).parse().map_err(|_| wrong())?;
        Ok(Self {
            name,
            address: Some(address),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let check = |text: &str, expect: Option<(&str, Option<&str>)>| {
            let got = text.parse::<HostArg>().ok();
            let expect = expect.map(|(name, address)| HostArg {
                name: name.to_owned(),
                address: address.map(|address| address.parse().unwrap()),
            });
            assert_eq!(got, expect, "{text}");
        };
        check("db:10.0.0.7", Some(("db", Some("10.0.0.7"))));
        check("a.b-c=10.0.0.7", Some(("a.b-c", Some("10.0.0.7"))));
        check("six:[::1]", Some(("six", Some("::1"))));
        check("six:fe80::1", Some(("six", Some("fe80::1"))));
        check("six=fe80::1", Some(("six", Some("fe80::1"))));
        check("h:host-gateway", Some(("h", None)));
        for wrong in [
            "db",
            "db:",
            ":10.0.0.7",
            ":host-gateway",
            "db:10.0.0",
            "a b:10.0.0.7",
            "a\n:1.1.1.1",
        ] {
            check(wrong, None);
        }
    }
}
