//! The OpenAPI document: complete, resolvable, and true of live answers. Its page needs no network.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Setup};

/// The document of a running service.
struct Document(Value);

impl Document {
    async fn of(app: &App) -> Self {
        let answer = app.get("/openapi.json").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        assert!(!answer.header("x-request-id").is_empty());
        Self(answer.json())
    }

    /// Every operation: method, path, and what it says.
    fn operations(&self) -> Vec<(Method, String, &Value)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| {
                (method.to_uppercase().parse().unwrap(), path.clone(), operation)
            })
        });
        operations.collect()
    }

    /// What `$ref` stands for; anything else as it is.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let pointer = reference.strip_prefix('#').expect("references stay within the document");
        self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// Holds an answer against what the document says of its route.
    fn check(&self, method: &Method, route: &str, answer: &Answer) {
        let operation = &self.0["paths"][route][method.as_str().to_lowercase()];
        let said = &operation["responses"][answer.status.to_string()];
        let what = format!("{method} {route}: {} {}", answer.status, answer.text);
        assert!(said.is_object(), "an undocumented status: {what}");
        for (name, header) in said["headers"].as_object().unwrap() {
            let required = self.resolve(header)["required"] == true;
            assert!(!required || answer.headers.contains_key(name), "no {name}: {what}");
        }
        let Some(contents) = said["content"].as_object() else {
            assert!(answer.text.is_empty(), "an undocumented body: {what}");
            return;
        };
        let kind = answer.header("content-type").split(';').next().unwrap();
        let content = contents.get(kind).unwrap_or_else(|| panic!("not as {kind}: {what}"));
        if !kind.ends_with("json") || kind.ends_with("ndjson") {
            return;
        }
        // References are to the document's components: the schema brings them along.
        let mut schema = content["schema"].clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&answer.json())
            .map(|error| format!("{} {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}\n{what}", errors.join("\n"));
    }
}

