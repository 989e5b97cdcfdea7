//! One broker with every kind of listener, and what a client needs to know to get in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use wallex::cli::dev::broker::{Broker, Options};
use wallex::cli::dev::child::{free_port, free_port_from};
use wallex::config::{KafkaSettings, Overrides, load_from};

use crate::support::app::Setup;
use crate::support::servers;

pub const USER: &str = "wallex-service";
/// Looked for in everything that the service says.
pub const PASSWORD: &str = "canary-Kf8mRight";
pub const WRONG_PASSWORD: &str = "canary-Zq3wWrong";

pub const MECHANISMS: [&str; 3] = ["plain", "scram-sha-256", "scram-sha-512"];

pub struct Secured {
    pub broker: Broker,
    pub plaintext: String,
    pub sasl: String,
    pub ssl: String,
    pub sasl_ssl: String,
    /// Signed the broker's certificate, which is for `localhost` alone.
    pub ca: PathBuf,
    /// Signed nothing.
    pub other_ca: PathBuf,
    pub folder: PathBuf,
}

pub type Variables = Vec<(&'static str, String)>;

/// Started when first asked for.
pub fn secured() -> &'static Secured {
    static SHARED: OnceLock<Secured> = OnceLock::new();
    SHARED.get_or_init(start)
}

impl Secured {
    /// The settings for one kind of listener.
    pub fn kind(&self, tls: bool, mechanism: Option<&str>) -> Variables {
        let brokers = match (tls, mechanism) {
            (false, None) => &self.plaintext,
            (false, Some(_)) => &self.sasl,
            (true, None) => &self.ssl,
            (true, Some(_)) => &self.sasl_ssl,
        };
        let mut variables = vec![("KAFKA_BROKERS", brokers.clone())];
        if tls {
            variables.push(("KAFKA_SSL", "true".to_owned()));
            variables.push(("KAFKA_SSL_CA_FILE", self.ca.display().to_string()));
        }
        if let Some(mechanism) = mechanism {
            variables.push(("KAFKA_SASL_MECHANISM", mechanism.to_owned()));
            variables.push(("KAFKA_SASL_USERNAME", USER.to_owned()));
            variables.push(("KAFKA_SASL_PASSWORD", PASSWORD.to_owned()));
        }
        variables
    }

    /// Every kind of listener.
    pub fn kinds(&self) -> Vec<(String, Variables)> {
        let mut kinds = Vec::new();
        for tls in [false, true] {
            for mechanism in std::iter::once(None).chain(MECHANISMS.map(Some)) {
                let name = format!("TLS {tls}, login {}", mechanism.unwrap_or("none"));
                kinds.push((name, self.kind(tls, mechanism)));
            }
        }
        kinds
    }

    /// A database and topics of its own, over this broker.
    pub fn setup(&self, variables: &Variables) -> Setup {
        let setup = Setup::on(servers::postgres(), Some(&self.broker));
        variables.iter().fold(setup, |setup, (name, value)| setup.with(name, value))
    }
}

/// The settings that the service would have with these variables.
pub fn settings(variables: &Variables) -> KafkaSettings {
    let variables: HashMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    load_from(&variables, &Overrides::new()).unwrap().0.kafka
}

/// With another value for one of them.
pub fn with(mut variables: Variables, name: &'static str, value: impl ToString) -> Variables {
    variables.retain(|(other, _)| *other != name);
    variables.push((name, value.to_string()));
    variables
}

