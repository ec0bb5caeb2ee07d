//! `--cache-to` and `--cache-from`: where a cache elsewhere is, and how it is used.

use std::path::PathBuf;
use std::str::FromStr;

use box_store::Reference;

use super::Memory;

/// Where a cache elsewhere is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CachePlace {
    /// A directory.
    Local(PathBuf),
    /// A name in a registry.
    Registry(Reference),
    /// A bucket of an object store that speaks S3.
    Bucket(BucketPlace),
}

/// A bucket, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct BucketPlace {
    pub(crate) bucket: String,
    /// What the objects' names begin with.
    pub(crate) prefix: String,
    /// Options by the names that the environment has for them, in lower case: `aws_region`.
    pub(crate) options: Vec<(String, String)>,
}

impl BucketPlace {
    /// Its options, and after them what the environment says (`AWS_…`).
    pub(crate) fn with_environment(&self) -> Vec<(String, String)> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.to_str()?.to_ascii_lowercase();
            Some((name, value.to_str()?.to_owned())).filter(|(name, _)| name.starts_with("aws_"))
        });
        self.options.iter().cloned().chain(environment).collect()
    }
}

/// Which steps travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CacheMode {
    /// Those of the stages that the result is made of.
    #[default]
    Min,
    /// All.
    Max,
}

/// `--cache-to`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheTo {
    pub(crate) place: CachePlace,
    pub(crate) mode: CacheMode,
    /// Whether the cache mounts travel, too.
    pub(crate) mounts: bool,
    pub(crate) max_size: Option<u64>,
    pub(crate) key_file: Option<PathBuf>,
    /// Whether the build succeeds if this fails.
    pub(crate) ignores_errors: bool,
}

/// `--cache-from`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheFrom {
    pub(crate) place: CachePlace,
    pub(crate) key_file: Option<PathBuf>,
}

/// The fields of an option, taken out one by one.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('=') && !text.is_empty() {
            // As Docker has it, a name alone is that of a registry.
            return Ok(Self(vec![
                ("type".to_owned(), "registry".to_owned()),
                ("ref".to_owned(), text.to_owned()),
            ]));
        }
        let mut fields = Vec::<(String, String)>::new();
        for field in text.split(',') {
            let (name, value) = field
                .split_once('=')
                .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                .ok_or_else(|| format!("'{field}' is no NAME=VALUE"))?;
            let name = name.trim().to_ascii_lowercase();
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name} is given twice"));
            }
            fields.push((name, value.to_owned()));
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    fn need(&mut self, name: &str, kind: &str) -> Result<String, String> {
        self.take(name)
            .ok_or_else(|| format!("a cache of type={kind} needs {name}="))
    }

    fn flag(&mut self, name: &str, default: bool) -> Result<bool, String> {
        match self.take(name).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{name} is true or false, not '{other}'")),
        }
    }

    /// What nobody took is not known.
    fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "'{name}' is not known here (box build --help, docs/ci.md)"
            )),
        }
    }

    /// `directory` is what a directory is called: `dest` or `src`.
    fn place(&mut self, directory: &str) -> Result<CachePlace, String> {
        match self.take("type").as_deref() {
            Some("local") => Ok(CachePlace::Local(self.need(directory, "local")?.into())),
            Some("registry") => {
                let name = self.need("ref", "registry")?;
                let reference = Reference::parse(&name).map_err(|e| e.to_string())?;
                match reference.digest() {
                    None => Ok(CachePlace::Registry(reference)),
                    Some(_) => Err(format!(
                        "{name}: a cache changes, so that it has a tag and no digest"
                    )),
                }
            }
            Some("s3") => Ok(CachePlace::Bucket(self.bucket()?)),
            Some(other) => Err(format!(
                "'type={other}' is not supported; write type=local, registry or s3"
            )),
            None => Err("the type is missing; write type=local, registry or s3".to_owned()),
        }
    }

    fn bucket(&mut self) -> Result<BucketPlace, String> {
        let mut place = BucketPlace {
            bucket: self.need("bucket", "s3")?,
            prefix: self
                .take("prefix")
                .unwrap_or_default()
                .trim_matches('/')
                .to_owned(),
            options: Vec::new(),
        };
        for (name, option) in [
            ("region", "aws_region"),
            ("endpoint_url", "aws_endpoint"),
            ("access_key_id", "aws_access_key_id"),
            ("secret_access_key", "aws_secret_access_key"),
            ("session_token", "aws_session_token"),
        ] {
            place
                .options
                .extend(self.take(name).map(|value| (option.to_owned(), value)));
        }
        // A server of one's own rarely has a host name for each bucket.
        let has_endpoint = place.options.iter().any(|(name, _)| name == "aws_endpoint");
        let is_path = self.flag("use_path_style", has_endpoint)?;
        let virtual_hosted = (
            "aws_virtual_hosted_style_request".to_owned(),
            (!is_path).to_string(),
        );
        place.options.push(virtual_hosted);
        Ok(place)
    }
}

