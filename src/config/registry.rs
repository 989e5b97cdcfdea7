//! Where the schema registry is. A URL with a password in it is taken apart here: what is shown of
//! it has none.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;

use super::Secret;
use super::error::ConfigError;
use super::read::Reader;

/// A registry with the Confluent-compatible API. Printed without what lets one in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Before every route; does not end in a slash.
    pub path: String,
    /// The value of the `Authorization` header.
    pub authorization: Option<Secret>,
}

impl fmt::Display for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl RegistrySettings {
    fn parse(url: &str) -> Result<Self, &'static str> {
        const FORM: &str = "use http://host:port/path or https://user:password@host/path";
        let uri: Uri = url.parse().map_err(|_| FORM)?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(FORM),
        };
        let authority = uri.authority().ok_or(FORM)?;
        if uri.query().is_some() || authority.host().is_empty() {
            return Err(FORM);
        }
        let authorization = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((credentials, _)) => {
                let (user, password) = credentials
                    .split_once(':')
                    .ok_or("the user needs a password: user:password")?;
                let pair = [decoded(user)?.as_slice(), b":", &decoded(password)?].concat();
                Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
            }
        };
        Ok(Self {
            https,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
            authorization,
        })
    }
}

/// The bytes of a percent-encoded part of a URL.
fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "user and password must be percent-encoded: a % is %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next().ok_or(WRONG)?, rest.next().ok_or(WRONG)?];
        let digits = std::str::from_utf8(&digits).map_err(|_| WRONG)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| WRONG)?);
    }
    Ok(bytes)
}

impl Reader {
    pub(super) fn registry(&self, name: &str) -> Result<Option<RegistrySettings>, ConfigError> {
        let url = self.text(name)?;
        if url.is_empty() {
            return Ok(None);
        }
        let parsed = RegistrySettings::parse(&url).map_err(|problem| ConfigError::Value {
            name: name.to_owned(),
            value: without_credentials(&url),
            problem: problem.to_owned(),
        })?;
        Ok(Some(parsed))
    }
}

/// A key may stand where others have a user: nothing before the @ is shown.
fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://[redacted]@{host}"),
        (None, Some((_, host))) => format!("[redacted]@{host}"),
        (_, None) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_shown_without_its_password() {
        let url = "https://fred:can%40ry@registry/apis/ccompat/v7/";
        let settings = RegistrySettings::parse(url).unwrap();
        assert_eq!(settings.to_string(), "https://registry:443/apis/ccompat/v7");
        let header = settings.authorization.as_ref().map(Secret::expose);
        assert_eq!(header, Some("Basic ZnJlZDpjYW5Acnk="), "fred:can@ry");
        assert!(!format!("{settings:?}").contains("ZnJl"), "{settings:?}");
        let plain = RegistrySettings::parse("http://[::1]:8081").unwrap();
        assert_eq!((plain.to_string().as_str(), plain.https), ("http://[::1]:8081", false));
    }

    #[test]
    fn what_is_no_registry_is_refused_without_its_password() {
        for url in [
            "registry:8081",
            "ftp://registry",
            "http://",
            "http://canary@registry",
            "http://a:%zz@b",
        ] {
            assert!(RegistrySettings::parse(url).is_err(), "{url}");
        }
        for url in ["http://canary@registry", "fred:canary@registry", "http://a:can#ary@registry"] {
            assert!(!without_credentials(url).contains("ary"), "{url}");
        }
    }
}