/// Runs the binary with these variables and no others.
pub fn wallex(variables: &Variables, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wallex"));
    command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// `wallex verify-kafka --json`: the exit status and the document.
pub fn verify_kafka(variables: &Variables) -> (Option<i32>, Value) {
    let output = wallex(variables, &["verify-kafka", "--json"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{errors}"));
    (output.status.code(), document)
}

fn start() -> Secured {
    let folder = tempfile::Builder::new().prefix("wallex-it-secure-").tempdir().unwrap().keep();
    let home = std::env::var_os("WALLEX_KAFKA_HOME").unwrap_or_default();
    let (data, log) = (folder.join("data"), folder.join("kafka.log"));
    let mut next = free_port().unwrap();
    let [plaintext, sasl, ssl, sasl_ssl, controller] = std::array::from_fn(|_| {
        let port = free_port_from(next).unwrap();
        next = port + 1;
        port
    });
    let mut options = Options::new(Path::new(&home), plaintext, &data, &log);
    if let Some(java_home) = std::env::var_os("JAVA_HOME") {
        options.java = Path::new(&java_home).join("bin/java");
    }
    make_certificates(&options.java, &folder);
    options.remove = Some(folder.clone());
    let mut property = |name: &str, value: String| {
        options.properties.push((name.to_owned(), value));
    };
    let listeners = format!(
        "PLAINTEXT://127.0.0.1:{plaintext},SASL_PLAINTEXT://127.0.0.1:{sasl},\
         SSL://localhost:{ssl},SASL_SSL://localhost:{sasl_ssl}"
    );
    property("listeners", format!("{listeners},CONTROLLER://127.0.0.1:{controller}"));
    property("controller.quorum.voters", format!("1@127.0.0.1:{controller}"));
    property("advertised.listeners", listeners);
    property(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,\
         CONTROLLER:PLAINTEXT"
            .to_owned(),
    );
    property("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned());
    let login = "org.apache.kafka.common.security";
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        let name = |mechanism| format!("listener.name.{listener}.{mechanism}.sasl.jaas.config");
        let plain = format!("{login}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";");
        property(&name("plain"), plain);
        for scram in ["scram-sha-256", "scram-sha-512"] {
            property(&name(scram), format!("{login}.scram.ScramLoginModule required;"));
        }
    }
    property("ssl.keystore.location", folder.join("broker.p12").display().to_string());
    for name in ["ssl.keystore.password", "ssl.key.password"] {
        property(name, "changeit".to_owned());
    }
    property("ssl.keystore.type", "PKCS12".to_owned());
    // Who did not log in may do everything, who did only what docs/OPERATIONS.md lists.
    let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    property("authorizer.class.name", authorizer.to_owned());
    property("super.users", "User:ANONYMOUS".to_owned());
    let broker = Broker::start(options).unwrap();
    make_user(&broker);
    Secured {
        plaintext: broker.bootstrap.clone(),
        broker,
        sasl: format!("127.0.0.1:{sasl}"),
        ssl: format!("localhost:{ssl}"),
        sasl_ssl: format!("localhost:{sasl_ssl}"),
        ca: folder.join("ca.pem"),
        other_ca: folder.join("other.pem"),
        folder,
    }
}

/// With both kinds of SCRAM login, and no more rights than the service needs.
fn make_user(broker: &Broker) {
    let run = |class, arguments: &[&str]| {
        let made = servers::kafka_tool_on(broker, class, arguments);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    // The tool takes one mechanism at a time.
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let login = format!("{mechanism}=[password={PASSWORD}]");
        let user = ["--entity-type", "users", "--entity-name", USER];
        let change = ["--alter", "--add-config", &login];
        run("kafka.admin.ConfigCommand", &[&user[..], &change].concat());
    }
    let principal = format!("User:{USER}");
    let grant = |resource: [&str; 2], operations: &[&str]| {
        let mut arguments = vec!["--add", "--allow-principal", &principal];
        arguments.extend(["--resource-pattern-type", "prefixed"]);
        arguments.extend(resource);
        arguments.extend(operations.iter().flat_map(|operation| ["--operation", operation]));
        run("org.apache.kafka.tools.AclCommand", &arguments);
    };
    let topics = ["Create", "Describe", "DescribeConfigs", "Read", "Write"];
    for prefix in ["events-it_", "commands-it_", "command-results-it_"] {
        grant(["--topic", prefix], &topics);
    }
    grant(["--group", "it_"], &["Describe", "Read"]);
}

/// A certificate for `localhost`, by an authority of its own, and an authority beside it.
pub fn make_certificates(java: &Path, folder: &Path) {
    let keytool = match java.parent() {
        Some(bin) if bin != Path::new("") => bin.join("keytool"),
        _ => PathBuf::from("keytool"),
    };
    let run = |arguments: &str, store: &str| {
        let mut command = Command::new(&keytool);
        command.current_dir(folder).args(arguments.split(' '));
        command.args(["-keystore", store, "-storetype", "PKCS12", "-storepass", "changeit"]);
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("keytool comes with Java: {error}"));
        assert!(output.status.success(), "{arguments}: {output:?}");
    };
    let authority = "-keyalg EC -groupname secp256r1 -ext bc:c=ca:true -ext ku=keyCertSign,cRLSign";
    run(&format!("-genkeypair -alias ca -dname CN=wallex-test-ca {authority}"), "broker.p12");
    run(
        "-genkeypair -alias broker -dname CN=localhost -keyalg EC -groupname secp256r1 -signer ca \
         -ext san=dns:localhost -ext eku=serverAuth",
        "broker.p12",
    );
    run("-exportcert -rfc -alias ca -file ca.pem", "broker.p12");
    // The broker would take the first key that it finds.
    run("-delete -alias ca", "broker.p12");
    run(&format!("-genkeypair -alias ca -dname CN=wallex-other-ca {authority}"), "other.p12");
    run("-exportcert -rfc -alias ca -file other.pem", "other.p12");
}
