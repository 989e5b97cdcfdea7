//! The way to Postgres: a URL as Postgres's own clients take it, or its parts as single settings.
//!
//! The URL is taken apart here and put together again, so that what the driver would misread, drop
//! or quote in a log is refused by the setting's name, and never shows the password.

use std::net::Ipv6Addr;

use super::Secret;
use super::declared::name;
use super::error::{ConfigError, invalid};
use super::read::Reader;
use crate::envelope::percent_encoded;

const FORM: &str = "use postgres://user:password@host:port/name";
const ESCAPE: &str = "the port is no number from 1 to 65535; in a user or a password write / : @ ? # \
                      % as %2F %3A %40 %3F %23 %25";
const ONE_HOST: &str = "it names several hosts: name the one that follows the primary";
const HOST: &str = "use a host's name, its address, or a socket's folder; the port stands apart";
const IPV6: &str = "write an IPv6 address in brackets: [::1]";

/// Parameters that the driver takes.
const TAKEN: [&str; 15] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "statement-cache-capacity",
    "user",
    "sslmode",
];
/// The same, of files that must be there.
const FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];
/// Parameters of Postgres's own clients that change neither where nor as whom they connect. The
/// driver has no use for them.
const PASSED_OVER: [&str; 18] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "sslcompression",
    "sslnegotiation",
    "sslsni",
    "ssl_min_protocol_version",
    "target_session_attrs",
    "tcp_user_timeout",
];
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Where and as whom to connect. All parts are plain, as people know them.
#[derive(Debug, Default)]
struct Place {
    user: String,
    password: Option<String>,
    /// Empty: the driver's default, a local socket where there is one. With a slash first: a
    /// socket's folder.
    host: String,
    port: Option<u16>,
    name: String,
    /// As they stand in the URL.
    parameters: Vec<String>,
}

impl Reader {
    pub(super) fn database_url(&self) -> Result<Secret, ConfigError> {
        let url = match self.url(name::DATABASE_URL)? {
            Some(url) => url,
            None => self.parts()?.url(),
        };
        Ok(Secret::new(url))
    }

    pub(super) fn migration_url(&self) -> Result<Secret, ConfigError> {
        match self.url(name::DATABASE_MIGRATION_URL)? {
            Some(url) => Ok(Secret::new(url)),
            None => self.database_url(),
        }
    }

    /// None where it is not set.
    fn url(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(None);
        }
        let place = Place::parse(&text).map_err(|problem| invalid(name, &text, &problem))?;
        Ok(Some(place.url()))
    }

    fn parts(&self) -> Result<Place, ConfigError> {
        let given = self.text(name::DATABASE_HOST)?;
        let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = bare.unwrap_or(&given);
        let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
        if !is_ipv6 {
            check_host(host).map_err(|problem| invalid(name::DATABASE_HOST, &given, problem))?;
        }
        Ok(Place {
            user: self.text(name::DATABASE_USER)?,
            password: Some(self.text(name::DATABASE_PASSWORD)?).filter(|text| !text.is_empty()),
            host: if is_ipv6 { format!("[{host}]") } else { host.to_owned() },
            port: Some(self.within(name::DATABASE_PORT, 1, u16::MAX)?),
            name: self.text(name::DATABASE_NAME)?,
            parameters: Vec::new(),
        })
    }
}

/// Parameters of both URLs that the driver has no use for, by setting.
pub(super) fn passed_over(reader: &Reader) -> Vec<String> {
    let mut found = Vec::new();
    for setting in [name::DATABASE_URL, name::DATABASE_MIGRATION_URL] {
        let text = reader.text(setting).unwrap_or_default();
        let Some((_, query)) = text.split_once('?') else { continue };
        for (name, _) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if PASSED_OVER.contains(&name) {
                found.push(format!("{setting}: the parameter {name} has no effect here"));
            }
        }
    }
    found
}

