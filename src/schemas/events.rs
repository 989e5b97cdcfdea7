//! The schema of each type of event: the envelope around the type's own data.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{names, root};
use crate::envelope::{AGGREGATE_TYPE, DEPLOYMENT, Envelope};
use crate::wallet::{
    BalanceChange, EventType, Form, HoldCapture, HoldChange, HoldEnd, ID_CHARS_MAX, LimitsData,
    MetadataChange, SCHEMA_VERSION, StatusChange, TransferChange, WalletCreated,
};

/// Of each kind of event, the whole value of its record.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    EventType::ALL.iter().map(|kind| (kind.as_str(), schema(*kind))).collect()
}

fn schema(kind: EventType) -> Value {
    let properties = properties(kind);
    let schema = json!({
        "type": "object",
        "required": names(&properties),
        "additionalProperties": false,
        "properties": properties,
    });
    root("event", kind.as_str(), schema)
}

/// The headers of every event, by name: those that the envelope really has.
pub(super) fn headers() -> Value {
    let said = |name: &str| match name {
        "eventType" | "event-type" => "The type, such as WalletCredited",
        "aggregateType" => AGGREGATE_TYPE,
        "aggregate-id" => "The wallet's id",
        "correlation-id" => "The request's X-Correlation-Id, else the request's id",
        "causation-id" => "The request's X-Causation-Id; empty where it had none",
        DEPLOYMENT => "The deployment whose event it is: a UUID that its books keep for ever",
        "traceparent" => "W3C Trace Context; empty where the request had none",
        _ => "",
    };
    let names = example(|envelope| envelope.headers(None)).into_iter().map(|(name, _)| name);
    let header = |name: &str| json!({"type": "string", "description": said(name)});
    let mut properties: serde_json::Map<String, Value> =
        names.map(|name| (name.to_owned(), header(name))).collect();
    let required: Vec<String> = properties.keys().cloned().collect();
    // Records of before it was there have none.
    properties.insert(DEPLOYMENT.to_owned(), header(DEPLOYMENT));
    json!({"type": "object", "required": required, "properties": properties})
}

fn properties(kind: EventType) -> Value {
    let data = match kind.form() {
        Form::Creation => data::<WalletCreated<'_>>(kind),
        Form::Balance => data::<BalanceChange<'_>>(kind),
        Form::Transfer => data::<TransferChange<'_>>(kind),
        Form::Hold => data::<HoldChange<'_>>(kind),
        Form::Capture => data::<HoldCapture<'_>>(kind),
        Form::Release | Form::Expiry => data::<HoldEnd<'_>>(kind),
        Form::Status => data::<StatusChange<'_>>(kind),
        Form::Limits => data::<LimitsData<'_>>(kind),
        Form::Metadata => data::<MetadataChange<'_>>(kind),
    };
    let maybe_text = json!({"type": ["string", "null"]});
    json!({
        "eventId": {"type": "string", "format": "uuid"},
        "eventType": {"const": kind.as_str()},
        "aggregateType": {"const": AGGREGATE_TYPE},
        "aggregateId": {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX},
        "aggregateVersion": {"type": "integer", "minimum": 1},
        "schemaVersion": {"const": SCHEMA_VERSION},
        "tenantId": {"type": "string", "minLength": 1},
        "timestamp": {
            "type": "string",
            "format": "date-time",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        },
        "correlationId": maybe_text,
        "causationId": maybe_text,
        "data": data,
    })
}

/// The schema of a type's `data` as it is written: every field is there, if only as null.
fn data<T: JsonSchema>(kind: EventType) -> Value {
    let generator = SchemaSettings::draft07().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    let Some(fields) = schema.as_object_mut() else { return schema };
    for name in ["$schema", "definitions", "title"] {
        fields.remove(name);
    }
    fields.insert("additionalProperties".to_owned(), json!(false));
    // Each type moves a balance one way.
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("changeType".to_owned(), json!({"const": kind.direction()}));
    }
    schema
}

/// What an envelope is like as it is really written.
fn example<T>(show: impl FnOnce(&Envelope<'_>) -> T) -> T {
    show(&Envelope {
        event_id: Uuid::nil(),
        event_type: "",
        aggregate_type: "",
        aggregate_id: "",
        aggregate_version: 1,
        schema_version: 1,
        tenant_id: "",
        timestamp: String::new(),
        correlation_id: None,
        causation_id: None,
        data: RawValue::NULL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_fields_of_the_envelope() {
        let written = example(|envelope| envelope.to_json()).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(names(&properties(EventType::WalletCreated)), names(&written));
    }

    #[test]
    fn every_header_is_explained() {
        let headers = headers();
        let explained = headers["properties"].as_object().unwrap();
        assert!(explained.len() > 5, "{headers}");
        assert!(explained.values().all(|header| header["description"] != ""), "{headers}");
    }
}
