//! `/openapi.json`: the document of every route, from the same list that the router is made of.
//!
//! Annotations on the handlers say what is special about a route; what holds for all of them is
//! added here. docs/openapi.json is the same text, committed: a change of the API shows in a diff.

pub(super) mod page;
pub(super) mod problems;
pub(super) mod requests;
pub(super) mod schemas;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::answer::ProblemDocument;

const ABOUT: &str = "\
Exact money over Postgres, every event to Kafka in order.

Amounts in answers are decimal strings in the currency's scale; requests take a string or a number. \
Times are RFC 3339 in UTC with milliseconds. A `POST` may carry an `Idempotency-Key`: the same \
request under the same key is answered with the first answer, to the byte, and has one effect. \
Every error is a problem document (RFC 9457) with a stable `code`; besides those of its route a \
request may meet `route_not_found` (404) and `method_not_allowed` (405). Unknown fields of a body \
are refused, unknown query parameters ignored, and an empty query parameter is as good as none.";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wallex",
        description = ABOUT,
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/", description = "this service")),
    tags(
        (name = "wallets", description = "Commands, and strongly consistent reads"),
        (name = "ledger", description = "Projected from the events, with the version it is at"),
        (name = "health", description = "What is alive, behind or broken"),
        (name = "admin", description = "What the commands of operators do; for operators only"),
        (name = "documentation", description = "This document")
    ),
    components(schemas(ProblemDocument))
)]
struct Base;

/// What is known before any route is added.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// The document as it is served, printed and committed. It never changes while the service runs.
pub fn document() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        let mut document = serde_json::to_value(super::routes().into_openapi()).unwrap_or_default();
        complete(&mut document);
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text.into()
    });
    TEXT.clone()
}

/// Adds what holds for every route, and the data of events, whose schemas are made elsewhere.
fn complete(document: &mut Value) {
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("headers".to_owned(), headers());
        components.insert("parameters".to_owned(), parameters());
        if let Some(schemas) = components.get_mut("schemas").and_then(Value::as_object_mut) {
            schemas.extend(schemas::event_data_schemas());
        }
    }
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for operations in paths.values_mut().filter_map(Value::as_object_mut) {
        for (method, operation) in operations {
            let Some(operation) = operation.as_object_mut() else { continue };
            complete_operation(operation, ["post", "patch"].contains(&method.as_str()));
        }
    }
}

fn complete_operation(operation: &mut Map<String, Value>, command: bool) {
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.push(json!({"$ref": "#/components/parameters/X-Correlation-Id"}));
    }
    let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
    for (status, answer) in answers.into_iter().flatten() {
        let Some(answer) = answer.as_object_mut() else { continue };
        let headers = answer.entry("headers").or_insert_with(|| json!({}));
        let Some(headers) = headers.as_object_mut() else { continue };
        let mut names = vec!["X-Request-Id", "X-Correlation-Id"];
        if command && status == "201" {
            names.extend(["Consistency-Token", "Idempotency-Replayed"]);
        }
        for name in names {
            let named = json!({"$ref": format!("#/components/headers/{name}")});
            headers.insert(name.to_owned(), named);
        }
    }
}

fn headers() -> Value {
    let header = |description: &str, required: bool| json!({"description": description, "required": required, "schema": {"type": "string"}});
    json!({
        "X-Request-Id": header("Names this request in the log", true),
        "X-Correlation-Id":
            header("The request's, or the request id where it sent none that is plain", true),
        "Consistency-Token":
            header("Send it with a read: that waits until it is at least as new", true),
        "Idempotency-Replayed":
            header("`true`: this is the first answer under this key, again", false),
    })
}

fn parameters() -> Value {
    json!({
        "X-Correlation-Id": {
            "name": "X-Correlation-Id",
            "in": "header",
            "required": false,
            "description": "Comes back, and travels with the events; ignored unless it is 1 to 128 visible ASCII characters",
            "schema": {"type": "string"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let text = String::from_utf8(document().to_vec()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
        if std::env::var_os("WALLEX_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text, "docs/openapi.json is out of date: set WALLEX_BLESS=1 once");
    }

    #[test]
    fn what_the_served_routes_say_is_complete() {
        let document: Value = serde_json::from_slice(&document()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut ids = std::collections::HashSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} stands twice");
                assert!(operation["summary"].is_string(), "{method} {path} says nothing");
                assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{path}");
            }
        }
    }

    #[test]
    fn no_route_is_served_that_the_document_lacks() {
        // Only `routes!` adds to both; axum's own ways would add to the router alone.
        let page = include_str!("../http.rs");
        for way in [".route(", ".nest(", ".route_service(", ".nest_service(", ".merge("] {
            assert!(!page.contains(way), "{way}");
        }
    }
}