impl Place {
    /// By the rules of Postgres's own clients, which let a password have what browsers do not.
    fn parse(url: &str) -> Result<Self, String> {
        if url.to_ascii_lowercase().starts_with("jdbc:") {
            return Err(format!("that is an address for JDBC: {FORM}"));
        }
        let scheme = url.split_once("://").filter(|(scheme, _)| {
            ["postgres", "postgresql"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        });
        let (_, rest) = scheme.ok_or(FORM)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (credentials, rest) = match authority.rfind('@') {
            Some(at) => {
                (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default())
            }
            None => ("", rest),
        };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, name) = location.split_once('/').unwrap_or((location, ""));
        // After a slash in the password, the rest of it stands in the database's name.
        if name.contains('@') {
            return Err(ESCAPE.to_owned());
        }
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(decoded(password)?)),
            None => (credentials, None),
        };
        let (host, port) = host_and_port(host)?;
        let mut place = Self {
            user: decoded(user)?,
            password,
            host,
            port,
            name: decoded(name.trim_start_matches('/'))?,
            parameters: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            place.parameters.extend(parameter(pair)?);
        }
        Ok(place)
    }

    /// In the form that the driver reads. Without a host it takes user and password as parameters
    /// alone.
    fn url(&self) -> String {
        let mut parameters = self.parameters.clone();
        let mut credentials = String::new();
        if self.host.is_empty() {
            let mut first = Vec::new();
            if !self.user.is_empty() {
                first.push(format!("user={}", percent_encoded(&self.user)));
            }
            first.extend(self.password.iter().map(|p| format!("password={}", percent_encoded(p))));
            first.extend(self.port.map(|port| format!("port={port}")));
            // What the URL itself says as a parameter comes later and wins.
            parameters.splice(0..0, first);
        } else if !self.user.is_empty() || self.password.is_some() {
            let password = self.password.as_deref().map(percent_encoded);
            let password = password.map_or_else(String::new, |password| format!(":{password}"));
            credentials = format!("{}{password}@", percent_encoded(&self.user));
        }
        // The driver asks a name service for what is in brackets, unless it has it plain as well.
        let bare = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(address) = bare {
            parameters.insert(0, format!("host={}", percent_encoded(address)));
        }
        let host = if self.host.starts_with('/') {
            percent_encoded(&self.host)
        } else {
            self.host.clone()
        };
        let port = self.port.filter(|_| !host.is_empty());
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let query = if parameters.is_empty() { "" } else { "?" };
        let name = percent_encoded(&self.name);
        format!("postgres://{credentials}{host}{port}/{name}{query}{}", parameters.join("&"))
    }
}

/// Brackets stay around an IPv6 address.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    if text.contains(',') {
        return Err(ONE_HOST.to_owned());
    }
    let (host, port) = if let Some((address, rest)) =
        text.strip_prefix('[').and_then(|rest| rest.split_once(']'))
    {
        address.parse::<Ipv6Addr>().map_err(|_| IPV6)?;
        (format!("[{address}]"), rest.strip_prefix(':').unwrap_or(rest))
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(IPV6.to_owned());
        }
        (decoded(host)?, port)
    };
    let port = match port {
        "" => None,
        digits => Some(digits.parse().ok().filter(|port| *port > 0).ok_or(ESCAPE)?),
    };
    if !host.is_empty() && !host.starts_with('[') {
        check_host(&host)?;
    }
    Ok((host, port))
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.contains(',') {
        return Err(ONE_HOST);
    }
    let in_name = |c: char| c.is_alphanumeric() || ".-_".contains(c);
    if host.starts_with('/') || !host.is_empty() && host.chars().all(in_name) {
        return Ok(());
    }
    Err(HOST)
}

/// A parameter as it goes to the driver; none: it has no effect.
fn parameter(pair: &str) -> Result<Option<String>, String> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    // To the driver a # would end the URL.
    let kept = Some(pair.replace('#', "%23"));
    let plain = decoded(value)?;
    match name {
        "sslmode" | "ssl-mode" if !SSL_MODES.contains(&plain.to_ascii_lowercase().as_str()) => {
            Err(format!("{name}: use {}", SSL_MODES.join(" or ")))
        }
        "host" | "hostaddr" if plain.contains(',') => Err(ONE_HOST.to_owned()),
        "hostaddr" if plain.parse::<std::net::IpAddr>().is_err() => {
            Err("hostaddr: use an IP address".to_owned())
        }
        "host" if plain.parse::<Ipv6Addr>().is_err() => {
            check_host(&plain).map_or_else(|problem| Err(format!("host: {problem}")), |()| Ok(kept))
        }
        "port" if !plain.parse::<u16>().is_ok_and(|port| port > 0) => {
            Err("port: use a number from 1 to 65535".to_owned())
        }
        "statement-cache-capacity" if plain.parse::<usize>().is_err() => {
            Err(format!("{name}: use a whole number"))
        }
        name if FILES.contains(&name) => match std::fs::metadata(&plain) {
            Err(error) if !plain.contains("-----BEGIN") => Err(format!("{name}={plain}: {error}")),
            _ => Ok(kept),
        },
        name if TAKEN.contains(&name) || name.starts_with("options[") => Ok(kept),
        name if PASSED_OVER.contains(&name) => Ok(None),
        // What an object mapper adds, and what is so here by itself.
        "schema" if plain == "public" => Ok(None),
        name => Err(format!("the parameter {name} is none that can be honoured: leave it out")),
    }
}

