//! What stands between the service and Kafka is said truly, once, and with what to do: for the service by
//! what its clients see, for `wallex verify-kafka` by a closer look.

use std::time::Duration;

use nix::sys::signal::Signal;
use wallex::config::Codec;
use wallex::kafka::admin::Admin;
use wallex::kafka::{Class, Connection, Error, Outgoing, ProduceError, Producer};

use super::fake::{Fake, Way};
use crate::security::broker::{Variables, secured, settings, verify_kafka, wallex, with};
use crate::support::app::Setup;
use crate::support::{eventually, servers};

const PATIENCE: Duration = Duration::from_secs(60);

/// What listens, the settings that go there, the class, and the hints: of the service and of the walk.
type Case = (&'static str, Variables, Class, &'static str, &'static str);

fn plain(address: &str) -> Variables {
    let variables = vec![("KAFKA_BROKERS", address.to_owned())];
    with(variables, "KAFKA_CONNECTION_TIMEOUT", 1000)
}

fn in_tls(address: &str) -> Variables {
    let variables = with(plain(address), "KAFKA_SSL", true);
    with(variables, "KAFKA_SSL_CA_FILE", secured().ca.display())
}

fn with_login(address: &str) -> Variables {
    let variables = with(plain(address), "KAFKA_SASL_USERNAME", "somebody");
    with(variables, "KAFKA_SASL_PASSWORD", "something")
}

/// Said once, with the hint behind it.
fn assert_said(name: &str, error: &Error, class: Class, hint: &str) {
    let text = error.to_string();
    assert_eq!(error.class, class, "{name}: {text}");
    assert!(error.hint.is_some_and(|found| found.contains(hint)), "{name}: no {hint:?} in {text}");
    for twice in ["network error", "last error", "authentication error", "exceeds maximum"] {
        assert!(!text.contains(twice), "{name}: {text}");
    }
    println!("{name}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_are_true_whatever_listens_where_kafka_should() {
    let secured = secured();
    let http = Setup::without_kafka().start().await;
    let http = http.base.trim_start_matches("http://").to_owned();
    let postgres = format!("127.0.0.1:{}", servers::postgres().port);
    let fakes = [Way::Closes, Way::Silent, Way::Says(b"SSH-2.0-OpenSSH_9.2\r\n")].map(Fake::new);
    let [closing, silent, ssh] = fakes.each_ref().map(|fake| fake.address.as_str());
    let (network, timeout) = (Class::Network, Class::Timeout);
    let cases: Vec<Case> = vec![
        ("HTTP", plain(&http), network, "an HTTP server listens", "an HTTP server listens"),
        ("HTTP with a login", with_login(&http), network, "an HTTP server", "an HTTP server"),
        ("HTTP in TLS", in_tls(&http), network, "does not speak TLS", "an HTTP server listens"),
        ("Postgres", plain(&postgres), network, "PostgreSQL listens", "PostgreSQL listens"),
        ("Postgres in TLS", in_tls(&postgres), network, "not speak TLS", "PostgreSQL listens"),
        ("a TLS port", plain(&secured.ssl), network, "KAFKA_SSL=true", "KAFKA_SSL=true"),
        (
            "a plain port in TLS",
            in_tls(&secured.plaintext),
            network,
            "KAFKA_SSL=false",
            "plain text",
        ),
        ("no login", plain(&secured.sasl), network, "KAFKA_SASL_*", "wants a login"),
        (
            "nothing",
            plain("127.0.0.1:1"),
            network,
            "nothing listens there",
            "nothing listens there",
        ),
        ("no name", plain("no.invalid:9092"), Class::Dns, "check the names", "check the names"),
        ("silence", plain(silent), timeout, "something else listens", "says nothing"),
        ("a closed door", plain(closing), network, "verify-kafka", "closes each connection"),
        ("another protocol", plain(ssh), network, "something else than Kafka", "something else"),
    ];
    for (name, variables, class, hint, closer) in cases {
        let settings = settings(&variables);
        let admin = Admin::connect(&settings).await.map(drop).unwrap_err();
        assert_said(name, &admin, class, hint);
        let producer = Producer::new(Connection::new(&settings), "events", Codec::None);
        let producer = producer.connect(0).await.unwrap_err();
        assert_said(name, producer.cause(), class, hint);

        let (code, document) = tokio::task::block_in_place(|| verify_kafka(&variables));
        assert_eq!(code, Some(1), "{name}: {document}");
        let steps = document["steps"].as_array().unwrap();
        let failed = steps.iter().find(|step| step["status"] == "failed").unwrap();
        let said = failed["hint"].as_str().unwrap_or_default();
        assert!(said.contains(closer), "{name}: {failed}");
        println!("{name}, looked closer: {failed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_name_an_advertised_address_that_cannot_be_reached() {
    let port = wallex::cli::dev::child::free_port().unwrap();
    let properties =
        vec![("advertised.listeners".to_owned(), "PLAINTEXT://127.0.0.1:1".to_owned())];
    let mut kafka = servers::own_kafka_with(port, properties);
    kafka.bootstrap = format!("127.0.0.1:{port}");
    let variables = with(plain(&kafka.bootstrap), "KAFKA_REQUEST_TIMEOUT", 2000);
    let (_, document) = tokio::task::block_in_place(|| verify_kafka(&variables));
    let failed = document["steps"].as_array().unwrap().iter().find(|s| s["status"] == "failed");
    let failed = failed.unwrap().clone();
    assert_eq!(failed["step"], "metadata", "{document}");
    assert!(failed["hint"].as_str().unwrap().contains("advertised.listeners"), "{failed}");

    let setup = Setup::on(servers::postgres(), Some(&kafka)).with("KAFKA_REQUEST_TIMEOUT", 2000);
    let app = setup.start().await;
    app.open("w", "1.00").await;
    let error = eventually("the page says why", PATIENCE, async || {
        let health = app.get("/health/kafka").await.json();
        health["kafka"]["error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains("advertised.listeners"), "{error}");
    assert!(!error.contains("is KAFKA_BROKERS right"), "{error}");
}

/// The answer to records is missing: the broker froze.
#[tokio::test(flavor = "multi_thread")]
async fn hints_of_an_unknown_outcome_say_that_nothing_is_lost() {
    let kafka = servers::own_kafka();
    let client = rskafka::client::ClientBuilder::new(vec![kafka.bootstrap.clone()]).build().await;
    let controller = client.unwrap().controller_client().unwrap();
    controller.create_topic("some", 1, 1, 5000).await.unwrap();
    let settings = settings(&with(plain(&kafka.bootstrap), "KAFKA_REQUEST_TIMEOUT", 1500));
    let producer = Producer::new(Connection::new(&settings), "some", Codec::None);
    eventually("the leader is there", PATIENCE, async || producer.connect(0).await.ok()).await;
    kafka.kill(Signal::SIGSTOP).unwrap();
    let record = Outgoing {
        key: b"k".to_vec(),
        value: b"v".to_vec(),
        headers: Vec::new(),
        timestamp: chrono::Utc::now(),
    };
    let error = producer.produce(0, vec![record]).await.unwrap_err();
    kafka.kill(Signal::SIGKILL).unwrap();
    assert!(matches!(error, ProduceError::Unknown(_)), "{error}");
    assert_said("frozen", error.cause(), Class::UnknownOutcome, "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_on_the_pages_are_the_same_and_the_start_says_what_it_met() {
    let postgres = format!("127.0.0.1:{}", servers::postgres().port);
    let setup = Setup::shared()
        .with("KAFKA_BROKERS", &postgres)
        .with("KAFKA_SECOND_BROKERS", "127.0.0.1:1")
        .with("KAFKA_SECOND_TOPIC", "elsewhere");
    let app = setup.start().await;
    app.open("w", "1.00").await;
    let health = eventually("both say what is wrong", PATIENCE, async || {
        let health = app.get("/health/kafka").await.json();
        let open = health["breaker"]["state"] == "open" && health["second"]["error"].is_string();
        open.then_some(health)
    })
    .await;
    let error = health["kafka"]["error"].as_str().unwrap();
    assert!(error.starts_with("network: could not connect to any of ["), "{error}");
    assert!(error.contains("PostgreSQL listens there, not Kafka"), "{error}");
    let error = health["second"]["error"].as_str().unwrap();
    assert!(error.contains("is KAFKA_SECOND_BROKERS right?"), "{error}");

    let variables = with(plain("127.0.0.1:1"), "KAFKA_VALIDATE_ON_STARTUP", true);
    let variables = with(variables, "DATABASE_URL", &app.database_url);
    let output = wallex(&with(variables, "PORT", 0), &["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Kafka is out of reach"), "{said}");
    assert!(!said.contains("does not let"), "{said}");
    assert_eq!(said.matches("nothing listens there").count(), 1, "{said}");
}