impl FromStr for CacheTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let place = fields.place("dest")?;
        let mode = match fields.take("mode").as_deref() {
            None | Some("min") => CacheMode::Min,
            Some("max") => CacheMode::Max,
            Some(other) => return Err(format!("mode is min or max, not '{other}'")),
        };
        let max_size = fields
            .take("max-size")
            .map(|size| size.parse::<Memory>())
            .transpose()?;
        let to = Self {
            place,
            mode,
            mounts: fields.flag("cache-mounts", false)?,
            max_size: max_size.map(|size| size.0),
            key_file: fields.take("key-file").map(PathBuf::from),
            ignores_errors: fields.flag("ignore-error", true)?,
        };
        fields.end().map(|()| to)
    }
}

impl FromStr for CacheFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let from = Self {
            place: fields.place("src")?,
            key_file: fields.take("key-file").map(PathBuf::from),
        };
        fields.end().map(|()| from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let to: CacheTo =
            "type=local,dest=/c,mode=max,cache-mounts=true,max-size=2g,ignore-error=false,key-file=k"
                .parse()
                .unwrap();
        let expected = CacheTo {
            place: CachePlace::Local("/c".into()),
            mode: CacheMode::Max,
            mounts: true,
            max_size: Some(2 << 30),
            key_file: Some("k".into()),
            ignores_errors: false,
        };
        assert_eq!(to, expected);
        let from: CacheFrom = "example.com/app:cache".parse().unwrap();
        assert!(matches!(from.place, CachePlace::Registry(_)));
        let from: CacheFrom = "type=s3,bucket=b,region=r,endpoint_url=http://h,prefix=/a/"
            .parse()
            .unwrap();
        let CachePlace::Bucket(bucket) = from.place else {
            panic!("it is a bucket")
        };
        assert_eq!((bucket.bucket.as_str(), bucket.prefix.as_str()), ("b", "a"));
        assert!(
            bucket
                .options
                .contains(&("aws_virtual_hosted_style_request".to_owned(), "false".to_owned()))
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for wrong in [
            "",
            "type=local",
            "type=local,src=x",
            "type=gha",
            "dest=x",
            "type=local,dest=a,dest=b",
            "type=local,dest=a,mode=mid",
            "type=local,dest=a,max-size=0",
            "type=local,dest=a,tls=yes",
            "type=local,dest=a,cache-mounts",
            "type=registry",
            "type=registry,ref=a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "type=s3",
            "type=s3,bucket=b,use_path_style=perhaps",
        ] {
            assert!(wrong.parse::<CacheTo>().is_err(), "{wrong}");
        }
        assert!("type=local,src=x,mode=max".parse::<CacheFrom>().is_err());
        assert!("type=local,dest=x".parse::<CacheFrom>().is_err());
    }
}