/// Percent signs that begin no escape stand for themselves: they do to the driver.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let escaped = match (byte, tail) {
            (b'%', [high, low, ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                digit(high)
                    .zip(digit(low))
                    .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(bytes).map_err(|_| "what it has in % is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::given;

    fn loaded(variables: &[(&str, &str)]) -> Result<String, String> {
        given(variables).map(|(settings, _)| settings.database.url.expose().to_owned())
    }

    #[test]
    fn what_postgres_own_clients_take_is_taken() {
        for (given, wanted) in [
            ("postgres://u:p@h:1/d", "postgres://u:p@h:1/d"),
            ("postgresql://u@h/d", "postgres://u@h/d"),
            ("postgres://u:a@b?c#d%ze%20@h/d", "postgres://u:a%40b%3Fc%23d%25ze%20@h/d"),
            ("postgres://u:p@%2Frun%2Fpostgresql:1/d", "postgres://u:p@%2Frun%2Fpostgresql:1/d"),
            (
                "postgres:///d?host=/run/postgresql&user=u",
                "postgres:///d?host=/run/postgresql&user=u",
            ),
            ("postgres://u:p@/d?host=/run", "postgres:///d?user=u&password=p&host=/run"),
            ("postgres://u@[::1]:1/d", "postgres://u@[::1]:1/d?host=%3A%3A1"),
            ("postgres://u@h/a#b", "postgres://u@h/a%23b"),
            (
                "postgres://u@h/d?connect_timeout=3&sslmode=require&channel_binding=require",
                "postgres://u@h/d?sslmode=require",
            ),
            ("postgres://u@h/d?schema=public", "postgres://u@h/d"),
            (
                "postgres://u@h/d?options=-c%20work_mem%3D8MB",
                "postgres://u@h/d?options=-c%20work_mem%3D8MB",
            ),
        ] {
            assert_eq!(loaded(&[("DATABASE_URL", given)]), Ok(wanted.to_owned()), "{given}");
        }
        for (host, wanted) in [
            ("/var/run/postgresql", "%2Fvar%2Frun%2Fpostgresql"),
            ("10.0.0.1", "10.0.0.1"),
            ("my_db.internal", "my_db.internal"),
        ] {
            let wanted = format!("postgres://postgres@{wanted}:5434/wallex");
            assert_eq!(loaded(&[("DATABASE_HOST", host)]), Ok(wanted), "{host}");
        }
        for host in ["::1", "[::1]"] {
            let wanted = "postgres://postgres@[::1]:5434/wallex?host=%3A%3A1".to_owned();
            assert_eq!(loaded(&[("DATABASE_HOST", host)]), Ok(wanted), "{host}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name_and_without_the_password() {
        for (url, hint) in [
            ("postgres://u:canary/x@h/d", "%2F"),
            ("postgres://u:12/canary@h:5432/d", "%2F"),
            ("\"postgres://u:canary@h/d\"", "quotes"),
            ("'postgres://u:canary@h/d'", "quotes"),
            ("jdbc:postgresql://h/d?user=u&password=canary", "JDBC"),
            ("postgres:/u:canary@h/d", "use postgres://"),
            ("mysql://u:canary@h/d", "use postgres://"),
            ("host=h user=u password=canary", "use postgres://"),
            ("postgres://u:canary@a,b/d", "several hosts"),
            ("postgres://u:canary@a:1,b:2/d", "several hosts"),
            ("postgres://u:canary@h/d?host=a,b", "several hosts"),
            ("postgres://u:canary@h:0/d", "65535"),
            ("postgres://u:canary@h:70000/d", "65535"),
            ("postgres://u:canary@::1/d", "brackets"),
            ("postgres://u:canary@h h/d", "a host's name"),
            ("postgres://u:canary@h/d?sslmode=on", "sslmode: use disable"),
            ("postgres://u@h/d?ssl=true&password=canary", "the parameter ssl "),
            ("postgres://u:canary@h/d?sslrootcert=/nowhere/ca.pem", "No such file"),
            ("postgres://u:canary@h/d?schema=billing", "the parameter schema "),
        ] {
            for name in ["DATABASE_URL", "DATABASE_MIGRATION_URL"] {
                let error = loaded(&[(name, url)]).unwrap_err();
                assert!(error.starts_with(name) && error.contains(hint), "{url}: {error}");
                assert!(!error.contains("canary"), "{url}: {error}");
            }
        }
        for (host, hint) in [
            ("a,b", "several hosts"),
            ("db:5432", "the port stands apart"),
            ("postgres://db", "a host's name"),
            ("@abstract", "a host's name"),
        ] {
            let error = loaded(&[("DATABASE_HOST", host)]).unwrap_err();
            assert!(error.starts_with("DATABASE_HOST") && error.contains(hint), "{host}: {error}");
        }
        for port in ["0", "65536", "tcp://10.0.0.1:5432"] {
            let error = loaded(&[("DATABASE_PORT", port)]).unwrap_err();
            assert!(error.starts_with("DATABASE_PORT") && error.contains("65535"), "{error}");
        }
    }
}
