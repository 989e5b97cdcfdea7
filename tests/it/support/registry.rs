//! A real schema registry, Apicurio's, over memory: gone with the test that started it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use wallex::cli::dev::child::{Child, Launch, Signal, free_port};

use crate::security::broker::make_certificates;

const VERSION: &str = "2.6.13.Final";
const START_LIMIT: Duration = Duration::from_secs(120);

pub struct Apicurio {
    pub port: u16,
    /// Of the Confluent-compatible API, for `SCHEMA_REGISTRY_URL`.
    pub url: String,
    /// With the certificates, where it has any.
    pub folder: PathBuf,
    /// More of Quarkus's settings, as `name=value`.
    properties: Vec<String>,
    child: Option<Child>,
    http: reqwest::Client,
}

impl Apicurio {
    /// On a free port, with nothing in it.
    pub async fn start() -> Self {
        let mut registry = Self::stopped();
        registry.restart().await;
        registry
    }

    /// Not started yet: nothing listens on its port.
    pub fn stopped() -> Self {
        let folder = tempfile::Builder::new().prefix("wallex-it-registry-").tempdir().unwrap();
        let port = free_port().unwrap();
        let url = format!("http://127.0.0.1:{port}/apis/ccompat/v7");
        let http = reqwest::Client::new();
        Self { port, url, folder: folder.keep(), properties: Vec::new(), child: None, http }
    }

    /// Over https too, with a certificate for `localhost` by `ca.pem` in its folder: the URL.
    pub async fn start_with_tls() -> (Self, String) {
        let mut registry = Self::stopped();
        make_certificates(&java(), &registry.folder);
        let port = free_port().unwrap();
        registry.properties = vec![
            format!("quarkus.http.ssl-port={port}"),
            "quarkus.http.ssl.certificate.key-store-file=broker.p12".to_owned(),
            "quarkus.http.ssl.certificate.key-store-password=changeit".to_owned(),
        ];
        registry.restart().await;
        (registry, format!("https://localhost:{port}/apis/ccompat/v7"))
    }

    /// Starts it again. It has forgotten everything: its data is in its memory.
    pub async fn restart(&mut self) {
        self.child = None;
        let jar = home().join(format!("apicurio-registry-app-{VERSION}-runner.jar"));
        assert!(
            jar.exists(),
            "the tests need Apicurio Registry in {} (scripts/test fetches it and sets its place)",
            home().display()
        );
        let mut command = vec![java().display().to_string()];
        command
            .extend(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned));
        let own =
            ["quarkus.http.host=127.0.0.1".to_owned(), format!("quarkus.http.port={}", self.port)];
        command.extend(own.iter().chain(&self.properties).map(|property| format!("-D{property}")));
        command.extend(["-jar".to_owned(), jar.display().to_string()]);
        let log = self.folder.join("registry.log");
        let mut child = Child::start(&Launch {
            name: "Apicurio Registry",
            command,
            directory: &self.folder,
            log: &log,
            account: None,
            stop_signal: Signal::SIGTERM,
            grace: Duration::from_secs(10),
            remove: Some(&self.folder),
        })
        .unwrap();
        let subjects = format!("{}/subjects", self.url);
        super::eventually("the registry answers", START_LIMIT, async || {
            assert!(
                child.ended().is_none(),
                "it ended: {}",
                std::fs::read_to_string(&log).unwrap()
            );
            let answer = self.http.get(&subjects).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        self.child = Some(child);
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Registers a schema as some other client would: the answer's status.
    pub async fn register(&self, subject: &str, schema: &Value) -> u16 {
        let body = json!({"schemaType": "JSON", "schema": schema.to_string()});
        let url = format!("{}/subjects/{subject}/versions", self.url);
        self.http.post(url).json(&body).send().await.unwrap().status().as_u16()
    }

    /// Deletes a subject, as an operator would.
    pub async fn delete(&self, subject: &str) {
        let url = format!("{}/subjects/{subject}", self.url);
        let answer = self.http.delete(url).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

impl Drop for Apicurio {
    fn drop(&mut self) {
        drop(self.child.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn java() -> PathBuf {
    let home = std::env::var_os("JAVA_HOME");
    home.map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"))
}

/// Where scripts/test has put it: beside Kafka, unless told otherwise.
fn home() -> PathBuf {
    std::env::var_os("WALLEX_REGISTRY_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let kafka = std::env::var_os("WALLEX_KAFKA_HOME").unwrap_or_default();
        Path::new(&kafka).with_file_name(format!("apicurio-{VERSION}"))
    })
}
