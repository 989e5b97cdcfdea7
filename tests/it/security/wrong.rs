//! What is wrong is said, with what to do, within the connection timeout; commands go on meanwhile.

use std::time::{Duration, Instant};

use wallex::config::Codec;
use wallex::kafka::admin::Admin;
use wallex::kafka::{Class, Connection, Producer};

use super::broker::{
    MECHANISMS, PASSWORD, USER, Variables, WRONG_PASSWORD, secured, settings, wallex, with,
};
use crate::support::eventually;

/// The default of KAFKA_CONNECTION_TIMEOUT.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The wrong settings, the class of the error and a word of its hint.
fn cases() -> Vec<(String, Variables, Class, &'static str)> {
    let secured = secured();
    let mut cases = Vec::new();
    for tls in [false, true] {
        for mechanism in MECHANISMS {
            let right = secured.kind(tls, Some(mechanism));
            let name = format!("wrong password, TLS {tls}, {mechanism}");
            let wrong = with(right.clone(), "KAFKA_SASL_PASSWORD", WRONG_PASSWORD);
            cases.push((name, wrong, Class::Auth, "KAFKA_SASL_PASSWORD"));
            let name = format!("unknown user, TLS {tls}, {mechanism}");
            let wrong = with(right, "KAFKA_SASL_USERNAME", "nobody");
            cases.push((name, wrong, Class::Auth, "KAFKA_SASL_USERNAME"));
        }
    }
    let mut case = |name: &str, variables, class, hint| {
        cases.push((name.to_owned(), variables, class, hint));
    };
    for mechanism in [None, Some("scram-sha-512")] {
        let right = secured.kind(true, mechanism);
        let other = with(right.clone(), "KAFKA_SSL_CA_FILE", secured.other_ca.display());
        case("another authority", other, Class::Auth, "KAFKA_SSL_CA_FILE");
        let mut system = right.clone();
        system.retain(|(name, _)| *name != "KAFKA_SSL_CA_FILE");
        case("the system's authorities", system, Class::Auth, "KAFKA_SSL_CA_FILE");
        let by_address = right[0].1.replace("localhost", "127.0.0.1");
        let host = with(right, "KAFKA_BROKERS", by_address);
        case("another host", host, Class::Auth, "advertised.listeners");
    }
    let no_ca = with(secured.kind(true, None), "KAFKA_SSL_CA_FILE", "Cargo.toml");
    case("no certificate in the file", no_ca, Class::Auth, "the file");
    let to_tls = with(secured.kind(false, None), "KAFKA_BROKERS", &secured.ssl);
    case("plain text to a TLS port", to_tls, Class::Network, "KAFKA_SSL=true");
    let to_plain = with(secured.kind(true, None), "KAFKA_BROKERS", &secured.plaintext);
    case("TLS to a plain text port", to_plain, Class::Network, "KAFKA_SSL=false");
    let no_login = with(secured.kind(false, None), "KAFKA_BROKERS", &secured.sasl);
    case("no login at a login port", no_login, Class::Network, "KAFKA_SASL_*");
    let login = with(secured.kind(false, Some("plain")), "KAFKA_BROKERS", &secured.plaintext);
    case("a login at a port without", login, Class::Auth, "KAFKA_SASL_ENABLED=false");
    let closed = with(secured.kind(false, None), "KAFKA_BROKERS", "127.0.0.1:1");
    case("a closed port", closed, Class::Network, "KAFKA_BROKERS");
    let unknown = with(secured.kind(false, None), "KAFKA_BROKERS", "no-such-host.invalid:9092");
    case("an unknown name", unknown, Class::Dns, "check the names");
    cases
}

#[tokio::test]
async fn each_wrong_credential_authority_or_host_is_named_within_the_connection_timeout() {
    for (name, variables, class, hint) in cases() {
        let settings = settings(&variables);
        let begun = Instant::now();
        let admin = Admin::connect(&settings).await.map(drop).unwrap_err();
        let producer = Producer::new(Connection::new(&settings), "events", Codec::None);
        let producer = producer.connect(0).await.unwrap_err().cause().clone();
        let took = begun.elapsed();
        println!("{name}: {} ms for both clients: {admin}", took.as_millis());
        for error in [admin, producer] {
            assert_eq!(error.class, class, "{name}: {error}");
            assert!(error.hint.is_some_and(|text| text.contains(hint)), "{name}: {error}");
            let text = error.to_string();
            assert!(!text.contains(PASSWORD) && !text.contains(WRONG_PASSWORD), "{text}");
        }
        assert!(took < CONNECTION_TIMEOUT, "{name}: {took:?}");
    }
}

#[tokio::test]
async fn a_broker_that_never_answers_is_given_up_at_the_connection_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for (tls, mechanism) in [(false, None), (true, None), (false, Some("plain"))] {
        let variables = with(secured().kind(tls, mechanism), "KAFKA_BROKERS", &address);
        let settings = settings(&with(variables, "KAFKA_CONNECTION_TIMEOUT", "500"));
        let error = Admin::connect(&settings).await.map(drop).unwrap_err();
        assert_eq!(error.class, Class::Timeout, "TLS {tls}: {error}");
    }
}

#[tokio::test]
async fn a_password_that_is_changed_in_its_file_is_taken_up_without_a_restart() {
    let secured = secured();
    let file = secured.folder.join("password");
    std::fs::write(&file, WRONG_PASSWORD).unwrap();
    let mut variables = secured.kind(true, Some("scram-sha-256"));
    variables.retain(|(name, _)| *name != "KAFKA_SASL_PASSWORD");
    let variables = with(variables, "KAFKA_SASL_PASSWORD_FILE", file.display());
    let app = secured.setup(&variables).start().await;
    app.open("w-1", "5.00").await;
    let patience = Duration::from_secs(60);
    eventually("the cause is on the health page", patience, async || {
        let health = app.get("/health/kafka").await.json();
        let error = health["kafka"]["error"].as_str()?.to_owned();
        (error.starts_with("auth: ") && error.contains("KAFKA_SASL_PASSWORD")).then_some(())
    })
    .await;
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    eventually("the new password lets the service in", patience, async || {
        let health = app.get("/health/kafka").await.json();
        (health["kafka"]["status"] == "connected").then_some(())
    })
    .await;
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test]
async fn a_service_that_shall_look_first_does_not_start_where_it_is_not_let_in() {
    let secured = secured();
    let right = secured.kind(true, Some("scram-sha-512"));
    let right = with(right, "KAFKA_VALIDATE_ON_STARTUP", "true");
    let wrong = with(right.clone(), "KAFKA_SASL_PASSWORD", WRONG_PASSWORD);
    let output = wallex(&with(wrong, "PORT", "0"), &["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["KAFKA_VALIDATE_ON_STARTUP", "auth:", "KAFKA_SASL_USERNAME", "verify-kafka"] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    assert!(!said.contains(WRONG_PASSWORD), "{said}");
    assert!(!said.contains(USER), "{said}");
    secured.setup(&right).start().await;
}