/// Every value under the key `$ref`, at any depth.
pub fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(reference) => _ = found.insert(reference.to_owned()),
                    None => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_whole_and_the_page_needs_no_other_host() {
    let app = Setup::without_kafka().start().await;
    let document = Document::of(&app).await;
    let printed = app.wallex(&["openapi"]).stdout;
    assert_eq!(serde_json::from_slice::<Value>(&printed).unwrap(), document.0);

    let mut found = BTreeSet::new();
    references(&document.0, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in found {
        document.resolve(&json!({"$ref": reference}));
    }
    for (method, path, operation) in document.operations() {
        // A documented route is served: the router knows it, whatever it says to this request.
        let answer = Answer::of(app.request(method.clone(), &path).send().await.unwrap()).await;
        let unknown = ["route_not_found", "method_not_allowed"];
        let file = path == "/docs/{file}";
        let known = answer.header("content-type") != "application/problem+json"
            || !unknown.contains(&answer.code().as_str());
        assert!(known || file, "{method} {path}: {}", answer.text);
        let answers = operation["responses"].as_object().unwrap();
        let problems = |from: &str| {
            answers.iter().any(|(status, answer)| {
                status.starts_with(from)
                    && answer["content"]["application/problem+json"].is_object()
            })
        };
        let takes_input = method == Method::POST || path.contains('{') || {
            let parameters = operation["parameters"].as_array().unwrap();
            parameters.iter().any(|parameter| document.resolve(parameter)["in"] == "query")
        };
        assert!(problems("500"), "{method} {path}");
        assert!(!takes_input || problems("4"), "{method} {path} refuses nothing");
    }
    the_page_stays_at_home(&app).await;
}

/// Whatever the page and its own script name is served here, and its policy forbids the rest.
async fn the_page_stays_at_home(app: &App) {
    let page = app.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("http"), "{policy}");
    let names = page.text.split(['"', '\'']).filter(|part| part.starts_with("docs/"));
    let files: Vec<&str> = names.collect();
    assert_eq!(files.len(), 4, "{files:?}");
    let start = app.get("/docs/start.js").await.text;
    let style = app.get("/docs/swagger-ui.css").await.text;
    for text in [&page.text, &start, &style.replace("http://www.w3.org/2000/svg", "")] {
        for foreign in ["http:", "https:", "src=\"//", "href=\"//", "url(//", "@import"] {
            assert!(!text.contains(foreign), "{foreign}");
        }
    }
    for file in files {
        let path = format!("/{file}");
        let plain = app.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(plain.status(), 200, "{file}");
        assert!(!plain.headers().contains_key("content-encoding"));
        let plain = plain.bytes().await.unwrap();
        let zipped = app.request(Method::GET, &path).header("accept-encoding", "br, gzip");
        let zipped = zipped.send().await.unwrap();
        // The two large ones are kept zipped; nobody is sent that who did not ask for it.
        if plain.len() > 100_000 {
            assert_eq!(zipped.headers()["content-encoding"], "gzip", "{file}");
            assert!(zipped.bytes().await.unwrap().len() * 2 < plain.len(), "{file}");
        }
    }
    assert_eq!(app.get("/docs/swagger-ui.js.map").await.code(), "route_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_answers_are_as_the_document_says() {
    let app = Setup::shared().start().await;
    let document = Document::of(&app).await;
    let post = async |route: &str, path: &str, body: Value, status: u16| {
        let answer = app.post(path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        document.check(&Method::POST, route, &answer);
    };
    let metadata = json!({"plan": {"tier": 1}});
    let open = |id: &str| json!({"walletId": id, "ownerId": "it", "initialBalance": "10.00"});
    post("/wallets", "/wallets", open("w-1"), 201).await;
    post("/wallets", "/wallets", open("w-2"), 201).await;
    post("/wallets", "/wallets", json!({"ownerId": "it", "metadata": metadata}), 201).await;
    post("/wallets", "/wallets", open("w-1"), 409).await;
    post("/wallets", "/wallets", json!({"owner": 1, "initialBalance": "1e3"}), 400).await;
    let (credit, debit) = ("/wallets/{id}/credit", "/wallets/{id}/debit");
    let full =
        json!({"amount": 5.25, "description": "d", "reference": "r-1", "metadata": metadata});
    post(credit, "/wallets/w-1/credit", full, 201).await;
    post(debit, "/wallets/w-1/debit", json!({"amount": "0.25"}), 201).await;
    post(debit, "/wallets/w-1/debit", json!({"amount": "1000000"}), 400).await;
    post(debit, "/wallets/none/debit", json!({"amount": "1"}), 404).await;
    let transfer = "/wallets/{id}/transfer";
    let body = json!({"toWalletId": "w-2", "amount": "3"});
    post(transfer, "/wallets/w-1/transfer", body, 201).await;
    let body = json!({"toWalletId": "w-1", "amount": "3"});
    post(transfer, "/wallets/w-1/transfer", body, 400).await;
    let operations = json!([
        {"op": "credit", "walletId": "w-1", "amount": 1, "idempotencyKey": "k"},
        {"op": "credit", "walletId": "w-1", "amount": 1, "idempotencyKey": "k"},
        {"op": "debit", "walletId": "none", "amount": 1},
    ]);
    post("/bulk", "/bulk", json!({"operations": operations}), 201).await;
    post("/bulk", "/bulk", json!({"operations": operations, "atomic": true}), 404).await;
    for (header, value, status) in [("if-match", "\"99\"", 412), ("content-type", "text/xml", 415)]
    {
        let request = app.request(Method::POST, "/wallets/w-1/credit");
        let request = request.body(r#"{"amount": 1}"#).header(header, value);
        let request = match header {
            "content-type" => request,
            _ => request.header("content-type", "application/json"),
        };
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        document.check(&Method::POST, credit, &answer);
    }
    let (replay, quarantine) = ("/admin/dead-letters/replay", "/admin/dead-letters/quarantine");
    let letter = "insert into dead_letters (tenant_id, projectors, topic, partition, \"offset\", \
                  key, value, headers, record_hash, error_class, error_message, published_at) \
                  values ('default', array['ledger-projector'], 't', 0, 0, 'w-1', '\\xff', \
                  '{\"a\":\"b\"}', '', 'undecodable', 'made by hand', now()); \
                  insert into parked_wallets (tenant_id, projector, wallet_id, version, cause) \
                  values ('default', 'ledger-projector', 'w-9', 1, 'made by hand')";
    sqlx::raw_sql(letter).execute(&app.pool).await.unwrap();
    post(replay, replay, json!({"all": true, "dryRun": true}), 200).await;
    post(replay, replay, json!({"ids": [99]}), 404).await;
    post(quarantine, quarantine, json!({"cause": "undecodable"}), 400).await;
    post(quarantine, quarantine, json!({"ids": [1], "note": "seen"}), 200).await;
    app.drain().await;
    let (retry, republish) = ("/admin/outbox/retry", "/admin/outbox/republish");
    post(retry, retry, json!({"all": true}), 200).await;
    post(retry, retry, json!({"ids": [1], "walletId": "w-1"}), 400).await;
    post(republish, republish, json!({"since": "2026-01-31T12:00:00Z", "dryRun": true}), 200).await;
    post(republish, republish, json!({"walletId": "w-1"}), 202).await;
    post(republish, republish, json!({"since": "yesterday"}), 400).await;
    let rebuild = "/admin/projections/rebuild";
    post(rebuild, rebuild, json!({"projection": "read-model"}), 202).await;
    post(rebuild, rebuild, json!({}), 400).await;
    let ensure = "/admin/topics/ensure";
    post(ensure, ensure, json!({}), 200).await;
    post(ensure, ensure, json!({"everything": true}), 400).await;
    let (create, delete) = ("/admin/topics/create-tenant", "/admin/topics/delete-tenant");
    post(create, create, json!({"tenantId": "acme", "dryRun": true}), 200).await;
    post(create, create, json!({"tenantId": "a b"}), 400).await;
    post(delete, delete, json!({"tenantId": "acme"}), 200).await;
    reads(&app, &document).await;
}

/// Every read, over wallets that have something to show.
async fn reads(app: &App, document: &Document) {
    let request = app.request(Method::GET, "/wallets/w-2").header("if-none-match", "\"3\"");
    let unchanged = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(unchanged.status, 304);
    document.check(&Method::GET, "/wallets/{id}", &unchanged);
    for (route, path, status) in [
        ("/wallets", "/wallets?limit=2", 200),
        ("/wallets", "/wallets?limit=0", 400),
        ("/wallets/{id}", "/wallets/w-1", 200),
        ("/wallets/{id}", "/wallets/none", 404),
        ("/wallets/{id}", "/wallets/a%20b", 400),
        ("/wallets/{id}/events", "/wallets/w-1/events", 200),
        ("/wallets/{id}/events", "/wallets/none/events", 404),
        ("/wallets/{id}/balance", "/wallets/w-1/balance", 200),
        ("/wallets/{id}/balance", "/wallets/w-1/balance?at=2020-01-01", 200),
        ("/wallets/{id}/balance", "/wallets/none/balance", 404),
        ("/wallets/{id}/balance", "/wallets/w-1/balance?at=x", 400),
        ("/wallets/{id}/statement", "/wallets/w-1/statement?from=2020-01-01", 200),
        ("/wallets/{id}/statement", "/wallets/w-1/statement?from=2020-01-01&format=csv", 200),
        ("/wallets/{id}/statement", "/wallets/w-1/statement?from=2020-01-01&format=html", 200),
        ("/wallets/{id}/statement", "/wallets/w-1/statement?from=2020-01-01&format=ndjson", 200),
        ("/wallets/{id}/statement", "/wallets/w-1/statement", 400),
        ("/transactions/{id}", "/transactions/00000000-0000-0000-0000-000000000000", 404),
        ("/wallets/{id}/explain", "/wallets/w-1/explain?debit=1000000", 200),
        ("/wallets/{id}/explain", "/wallets/w-1/explain?debit=x", 400),
        ("/wallets/{id}/explain", "/wallets/none/explain", 404),
        ("/transactions/{id}", "/transactions/x", 400),
        ("/ledger/wallet/{id}", "/ledger/wallet/w-1?limit=2", 200),
        ("/ledger/wallet/{id}", "/ledger/wallet/none", 200),
        ("/ledger/wallet/{id}", "/ledger/wallet/w-1?transactionType=x", 400),
        ("/ledger/wallet/{id}/summary", "/ledger/wallet/w-1/summary", 200),
        ("/ledger/wallet/{id}/summary", "/ledger/wallet/none/summary", 200),
        ("/ledger/reference/{reference}", "/ledger/reference/r-1", 200),
        ("/ledger/transactions", "/ledger/transactions", 200),
        ("/ledger/transactions", "/ledger/transactions?cursor=x", 400),
        ("/ledger/health", "/ledger/health", 200),
        ("/health/kafka", "/health/kafka", 200),
        ("/health/kafka/stats", "/health/kafka/stats", 200),
        ("/api/health", "/api/health", 200),
        ("/admin/dead-letters", "/admin/dead-letters?limit=1", 200),
        ("/admin/dead-letters", "/admin/dead-letters?state=x", 400),
        ("/admin/dead-letters/{id}", "/admin/dead-letters/1", 200),
        ("/admin/dead-letters/{id}", "/admin/dead-letters/2", 404),
        ("/livez", "/livez", 200),
        ("/readyz", "/readyz", 200),
        ("/metrics", "/metrics", 200),
        ("/admin/outbox", "/admin/outbox", 200),
        ("/admin/projections", "/admin/projections", 200),
        ("/admin/reconcile", "/admin/reconcile", 200),
        ("/admin/topics", "/admin/topics", 200),
        ("/admin/topics/{name}", &format!("/admin/topics/{}", app.topic), 200),
        ("/admin/topics/{name}", "/admin/topics/none", 404),
        ("/admin/topics/recommend", "/admin/topics/recommend?rate=5000", 200),
        ("/admin/topics/recommend", "/admin/topics/recommend?rate=x", 400),
        ("/", "/", 200),
        ("/favicon.ico", "/favicon.ico", 204),
        ("/docs", "/docs", 200),
        ("/docs/{file}", "/docs/start.js", 200),
        ("/docs/{file}", "/docs/none", 404),
    ] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        document.check(&Method::GET, route, &answer);
    }
    let events = app.get("/wallets/w-1/events").await.json();
    assert_eq!(events["events"].as_array().map(Vec::len), Some(6), "the check saw events");
    let id = events["events"][1]["data"]["transactionId"].as_str().unwrap();
    let answer = app.get(&format!("/transactions/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    document.check(&Method::GET, "/transactions/{id}", &answer);
}
