//! Bodies and amounts that hostile and careless clients send. Each is refused with its code and
//! leaves nothing behind, not even its idempotency key.

use super::{CREDIT, JSON, assert_problem, effects, post, start};

/// What it is, content type, body; and the status, code and pointers of its problem.
type Case<'a> = (&'a str, &'a str, Vec<u8>, u16, &'a str, &'a [&'a str]);

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_request_are_refused() {
    let app = start().await;
    let before = effects(&app).await;
    let good = br#"{"amount":"1"}"#;
    let large =
        [br#"{"amount":"1","description":""#.to_vec(), vec![b'x'; 1 << 20], b"\"}".to_vec()];
    let utf16: Vec<u8> = "{\"amount\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let deep = |open: &str, close: &str, n| [open.repeat(n), close.repeat(n)].concat();
    let field =
        |value: &str| format!(r#"{{"amount":"1","metadata":{{"a":{value}}}}}"#).into_bytes();
    let cases: Vec<Case> = vec![
        ("empty", JSON, b"".to_vec(), 400, "malformed_json", &[]),
        ("blank", JSON, b" \n".to_vec(), 400, "malformed_json", &[]),
        ("half an object", JSON, b"{".to_vec(), 400, "malformed_json", &[]),
        ("array", JSON, b"[]".to_vec(), 400, "invalid_value", &[""]),
        ("null", JSON, b"null".to_vec(), 400, "invalid_value", &[""]),
        ("text", JSON, b"\"{}\"".to_vec(), 400, "invalid_value", &[""]),
        ("garbage behind", JSON, br#"{"amount":"1"}x"#.to_vec(), 400, "malformed_json", &[]),
        ("two documents", JSON, br#"{"amount":"1"}{}"#.to_vec(), 400, "malformed_json", &[]),
        (
            "a field twice",
            JSON,
            br#"{"amount":"1","amount":"9"}"#.to_vec(),
            400,
            "malformed_json",
            &[],
        ),
        (
            "the same field escaped",
            JSON,
            br#"{"amount":"1","\u0061mount":"9"}"#.to_vec(),
            400,
            "malformed_json",
            &[],
        ),
        ("deep arrays", JSON, deep("[", "]", 100_000).into_bytes(), 400, "invalid_value", &[""]),
        (
            "deep objects",
            JSON,
            deep("{\"a\":", "}", 100_000).into_bytes(),
            400,
            "malformed_json",
            &[],
        ),
        ("deep field", JSON, field(&deep("[", "]", 8000)), 400, "invalid_value", &["/metadata"]),
        (
            "byte order mark",
            JSON,
            [b"\xef\xbb\xbf", &good[..]].concat(),
            400,
            "malformed_json",
            &[],
        ),
        (
            "bad UTF-8",
            JSON,
            b"{\"amount\":\"1\",\"description\":\"\xc3\x28\"}".to_vec(),
            400,
            "malformed_json",
            &[],
        ),
        ("UTF-16", JSON, utf16, 400, "malformed_json", &[]),
        (
            "lone surrogate",
            JSON,
            br#"{"amount":"1","description":"\ud800"}"#.to_vec(),
            400,
            "invalid_value",
            &["/description"],
        ),
        ("comment", JSON, br#"{"amount":"1"/**/}"#.to_vec(), 400, "malformed_json", &[]),
        ("too large", JSON, large.concat(), 413, "body_too_large", &[]),
        ("plain text", "text/plain", good.to_vec(), 415, "unsupported_media_type", &[]),
        ("no type", "", good.to_vec(), 415, "unsupported_media_type", &[]),
        (
            "Latin-1",
            "application/json; charset=latin1",
            good.to_vec(),
            415,
            "unsupported_media_type",
            &[],
        ),
        (
            "multipart",
            "multipart/form-data; boundary=x",
            good.to_vec(),
            415,
            "unsupported_media_type",
            &[],
        ),
        (
            "form",
            "application/x-www-form-urlencoded",
            b"amount=1".to_vec(),
            415,
            "unsupported_media_type",
            &[],
        ),
        (
            "unknown field",
            JSON,
            br#"{"amount":"1","is_admin":true}"#.to_vec(),
            400,
            "unknown_field",
            &["/is_admin"],
        ),
        (
            "other case",
            JSON,
            br#"{"amount":"1","Reference":"r"}"#.to_vec(),
            400,
            "unknown_field",
            &["/Reference"],
        ),
    ];
    for (what, kind, body, status, code, pointers) in cases {
        assert_problem(what, &post(&app, CREDIT, kind, body).await, status, code, pointers);
    }
    assert_eq!(effects(&app).await, before);
    for kind in ["application/json;charset=UTF-8", "Application/JSON; charset=\"utf-8\""] {
        assert_eq!(post(&app, CREDIT, kind, good.to_vec()).await.status, 201, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_that_are_no_plain_decimal_are_refused() {
    let app = start().await;
    let before = effects(&app).await;
    let long = format!("{}.{}", "4".repeat(40), "4".repeat(40));
    // As JSON tokens.
    let invalid = [
        "0",
        "-1",
        "-0",
        "-0.01",
        "1e3",
        "1E-2",
        "true",
        "[]",
        "{}",
        "[\"1\"]",
        "\"\"",
        "\"0\"",
        "\"0.00\"",
        "\"-1\"",
        "\"-0\"",
        "\"+1\"",
        "\"1e3\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"1.\"",
        "\".5\"",
        "\" 1\"",
        "\"1 \"",
        "\"1_000\"",
        "\"1,000\"",
        "\"0x10\"",
        "\"٣\"",
        "\"00.10\"",
        "\"1\\u0000\"",
        "\"9223372036854775808\"",
        "9223372036854775808",
        "79228162514264337593543950336",
        "\"79228162514264337593543950336\"",
        "\"1000000000000000.01\"",
        &long,
    ];
    let too_fine = ["0.001", "\"0.001\"", "\"0.000000001\"", "0.1234567890123456789"];
    let amounts = invalid.map(|token| (token, "invalid_amount"));
    for (token, code) in amounts.into_iter().chain(too_fine.map(|token| (token, "amount_scale"))) {
        let body = format!(r#"{{"amount":{token}}}"#);
        let answer = post(&app, CREDIT, JSON, body.into_bytes()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{token}: {}",
            answer.text
        );
    }
    for (path, body, code) in [
        (CREDIT, r#"{"amount":null}"#, "missing_field"),
        ("/wallets/yen/credit", r#"{"amount":"1.5"}"#, "amount_scale"),
        ("/wallets", r#"{"ownerId":"a","initialBalance":"-1"}"#, "invalid_amount"),
        ("/wallets", r#"{"ownerId":"a","initialBalance":"0.001"}"#, "amount_scale"),
        ("/wallets", r#"{"ownerId":"a","overdraftLimit":"-1"}"#, "invalid_amount"),
        ("/wallets", r#"{"ownerId":"a","overdraftLimit":1e9}"#, "invalid_amount"),
        ("/wallets", r#"{"ownerId":"a","currency":"JPY","overdraftLimit":"0.5"}"#, "amount_scale"),
    ] {
        let answer = post(&app, path, JSON, body.as_bytes().to_vec()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}: {}", answer.text);
    }
    assert_eq!(effects(&app).await, before);
    for (token, balance) in
        [("1.50", "11.50"), ("\"1.500\"", "13.00"), ("1000000000000000", "1000000000000013.00")]
    {
        let body = format!(r#"{{"amount":{token}}}"#).into_bytes();
        assert_eq!(post(&app, CREDIT, JSON, body).await.json()["balance"], balance);
    }
}
